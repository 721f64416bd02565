//! What the connections do: produce, touch every partition once, fetch.

use std::collections::VecDeque;

use anyhow::{Result, bail};
use bytes::Bytes;

use crate::drive::{Counted, Work};
use crate::requests::{
    BatchShape, FetchShape, Position, TopicId, batch, batches, fetch, fetched, produce, produced,
};

/// A partition that is written to or read from.
#[derive(Clone, Debug)]
pub struct Target {
    pub topic: String,
    pub id: TopicId,
    pub partition: i32,
}

impl Target {
    /// What the values of its records begin with.
    pub fn stamp(&self) -> String {
        format!("{}-{} ", self.topic, self.partition)
    }
}

/// One frame for each partition, built before the run.
pub struct Frames {
    prebuilt: Vec<Bytes>,
    records: u64,
    batch_bytes: u64,
}

impl Frames {
    pub fn new(targets: &[Target], shape: BatchShape, acks: i16, now_ms: i64) -> Self {
        let mut batch_bytes = 0;
        let frame = |(at, target): (usize, &Target)| {
            let batch = batch(shape, &target.stamp(), now_ms);
            batch_bytes = batch.len() as u64;
            produce(at as i32, acks, target.id, target.partition, &batch)
        };
        let prebuilt = targets.iter().enumerate().map(frame).collect();
        Self { prebuilt, records: shape.records as u64, batch_bytes }
    }

    fn acknowledged(&self, expected: usize, reply: &[u8]) -> Result<Counted> {
        let (correlation, error) = produced(reply)?;
        if correlation != expected as i32 {
            bail!("reply {correlation} where {expected} was due: out of order");
        }
        Ok(Counted { records: self.records, bytes: self.batch_bytes, error })
    }
}

/// Each connection goes round the partitions that are its own.
pub struct Produce {
    frames: Frames,
    lanes: Vec<Cycle>,
}

/// A connection's place in its partitions: `first`, `first + step`, and so on.
struct Cycle {
    first: usize,
    step: usize,
    next: usize,
    /// Those that are on their way.
    sent: VecDeque<usize>,
}

impl Produce {
    /// Every connection writes to all partitions, or, where they `stick`, each to its own share of them.
    pub fn new(frames: Frames, connections: usize, stick: bool) -> Self {
        let count = frames.prebuilt.len();
        let lane = |lane: usize| {
            let first = lane % count;
            let step = if stick { connections.min(count) } else { 1 };
            Cycle { first: if stick { first } else { 0 }, step, next: first, sent: VecDeque::new() }
        };
        let lanes = (0..connections).map(lane).collect();
        Self { frames, lanes }
    }
}

impl Work for Produce {
    fn next(&mut self, lane: usize) -> Option<Bytes> {
        let lane = &mut self.lanes[lane];
        let at = lane.next;
        lane.next = at + lane.step;
        if lane.next >= self.frames.prebuilt.len() {
            lane.next = lane.first;
        }
        lane.sent.push_back(at);
        Some(self.frames.prebuilt[at].clone())
    }

    fn reply(&mut self, lane: usize, reply: &[u8]) -> Result<Counted> {
        let expected = self.lanes[lane].sent.pop_front().expect("the drive counts them too");
        self.frames.acknowledged(expected, reply)
    }
}

/// One batch to every partition; what is refused for now is sent again.
pub struct Touch {
    frames: Frames,
    left: Vec<usize>,
    sent: Vec<VecDeque<usize>>,
    pub acknowledged: usize,
}

/// Errors that end by themselves: unknown topic, no leader, not the leader, timed out, storage, unknown topic id.
const RETRIED: [i16; 7] = [3, 5, 6, 7, 9, 56, 100];

impl Touch {
    pub fn new(frames: Frames, connections: usize) -> Self {
        let left = (0..frames.prebuilt.len()).rev().collect();
        Self { frames, left, sent: vec![VecDeque::new(); connections], acknowledged: 0 }
    }
}

impl Work for Touch {
    fn next(&mut self, lane: usize) -> Option<Bytes> {
        let at = self.left.pop()?;
        self.sent[lane].push_back(at);
        Some(self.frames.prebuilt[at].clone())
    }

