//! Crash points: every moment of a recorded life of the store is a power cut, in every way it may end.
//!
//! A story (`story.rs`) is played once while every change of the disk is recorded: writes, synchronous
//! writes, flushes, names, sizes. Then, for each moment between two changes, disks are built as a
//! power cut there may leave them, the store recovers from each (`judge.rs`), and what it finds must be
//! everything acknowledged and perhaps a tail of what was sent; a second recovery must change nothing,
//! and a crash in the midst of the first must cost nothing. A broker's life (`daemon.rs`) goes the same
//! way, with its metadata log and its groups.
//!
//! What a disk may do is assumed here, and nowhere else:
//!
//! 1. What a flush that said yes covers is there: fdatasync of a file the bytes written before it
//!    began, their blocks' state and the file's size; fsync of a directory its names; a write with
//!    O_DSYNC its own bytes and the size. (FUA or a cache flush that the drive obeys. A drive that
//!    lies loses data under every broker: the storage scenario on a lying disk shows that we see it.)
//! 2. Everything else is in any state: each page of 4 KiB holds any version since the one that was
//!    flushed, whatever its neighbours hold, and a write under way any part of what it brings. So any
//!    subset of the writes between two flushes, in any order. A torn page is a mix of its versions by
//!    sectors of 512 bytes, which are never torn.
//! 3. A page that was never durably written reads as zeros, not as another file's old bytes: ext4 and
//!    XFS mark what fallocate and direct writes take as unwritten until the data is there (on ext4 also
//!    with data=writeback, which we do not need). What our own files leave in their own blocks is
//!    modelled: journal files are written anew over their old frames.
//! 4. A file's size is any of those since the last flush of it, independently of its bytes: so a
//!    truncation may go back, and a size arrive before its data (zeros). Truncation zeroes the rest of
//!    its last page before a larger size is seen again.
//! 5. Each creation, renaming and removal of a name is durable or not by itself, until its directory
//!    was flushed; a rename is one change. Journals of ext4 and XFS keep the order of all metadata and
//!    take everything along with any flush: that allows less than this, so what holds here holds there.
//! 6. A SIGKILL loses nothing that was written, but makes nothing durable either.
//!
//! The bound: where the open questions of a moment have no more than `ALL_UP_TO` answers together,
//! all are tried; else the two corners and some drawn by the seed, half of them with torn pages.

mod daemon;
mod judge;
mod story;

use std::cell::Cell;

use flowstone_runtime::sim::{Image, Moment, Rng};

use crate::seeds::Stats;

/// A moment with no more ways to end than that has all of them tried.
const ALL_UP_TO: u64 = 32;
/// Else so many are drawn, besides nothing and everything.
const DRAWN: u64 = 6;
/// One point in so many is also crashed in the midst of its recovery; and one in so many goes on
/// living after it.
const CRASHED_AGAIN_EVERY: u64 = 23;
const GOES_ON_EVERY: u64 = 11;
/// Moments of a recovery at which it is crashed.
const CRASHES_IN_RECOVERY: usize = 6;
/// Every how many seeds the story is a broker's.
const DAEMON_EVERY: u64 = 6;

/// What a recorded life can be asked for afterwards.
trait Recorded {
    /// Recovers from `image`, taken at a moment with this mark; panics where something is wrong.
    /// `goes_on`: whether it lives on for a while, and recovers once more. Returns the moments of the
    /// recovery, if they are to be recorded.
    fn recover(&self, image: &Image, mark: u64, way: Way) -> Vec<Moment>;
}

/// How a recovery is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Twice: the second one must change nothing.
    Twice,
    /// It then appends, is cut off, and recovers again.
    GoesOn,
    /// Once, recorded.
    Recorded,
}

/// The seeds of the worlds that go on from a disk. Each draws other numbers than those before it: a broker
/// that starts again never gives a topic the id that an earlier start gave another.
struct Seeds(Cell<u64>);

impl Seeds {
    fn after(seed: u64) -> Self {
        Self(Cell::new(Rng::new(seed).bits()))
    }

    fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(1));
        self.0.get()
    }
}

/// Plays the story of `seed` and tries up to `points` crash points in it, spread over all of it.
pub fn play(seed: u64, points: u64) -> Stats {
    let mut stats = Stats::default();
    if seed % DAEMON_EVERY == DAEMON_EVERY - 1 {
        let (life, moments) = daemon::Life::play(seed, &mut stats);
        try_points(&life, &moments, seed, points, &mut stats);
    } else {
        let (life, moments) = story::Story::play(seed, &mut stats);
        try_points(&life, &moments, seed, points, &mut stats);
    }
    stats
}

