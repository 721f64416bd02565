//! Files of the simulated machine: the disk's rules, with latency and faults.
//!
//! An operation waits, happens, and waits again before it is answered: a crash in the first wait
//! finds a write under way, a crash in the second one that was done and never acknowledged. Every
//! operation is carried to its end, whatever becomes of the future that asked for it.

use super::disk::{Inode, error};
use super::executor::{carry, sleep_nanos};
use super::faults::DiskOperation;
use super::rng::Rng;
use super::trace::Kind;
use super::world::{Machine, State, Writing, here, is_alive, with};
use crate::{Buffer, OpenOptions, PAGE_BYTES};
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// An open file.
#[derive(Clone)]
pub struct File(Rc<Open>);

struct Open {
    machine: usize,
    incarnation: u64,
    inode: Inode,
    path: String,
    options: OpenOptions,
}

impl Drop for Open {
    fn drop(&mut self) {
        if is_alive(self.machine, self.incarnation) {
            with(|state| state.machines[self.machine].disk.close(self.inode));
        }
    }
}

impl File {
    /// As `crate::File::open`.
    pub async fn open(path: &Path, options: OpenOptions) -> io::Result<Self> {
        let path = path.to_path_buf();
        happen(move |state, machine| {
            let now = state.wall_clock(machine);
            if options.create || options.create_new {
                state.moment(machine);
            }
            let disk = &mut state.machines[machine].disk;
            let inode = disk.open(&path, options.create, options.create_new, now)?;
            state.event(machine, Kind::Open, [inode, 0, 0]);
            state.explain(machine, || format!("  {} is {inode}", path.display()));
            let incarnation = state.machines[machine].incarnation;
            let path = path.to_string_lossy().into_owned();
            Ok(Self(Rc::new(Open { machine, incarnation, inode, path, options })))
        })
        .await
    }

    /// As `crate::File::read_at`.
    pub async fn read_at(&self, mut buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        let open = Rc::clone(&self.0);
        let read = async move {
            let (before, after) = open.delays(false);
            sleep_nanos(before).await;
            let result = open.read(&mut buffer, offset);
            sleep_nanos(after).await;
            (result, buffer)
        };
        carry(read).await
    }

    /// As `crate::File::write_at`.
    pub async fn write_at(&self, parts: Vec<Bytes>, offset: u64) -> io::Result<()> {
        let open = Rc::clone(&self.0);
        carry(async move { open.write(parts, offset).await }).await
    }

    /// As `crate::File::datasync`. The same as `sync`: of the metadata, only what is needed to read
    /// the data again is simulated.
    pub async fn datasync(&self) -> io::Result<()> {
        let open = Rc::clone(&self.0);
        carry(async move { open.sync().await }).await
    }

    /// As `crate::File::sync`.
    pub async fn sync(&self) -> io::Result<()> {
        self.datasync().await
    }

    /// As `crate::File::allocate`.
    pub async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let open = Rc::clone(&self.0);
        self.resize(move |state| {
            let disk = &mut state.machines[open.machine].disk;
            if disk.room(open.inode, offset, len) < len {
                return Err(error(libc::ENOSPC));
            }
            let operation = disk.operation();
            disk.file(open.inode).content.allocate(operation, offset + len);
            Ok(())
        })
        .await
    }

    /// As `crate::File::set_len`.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        let open = Rc::clone(&self.0);
        self.resize(move |state| {
            let disk = &mut state.machines[open.machine].disk;
            let operation = disk.operation();
            disk.file(open.inode).content.set_size(operation, len);
            Ok(())
        })
        .await
    }

    async fn resize(
        &self,
        change: impl FnOnce(&mut State) -> io::Result<()> + 'static,
    ) -> io::Result<()> {
        let open = Rc::clone(&self.0);
        happen(move |state, machine| {
            if !open.options.write {
                return Err(error(libc::EBADF));
            }
            open.fault(state, DiskOperation::Write)?;
            state.moment(machine);
            change(state)?;
            let now = state.wall_clock(machine);
            let file = state.machines[machine].disk.file(open.inode);
            file.modified = now;
            let size = file.content.size();
            state.event(machine, Kind::Resize, [open.inode, size, 0]);
            Ok(())
        })
        .await
    }

    /// As `crate::File::len`.
    pub async fn len(&self) -> io::Result<u64> {
        let open = Rc::clone(&self.0);
        happen(move |state, machine| {
            Ok(state.machines[machine].disk.file(open.inode).content.size())
        })
        .await
    }

    /// As `crate::File::close`.
    pub async fn close(self) -> io::Result<()> {
        drop(self);
        crate::yield_now().await;
        Ok(())
    }
}

impl Open {
    fn delays(&self, flush: bool) -> (u64, u64) {
        with(|state| delays(state, self.machine, flush))
    }

