//! Goes through the frames of one file, and tells what a power cut tore from what was damaged later.
//!
//! Separate because it decides, and reads nothing: who holds the file reads where it says. An append is one write of
//! one or more frames, of which a power cut may leave any part; the next one begins when it is on stable storage.
//! Invariants: what an append brought that a later one of the same use speaks of is either told or told to be
//! lost; what no later one speaks of is told up to the first frame that is not whole, and is never called damage.

use alloc::vec::Vec;

use super::{FRAME_ALIGN_BYTES, Frame};

/// A walk under way.
#[derive(Default)]
pub struct Walk {
    at: u64,
    number: u64,
    generation: Option<u64>,
    /// So many frames were on stable storage before an append of which something was found.
    settled: u64,
    seen: Vec<Seen>,
}

struct Seen {
    at: u64,
    number: u64,
    /// `None` where nothing tells what was there.
    frame: Option<Frame>,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Read at [`Walk::at`].
    Read,
    /// Look behind [`Walk::at`] for a frame that [`Walk::behind`] takes; where there is none, this was the end.
    Look,
    /// There is no more.
    End,
}

/// What a file brings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// Its frames that count, with their positions. Entries that are not whole were on stable storage, and are lost.
    pub frames: Vec<(u64, Frame)>,
    /// Where frames were on stable storage of which nothing tells any more what they brought.
    pub lost: Option<u64>,
}

impl Walk {
    /// Where the next frame should be.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes what is there: a frame, if it is one.
    pub fn found(&mut self, frame: Option<Frame>) -> Next {
        let frame = frame.filter(|frame| frame.stamp.number == self.number);
        match (self.generation, frame) {
            (Some(generation), Some(frame)) if frame.stamp.generation == generation => {
                self.take(frame);
                Next::Read
            }
            (Some(_), _) => {
                self.seen.push(Seen { at: self.at, number: self.number, frame: None });
                Next::Look
            }
            (None, Some(frame)) if self.at == 0 || frame.stamp.settled == 1 => {
                self.generation = Some(frame.stamp.generation);
                self.take(frame);
                Next::Read
            }
            // The frame that a use begins with brings nothing: the one behind it tells as well which use it is.
            (None, _) if self.at == 0 => {
                (self.at, self.number) = (FRAME_ALIGN_BYTES as u64, 1);
                Next::Read
            }
            (None, _) => Next::End,
        }
    }

    /// Takes a frame that was found at `at`, behind one that is not there; whether it is of this use, and the walk goes on behind
    /// it.
    pub fn behind(&mut self, at: u64, frame: Frame) -> bool {
        let is_later = at > self.at && frame.stamp.number > self.number;
        if !is_later || self.generation != Some(frame.stamp.generation) {
            return false;
        }
        (self.at, self.number) = (at, frame.stamp.number);
        self.take(frame);
        true
    }

    fn take(&mut self, frame: Frame) {
        self.settled = self.settled.max(frame.stamp.settled);
        let (at, number) = (self.at, self.number);
        self.at += frame.len.next_multiple_of(FRAME_ALIGN_BYTES) as u64;
        self.number += 1;
        self.seen.push(Seen { at, number, frame: Some(frame) });
    }

    /// What counts of all that was found.
    pub fn end(self) -> Contents {
        let mut contents = Contents::default();
        for Seen { at, number, frame } in self.seen {
            let is_settled = number < self.settled;
            match frame {
                Some(frame) if is_settled || frame.is_whole() => contents.frames.push((at, frame)),
                None if is_settled => contents.lost = contents.lost.or(Some(at)),
                _ => break, // Torn.
            }
        }
        contents
    }
}
