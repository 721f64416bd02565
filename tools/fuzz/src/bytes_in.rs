//! How a target takes choices and pieces from its input: from the front, zeros where it has ended.
//!
//! Separate because the corpora depend on it: what is written with [`pieces`] is read with `Input::piece`.

use bytes::Bytes;
use flowstone_batch::LOG_OVERHEAD;

/// An input that is read from the front.
pub(crate) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes behind their length; `None` where nothing is left.
    pub fn piece(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(self.array()));
        Some(self.take(length))
    }

    /// Whether anything is left.
    pub fn has_more(&self) -> bool {
        !self.0.is_empty()
    }

    /// One of `all`.
    pub fn one_of<T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::from(self.byte()) % all.len()]
    }
}

/// Writes pieces, each behind its length, as those targets read them whose input is several things.
pub fn pieces<T: AsRef<[u8]>>(all: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in all {
        let piece = piece.as_ref();
        out.extend(u16::try_from(piece.len()).expect("pieces are short").to_be_bytes());
        out.extend(piece);
    }
    out
}

const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const COVERED_FROM: usize = 21;

/// Makes the checksum of each batch in `bytes` right, as far as lengths lead, so that what stands behind it is
/// reached. `whole`: the first is made to end with the bytes, too, and to be of the present format.
pub(crate) fn with_right_crcs(bytes: &[u8], whole: bool) -> Bytes {
    let mut mended = bytes.to_vec();
    if whole && mended.len() > COVERED_FROM {
        let length = (mended.len() - LOG_OVERHEAD) as u32;
        mended[LOG_OVERHEAD - 4..LOG_OVERHEAD].copy_from_slice(&length.to_be_bytes());
        mended[MAGIC_AT] = 2;
    }
    let mut at = 0;
    while let Some(rest) = mended.get_mut(at..).filter(|rest| rest.len() > COVERED_FROM) {
        let length = u32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        let Some(batch) = rest.get_mut(..length + LOG_OVERHEAD) else { break };
        if batch.len() <= COVERED_FROM {
            break;
        }
        let crc = crc32c(&batch[COVERED_FROM..]);
        batch[CRC_AT..COVERED_FROM].copy_from_slice(&crc.to_be_bytes());
        at += length + LOG_OVERHEAD;
    }
    mended.into()
}

/// CRC-32C, as batches and the journal have it.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