    /// Whether an operation fails now: it was told to, or the file is broken, or by chance.
    fn fault(&self, state: &mut State, operation: DiskOperation) -> io::Result<()> {
        let State { rng, machines, .. } = state;
        let machine = &mut machines[self.machine];
        let planned = told_to_fail(machine, operation, &self.path);
        let file = machine.disk.file(self.inode);
        let faults = &machine.disk_faults;
        let (index, probability) = match operation {
            DiskOperation::Read => (0, faults.read_error),
            DiskOperation::Write => (1, faults.write_error),
            DiskOperation::Sync => (2, faults.sync_error),
        };
        let fails = planned || file.broken[index] || rng.chance(probability);
        if !fails {
            return Ok(());
        }
        file.broken[index] |= rng.chance(faults.sticky);
        Err(error(libc::EIO))
    }

    fn read(&self, buffer: &mut Buffer, offset: u64) -> io::Result<usize> {
        if self.options.direct && !offset.is_multiple_of(PAGE_BYTES as u64) {
            return Err(error(libc::EINVAL));
        }
        with(|state| {
            if let Err(e) = self.fault(state, DiskOperation::Read) {
                state.event(self.machine, Kind::Read, [self.inode, offset, u64::MAX]);
                return Err(e);
            }
            let content = &state.machines[self.machine].disk.file(self.inode).content;
            buffer.clear();
            let capacity = buffer.capacity();
            let count = content.read(offset, capacity, |piece| buffer.extend_from_slice(piece));
            state.event(self.machine, Kind::Read, [self.inode, offset, count as u64]);
            Ok(count)
        })
    }

    async fn write(&self, parts: Vec<Bytes>, offset: u64) -> io::Result<()> {
        self.may_write(&parts, offset)?;
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let (before, after) = self.delays(false);
        let key = with(|state| {
            state.moment(self.machine);
            let key = state.number();
            let writing = Writing { inode: self.inode, offset, parts: parts.clone() };
            state.machines[self.machine].writing.insert(key, writing);
            key
        });
        sleep_nanos(before).await;
        let first = with(|state| {
            let verdict = self.fault(state, DiskOperation::Write).and_then(|()| {
                let room = state.machines[self.machine].disk.room(self.inode, offset, len);
                if room < len { Err(error(libc::ENOSPC)) } else { Ok(()) }
            });
            match verdict {
                // Seldom in two steps: who reads in between sees it.
                Ok(()) if len > 0 && state.rng.chance(0.1) => Ok(state.rng.below(len)),
                Ok(()) => Ok(len),
                Err(e) => {
                    let room = state.machines[self.machine].disk.room(self.inode, offset, len);
                    let arrived = [0, room, state.rng.between(0, room)][state.rng.index(3)];
                    let numbers = [self.inode, offset, arrived];
                    self.apply(state, &parts, offset, (0, arrived));
                    state.event(self.machine, Kind::WriteFails, numbers);
                    state.machines[self.machine].writing.remove(&key);
                    Err(e)
                }
            }
        });
        let first = match first {
            Ok(first) => first,
            Err(e) => {
                sleep_nanos(after).await;
                return Err(e);
            }
        };
        if first < len {
            with(|state| self.apply(state, &parts, offset, (0, first)));
            sleep_nanos(after).await;
        }
        let operation = with(|state| {
            let operation = self.apply(state, &parts, offset, (first % len.max(1), len));
            state.machines[self.machine].writing.remove(&key);
            state.event(self.machine, Kind::Write, [self.inode, offset, len]);
            operation
        });
        sleep_nanos(after).await;
        if self.options.dsync {
            with(|state| {
                state.moment(self.machine);
                let content = &mut state.machines[self.machine].disk.file(self.inode).content;
                content.flushed_range(operation, offset, len);
            });
        }
        Ok(())
    }

    fn may_write(&self, parts: &[Bytes], offset: u64) -> io::Result<()> {
        if !self.options.write {
            return Err(error(libc::EBADF));
        }
        let aligned = |part: &Bytes| {
            part.len().is_multiple_of(PAGE_BYTES) && (part.as_ptr() as usize).is_multiple_of(512)
        };
        let offset_aligned = offset.is_multiple_of(PAGE_BYTES as u64);
        if self.options.direct && !(offset_aligned && parts.iter().all(aligned)) {
            return Err(error(libc::EINVAL));
        }
        Ok(())
    }

    fn apply(&self, state: &mut State, parts: &[Bytes], offset: u64, range: (u64, u64)) -> u64 {
        state.moment(self.machine);
        let now = state.wall_clock(self.machine);
        let machine = &mut state.machines[self.machine];
        let operation = machine.disk.operation();
        let file = machine.disk.file(self.inode);
        file.modified = now;
        write_range(parts, offset, range, |at, piece| file.content.write(operation, at, piece));
        operation
    }

