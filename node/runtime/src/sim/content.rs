//! The bytes of one simulated file: what a running system reads, and what a power cut may leave.
//!
//! Each page keeps the versions it went through since it was last known to be on stable storage:
//! the first one is durable, the last is what is read. A flush moves the first one forward; a power
//! cut picks any, page by page or sector by sector. The file's size has versions just so.
//! Pure: chance arrives as an argument.

use super::rng::Rng;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Unit of memory and of ordering: pages reach the disk in any order.
pub const PAGE_BYTES: usize = 4096;
/// Unit that is never torn.
pub const SECTOR_BYTES: usize = 512;

/// Versions of one page kept between flushes. More than a log's tail page has in a group commit;
/// past it one in the middle is forgotten, never the durable one or the newest.
const VERSIONS_MAX: usize = 8;

type Page = Rc<[u8; PAGE_BYTES]>;
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

#[derive(Clone)]
struct Version<T> {
    /// The operation that wrote it.
    operation: u64,
    /// A flush of it failed: no later flush makes it durable, though it may have got there.
    lost: bool,
    value: T,
}

impl<T> Version<T> {
    fn new(operation: u64, value: T) -> Self {
        Self { operation, lost: false, value }
    }
}

/// Makes the newest sound version up to operation `until` the durable one.
fn settle<T>(versions: &mut Vec<Version<T>>, until: u64) {
    let newest = versions.iter().rposition(|version| version.operation <= until && !version.lost);
    versions.drain(..newest.unwrap_or(0));
}

/// A file's bytes. A clone shares the pages.
#[derive(Clone)]
pub struct Content {
    size: u64,
    /// Bytes the file takes on the disk: nothing is sparse, as far as the disk's limit goes.
    allocated: u64,
    pages: BTreeMap<u64, Page>, // A page that is not here is zeros.
    unsettled: BTreeMap<u64, Vec<Version<Option<Page>>>>,
    sizes: Vec<Version<u64>>, // Never empty; the last is `size`.
}

impl Content {
    /// An empty file.
    pub fn new() -> Self {
        let sizes = vec![Version::new(0, 0)];
        Self { size: 0, allocated: 0, pages: BTreeMap::new(), unsettled: BTreeMap::new(), sizes }
    }

    /// The size a running system sees.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes it takes on the disk.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// What `allocated` would be once the file reaches `end`.
    pub fn allocated_for(&self, end: u64) -> u64 {
        self.allocated.max(end.next_multiple_of(PAGE_BYTES as u64))
    }

    /// Hands `sink` up to `len` bytes from `offset` in pieces; returns how many there were.
    pub fn read(&self, offset: u64, len: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let end = self.size.min(offset.saturating_add(len as u64));
        let mut at = offset;
        while at < end {
            let (page, from) = split(at);
            let until = PAGE_BYTES.min(from + (end - at) as usize);
            let bytes = self.pages.get(&page).map_or(&ZEROS, |page| &**page);
            sink(&bytes[from..until]);
            at += (until - from) as u64;
        }
        end.saturating_sub(offset) as usize
    }

    /// Writes `bytes` at `offset`, as part of `operation`, growing the file where needed.
    pub fn write(&mut self, operation: u64, offset: u64, bytes: &[u8]) {
        let (mut at, mut left) = (offset, bytes);
        while !left.is_empty() {
            let (page, from) = split(at);
            let (now, later) = left.split_at(left.len().min(PAGE_BYTES - from));
            let old = self.pages.get(&page);
            let mut new = *old.map_or(&ZEROS, |page| &**page);
            new[from..from + now.len()].copy_from_slice(now);
            self.put(operation, page, Some(Rc::new(new)));
            (at, left) = (at + now.len() as u64, later);
        }
        self.allocated = self.allocated_for(at);
        if at > self.size {
            self.resized(operation, at);
        }
    }

