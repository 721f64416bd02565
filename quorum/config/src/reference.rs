//! The reference of all keys: what `flowstoned config --list` prints, and the documentation.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::keys::{
    Key, Treatment, Updates, client_metrics_keys, group_keys, server_keys, topic_keys,
};

/// For a terminal: two lines a key, sorted by name.
pub fn text() -> String {
    let mut out = String::new();
    for (title, keys) in sections() {
        line(&mut out, format_args!("{title}\n"));
        for key in keys {
            let facts = [
                key.kind.to_string(),
                default(key).map_or_else(String::new, |default| format!("default {default}")),
                key.range.to_string(),
                updates(key).to_owned(),
                status(key),
            ];
            let facts: Vec<String> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
            line(&mut out, format_args!("  {}\n      {}", key.name, key.doc));
            line(&mut out, format_args!("      {}", facts.join("; ")));
        }
        line(&mut out, format_args!(""));
    }
    out
}

/// For the documentation: a Markdown table a section, sorted by name.
pub fn markdown() -> String {
    let mut out = String::new();
    for (title, keys) in sections() {
        line(&mut out, format_args!("## {title}\n"));
        line(
            &mut out,
            format_args!("| Key | What it does | Type | Default | Values | Changed | Here |"),
        );
        line(&mut out, format_args!("|---|---|---|---|---|---|---|"));
        for key in keys {
            let default = default(key).map_or_else(String::new, |text| format!("`{text}`"));
            line(
                &mut out,
                format_args!(
                    "| `{}` | {} | {} | {default} | {} | {} | {} |",
                    key.name,
                    key.doc,
                    key.kind.to_string().to_lowercase(),
                    key.range,
                    updates(key),
                    status(key)
                ),
            );
        }
        line(&mut out, format_args!(""));
    }
    out
}

fn sections() -> [(&'static str, Vec<&'static Key>); 4] {
    let sorted = |keys: &mut dyn Iterator<Item = &'static Key>| {
        let mut keys: Vec<_> = keys.filter(|key| key.treatment != Treatment::Internal).collect();
        keys.sort_by_key(|key| key.name);
        keys
    };
    [
        ("Server keys", sorted(&mut server_keys())),
        ("Topic keys", sorted(&mut topic_keys())),
        ("Group keys", sorted(&mut group_keys())),
        ("Client metrics keys", sorted(&mut client_metrics_keys())),
    ]
}

fn default(key: &Key) -> Option<&'static str> {
    key.default.text().filter(|text| !text.is_empty())
}

fn updates(key: &Key) -> &'static str {
    match key.updates {
        Updates::ReadOnly => "at start",
        Updates::PerBroker => "per broker",
        Updates::ClusterWide => "any time",
    }
}

fn status(key: &Key) -> String {
    match key.treatment {
        Treatment::Used | Treatment::Internal => String::new(),
        Treatment::NotNeeded(why) => format!("accepted, not needed: {why}"),
        Treatment::Refused(why) => format!("refused: {why}"),
    }
}

fn line(out: &mut String, text: core::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_lines() {
        let (text, markdown) = (text(), markdown());
        let of_resources = topic_keys().chain(group_keys()).chain(client_metrics_keys());
        for key in server_keys().chain(of_resources) {
            let shown = key.treatment != Treatment::Internal;
            let (in_text, in_markdown) =
                (format!("\n  {}\n", key.name), format!("| `{}` |", key.name));
            assert_eq!(text.contains(&in_text), shown, "{}", key.name);
            assert_eq!(markdown.contains(&in_markdown), shown, "{}", key.name);
        }
        assert!(
            markdown.lines().filter(|l| l.starts_with("| `")).all(|l| l.matches('|').count() == 8)
        );
    }
}
