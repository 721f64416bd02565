//! Configuration files.

use core::fmt::Write;

use flowstone_config::{Config, File, Overrides, properties as java, server_keys, topic_keys};

/// Half of the inputs are given what a file must have, so that the rules behind it are reached.
const NEEDED: &str = "process.roles=broker,controller\nnode.id=1\nlisteners=PLAINTEXT://:0,CONTROLLER://:0\n\
    controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=h:1\nlog.dirs=/d\n";

/// A file is read or refused with places; read twice it is the same; written with every character escaped, it has the
/// same keys and values. What it says about topics and brokers can be asked for.
pub(crate) fn properties(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let mut text = String::from_utf8_lossy(rest).into_owned();
    if how & 1 == 0 {
        text.insert_str(0, NEEDED);
    }
    let parsed = java::parse(&text);
    if let Ok(properties) = &parsed {
        let mut escaped = String::new();
        for property in properties {
            for (text, end) in [(&property.key, "="), (&property.value, "\n")] {
                escape(text, &mut escaped);
                escaped.push_str(end);
            }
        }
        let again = java::parse(&escaped).expect("escapes are right");
        assert_eq!(again.len(), properties.len());
        for (again, property) in again.iter().zip(properties) {
            assert_eq!((&again.key, &again.value), (&property.key, &property.value));
        }
    }
    let file = File { name: "server.properties", text: &text };
    let loaded = Config::load(Some(file), &[]);
    assert_eq!(loaded.is_ok(), Config::load(Some(file), &[]).is_ok());
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return drop(problems.to_string()),
    };
    let config = loaded.config;
    for key in server_keys() {
        if let Some(text) = config.server_text(key.name) {
            assert_eq!(key.check(text), Ok(()), "{} holds a text that does not check", key.name);
        }
    }
    // The same texts as dynamic ones, of brokers and of a topic: what does not fit is left out.
    let overrides: Overrides =
        parsed.into_iter().flatten().map(|property| (property.key, property.value)).collect();
    let (dynamic, complaints) = config.with_dynamic(Some(&overrides), Some(&overrides));
    drop(complaints);
    let topic = dynamic.topic(Some(&overrides));
    assert_eq!(topic, dynamic.topic(Some(&overrides)));
    for key in topic_keys() {
        drop(dynamic.topic_default(key.name));
    }
}

fn escape(text: &str, out: &mut String) {
    for unit in text.encode_utf16() {
        write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
    }
}