    async fn sync(&self) -> io::Result<()> {
        let until = with(|state| state.machines[self.machine].disk.last_operation());
        let (before, after) = self.delays(true);
        sleep_nanos(before).await;
        let result = with(|state| {
            let verdict = self.fault(state, DiskOperation::Sync);
            let lie = state.machines[self.machine].disk_faults.sync_lie;
            if state.rng.chance(lie) {
                return verdict;
            }
            state.moment(self.machine);
            let content = &mut state.machines[self.machine].disk.file(self.inode).content;
            let kind = if verdict.is_ok() {
                content.flushed(until);
                Kind::Sync
            } else {
                content.flush_failed(until);
                Kind::SyncFails
            };
            state.event(self.machine, kind, [self.inode, until, 0]);
            verdict
        });
        sleep_nanos(after).await;
        result
    }
}

/// Hands `write` what of `parts` lies in `from..to`, counted from the beginning of the first one.
pub fn write_range(
    parts: &[Bytes],
    offset: u64,
    (from, to): (u64, u64),
    mut write: impl FnMut(u64, &[u8]),
) {
    let mut at = 0;
    for part in parts {
        let end = at + part.len() as u64;
        let (low, high) = (from.max(at), to.min(end));
        if low < high {
            write(offset + low, &part[(low - at) as usize..(high - at) as usize]);
        }
        at = end;
    }
}

/// The machine crashed: any sectors of the writes under way may have reached its disk.
pub fn cut_writes(state: &mut State, machine: usize) {
    let now = state.wall_clock(machine);
    for (_, writing) in std::mem::take(&mut state.machines[machine].writing) {
        let Writing { inode, offset, parts } = writing;
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let disk = &mut state.machines[machine].disk;
        let len = disk.room(inode, offset, len).min(len);
        let operation = disk.operation();
        let ranges = cut(len, &mut state.rng);
        let file = disk.file(inode);
        file.modified = now;
        let mut arrived = 0;
        for range in ranges {
            arrived += range.1 - range.0;
            write_range(&parts, offset, range, |at, piece| {
                file.content.write(operation, at, piece);
            });
        }
        state.event(machine, Kind::WriteCut, [inode, offset, arrived]);
    }
}

/// What of a write of `len` bytes arrived: nothing, all, the beginning, or any sectors.
fn cut(len: u64, rng: &mut Rng) -> Vec<(u64, u64)> {
    const SECTOR: u64 = super::content::SECTOR_BYTES as u64;
    let sectors = len.div_ceil(SECTOR);
    let sector = |index: u64| (index * SECTOR, len.min((index + 1) * SECTOR));
    match rng.below(4) {
        0 => Vec::new(),
        1 => vec![(0, len)],
        2 => vec![(0, rng.between(0, sectors) * SECTOR)],
        _ => (0..sectors).filter(|_| rng.chance(0.5)).map(sector).collect(),
    }
}

fn told_to_fail(machine: &mut Machine, operation: DiskOperation, path: &str) -> bool {
    let matches = |plan: &super::world::Planned| {
        plan.times > 0 && plan.operation == operation && path.contains(&plan.path)
    };
    let plan = machine.planned.iter_mut().find(|plan| matches(plan));
    plan.is_some_and(|plan| {
        plan.times -= 1;
        true
    })
}

/// How long an operation takes until it happens, and from then on.
fn delays(state: &mut State, machine: usize, flush: bool) -> (u64, u64) {
    let faults = &state.machines[machine].disk_faults;
    let healthy = if flush { faults.sync_latency } else { faults.latency };
    let (slow, slow_max, stuck) = (faults.slow, faults.slow_max, faults.stuck);
    let stuck_for = faults.stuck_for.as_nanos() as u64;
    let nanos = if state.rng.chance(stuck) {
        stuck_for
    } else if state.rng.chance(slow) {
        state.rng.between(0, slow_max.as_nanos() as u64)
    } else {
        state.duration(healthy)
    };
    let before = state.rng.between(0, nanos);
    (before, nanos - before)
}

/// An operation that happens in one step, some time from now, and is answered some time later.
async fn happen<T: 'static>(
    operation: impl FnOnce(&mut State, usize) -> io::Result<T> + 'static,
) -> io::Result<T> {
    let machine = here().machine;
    let step = async move {
        let (before, after) = with(|state| delays(state, machine, false));
        sleep_nanos(before).await;
        let result = with(|state| operation(state, machine));
        sleep_nanos(after).await;
        result
    };
    carry(step).await
}

/// Names on the simulated machine's disk.
pub mod fs {
    use super::{
        DiskOperation, Kind, Path, carry, delays, error, happen, here, io, sleep_nanos,
        told_to_fail, with,
    };
    use crate::{DirEntry, Space};
    use flowstone_types::Timestamp;
    use std::path::PathBuf;