fn try_points(
    recorded: &impl Recorded,
    moments: &[Moment],
    seed: u64,
    points: u64,
    stats: &mut Stats,
) {
    let mut rng = Rng::new(seed ^ 0x5EED);
    // A budget that does not reach is spread evenly, and differently for each seed.
    let step = (moments.len() as u64 * (DRAWN + 4)).div_ceil(points.max(1)).max(1) as usize;
    let first = rng.index(step);
    let last = stats.points + points;
    for (number, moment) in moments.iter().enumerate().skip(first).step_by(step) {
        let image = moment.image();
        let cuts = endings(&image.questions(), &mut rng).into_iter().map(Some);
        // And a kill, which leaves all of it to the recovery to make durable.
        for ending in std::iter::once(None).chain(cuts) {
            if stats.points >= last {
                return;
            }
            stats.points += 1;
            let _said = Say(seed, number, ending.as_ref());
            let left = match &ending {
                Some((answers, tear)) => image.answered(answers, *tear),
                None => image.clone(),
            };
            if stats.points.is_multiple_of(CRASHED_AGAIN_EVERY) {
                let again = recorded.recover(&left, moment.mark, Way::Recorded);
                crash_recovery(recorded, &again, moment.mark, &mut rng, stats);
            } else {
                let goes_on = stats.points.is_multiple_of(GOES_ON_EVERY);
                let way = if goes_on { Way::GoesOn } else { Way::Twice };
                recorded.recover(&left, moment.mark, way);
            }
        }
    }
}

fn crash_recovery(
    recorded: &impl Recorded,
    moments: &[Moment],
    mark: u64,
    rng: &mut Rng,
    stats: &mut Stats,
) {
    for _ in 0..CRASHES_IN_RECOVERY.min(moments.len()) {
        let image = moments[rng.index(moments.len())].image();
        let questions = image.questions();
        let answers: Vec<u32> =
            questions.iter().map(|count| rng.below(u64::from(*count)) as u32).collect();
        let tear = rng.chance(0.5).then(|| rng.bits());
        stats.points += 1;
        recorded.recover(&image.answered(&answers, tear), mark, Way::Twice);
    }
}

/// What a power cut leaves: see [`Image::answered`].
type Ending = (Vec<u32>, Option<u64>);

/// The ways in which power cuts end a moment.
fn endings(questions: &[u32], rng: &mut Rng) -> Vec<Ending> {
    let ways = questions.iter().fold(1_u64, |all, count| all.saturating_mul(u64::from(*count)));
    let mut endings = Vec::new();
    if ways <= ALL_UP_TO {
        for mut number in 0..ways {
            let digit = |count: &u32| {
                let digit = number % u64::from(*count);
                number /= u64::from(*count);
                digit as u32
            };
            endings.push((questions.iter().map(digit).collect(), None));
        }
    } else {
        endings.push((vec![0; questions.len()], None));
        endings.push((questions.iter().map(|count| count - 1).collect(), None));
        for drawn in 0..DRAWN {
            // Mostly lost, mostly there, or anything.
            let (lost, there) = [(0.9, 0.0), (0.0, 0.9), (0.0, 0.0)][rng.index(3)];
            let mut answer = |count: &u32| match () {
                () if rng.chance(lost) => 0,
                () if rng.chance(there) => count - 1,
                () => rng.below(u64::from(*count)) as u32,
            };
            let answers = questions.iter().map(&mut answer).collect();
            endings.push((answers, (drawn % 2 == 0).then(|| rng.bits())));
        }
    }
    if ways > 1 {
        endings.push((vec![0; questions.len()], Some(rng.bits())));
    }
    endings
}

/// Says where a panic happened.
struct Say<'a>(u64, usize, Option<&'a Ending>);

impl Drop for Say<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self(seed, moment, ending) = self;
        let how = ending.map_or("killed".to_owned(), |(answers, tear)| {
            let lost = answers.iter().filter(|answer| **answer == 0).count();
            format!("{lost} of {} changes lost, tear {tear:?}", answers.len())
        });
        eprintln!("crash point: seed {seed}, moment {moment}: {how}");
    }
}
