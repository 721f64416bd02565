//! The shape of a request body: a walk over it that proves every count before anything is decoded.
//!
//! Separate, and in front of kafka-protocol's decoder, because that decoder calls
//! `Vec::with_capacity(n)` with `n` straight from the wire: twelve bytes that claim 2^31 entries
//! would ask for hundreds of gigabytes and abort the process. The walk allocates nothing, touches
//! each byte at most once, and after it every count in the body is backed by that many elements that
//! really arrived, so the decoder allocates for what is there.
//!
//! A shape is text, one character a field, written per version in `table.rs`:
//!
//! | text | field |
//! |---|---|
//! | `1` `2` `4` `8` `u` | 1, 2, 4, 8 or 16 bytes (integers, booleans, ids) |
//! | `s` `b` | string with an `i16` length, bytes with an `i32` length; -1 is null |
//! | `S` | string or bytes with a varint length plus one; 0 is null |
//! | `[...]` `(...)` | array with an `i32` count; array with a varint count plus one |
//! | `?{...}` | a nullable struct: one byte, 1 if it follows |
//! | `T` | tagged fields, all of them unknown |
//! | `<0S;1u>` | tagged fields, of which tag 0 is an `S` and tag 1 a `u` |
//!
//! The tests in `hostile.rs` hold every shape against kafka-protocol's decoder.

use crate::Malformed;

/// Most array elements and tagged fields in one request. A decoded element holds a few hundred bytes
/// where it took three on the wire; this bounds the sum for the largest requests (256 Ki elements x
/// 400 bytes = 100 MiB), and no client comes near it (one element a partition asked about).
pub const ELEMENTS_MAX: u32 = 1 << 18;