    /// Reserves space up to `end`; the file grows to it, reading as zeros.
    pub fn allocate(&mut self, operation: u64, end: u64) {
        self.allocated = self.allocated_for(end);
        if end > self.size {
            self.resized(operation, end);
        }
    }

    /// Cuts or grows the file to `size`.
    pub fn set_size(&mut self, operation: u64, size: u64) {
        if size < self.size {
            let (page, from) = split(size);
            let gone: Vec<u64> = self.pages.range(page + 1..).map(|(page, _)| *page).collect();
            for page in gone {
                self.put(operation, page, None);
            }
            if let Some(edge) = self.pages.get(&page) {
                let mut new = **edge;
                new[from..].fill(0);
                self.put(operation, page, (from > 0).then(|| Rc::new(new)));
            }
            self.allocated = size.next_multiple_of(PAGE_BYTES as u64);
        }
        if size != self.size {
            self.resized(operation, size);
        }
    }

    /// Everything up to operation `until` is on stable storage now.
    pub fn flushed(&mut self, until: u64) {
        self.unsettled.retain(|_, versions| {
            settle(versions, until);
            versions.len() > 1
        });
        settle(&mut self.sizes, until);
    }

    /// What operation `until` and those before it wrote in this range is on stable storage now,
    /// and the size with it (a write of a file opened with O_DSYNC).
    pub fn flushed_range(&mut self, until: u64, offset: u64, len: u64) {
        let (first, last) = (split(offset).0, split(offset + len.max(1) - 1).0);
        let pages: Vec<u64> = self.unsettled.range(first..=last).map(|(page, _)| *page).collect();
        for page in pages {
            let versions = self.unsettled.get_mut(&page).expect("listed above");
            settle(versions, until);
            if versions.len() == 1 {
                self.unsettled.remove(&page);
            }
        }
        settle(&mut self.sizes, until);
    }

    /// A flush of everything up to operation `until` failed.
    pub fn flush_failed(&mut self, until: u64) {
        let pages = self.unsettled.values_mut().flat_map(|versions| versions.iter_mut().skip(1));
        pages.filter(|v| v.operation <= until).for_each(|version| version.lost = true);
        let sizes = self.sizes.iter_mut().skip(1);
        sizes.filter(|v| v.operation <= until).for_each(|version| version.lost = true);
    }

    /// The power was cut: picks what is left. All of it is durable then.
    pub fn power_loss(&mut self, rng: &mut Rng) {
        let newest = self.newest_operation();
        // All that is certain, all that was written, what some moment in between had, or a mix.
        let cut = match rng.below(6) {
            0 => Some(0),
            1 => Some(u64::MAX),
            2 => Some(rng.between(0, newest)),
            _ => None,
        };
        let tear_pages = rng.chance(0.5);
        self.settle_pages(|versions| match cut {
            Some(cut) => versions[as_of(versions, cut)].value.clone(),
            None if tear_pages && rng.chance(0.5) => Some(torn(versions, rng)),
            None => versions[rng.index(versions.len())].value.clone(),
        });
        let size = match cut {
            Some(cut) => as_of(&self.sizes, cut),
            None => rng.index(self.sizes.len()),
        };
        self.settle_size(size);
    }

    /// How many answers each question has that a power cut would decide: one for each page that is
    /// not settled, by number, and the last for the size. One answer: none.
    pub fn questions(&self) -> impl Iterator<Item = u32> {
        let pages = self.unsettled.values().map(Vec::len);
        pages.chain([self.sizes.len()]).map(|count| count as u32)
    }

    /// The power was cut, and left what the answers say: 0 for what was durable, and so on in the
    /// order of the writes. With `tear`, some of the pages are a mix of their versions, in sectors.
    pub fn power_loss_as(
        &mut self,
        answers: &mut impl Iterator<Item = u32>,
        tear: &mut Option<Rng>,
    ) {
        self.settle_pages(|versions| {
            let answer = answers.next().expect("one for each question") as usize;
            if let Some(rng) = tear
                && rng.chance(0.5)
            {
                return Some(torn(versions, rng));
            }
            versions[answer].value.clone()
        });
        let size = answers.next().expect("one for each question") as usize;
        self.settle_size(size);
    }

