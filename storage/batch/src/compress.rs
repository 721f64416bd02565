//! The codecs of a record array: gzip, snappy, LZ4, zstd; out and in, in bounded memory.
//!
//! Separate because it is the only place that hands outside bytes to decompressors. Invariant:
//! inflating allocates in proportion to what it really produced, never to what a frame declares,
//! and stops at the limit.

use alloc::vec;
use alloc::vec::Vec;
// The codecs write to `std::io` traits; nothing else of the crate can name std.
extern crate std;

use self::std::io::{Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::error::BatchError;
use crate::header::Codec;
use crate::lz4;

/// How far a compressed record array may grow. Kafka has no such limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Times its compressed size.
    pub ratio_max: usize,
    /// Bytes that are allowed whatever the ratio: a small batch of one repeated record is honest.
    pub floor_bytes: usize,
    /// Bytes that are never passed.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ratio_max: 256, // JSON lines reach 10, zeros in gzip 1,000: those need the floor.
            floor_bytes: 8 << 20, // 8 times the default max.message.bytes; a 1 KiB bomb ends here.
            bytes_max: 128 << 20, // Above socket.request.max.bytes, which uncompressed batches obey.
        }
    }
}

impl Limits {
    /// Bytes that `compressed_len` bytes may become.
    pub fn inflated_max(&self, compressed_len: usize) -> usize {
        compressed_len.saturating_mul(self.ratio_max).max(self.floor_bytes).min(self.bytes_max)
    }
}

/// Bytes given to a decompressor at first: zstd asks for more, four times as much each time.
const FIRST_BYTES: usize = 64 << 10;
/// What becomes of data up to so many times is inflated as it comes; of more, how much it is is found out first.
const FIRST_RATIO: usize = 16;
/// What snappy-java opens its stream with: name, version 1, readable from version 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes of the name, by which a framed stream is told from a raw block.
const XERIAL_NAME_LEN: usize = 8;
/// Bytes that snappy-java compresses at a time.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// A snappy element of three bytes makes at most 64.
const SNAPPY_RATIO_MAX: usize = 22;

/// Decompresses a record array. `codec` is not `None`.
pub(crate) fn inflate(codec: Codec, data: &[u8], limits: &Limits) -> Result<Vec<u8>, BatchError> {
    let limit = limits.inflated_max(data.len());
    match codec {
        Codec::None => unreachable!("what is not compressed is read where it lies"),
        Codec::Gzip => gunzip(data, limit),
        Codec::Snappy => unsnappy(data, limit),
        Codec::Lz4 => lz4::inflate(data, limit),
        Codec::Zstd => unzstd(data, limit),
    }
}

/// Bytes that may be made of `data` before it is known how many there will be.
pub(crate) fn first_bytes(data: &[u8], limit: usize) -> usize {
    data.len().saturating_mul(FIRST_RATIO).max(FIRST_BYTES).min(limit)
}

/// Compresses a record array; `level` by the codec's own scale, `None` for its default. Snappy has
/// no levels. LZ4's level is not used: only its fast compressor exists here.
pub(crate) fn deflate(codec: Codec, level: Option<i32>, data: &[u8]) -> Vec<u8> {
    match codec {
        Codec::None => data.to_vec(),
        Codec::Gzip => {
            // -1 is Kafka's word for the default.
            let level =
                level.and_then(|level| u32::try_from(level).ok()).filter(|level| *level <= 9);
            let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
            let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 4), level);
            encoder.write_all(data).expect("a vector takes everything");
            encoder.finish().expect("a vector takes everything")
        }
        Codec::Snappy => {
            let mut out = Vec::with_capacity(XERIAL_HEADER.len() + data.len() / 2);
            out.extend_from_slice(&XERIAL_HEADER);
            let mut encoder = snap::raw::Encoder::new();
            for block in data.chunks(XERIAL_BLOCK_BYTES) {
                let block = encoder.compress_vec(block).expect("a block is below snappy's 4 GiB");
                out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                out.extend_from_slice(&block);
            }
            out
        }
        Codec::Lz4 => lz4::deflate(data),
        Codec::Zstd => zstd::bulk::compress(data, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))
            .expect("zstd clamps its level and was given room enough"),
    }
}