/// Walks `body` by `shape`; how many bytes it took. Bytes after the end are left alone, as in Kafka.
pub(crate) fn walk(shape: &'static str, body: &[u8]) -> Result<usize, Malformed> {
    let mut walk = Walk { rest: body, elements_left: ELEMENTS_MAX };
    walk.fields(shape.as_bytes())?;
    Ok(body.len() - walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
    elements_left: u32,
}

impl Walk<'_> {
    fn fields(&mut self, mut shape: &'static [u8]) -> Result<(), Malformed> {
        while let Some((&field, after)) = shape.split_first() {
            shape = after;
            match field {
                b'1' => self.skip(1)?,
                b'2' => self.skip(2)?,
                b'4' => self.skip(4)?,
                b'8' => self.skip(8)?,
                b'u' => self.skip(16)?,
                b's' => {
                    let length = i32::from(i16::from_be_bytes(self.take()?));
                    self.skip(nullable(length)?)?;
                }
                b'b' => {
                    let length = i32::from_be_bytes(self.take()?);
                    self.skip(nullable(length)?)?;
                }
                b'S' => {
                    let length = self.varint()?.saturating_sub(1);
                    self.skip(length as usize)?;
                }
                b'[' => {
                    let count = nullable(i32::from_be_bytes(self.take()?))?;
                    let (element, after) = group(shape);
                    shape = after;
                    self.elements(count, element)?;
                }
                b'(' => {
                    let count = self.varint()?.saturating_sub(1);
                    let (element, after) = group(shape);
                    shape = after;
                    self.elements(count as usize, element)?;
                }
                b'?' => {
                    let (inner, after) = group(&shape[1..]);
                    shape = after;
                    if self.take::<1>()? == [1] {
                        self.fields(inner)?;
                    }
                }
                b'T' => self.tagged(b"")?,
                b'<' => {
                    let (known, after) = group(shape);
                    shape = after;
                    self.tagged(known)?;
                }
                other => unreachable!("shape character {:?}", char::from(other)),
            }
        }
        Ok(())
    }

    fn elements(&mut self, count: usize, element: &'static [u8]) -> Result<(), Malformed> {
        self.count(count)?;
        for _ in 0..count {
            self.fields(element)?;
        }
        Ok(())
    }

    /// Tagged fields (KIP-482): a count, then tag, size and that many bytes each.
    fn tagged(&mut self, known: &'static [u8]) -> Result<(), Malformed> {
        let count = self.varint()? as usize;
        self.count(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            match known_tag(known, tag) {
                None => self.skip(size)?,
                Some(shape) => {
                    let before = self.rest.len();
                    self.fields(shape)?;
                    if before - self.rest.len() != size {
                        return Err(Malformed::TagSize { tag });
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes `count` elements from the budget; each takes at least one byte of what arrived.
    fn count(&mut self, count: usize) -> Result<(), Malformed> {
        if count > self.rest.len() {
            return Err(Malformed::Count { claimed: count, bytes_left: self.rest.len() });
        }
        let left = (self.elements_left as usize).checked_sub(count);
        self.elements_left = left.ok_or(Malformed::TooManyElements)? as u32;
        Ok(())
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(bytes..).ok_or(Malformed::Truncated)?;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value: u32 = 0;
        for place in 0..5 {
            let [byte] = self.take()?;
            if place == 4 && byte > 0x0f {
                return Err(Malformed::Varint); // More than 32 bits.
            }
            value |= u32::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }
}

/// A length or count where -1 stands for null, which takes no bytes.
fn nullable(length: i32) -> Result<usize, Malformed> {
    match length {
        -1 => Ok(0),
        _ => usize::try_from(length).map_err(|_| Malformed::Negative { length }),
    }
}

/// Splits `shape`, which starts just inside a bracket, at the bracket that closes it.
pub(crate) fn group(shape: &'static [u8]) -> (&'static [u8], &'static [u8]) {
    let mut depth = 1;
    let close = shape.iter().position(|character| {
        match character {
            b'[' | b'(' | b'{' | b'<' => depth += 1,
            b']' | b')' | b'}' | b'>' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let close = close.expect("shapes are constants; a test walks every one");
    (&shape[..close], &shape[close + 1..])
}

/// The shape of `tag` in a list such as `0S;1u`.
fn known_tag(known: &'static [u8], tag: u32) -> Option<&'static [u8]> {
    let mut fields = known.split(|character| *character == b';');
    let field = fields.find(|f| f.first().is_some_and(|t| u32::from(t - b'0') == tag))?;
    Some(&field[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_must_be_backed_by_bytes() {
        check("[4]", &[0, 0, 0, 1, 9, 9, 9, 9], Ok(8));
        check("[4]", &[0, 0, 0, 2, 9, 9, 9, 9], Err(Malformed::Truncated));
        check("[4]", &[0xff; 4], Ok(4));
        let huge = Malformed::Count { claimed: i32::MAX as usize, bytes_left: 1 };
        check("[4]", &[0x7f, 0xff, 0xff, 0xff, 9], Err(huge));
        check("[4]", &[0x80, 0, 0, 0], Err(Malformed::Negative { length: i32::MIN }));
        check("(S)", &[3, 2, b'a', 1], Ok(4));
        let huge = Malformed::Count { claimed: u32::MAX as usize - 1, bytes_left: 0 };
        check("(S)", &[0xff, 0xff, 0xff, 0xff, 0x0f], Err(huge));
        check("(S)", &[0xff, 0xff, 0xff, 0xff, 0x1f], Err(Malformed::Varint));
    }

    #[test]
    fn tagged_fields_are_skipped_or_walked() {
        check("T", &[1, 77, 2, 0, 0], Ok(5));
        check("T", &[1, 0x90, 0x4e, 0], Ok(4)); // Tag 10000 is somebody's own: let it pass.
        check("<0S>", &[1, 0, 2, 2, b'x'], Ok(5));
        check("<0S>", &[1, 0, 3, 2, b'x'], Err(Malformed::TagSize { tag: 0 }));
        check("<0S>", &[1, 1, 1, 7], Ok(4));
        check("?{8}", &[0xff], Ok(1));
        check("?{8}", &[1, 0], Err(Malformed::Truncated));
    }

    #[test]
    fn elements_have_a_budget() {
        let bytes = vec![0; 4 + ELEMENTS_MAX as usize + 1];
        let with_count = |count: u32| [&count.to_be_bytes()[..], &bytes[4..]].concat();
        check("[1]", &with_count(ELEMENTS_MAX), Ok(4 + ELEMENTS_MAX as usize));
        check("[1]", &with_count(ELEMENTS_MAX + 1), Err(Malformed::TooManyElements));
    }

    fn check(shape: &'static str, body: &[u8], want: Result<usize, Malformed>) {
        assert_eq!((shape, walk(shape, body)), (shape, want));
    }
}
