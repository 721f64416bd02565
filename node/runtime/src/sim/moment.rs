//! Moments of a disk: what a machine's disk was between any two of its changes, kept for later.
//!
//! Separate because a harness needs them after the world is gone: it cuts the power at each of them,
//! as often as there are ways in which that may end. A moment is cheap: it shares the pages of the
//! disk that it was taken from. Pure: what is left is the caller's choice.

use super::disk::Disk;
use super::file::write_range;
use super::rng::Rng;
use super::world::Writing;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A disk between two of its changes.
pub struct Moment {
    /// The harness's mark ([`super::Control::mark`]) when the moment ended: all that was known up to
    /// the disk's next change.
    pub mark: u64,
    disk: Disk,
    writing: Vec<Writing>,
}

impl Moment {
    /// The moment that ends now.
    pub(super) fn of<'a>(
        disk: &Disk,
        writing: impl Iterator<Item = &'a Writing>,
        mark: u64,
    ) -> Self {
        Self { mark, disk: disk.clone(), writing: writing.cloned().collect() }
    }

    /// The disk when everything stops at this moment: processes are gone, and of the writes under way
    /// any part may arrive. Started from as it is, it is what a SIGKILL leaves, with all of them
    /// arrived and nothing more durable than before.
    pub fn image(&self) -> Image {
        let mut disk = self.disk.clone();
        for Writing { inode, offset, parts } in &self.writing {
            let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
            let len = disk.room(*inode, *offset, len).min(len);
            let operation = disk.operation();
            let content = &mut disk.file(*inode).content;
            write_range(parts, *offset, (0, len), |at, piece| content.write(operation, at, piece));
        }
        disk.killed();
        Image(disk)
    }
}

/// A disk without a machine.
#[derive(Clone)]
pub struct Image(pub(super) Disk);

impl Image {
    /// How many answers each question has that a power cut would decide: each change of names that is
    /// not durable (it happened, or not), each page (one answer for each version since the durable
    /// one), each file's size.
    pub fn questions(&self) -> Vec<u32> {
        self.0.questions()
    }

    /// What a power cut leaves that answers so: 0 for what was durable, then the versions in their
    /// order. `tear`: about half of the pages that could be are torn instead, into sectors of any
    /// version, by this seed.
    #[must_use]
    pub fn answered(&self, answers: &[u32], tear: Option<u64>) -> Self {
        let mut disk = self.0.clone();
        disk.power_loss_as(answers, tear.map(Rng::new));
        Self(disk)
    }

    /// All files and their bytes, as a running system would read them.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.0.files()
    }
}