    fn reply(&mut self, lane: usize, reply: &[u8]) -> Result<Counted> {
        let at = self.sent[lane].pop_front().expect("the drive counts them too");
        let counted = self.frames.acknowledged(at, reply)?;
        match counted.error {
            0 => self.acknowledged += 1,
            error if RETRIED.contains(&error) => self.left.insert(0, at),
            error => bail!("a partition refused its batch: error code {error}"),
        }
        Ok(counted)
    }

    fn is_done(&self) -> bool {
        self.acknowledged == self.frames.prebuilt.len()
    }
}

/// Each connection reads partitions from their start on.
pub struct Fetch {
    lanes: Vec<Reading>,
    shape: FetchShape,
    id: TopicId,
    topic: String,
    mode: FetchMode,
}

/// What a connection reads and where it stands.
struct Reading {
    positions: Vec<Position>,
    /// High watermarks that were told, where known.
    ends: Vec<Option<i64>>,
}

/// How a fetch goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchMode {
    /// From the start to the end, and again.
    Again,
    /// From the start on, and at the end what comes in.
    Tail,
    /// To the end once.
    Once,
    /// To the end once, with every batch's checksum, offsets and stamps looked at.
    Verify,
}

impl Fetch {
    /// In `Tail` every connection reads all partitions, as one consumer each; else they share them.
    pub fn new(targets: &[Target], connections: usize, shape: FetchShape, mode: FetchMode) -> Self {
        let lane = |lane: usize| {
            let (skip, step) = if mode == FetchMode::Tail { (0, 1) } else { (lane, connections) };
            let positions: Vec<_> = targets
                .iter()
                .skip(skip)
                .step_by(step)
                .map(|target| Position { partition: target.partition, offset: 0 })
                .collect();
            Reading { ends: vec![None; positions.len()], positions }
        };
        let lanes = (0..connections).map(lane).collect();
        let (id, topic) = (targets[0].id, targets[0].topic.clone());
        Self { lanes, shape, id, topic, mode }
    }
}

impl Work for Fetch {
    fn next(&mut self, lane: usize) -> Option<Bytes> {
        let reading = &mut self.lanes[lane];
        let is_at_end =
            |(at, end): (&Position, &Option<i64>)| end.is_some_and(|end| at.offset >= end);
        if self.mode != FetchMode::Tail
            && reading.positions.iter().zip(&reading.ends).all(is_at_end)
        {
            if self.mode != FetchMode::Again {
                return None;
            }
            reading.positions.iter_mut().for_each(|position| position.offset = 0);
        }
        // A partition at its end is left out, so that the reply does not wait for it; a tail waits for all.
        let asked: Vec<Position> = reading
            .positions
            .iter()
            .zip(&reading.ends)
            .filter(|pair| self.mode == FetchMode::Tail || !is_at_end((pair.0, pair.1)))
            .map(|pair| *pair.0)
            .collect();
        (!asked.is_empty()).then(|| fetch(lane as i32, self.id, &asked, self.shape))
    }

    fn reply(&mut self, lane: usize, reply: &[u8]) -> Result<Counted> {
        let reading = &mut self.lanes[lane];
        let mut counted = Counted::default();
        let (mode, topic) = (self.mode, &self.topic);
        fetched(reply, |part| {
            let Some(at) = reading.positions.iter().position(|it| it.partition == part.partition)
            else {
                bail!("partition {} was not asked for", part.partition);
            };
            let position = &mut reading.positions[at];
            if part.error != 0 {
                counted.error = part.error;
                return Ok(());
            }
            reading.ends[at] = Some(part.high_watermark);
            for batch in batches(part.records) {
                // The first batch may begin below what was asked for, and may have been read before.
                if batch.next_offset() <= position.offset {
                    continue;
                }
                if mode == FetchMode::Verify {
                    let stamp = format!("{topic}-{} ", part.partition);
                    if batch.base_offset != position.offset || !batch.is_sound(&stamp)? {
                        bail!("{stamp}: a wrong batch at offset {}", position.offset);
                    }
                }
                position.offset = batch.next_offset();
                counted.records += batch.records as u64;
                counted.bytes += batch.bytes.len() as u64;
            }
            Ok(())
        })?;
        Ok(counted)
    }

    fn is_done(&self) -> bool {
        let at_end = |reading: &Reading| {
            let mut pairs = reading.positions.iter().zip(&reading.ends);
            pairs.all(|(at, end)| end.is_some_and(|end| at.offset >= end))
        };
        matches!(self.mode, FetchMode::Once | FetchMode::Verify) && self.lanes.iter().all(at_end)
    }
}
