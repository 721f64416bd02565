//! What a peer may send at worst: every API in every version, with every count made a lie.
//!
//! Requests are made from the shapes in `table.rs`. First they prove the shapes: kafka-protocol must
//! decode each and leave no byte. Then they are bent, and an allocator that counts shows that
//! decoding takes no more memory than a small multiple of what arrived, and that nothing panics.

use std::iter::repeat_n;

use bytes::{BufMut, Bytes, BytesMut};
use flowstone_held::{Counting, most_held};

use crate::{Api, DecodeError, ELEMENTS_MAX, Malformed, RequestBody, decode, shape};

/// Most bytes that decoding may hold for each byte of a frame. The worst is an array of the
/// smallest elements with one unknown tagged field each: five bytes, for which kafka-protocol holds
/// a struct and the 400 bytes of a BTreeMap's first node.
const HELD_PER_BYTE: usize = 128;
/// What any error may cost besides: its text, and anyhow's box.
const HELD_ALWAYS: usize = 4096;

/// The shapes in the table are those that kafka-protocol decodes by, in every version.
#[test]
fn shapes_are_kafka_protocols() {
    let mut random = Random::new("shapes");
    for_each_version(|api, version| {
        for _ in 0..100 {
            let body = Bytes::from(random.body(api, version));
            assert_eq!(shape::walk(api.row().shape(version), &body), Ok(body.len()));
            let mut rest = body.clone();
            let decoded = RequestBody::decode(api, version, &mut rest);
            assert!(decoded.is_ok(), "{api:?} {version}: {decoded:?} of {body:?}");
            assert!(rest.is_empty(), "{api:?} {version}: {} bytes left of {body:?}", rest.len());
        }
    });
}

/// faults S39: "arrays with huge counts, negative lengths, null where not allowed, UTF-8 garbage:
/// no panic, no allocation above k x input, error or close".
#[test]
fn lies_at_every_offset_cost_nothing() {
    const LIES: [&[u8]; 10] = [
        b"\x7f\xff\xff\xff",
        b"\x80\x00\x00\x00",
        b"\xff\xff\xff\xfe",
        b"\x00\xff\xff\xff",
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\x07",
        b"\x80\x80\x80\x80\x08",
        b"\xff\xff\x7f",
        b"\x7f\xff",
        b"\x00",
    ];
    let mut random = Random::new("lies");
    for_each_version(|api, version| {
        for _ in 0..2 {
            let frame = random.frame(api, version);
            check_bounded(&frame);
            for offset in 8..frame.len() {
                check_bounded(&frame[..offset]);
                for lie in LIES {
                    let mut bent = frame.clone();
                    bent.truncate(offset);
                    bent.extend_from_slice(lie);
                    check_bounded(&bent); // The twelve-byte frame: a count and nothing behind it.
                    bent.extend(frame.get(offset + lie.len()..).unwrap_or_default());
                    check_bounded(&bent);
                }
            }
        }
    });
}

#[test]
fn noise_costs_nothing() {
    let mut random = Random::new("noise");
    for_each_version(|api, version| {
        for _ in 0..50 {
            let mut frame = random.frame(api, version);
            for _ in 0..=random.below(6) {
                let at = 8 + random.below(frame.len() - 8 + 1);
                match random.below(3) {
                    0 => frame.insert(at, random.byte()),
                    1 if at < frame.len() => frame[at] = random.byte(),
                    _ => frame.truncate(at.max(9)),
                }
            }
            check_bounded(&frame);
        }
    });
}

/// Honest counts: as many of the smallest elements as the frame holds, also with unknown tagged
/// fields. This is the most that decoding may cost, and what [`HELD_PER_BYTE`] stands for.
#[test]
fn many_small_elements_cost_a_bounded_multiple() {
    for_each_version(|api, version| {
        let shape = api.row().shape(version).as_bytes();
        for (deepest, tags) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
            let mut body = Vec::new();
            crowd(shape, 2000, deepest, tags, &mut body);
            let mut frame = header(api, version);
            frame.extend(body);
            check_bounded(&frame);
        }
    });
}

/// The budget of elements is for a whole request, not for each of its arrays.
#[test]
fn elements_are_budgeted() {
    let mut frame = header(Api::Metadata, 0);
    frame.put_u32(ELEMENTS_MAX + 1);
    frame.extend(repeat_n(0, 2 * (ELEMENTS_MAX as usize + 1)));
    let reason = Malformed::TooManyElements;
    let refused = DecodeError::Malformed { api: Api::Metadata, version: 0, reason };
    assert_eq!(decode(frame.into()), Err(refused));
}

/// Decodes a frame and holds what that took against what arrived.
fn check_bounded(frame: &[u8]) {
    let bytes = Bytes::copy_from_slice(frame);
    let allowed = HELD_PER_BYTE * frame.len() + HELD_ALWAYS;
    let held = most_held(|| drop(decode(bytes)));
    assert!(held <= allowed, "{held} bytes for a frame of {}: {frame:?}", frame.len());
}

fn for_each_version(mut run: impl FnMut(Api, i16)) {
    for api in Api::ALL {
        for version in api.row().lowest..=api.row().highest {
            run(*api, version);
        }
    }
}