    fn settle_pages(&mut self, mut left: impl FnMut(&[Version<Option<Page>>]) -> Option<Page>) {
        for (page, versions) in std::mem::take(&mut self.unsettled) {
            match left(&versions) {
                Some(bytes) => self.pages.insert(page, bytes),
                None => self.pages.remove(&page),
            };
        }
    }

    fn settle_size(&mut self, version: usize) {
        self.size = self.sizes[version].value;
        // Whatever lies behind the end of the file is not its any more.
        let (edge, from) = split(self.size);
        drop(self.pages.split_off(&(edge + u64::from(from > 0))));
        if let Some(bytes) = self.pages.get_mut(&edge) {
            Rc::make_mut(bytes)[from..].fill(0);
        }
        self.allocated = self.size.next_multiple_of(PAGE_BYTES as u64);
        self.sizes = vec![Version::new(0, self.size)];
    }

    fn newest_operation(&self) -> u64 {
        let pages = self.unsettled.values().flatten().map(|version| version.operation);
        pages.chain(self.sizes.iter().map(|version| version.operation)).max().unwrap_or(0)
    }

    fn put(&mut self, operation: u64, page: u64, bytes: Option<Page>) {
        let versions = self.unsettled.entry(page).or_insert_with(|| {
            vec![Version::new(0, self.pages.get(&page).cloned())] // Durable until now.
        });
        push(versions, operation, bytes.clone());
        match bytes {
            Some(bytes) => self.pages.insert(page, bytes),
            None => self.pages.remove(&page),
        };
    }

    fn resized(&mut self, operation: u64, size: u64) {
        push(&mut self.sizes, operation, size);
        self.size = size;
    }
}

fn split(offset: u64) -> (u64, usize) {
    (offset / PAGE_BYTES as u64, (offset % PAGE_BYTES as u64) as usize)
}

fn push<T>(versions: &mut Vec<Version<T>>, operation: u64, value: T) {
    match versions.last_mut() {
        Some(last) if last.operation == operation => last.value = value,
        _ => versions.push(Version::new(operation, value)),
    }
    if versions.len() > VERSIONS_MAX {
        versions.remove(VERSIONS_MAX / 2);
    }
}

fn as_of<T>(versions: &[Version<T>], operation: u64) -> usize {
    versions.iter().rposition(|version| version.operation <= operation).unwrap_or(0)
}

