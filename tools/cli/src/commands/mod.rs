//! One file a command.

pub mod bench;
pub mod cluster;
pub mod completions;
pub mod configs;
pub mod consume;
pub mod format;
pub mod groups;
pub mod log;
pub mod produce;
pub mod topics;

use crate::failure::Failure;

/// Reads `key=value`; the value may hold more of `=`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Runs the same for several names, and goes on after one that fails; the last failure counts.
pub fn for_each(
    names: &[String],
    mut each: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut last = None;
    for name in names {
        if let Err(error) = each(name) {
            if error.downcast_ref::<Failure>().is_none() {
                return Err(error); // Not the broker's word on this one: no use in going on.
            }
            if let Some(earlier) = last.replace(error) {
                eprintln!("flowstone: {earlier:#}");
            }
        }
    }
    last.map_or(Ok(()), Err)
}