fn header(api: Api, version: i16) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_i16(api as i16);
    frame.put_i16(version);
    frame.put_i32(7);
    frame.put_slice(b"\x00\x02me");
    if api.request_header_version(version) >= 2 {
        frame.put_u8(0);
    }
    frame.to_vec()
}

/// Writes the smallest body of `shape`, but with `count` elements in its first (or first innermost)
/// array and `tags` unknown tagged fields wherever there may be some.
fn crowd(mut shape: &'static [u8], count: usize, deepest: bool, tags: u8, out: &mut Vec<u8>) {
    while let Some((&field, after)) = shape.split_first() {
        shape = after;
        match field {
            b'1' => out.push(0),
            b'2' | b's' => out.extend([0; 2]),
            b'4' | b'b' => out.extend([0; 4]),
            b'8' => out.extend([0; 8]),
            b'u' => out.extend([0; 16]),
            b'S' => out.push(1),
            b'[' | b'(' => {
                let (element, after) = shape::group(shape);
                shape = after;
                let has_array = element.iter().any(|c| matches!(c, b'[' | b'('));
                let (count, inner) = if deepest && has_array { (1, count) } else { (count, 0) };
                put_count(field, count, out);
                (0..count).for_each(|_| crowd(element, inner, deepest, tags, out));
            }
            b'?' => {
                out.push(0xff);
                shape = shape::group(&shape[1..]).1;
            }
            b'T' | b'<' => {
                if field == b'<' {
                    shape = shape::group(shape).1;
                }
                out.push(tags);
                (0..tags).for_each(|tag| out.extend([100 + tag, 0]));
            }
            other => panic!("shape character {:?}", char::from(other)),
        }
    }
}

fn put_count(bracket: u8, count: usize, out: &mut Vec<u8>) {
    if bracket == b'[' {
        out.extend((count as u32).to_be_bytes());
    } else {
        put_varint(count + 1, out);
    }
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// xorshift64*: small, and the same on every machine.
struct Random(u64);

impl Random {
    /// Starts from `FLOWSTONE_SEED`, or from the clock; prints what it started from.
    fn new(name: &str) -> Self {
        let seed = match std::env::var("FLOWSTONE_SEED") {
            Ok(text) => text.parse().expect("FLOWSTONE_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64,
        };
        println!("{name}: FLOWSTONE_SEED={seed}");
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 40) as u8
    }

    fn frame(&mut self, api: Api, version: i16) -> Vec<u8> {
        let mut frame = header(api, version);
        frame.extend(self.body(api, version));
        frame
    }

    /// A body that is in order, with nothing null.
    fn body(&mut self, api: Api, version: i16) -> Vec<u8> {
        let mut body = Vec::new();
        self.fields(api.row().shape(version).as_bytes(), &mut body);
        body
    }

    fn fields(&mut self, mut shape: &'static [u8], out: &mut Vec<u8>) {
        while let Some((&field, after)) = shape.split_first() {
            shape = after;
            match field {
                b'1' => out.push(self.byte() & 1),
                b'2' => out.extend(repeat_n(self.byte(), 2)),
                b'4' => out.extend(repeat_n(self.byte(), 4)),
                b'8' => out.extend(repeat_n(self.byte(), 8)),
                b'u' => out.extend(repeat_n(self.byte(), 16)),
                b's' | b'b' | b'S' => {
                    let length = self.below(9);
                    match field {
                        b's' => out.extend((length as u16).to_be_bytes()),
                        b'b' => out.extend((length as u32).to_be_bytes()),
                        _ => put_varint(length + 1, out),
                    }
                    out.extend(repeat_n(b'a' + self.byte() % 26, length));
                }
                b'[' | b'(' => {
                    let (element, after) = shape::group(shape);
                    shape = after;
                    let count = self.below(4);
                    put_count(field, count, out);
                    (0..count).for_each(|_| self.fields(element, out));
                }
                b'?' => {
                    let (inner, after) = shape::group(&shape[1..]);
                    shape = after;
                    if self.below(2) == 0 {
                        out.push(0xff);
                    } else {
                        out.push(1);
                        self.fields(inner, out);
                    }
                }
                b'T' => self.tagged(b"", out),
                b'<' => {
                    let (known, after) = shape::group(shape);
                    shape = after;
                    self.tagged(known, out);
                }
                other => panic!("shape character {:?}", char::from(other)),
            }
        }
    }

    fn tagged(&mut self, known: &'static [u8], out: &mut Vec<u8>) {
        let mut fields = Vec::new();
        for field in known.split(|c| *c == b';').filter(|field| !field.is_empty()) {
            if self.below(2) == 0 {
                let mut value = Vec::new();
                self.fields(&field[1..], &mut value);
                fields.push((usize::from(field[0] - b'0'), value));
            }
        }
        if self.below(4) == 0 {
            fields.push((10_000, vec![0; self.below(5)])); // Somebody's own, as KIP-482 allows.
        }
        put_varint(fields.len(), out);
        for (tag, value) in fields {
            put_varint(tag, out);
            put_varint(value.len(), out);
            out.extend(value);
        }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