    /// Of a disk without a limit: 1 TiB.
    const UNLIMITED_BYTES: u64 = 1 << 40;

    /// As `crate::fs::create_dir_all`.
    pub async fn create_dir_all(path: &Path) -> io::Result<()> {
        let mut so_far = PathBuf::new();
        for component in path.components() {
            so_far.push(component);
            let path = so_far.clone();
            if path.file_name().is_none() {
                continue;
            }
            happen(move |state, machine| {
                state.moment(machine);
                let disk = &mut state.machines[machine].disk;
                match disk.look(&path)? {
                    Some(true) => return Ok(()),
                    Some(false) => return Err(error(libc::ENOTDIR)),
                    None => disk.create_directory(&path)?,
                }
                state.event(machine, Kind::Name, [0; 3]);
                state.explain(machine, || format!("  made {}", path.display()));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// As `crate::fs::rename`.
    pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        happen(move |state, machine| {
            state.moment(machine);
            state.machines[machine].disk.rename(&from, &to)?;
            state.event(machine, Kind::Name, [1, 0, 0]);
            state.explain(machine, || format!("  {} -> {}", from.display(), to.display()));
            Ok(())
        })
        .await
    }

    /// As `crate::fs::remove_file`.
    pub async fn remove_file(path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        happen(move |state, machine| {
            state.moment(machine);
            state.machines[machine].disk.remove_file(&path)?;
            state.event(machine, Kind::Name, [2, 0, 0]);
            state.explain(machine, || format!("  removed {}", path.display()));
            Ok(())
        })
        .await
    }

    /// As `crate::fs::remove_dir_all`.
    pub async fn remove_dir_all(path: &Path) -> io::Result<()> {
        for entry in read_dir(path).await? {
            let inside = path.join(&entry.name);
            if entry.is_dir {
                Box::pin(remove_dir_all(&inside)).await?;
            } else {
                remove_file(&inside).await?;
            }
        }
        let path = path.to_path_buf();
        happen(move |state, machine| {
            state.moment(machine);
            state.machines[machine].disk.remove_directory(&path)?;
            state.event(machine, Kind::Name, [3, 0, 0]);
            state.explain(machine, || format!("  removed {}", path.display()));
            Ok(())
        })
        .await
    }

    /// As `crate::fs::sync_dir`.
    pub async fn sync_dir(path: &Path) -> io::Result<()> {
        let machine = here().machine;
        let path = path.to_path_buf();
        let sync = async move {
            let ((before, after), inode, until) = with(|state| {
                let delays = delays(state, machine, true);
                let disk = &state.machines[machine].disk;
                Ok::<_, io::Error>((delays, disk.directory(&path)?, disk.last_operation()))
            })?;
            sleep_nanos(before).await;
            let result = with(|state| {
                let home = &mut state.machines[machine];
                let planned = told_to_fail(home, DiskOperation::Sync, &path.to_string_lossy());
                let probability = home.disk_faults.sync_error;
                if planned || state.rng.chance(probability) {
                    state.event(machine, Kind::SyncFails, [inode, until, 0]);
                    return Err(error(libc::EIO));
                }
                state.moment(machine);
                state.machines[machine].disk.flushed_directory(inode, until);
                state.event(machine, Kind::SyncDir, [inode, until, 0]);
                Ok(())
            });
            sleep_nanos(after).await;
            result
        };
        carry(sync).await
    }

    /// As `crate::fs::exists`.
    pub async fn exists(path: &Path) -> io::Result<bool> {
        let path = path.to_path_buf();
        happen(move |state, machine| Ok(state.machines[machine].disk.look(&path)?.is_some())).await
    }

    /// As `crate::fs::read_dir`.
    pub async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_path_buf();
        happen(move |state, machine| {
            let now = state.wall_clock(machine);
            let entries = state.machines[machine].disk.list(&path)?.into_iter();
            let entry = |entry: crate::sim::disk::Entry| {
                let (len, modified): (u64, Timestamp) = entry.file.unwrap_or((0, now));
                DirEntry { name: entry.name, is_dir: entry.file.is_none(), len, modified }
            };
            Ok(entries.map(entry).collect())
        })
        .await
    }

    /// As `crate::fs::space`.
    pub async fn space(path: &Path) -> io::Result<Space> {
        let path = path.to_path_buf();
        happen(move |state, machine| {
            let disk = &state.machines[machine].disk;
            if disk.look(&path)?.is_none() {
                return Err(error(libc::ENOENT));
            }
            let total = disk.capacity().unwrap_or(UNLIMITED_BYTES);
            let usable = total.saturating_sub(disk.used());
            Ok(Space { total, usable, kind: "ext4", direct: true })
        })
        .await
    }
}
