//! Java's `.properties` text: what `java.util.Properties.load` reads, with line numbers.

use alloc::string::String;
use alloc::vec::Vec;

/// One key with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Property {
    /// The key, unescaped.
    pub key: String,
    /// The value, unescaped; white space at its end belongs to it.
    pub value: String,
    /// The line it starts on, from 1.
    pub line: usize,
}

/// An escape that is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: \\u must be followed by four hexadecimal digits")]
pub struct BadEscape {
    /// The line that the key starts on, from 1.
    pub line: usize,
}

/// Reads a whole text. A key may come twice; the caller decides which counts.
pub fn parse(text: &str) -> Result<Vec<Property>, BadEscape> {
    let mut properties = Vec::new();
    let mut lines = natural_lines(text).into_iter().zip(1..).peekable();
    let (mut logical, mut start) = (String::new(), 0);
    while let Some((natural, line)) = lines.next() {
        let natural = natural.trim_start_matches(is_blank);
        if logical.is_empty() && (natural.is_empty() || natural.starts_with(['#', '!'])) {
            continue;
        }
        if logical.is_empty() {
            start = line;
        }
        logical.push_str(natural);
        // An odd number of backslashes at its end carries a line on into the next, whose leading
        // blanks do not count. A comment is never carried on, nor does one begin within.
        if logical.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1 {
            logical.pop();
            if lines.peek().is_some() {
                continue;
            }
        }
        let (key, value) = split(&logical);
        let unescape = |text| unescape(text).ok_or(BadEscape { line: start });
        properties.push(Property { key: unescape(key)?, value: unescape(value)?, line: start });
        logical.clear();
    }
    Ok(properties)
}

/// Lines end with `\n`, `\r` or both.
fn natural_lines(text: &str) -> Vec<&str> {
    let ended = text.strip_suffix('\n').unwrap_or(text);
    let ended = ended.strip_suffix('\r').unwrap_or(ended);
    let by_feed = ended.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    by_feed.flat_map(|line| line.split('\r')).collect()
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// The key ends at the first `=`, `:` or blank that is not escaped; blanks, and one `=` or `:` among
/// them, stand between it and the value.
fn split(logical: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = logical.find(|c| {
        let ends = !escaped && (matches!(c, '=' | ':') || is_blank(c));
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = logical.split_at(end.unwrap_or(logical.len()));
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Option<String> {
    let mut units = Vec::new(); // UTF-16, since \u escapes may be halves of a pair.
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let c = match c {
            '\\' => match characters.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits = characters.as_str().get(..4)?;
                    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                        return None;
                    }
                    units.push(u16::from_str_radix(digits, 16).ok()?);
                    characters = characters.as_str()[4..].chars();
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            plain => plain,
        };
        units.extend(c.encode_utf16(&mut [0; 2]).iter());
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `java.util.Properties.load`: "three ways to write Truth"; and its other rules.
    #[test]
    fn keys_and_values_are_javas() {
        check("Truth = Beauty", "Truth", "Beauty");
        check(" Truth:Beauty", "Truth", "Beauty");
        check("Truth\t\t\t:Beauty", "Truth", "Beauty");
        check("a", "a", "");
        check("a b = c", "a", "b = c");
        check("a==b", "a", "=b");
        check("a\\:b\\=c\\ d: e", "a:b=c d", "e");
        check("a=b  ", "a", "b  ");
        check("a=\\u00e4\\ud83d\\ude00\\t\\q", "a", "ä😀\tq");
        check("a=c:\\\\dir", "a", "c:\\dir");
        check(
            "fruits  apple, banana, \\\r\n   pear, \\\n\tmango",
            "fruits",
            "apple, banana, pear, mango",
        );
        check("a=b\\\\\\\n c", "a", "b\\c");
        check("a=b\\", "a", "b");
        check("\\\n# a comment\na=b\r", "a", "b");
        check("\\", "", "");
        check(
            "listeners=PLAINTEXT://:9092,\\\n  # no comment",
            "listeners",
            "PLAINTEXT://:9092,# no comment",
        );
    }

    #[test]
    fn lines_are_counted_and_comments_skipped() {
        let text = "# a comment \\\n! another\n\n\\\n  \n a = 1\nb=2\\\n3\nc=4\n";
        let got: Vec<_> =
            parse(text).unwrap().into_iter().map(|p| (p.key, p.value, p.line)).collect();
        let want = [("a", "1", 6), ("b", "23", 7), ("c", "4", 9)];
        assert_eq!(got, want.map(|(k, v, line)| (k.to_owned(), v.to_owned(), line)));
    }

    #[test]
    fn bad_escapes_name_their_line() {
        for text in ["\na=\\u12", "\na=\\u12g4", "\n\\u+123=a", "\na=\\uäää"] {
            assert_eq!(parse(text), Err(BadEscape { line: 2 }), "{text}");
        }
    }

    fn check(text: &str, key: &str, value: &str) {
        let got: Vec<_> = parse(text).unwrap().into_iter().map(|p| (p.key, p.value)).collect();
        assert_eq!(got, [(key.to_owned(), value.to_owned())]);
    }
}