fn gunzip(data: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let bad = |_| BatchError::Compression(Codec::Gzip, "not a gzip stream, or cut");
    let first = first_bytes(data, limit);
    let mut out = Vec::with_capacity(data.len().saturating_mul(4).min(limit).min(FIRST_BYTES));
    let mut decoder = MultiGzDecoder::new(data);
    // One byte more than it may be tells what ends there from what goes on.
    decoder.by_ref().take(first as u64 + 1).read_to_end(&mut out).map_err(bad)?;
    if out.len() <= first {
        return Ok(out);
    }
    // A rare batch, or a bomb: counted before there is room for it.
    let (mut bytes, mut scratch) = (out.len(), vec![0; FIRST_BYTES]);
    while bytes <= limit {
        match decoder.read(&mut scratch).map_err(bad)? {
            0 => break,
            more => bytes += more,
        }
    }
    if bytes > limit {
        return Err(BatchError::Bomb { limit });
    }
    drop(out);
    out = vec![0; bytes];
    MultiGzDecoder::new(data).read_exact(&mut out).map_err(bad)?;
    Ok(out)
}

/// Snappy-java's framing, or one raw block as librdkafka and franz-go write it.
fn unsnappy(data: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    if !data.starts_with(&XERIAL_HEADER[..XERIAL_NAME_LEN]) {
        unsnappy_block(data, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest = data.get(XERIAL_HEADER.len()..).ok_or(SNAPPY_CUT)?;
    while !rest.is_empty() {
        if rest.starts_with(&XERIAL_HEADER[..XERIAL_NAME_LEN]) {
            rest = rest.get(XERIAL_HEADER.len()..).ok_or(SNAPPY_CUT)?; // Streams one after another.
            continue;
        }
        let (len, after) = rest.split_first_chunk().ok_or(SNAPPY_CUT)?;
        // CVE-2023-34455: the length is only a claim. Negative ones are above any length here.
        let len = u32::from_be_bytes(*len) as usize;
        let (block, after) = after.split_at_checked(len).ok_or(SNAPPY_CUT)?;
        unsnappy_block(block, limit, &mut out)?;
        rest = after;
    }
    Ok(out)
}

const SNAPPY_CUT: BatchError = BatchError::Compression(Codec::Snappy, "the framing is cut");
const SNAPPY_BAD: BatchError = BatchError::Compression(Codec::Snappy, "not a snappy block");

fn unsnappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let len = snap::raw::decompress_len(block).map_err(|_| SNAPPY_BAD)?;
    if len > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(SNAPPY_BAD); // No block of this size makes that much.
    }
    let start = out.len();
    if len > limit - start {
        return Err(BatchError::Bomb { limit });
    }
    out.resize(start + len, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|_| SNAPPY_BAD)?;
    Ok(())
}

/// All at once into a buffer that grows until it fits: a streaming decoder would allocate the
/// window that the frame declares, up to 128 MiB for 20 bytes.
fn unzstd(data: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    use zstd::zstd_safe::{DCtx, get_frame_content_size};
    /// `ZSTD_error_dstSize_tooSmall`, which zstd promises not to renumber.
    const TOO_SMALL: usize = 70;
    let bad = BatchError::Compression(Codec::Zstd, "not a zstd frame, or cut");
    let declared = get_frame_content_size(data).map_err(|_| bad.clone())?;
    let declared = declared.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let first = declared.unwrap_or(data.len().saturating_mul(8));
    // A declared size beyond what arrived times a fair ratio has to be earned step by step too.
    let mut room = first.clamp(1, data.len().saturating_mul(32).max(FIRST_BYTES)).min(limit);
    let mut context = DCtx::create();
    loop {
        let mut out = Vec::with_capacity(room);
        match context.decompress(&mut out, data) {
            Ok(_) => return Ok(out),
            Err(code) if code.wrapping_neg() == TOO_SMALL && room < limit => {
                room = room.saturating_mul(4).min(limit);
            }
            Err(code) if code.wrapping_neg() == TOO_SMALL => {
                return Err(BatchError::Bomb { limit });
            }
            Err(_) => return Err(bad),
        }
    }
}
