//! LZ4 frames: any that liblz4 writes are read, and those of Kafka's Java client are written.
//!
//! Our own framing around `lz4_flex`'s blocks, because a frame reader must not take memory by the
//! block size that the frame declares (4 MiB for 15 bytes), and must know a cut frame.
//! Format: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.

use alloc::vec;
use alloc::vec::Vec;
use twox_hash::XxHash32;

use crate::compress::first_bytes;
use crate::error::BatchError;
use crate::header::Codec;

const MAGIC: u32 = 0x184D_2204;
const BLOCK_BYTES: usize = 64 << 10; // What the Java client writes.
const UNCOMPRESSED: u32 = 1 << 31;
/// Linked blocks refer back at most this far.
const WINDOW_BYTES: usize = 64 << 10;

const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUM: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
/// A reserved bit, and dictionaries, which a record batch has no place for.
const UNSUPPORTED: u8 = 0b0000_0011;

pub(crate) fn inflate(data: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut rest = data;
    if take_u32(&mut rest)? != MAGIC {
        return Err(bad("no LZ4 frame"));
    }
    let descriptor = rest;
    let [flags, block_size] = take(&mut rest)?;
    if flags & VERSION_MASK != VERSION || flags & UNSUPPORTED != 0 {
        return Err(bad("a frame of another version or with a dictionary"));
    }
    let block_bytes_max = match block_size {
        0x40 => 64 << 10,
        0x50 => 256 << 10,
        0x60 => 1 << 20,
        0x70 => 4 << 20,
        _ => return Err(bad("a block size that there is not")),
    };
    let content_size =
        if flags & CONTENT_SIZE == 0 { None } else { Some(u64::from_le_bytes(take(&mut rest)?)) };
    let descriptor = &descriptor[..descriptor.len() - rest.len()];
    let [checksum] = take(&mut rest)?;
    // Kafka before 0.10 hashed the magic too (KAFKA-3160); v2 batches never had that excuse.
    if checksum != (XxHash32::oneshot(0, descriptor) >> 8) as u8 {
        return Err(bad("the frame descriptor's checksum"));
    }
    let blocks = bytes_made(rest, flags);
    let total = blocks.iter().fold(0_usize, |total, made| total.saturating_add(*made));
    if total > limit {
        return Err(BatchError::Bomb { limit });
    }
    let mut out = Vec::with_capacity(total.min(first_bytes(data, limit)));
    let mut blocks = blocks.into_iter();
    loop {
        let word = take_u32(&mut rest)?;
        if word == 0 {
            break;
        }
        let len = (word & !UNCOMPRESSED) as usize;
        if len > block_bytes_max {
            return Err(bad("a block above the frame's block size"));
        }
        let (block, after) = rest.split_at_checked(len).ok_or(CUT)?;
        rest = after;
        if flags & BLOCK_CHECKSUM != 0 && take_u32(&mut rest)? != XxHash32::oneshot(0, block) {
            return Err(bad("a block's checksum"));
        }
        let made = blocks.next().ok_or(CUT)?;
        if made > block_bytes_max {
            return Err(bad("a block above the frame's block size"));
        }
        if out.capacity() - out.len() < made {
            // What came so far was as it said: the rest may have its room, once.
            out.reserve_exact(total - out.len());
        }
        if word & UNCOMPRESSED != 0 {
            out.extend_from_slice(block);
        } else {
            inflate_block(block, flags & INDEPENDENT == 0, made, &mut out)?;
        }
    }
    if content_size.is_some_and(|size| size != out.len() as u64) {
        return Err(bad("the content size"));
    }
    if flags & CONTENT_CHECKSUM != 0 && take_u32(&mut rest)? != XxHash32::oneshot(0, &out) {
        return Err(bad("the content's checksum"));
    }
    if rest.is_empty() { Ok(out) } else { Err(bad("bytes after the frame")) }
}

fn inflate_block(
    block: &[u8],
    linked: bool,
    made: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let start = out.len();
    out.resize(start + made, 0);
    let (before, target) = out.split_at_mut(start);
    let window = if linked { &before[start.saturating_sub(WINDOW_BYTES)..] } else { &[] };
    match lz4_flex::block::decompress_into_with_dict(block, target, window) {
        Ok(bytes) if bytes == made => Ok(()),
        Ok(_) | Err(_) => Err(bad("a block")),
    }
}

/// Bytes that each block of a frame will make, found by their lengths alone; of what is damaged, some number, and
/// up to where it is cut.
fn bytes_made(mut rest: &[u8], flags: u8) -> Vec<usize> {
    let mut blocks = Vec::new();
    while let Ok(word) = take_u32(&mut rest)
        && word != 0
        && let Some((block, after)) = rest.split_at_checked((word & !UNCOMPRESSED) as usize)
    {
        blocks.push(if word & UNCOMPRESSED == 0 { block_bytes_made(block) } else { block.len() });
        rest = after.get(if flags & BLOCK_CHECKSUM == 0 { 0 } else { 4 }..).unwrap_or_default();
    }
    blocks
}

/// Bytes that a compressed block will make: its literals, and its matches of four and more.
fn block_bytes_made(mut block: &[u8]) -> usize {
    const MATCH_MIN: usize = 4;
    let mut total = 0_usize;
    while let Some((token, rest)) = block.split_first() {
        block = rest;
        let literals = length(token >> 4, &mut block);
        total = total.saturating_add(literals);
        // The last sequence has literals only.
        let Some(after) = block.get(literals..).and_then(|rest| rest.get(2..)) else { break };
        block = after;
        total = total.saturating_add(length(token & 15, &mut block) + MATCH_MIN);
    }
    total
}

/// A length: four bits, and where all of them are set, bytes that are added up to the first below 255.
fn length(bits: u8, block: &mut &[u8]) -> usize {
    let mut length = usize::from(bits);
    if bits == 15 {
        while let Some((byte, rest)) = block.split_first() {
            *block = rest;
            length += usize::from(*byte);
            if *byte < 255 {
                break;
            }
        }
    }
    length
}

/// One frame as the Java client writes it: independent blocks of 64 KiB, no checksums but the
/// descriptor's, no content size.
pub(crate) fn deflate(data: &[u8]) -> Vec<u8> {
    use lz4_flex::block::{compress_into, get_maximum_output_size};
    let mut out = Vec::with_capacity(32 + data.len() / 2);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    let descriptor = [VERSION | INDEPENDENT, 0x40];
    out.extend_from_slice(&descriptor);
    out.push((XxHash32::oneshot(0, &descriptor) >> 8) as u8);
    let mut scratch = vec![0; get_maximum_output_size(data.len().min(BLOCK_BYTES))];
    for block in data.chunks(BLOCK_BYTES) {
        match compress_into(block, &mut scratch) {
            Ok(len) if len < block.len() => {
                out.extend_from_slice(&(len as u32).to_le_bytes());
                out.extend_from_slice(&scratch[..len]);
            }
            Ok(_) | Err(_) => {
                out.extend_from_slice(&(block.len() as u32 | UNCOMPRESSED).to_le_bytes());
                out.extend_from_slice(block);
            }
        }
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    out
}

const CUT: BatchError = BatchError::Compression(Codec::Lz4, "the frame is cut");

const fn bad(what: &'static str) -> BatchError {
    BatchError::Compression(Codec::Lz4, what)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BatchError> {
    let (taken, after) = rest.split_first_chunk().ok_or(CUT)?;
    *rest = after;
    Ok(*taken)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, BatchError> {
    take(rest).map(u32::from_le_bytes)
}
