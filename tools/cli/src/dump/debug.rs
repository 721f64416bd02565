//! Records as JSON, by way of `Debug`: the one description that every declared record has.
//!
//! Separate because it is the only code that depends on what `#[derive(Debug)]` prints, and its tests
//! hold that. What cannot be read becomes a string of the rest.

use std::fmt::Debug;
use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value, json};

/// The name and the fields of a record. Newtypes, boxes and `Some` are looked through.
pub fn to_json(record: &impl Debug) -> Value {
    let text = format!("{record:?}");
    Parser { rest: text.chars().peekable() }.value()
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    fn value(&mut self) -> Value {
        self.blanks();
        match self.rest.peek() {
            Some('"') => Value::String(self.quoted()),
            Some('[') => self.list('[', ']'),
            Some('(') => self.list('(', ')'),
            Some('{') => Value::Object(self.fields()),
            _ => self.named(),
        }
    }

    /// A number, a word, or a word with something in it.
    fn named(&mut self) -> Value {
        let mut word = String::new();
        while let Some(c) = self
            .rest
            .next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '#' | ':'))
        {
            word.push(c);
            if c == ':' && self.rest.peek() == Some(&' ') {
                break;
            }
        }
        if word == "b" && self.rest.peek() == Some(&'"') {
            return Value::String(self.quoted_bytes());
        }
        self.blanks();
        match self.rest.peek() {
            Some('{') => Value::Object(self.fields()),
            Some('(') => match self.list('(', ')') {
                Value::Array(mut items) if items.len() == 1 => items.remove(0),
                items => items,
            },
            _ => scalar(&word),
        }
    }

    fn list(&mut self, open: char, close: char) -> Value {
        self.rest.next_if_eq(&open);
        let mut items = Vec::new();
        loop {
            self.blanks();
            if self.rest.next_if_eq(&close).is_some() || self.rest.peek().is_none() {
                return Value::Array(items);
            }
            let before = self.rest.clone().count();
            items.push(self.value());
            self.blanks();
            self.rest.next_if_eq(&',');
            if self.rest.clone().count() == before {
                return Value::Array(items); // Not what we know: rather an end than a loop.
            }
        }
    }

    fn fields(&mut self) -> Map<String, Value> {
        self.rest.next_if_eq(&'{');
        let mut fields = Map::new();
        loop {
            self.blanks();
            if self.rest.next_if_eq(&'}').is_some() || self.rest.peek().is_none() {
                return fields;
            }
            let mut name = String::new();
            while let Some(c) = self.rest.next_if(|c| *c != ':' && *c != '}') {
                name.push(c);
            }
            if self.rest.next_if_eq(&':').is_none() {
                continue; // `{ .. }` of a struct that does not show all.
            }
            let value = self.value();
            self.blanks();
            self.rest.next_if_eq(&',');
            let nothing = value.as_array().is_some_and(Vec::is_empty) || value.is_null();
            if name != "unknown_tags" || !nothing {
                fields.insert(name.trim().trim_matches('"').to_owned(), value);
            }
        }
    }

    fn quoted(&mut self) -> String {
        self.rest.next_if_eq(&'"');
        let mut text = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                '"' => break,
                '\\' => match self.rest.next() {
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some('0') => text.push('\0'),
                    Some('u') => text.extend(self.unicode()),
                    Some(other) => text.push(other),
                    None => break,
                },
                c => text.push(c),
            }
        }
        text
    }

    /// Bytes stay as they were shown: what is not ASCII is escaped.
    fn quoted_bytes(&mut self) -> String {
        self.rest.next_if_eq(&'"');
        let mut text = String::new();
        while let Some(c) = self.rest.next_if(|c| *c != '"') {
            text.push(c);
            if c == '\\' {
                text.extend(self.rest.next());
            }
        }
        self.rest.next_if_eq(&'"');
        text
    }

    /// `{1f600}`
    fn unicode(&mut self) -> Option<char> {
        self.rest.next_if_eq(&'{')?;
        let mut digits = String::new();
        while let Some(c) = self.rest.next_if(char::is_ascii_hexdigit) {
            digits.push(c);
        }
        self.rest.next_if_eq(&'}')?;
        char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
    }

    fn blanks(&mut self) {
        while self.rest.next_if_eq(&' ').is_some() {}
    }
}

/// A number where it is one; ids, which may look like one, are longer than any 64-bit number.
fn scalar(word: &str) -> Value {
    match word {
        "None" => return Value::Null,
        "true" => return json!(true),
        "false" => return json!(false),
        _ => {}
    }
    if let Ok(number) = word.parse::<i64>() {
        return json!(number);
    }
    match word.parse::<f64>() {
        Ok(number) if word.contains('.') => json!(number),
        _ => json!(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flowstone_types::Uuid;

    #[derive(Debug)]
    #[expect(dead_code, reason = "only Debug reads them")]
    struct Inner {
        list: Vec<i32>,
        none: Option<i32>,
        rate: f64,
    }

    #[derive(Debug)]
    #[expect(dead_code, reason = "only Debug reads them")]
    struct Outer {
        text: &'static str,
        id: Uuid,
        bytes: Bytes,
        some: Option<Box<Inner>>,
        empty: (),
        many: Vec<Inner>,
        unknown_tags: Vec<i32>,
    }

    #[test]
    fn records_are_read_back_from_what_debug_shows() {
        let inner = || Inner { list: vec![1, -2], none: None, rate: 0.5 };
        let text = "a \"quoted\", {odd}\n\u{1f}\u{e9}";
        let id: Uuid = "-4L6g3nShT-eMCtK--X86g".parse().unwrap();
        let bytes = Bytes::from_static(b"k\x00\"");
        let outer = Outer {
            text,
            id,
            bytes,
            some: Some(Box::new(inner())),
            empty: (),
            many: vec![inner(), inner()],
            unknown_tags: vec![],
        };
        let want = json!({ "list": [1, -2], "none": null, "rate": 0.5 });
        assert_eq!(
            to_json(&outer),
            json!({ "text": text, "id": id.to_string(), "bytes": "k\\0\\\"", "some": want, "empty": [], "many": [want, want] })
        );
    }

    #[test]
    fn whatever_it_is_it_ends() {
        struct Odd(&'static str);
        impl Debug for Odd {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        for odd in
            ["", "{", "[", "[}", "A {", "A { b", "A { b: [", "<x>", "[<x>", "\"", "\\", "A { .. }"]
        {
            to_json(&Odd(odd));
        }
    }
}