fn torn(versions: &[Version<Option<Page>>], rng: &mut Rng) -> Page {
    let mut bytes = ZEROS;
    for (index, sector) in bytes.chunks_exact_mut(SECTOR_BYTES).enumerate() {
        if let Some(page) = &versions[rng.index(versions.len())].value {
            sector.copy_from_slice(&page[index * SECTOR_BYTES..][..SECTOR_BYTES]);
        }
    }
    Rc::new(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(content: &Content) -> Vec<u8> {
        let mut all = Vec::new();
        let count = content.read(0, usize::MAX, |piece| all.extend_from_slice(piece));
        assert_eq!(count, all.len());
        all
    }

    /// What 200 power cuts leave of a file that `write` made.
    fn cuts(write: impl Fn(&mut Content)) -> Vec<Vec<u8>> {
        let cut = |seed| {
            let mut content = Content::new();
            write(&mut content);
            content.power_loss(&mut Rng::new(seed));
            bytes(&content)
        };
        (0..200).map(cut).collect()
    }

    #[test]
    fn reads_back_across_pages_and_holes() {
        let mut content = Content::new();
        content.write(1, 4_090, &[7; 20]);
        assert_eq!(content.size(), 4_110);
        let all = bytes(&content);
        assert!(all[..4_090].iter().all(|byte| *byte == 0));
        assert!(all[4_090..].iter().all(|byte| *byte == 7));
        content.set_size(2, 4_092);
        content.set_size(3, 4_200);
        assert_eq!(bytes(&content)[4_088..4_096], [0, 0, 7, 7, 0, 0, 0, 0]);
        assert_eq!(content.read(5_000, 10, |_| panic!("nothing is there")), 0);
    }

    #[test]
    fn unflushed_bytes_may_be_lost_torn_or_reordered() {
        let left = cuts(|content| {
            content.write(1, 0, &[1; 3 * PAGE_BYTES]);
            content.flushed(1);
            content.write(2, 0, &[2; 3 * PAGE_BYTES]);
        });
        let pages =
            |bytes: &[u8]| -> Vec<u8> { bytes.iter().step_by(PAGE_BYTES).copied().collect() };
        assert!(left.iter().any(|bytes| bytes.iter().all(|byte| *byte == 1)), "lost");
        assert!(left.iter().any(|bytes| bytes.iter().all(|byte| *byte == 2)), "kept");
        assert!(left.iter().any(|bytes| pages(bytes) == [1, 1, 2]), "the later page first");
        let torn = |page: &[u8]| page.contains(&1) && page.contains(&2);
        assert!(left.iter().any(|bytes| bytes.chunks(PAGE_BYTES).any(torn)), "torn");
        for bytes in &left {
            let mut sectors = bytes.chunks(SECTOR_BYTES);
            assert!(sectors.all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        }
    }

    #[test]
    fn what_was_flushed_stays() {
        let left = cuts(|content| {
            content.write(1, 0, b"first");
            content.flushed(1);
            content.write(2, 100_000, b"second");
        });
        assert!(left.iter().all(|bytes| bytes.starts_with(b"first")));
        assert!(left.iter().any(|bytes| bytes.len() == 5), "the size went back");
        assert!(left.iter().any(|bytes| bytes.ends_with(b"second")));
        // The size arrived and the bytes did not.
        assert!(left.iter().any(|bytes| bytes.ends_with(&[0; 6])));
    }

    #[test]
    fn a_flush_covers_what_was_written_before_it_began() {
        let left = cuts(|content| {
            content.write(1, 0, &[1; 512]);
            content.write(2, 0, &[2; 512]); // Completes while the flush of 1 is under way.
            content.flushed(1);
        });
        assert!(left.iter().all(|bytes| bytes[0] != 0), "either version, never none");
        assert!(left.iter().any(|bytes| bytes[0] == 1));
        assert!(left.iter().any(|bytes| bytes[0] == 2));
    }

    #[test]
    fn a_failed_flush_is_not_healed_by_the_next_one() {
        let left = cuts(|content| {
            content.write(1, 0, &[1; 512]);
            content.flush_failed(1);
            content.flushed(1);
        });
        assert!(left.iter().any(Vec::is_empty), "fsyncgate");
    }

    #[test]
    fn writing_through_makes_its_own_range_durable() {
        let left = cuts(|content| {
            content.write(1, 2 * PAGE_BYTES as u64, &[1; PAGE_BYTES]);
            content.write(2, 0, &[2; PAGE_BYTES]);
            content.flushed_range(2, 0, PAGE_BYTES as u64);
        });
        assert!(left.iter().all(|bytes| bytes[0] == 2 && bytes.len() == 3 * PAGE_BYTES));
        assert!(left.iter().any(|bytes| bytes[2 * PAGE_BYTES] == 0));
    }

    #[test]
    fn allocated_zeros_and_cuts_may_go_back() {
        let left = cuts(|content| content.allocate(1, 8_192));
        assert!(left.iter().any(Vec::is_empty));
        assert!(left.iter().any(|bytes| *bytes == [0; 8_192]));
        let left = cuts(|content| {
            content.write(1, 0, &[1; 8_192]);
            content.flushed(1);
            content.set_size(2, 100);
        });
        assert!(left.iter().any(|bytes| *bytes == [1; 8_192]));
        assert!(left.iter().any(|bytes| *bytes == [1; 100]));
    }
}
