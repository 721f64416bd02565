//! One simulated machine's file system: names, files, and what a crash or a power cut leaves.
//!
//! Names have their own durability, as POSIX has it: a directory's entries are certain only after
//! that directory was flushed. Until then a creation, a rename or a removal may go back, each by
//! itself or the later ones together. A rename is all or nothing.
//! Pure: chance and time arrive as arguments. Errors are those of Linux.

use super::content::{Content, PAGE_BYTES};
use super::rng::Rng;
use flowstone_types::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

/// The identity of a file or directory; never used again.
pub type Inode = u64;

const ROOT: Inode = 1;

/// A regular file.
#[derive(Clone)]
pub struct FileNode {
    /// Its bytes.
    pub content: Content,
    /// When it was last written.
    pub modified: Timestamp,
    /// Kinds of operations that fail on it from now on (see `DiskFaults::sticky`).
    pub broken: [bool; 3],
    opens: u32,
    links: u32,
}

#[derive(Clone)]
enum Node {
    File(FileNode),
    Directory(BTreeMap<String, Inode>),
}

/// One change of names; all its edits happen, or none.
#[derive(Clone)]
struct NameChange {
    operation: u64,
    edits: Vec<Edit>,
}

/// From now on `name` of `directory` means `inode`.
#[derive(Clone)]
struct Edit {
    directory: Inode,
    name: String,
    inode: Option<Inode>,
}

/// An entry of a directory.
pub struct Entry {
    /// Its name.
    pub name: String,
    /// `None`: a directory.
    pub file: Option<(u64, Timestamp)>,
}

/// A file system. A clone shares the pages of its files.
#[derive(Clone)]
pub struct Disk {
    nodes: BTreeMap<Inode, Node>,
    /// Directories as they are on stable storage.
    durable: BTreeMap<Inode, BTreeMap<String, Inode>>,
    /// Changes of names that are not, in order.
    pending: Vec<NameChange>,
    next_inode: Inode,
    operations: u64,
    capacity: Option<u64>,
}

impl Disk {
    /// An empty one without a limit.
    pub fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Directory(BTreeMap::new()))]),
            durable: BTreeMap::from([(ROOT, BTreeMap::new())]),
            pending: Vec::new(),
            next_inode: ROOT + 1,
            operations: 0,
            capacity: None,
        }
    }

    /// Sets how many bytes fit (`None`: no limit). What is there already stays.
    pub fn set_capacity(&mut self, capacity: Option<u64>) {
        self.capacity = capacity;
    }

    /// The limit, where there is one.
    pub fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    /// Bytes that files take.
    pub fn used(&self) -> u64 {
        let files = self.nodes.values().filter_map(|node| match node {
            Node::File(file) if file.links > 0 || file.opens > 0 => Some(file.content.allocated()),
            Node::File(_) | Node::Directory(_) => None,
        });
        files.sum()
    }

    /// The number of the next operation; everything before it is what a flush that begins now
    /// covers.
    pub fn operation(&mut self) -> u64 {
        self.operations += 1;
        self.operations
    }

    /// The newest operation.
    pub fn last_operation(&self) -> u64 {
        self.operations
    }

    /// Files that are open.
    pub fn open_files(&self) -> usize {
        let open = |node: &&Node| matches!(node, Node::File(file) if file.opens > 0);
        self.nodes.values().filter(open).count()
    }

    // ---- Files, by inode.

    /// An open file.
    pub fn file(&mut self, inode: Inode) -> &mut FileNode {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => file,
            Some(Node::Directory(_)) | None => panic!("inode {inode} is no open file"),
        }
    }

    /// The file at `path`, opened; made first where `create` says so.
    pub fn open(
        &mut self,
        path: &Path,
        create: bool,
        create_new: bool,
        now: Timestamp,
    ) -> io::Result<Inode> {
        let (directory, name) = self.parent(path)?;
        let inode = match self.entries(directory).get(&name).copied() {
            Some(_) if create_new => return Err(error(libc::EEXIST)),
            Some(inode) => inode,
            None if create || create_new => {
                let (content, broken) = (Content::new(), [false; 3]);
                let file = FileNode { content, modified: now, broken, opens: 0, links: 0 };
                let inode = self.insert(Node::File(file));
                self.change(vec![Edit { directory, name, inode: Some(inode) }]);
                inode
            }
            None => return Err(error(libc::ENOENT)),
        };
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => file.opens += 1,
            Some(Node::Directory(_)) | None => return Err(error(libc::EISDIR)),
        }
        Ok(inode)
    }

    /// One handle fewer.
    pub fn close(&mut self, inode: Inode) {
        self.file(inode).opens -= 1;
    }

    /// How many of `len` bytes at `offset` find room.
    pub fn room(&mut self, inode: Inode, offset: u64, len: u64) -> u64 {
        let Some(capacity) = self.capacity else { return len };
        let used = self.used();
        let content = &self.file(inode).content;
        let free = capacity.saturating_sub(used);
        if content.allocated_for(offset + len) - content.allocated() <= free {
            return len;
        }
        let page = PAGE_BYTES as u64;
        (content.allocated() + free / page * page).saturating_sub(offset)
    }

    // ---- Names.

    /// Makes a directory.
    pub fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        if self.entries(directory).contains_key(&name) {
            return Err(error(libc::EEXIST));
        }
        let inode = self.insert(Node::Directory(BTreeMap::new()));
        self.change(vec![Edit { directory, name, inode: Some(inode) }]);
        Ok(())
    }

    /// Whether there is something at `path`, and whether it is a directory.
    pub fn look(&self, path: &Path) -> io::Result<Option<bool>> {
        match self.resolve(path) {
            Ok(inode) => Ok(Some(matches!(self.nodes[&inode], Node::Directory(_)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Gives what is at `from` the name `to`, in place of what had it.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (old_directory, old_name) = self.parent(from)?;
        let (directory, name) = self.parent(to)?;
        let inode = self.entries(old_directory).get(&old_name).copied();
        let inode = inode.ok_or_else(|| error(libc::ENOENT))?;
        let replaced = self.entries(directory).get(&name).copied();
        if replaced == Some(inode) {
            return Ok(());
        }
        let moves_directory = matches!(self.nodes[&inode], Node::Directory(_));
        match replaced.map(|inode| &self.nodes[&inode]) {
            Some(Node::File(_)) if moves_directory => return Err(error(libc::ENOTDIR)),
            Some(Node::Directory(_)) if !moves_directory => return Err(error(libc::EISDIR)),
            Some(Node::Directory(entries)) if !entries.is_empty() => {
                return Err(error(libc::ENOTEMPTY));
            }
            Some(Node::File(_) | Node::Directory(_)) | None => {}
        }
        self.change(vec![
            Edit { directory: old_directory, name: old_name, inode: None },
            Edit { directory, name, inode: Some(inode) },
        ]);
        Ok(())
    }

    /// Removes a file's name; the file lives as long as it is open.
    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.remove(path, false)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        self.remove(path, true)
    }

    fn remove(&mut self, path: &Path, directory_wanted: bool) -> io::Result<()> {
        let inode = self.resolve(path)?;
        match &self.nodes[&inode] {
            Node::File(_) if directory_wanted => return Err(error(libc::ENOTDIR)),
            Node::Directory(_) if !directory_wanted => return Err(error(libc::EISDIR)),
            Node::Directory(entries) if !entries.is_empty() => return Err(error(libc::ENOTEMPTY)),
            Node::File(_) | Node::Directory(_) => {}
        }
        let (directory, name) = self.parent(path)?;
        self.change(vec![Edit { directory, name, inode: None }]);
        Ok(())
    }

    /// What a directory holds, by name.
    pub fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let Node::Directory(entries) = &self.nodes[&self.resolve(path)?] else {
            return Err(error(libc::ENOTDIR));
        };
        let entry = |(name, inode): (&String, &Inode)| Entry {
            name: name.clone(),
            file: match &self.nodes[inode] {
                Node::File(file) => Some((file.content.size(), file.modified)),
                Node::Directory(_) => None,
            },
        };
        Ok(entries.iter().map(entry).collect())
    }

    /// The bytes of the file at `path`, which is there.
    pub fn content(&mut self, path: &Path) -> &mut Content {
        let inode = self.resolve(path).expect("a file that is there");
        &mut self.file(inode).content
    }

    /// All files and their bytes, as a running system would read them.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut files, mut next) = (BTreeMap::new(), vec![(PathBuf::from("/"), ROOT)]);
        while let Some((path, inode)) = next.pop() {
            match &self.nodes[&inode] {
                Node::Directory(entries) => {
                    next.extend(entries.iter().map(|(name, inode)| (path.join(name), *inode)));
                }
                Node::File(file) => {
                    let mut bytes = Vec::with_capacity(file.content.size() as usize);
                    file.content.read(0, usize::MAX, |piece| bytes.extend_from_slice(piece));
                    files.insert(path, bytes);
                }
            }
        }
        files
    }

    /// The inode of a directory.
    pub fn directory(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.resolve(path)?;
        match self.nodes[&inode] {
            Node::Directory(_) => Ok(inode),
            Node::File(_) => Err(error(libc::ENOTDIR)),
        }
    }

    /// All changes of this directory's names up to operation `until` are on stable storage now.
    pub fn flushed_directory(&mut self, directory: Inode, until: u64) {
        // A rename across directories takes along what went before it in the other one.
        let mut directories = BTreeSet::from([directory]);
        let mut settled = vec![false; self.pending.len()];
        for (change, settled) in self.pending.iter().zip(&mut settled).rev() {
            let touches = change.edits.iter().any(|edit| directories.contains(&edit.directory));
            *settled = touches && change.operation <= until;
            if *settled {
                directories.extend(change.edits.iter().map(|edit| edit.directory));
            }
        }
        let changes = std::mem::take(&mut self.pending);
        for (change, settled) in changes.into_iter().zip(settled) {
            if settled {
                apply(&mut self.durable, change);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// No file is broken any more.
    pub fn repair(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.broken = [false; 3];
            }
        }
    }

    // ---- The end of a process, or of the power.

    /// All processes are gone: nothing is open any more. What was written stays.
    pub fn killed(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.opens = 0;
            }
        }
        self.sweep();
    }

    /// The power was cut: picks what is left.
    pub fn power_loss(&mut self, rng: &mut Rng) {
        self.killed();
        let changes = std::mem::take(&mut self.pending);
        // Journals keep the order of changes; nobody promises it.
        let ordered = rng.chance(0.5);
        let kept = rng.between(0, changes.len() as u64) as usize;
        for (index, change) in changes.into_iter().enumerate() {
            if if ordered { index < kept } else { rng.chance(0.5) } {
                apply(&mut self.durable, change);
            }
        }
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.content.power_loss(rng);
            }
        }
        self.forget_names();
    }

    /// How many answers each question has that a power cut would decide: two for each change of
    /// names, then those of each file.
    pub fn questions(&self) -> Vec<u32> {
        let files = self.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file.content.questions()),
            Node::Directory(_) => None,
        });
        self.pending.iter().map(|_| 2).chain(files.flatten()).collect()
    }

    /// The power was cut, and left what the answers say: 0 for what was durable, the last for what a
    /// running system saw. With `tear`, some pages are torn.
    pub fn power_loss_as(&mut self, answers: &[u32], mut tear: Option<Rng>) {
        let mut answers = answers.iter().copied();
        for change in std::mem::take(&mut self.pending) {
            if answers.next().expect("one for each question") > 0 {
                apply(&mut self.durable, change);
            }
        }
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.content.power_loss_as(&mut answers, &mut tear);
            }
        }
        assert!(answers.next().is_none(), "one for each question");
        self.forget_names();
    }

    /// Of the names, those that are durable are left.
    fn forget_names(&mut self) {
        for (inode, node) in &mut self.nodes {
            if let Node::Directory(entries) = node {
                *entries = self.durable.get(inode).cloned().unwrap_or_default();
            }
        }
        self.sweep();
        self.recount();
    }

    /// Forgets what no name and no handle leads to, now or after any power cut.
    fn sweep(&mut self) {
        let mut seen = BTreeSet::new();
        let mut next = vec![ROOT];
        let pending = self.pending.iter().flat_map(|change| &change.edits);
        next.extend(pending.filter_map(|edit| edit.inode));
        let open = self.nodes.iter().filter(|(_, n)| matches!(n, Node::File(f) if f.opens > 0));
        next.extend(open.map(|(inode, _)| *inode));
        while let Some(inode) = next.pop() {
            if !seen.insert(inode) {
                continue;
            }
            next.extend(self.durable.get(&inode).into_iter().flat_map(BTreeMap::values));
            if let Some(Node::Directory(entries)) = self.nodes.get(&inode) {
                next.extend(entries.values());
            }
        }
        self.nodes.retain(|inode, _| seen.contains(inode));
        self.durable.retain(|inode, _| seen.contains(inode));
    }

    fn recount(&mut self) {
        let directories = self.nodes.values().filter_map(|node| match node {
            Node::Directory(entries) => Some(entries),
            Node::File(_) => None,
        });
        let named: Vec<Inode> = directories.flat_map(BTreeMap::values).copied().collect();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.links = 0;
            }
        }
        for inode in named {
            self.link(inode, 1);
        }
    }

    fn link(&mut self, inode: Inode, count: i32) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            file.links = file.links.checked_add_signed(count).expect("names are counted");
        }
    }

    fn insert(&mut self, node: Node) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        if matches!(node, Node::Directory(_)) {
            self.durable.insert(inode, BTreeMap::new());
        }
        self.nodes.insert(inode, node);
        inode
    }

    fn change(&mut self, edits: Vec<Edit>) {
        let operation = self.operation();
        for edit in &edits {
            let Some(Node::Directory(entries)) = self.nodes.get_mut(&edit.directory) else {
                panic!("names are in directories");
            };
            let before = match edit.inode {
                Some(inode) => entries.insert(edit.name.clone(), inode),
                None => entries.remove(&edit.name),
            };
            if let Some(inode) = before {
                self.link(inode, -1);
            }
            if let Some(inode) = edit.inode {
                self.link(inode, 1);
            }
        }
        self.pending.push(NameChange { operation, edits });
    }

    fn entries(&self, directory: Inode) -> &BTreeMap<String, Inode> {
        match &self.nodes[&directory] {
            Node::Directory(entries) => entries,
            Node::File(_) => panic!("inode {directory} is no directory"),
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for component in path.components() {
            let name = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name.to_str().ok_or_else(|| error(libc::EINVAL))?,
                Component::ParentDir | Component::Prefix(_) => return Err(error(libc::EINVAL)),
            };
            let Node::Directory(entries) = &self.nodes[&at] else {
                return Err(error(libc::ENOTDIR));
            };
            at = *entries.get(name).ok_or_else(|| error(libc::ENOENT))?;
        }
        Ok(at)
    }

    fn parent(&self, path: &Path) -> io::Result<(Inode, String)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| error(libc::EINVAL))?.to_owned();
        let directory = self.directory(path.parent().unwrap_or(Path::new("")))?;
        Ok((directory, name))
    }
}

fn apply(directories: &mut BTreeMap<Inode, BTreeMap<String, Inode>>, change: NameChange) {
    for Edit { directory, name, inode } in change.edits {
        let entries = directories.entry(directory).or_default();
        match inode {
            Some(inode) => entries.insert(name, inode),
            None => entries.remove(&name),
        };
    }
}

/// Linux's error of that number.
pub fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(0);

    fn write(disk: &mut Disk, path: &str, bytes: &[u8]) -> Inode {
        let inode = disk.open(Path::new(path), true, false, NOW).unwrap();
        let operation = disk.operation();
        disk.file(inode).content.write(operation, 0, bytes);
        inode
    }

    fn flush(disk: &mut Disk, inode: Inode) {
        let until = disk.last_operation();
        disk.file(inode).content.flushed(until);
    }

    fn flush_directory(disk: &mut Disk, path: &str) {
        let (inode, until) = (disk.directory(Path::new(path)).unwrap(), disk.last_operation());
        disk.flushed_directory(inode, until);
    }

    fn names(disk: &Disk, path: &str) -> Vec<String> {
        disk.list(Path::new(path)).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    /// What 200 power cuts leave of the names in the root.
    fn cuts(run: impl Fn(&mut Disk)) -> BTreeSet<Vec<String>> {
        let cut = |seed| {
            let mut disk = Disk::new();
            run(&mut disk);
            disk.power_loss(&mut Rng::new(seed));
            names(&disk, "/")
        };
        (0..200).map(cut).collect()
    }

    fn set(names: &[&[&str]]) -> BTreeSet<Vec<String>> {
        names.iter().map(|names| names.iter().map(|&name| name.to_owned()).collect()).collect()
    }

    #[test]
    fn a_file_whose_directory_was_not_flushed_may_vanish() {
        let create = |disk: &mut Disk| {
            let inode = write(disk, "/a", b"x");
            flush(disk, inode);
        };
        assert_eq!(cuts(create), set(&[&[], &["a"]]));
        let certain = |disk: &mut Disk| {
            create(disk);
            flush_directory(disk, "/");
        };
        assert_eq!(cuts(certain), set(&[&["a"]]));
    }

    #[test]
    fn a_rename_is_whole_or_not_at_all() {
        let rename = |disk: &mut Disk| {
            write(disk, "/a", b"new");
            flush_directory(disk, "/");
            disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
        };
        assert_eq!(cuts(rename), set(&[&["a"], &["b"]]));
    }

    #[test]
    fn what_a_lost_rename_replaced_is_there_again() {
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            let mut disk = Disk::new();
            for (path, bytes) in [("/a", b"old"), ("/a.tmp", b"new")] {
                let inode = write(&mut disk, path, bytes);
                flush(&mut disk, inode);
            }
            flush_directory(&mut disk, "/");
            disk.rename(Path::new("/a.tmp"), Path::new("/a")).unwrap();
            disk.power_loss(&mut Rng::new(seed));
            let inode = disk.open(Path::new("/a"), false, false, NOW).unwrap();
            disk.file(inode).content.read(0, 9, |bytes| {
                seen.insert(bytes.to_vec());
            });
        }
        assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    }

    #[test]
    fn a_directory_that_was_not_flushed_into_its_parent_takes_all_along() {
        let run = |disk: &mut Disk| {
            disk.create_directory(Path::new("/d")).unwrap();
            let inode = write(disk, "/d/a", b"x");
            flush(disk, inode);
            flush_directory(disk, "/d");
        };
        assert_eq!(cuts(run), set(&[&[], &["d"]]));
    }

    #[test]
    fn a_removed_file_lives_while_it_is_open_and_takes_space() {
        let mut disk = Disk::new();
        let inode = write(&mut disk, "/a", &[1; 5_000]);
        disk.remove_file(Path::new("/a")).unwrap();
        assert_eq!((disk.used(), disk.open_files()), (8_192, 1));
        disk.close(inode);
        assert_eq!((disk.used(), disk.open_files()), (0, 0));
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let mut disk = Disk::new();
        disk.set_capacity(Some(16_384));
        let inode = write(&mut disk, "/a", &[1; 5_000]);
        assert_eq!(disk.room(inode, 0, 16_384), 16_384);
        assert_eq!(disk.room(inode, 5_000, 20_000), 16_384 - 5_000);
        disk.set_capacity(Some(4_096));
        assert_eq!(disk.room(inode, 0, 8_192), 8_192, "what it has, it may write");
    }

    #[test]
    fn errors_are_those_of_linux() {
        let mut disk = Disk::new();
        write(&mut disk, "/a", b"x");
        disk.create_directory(Path::new("/d")).unwrap();
        write(&mut disk, "/d/b", b"x");
        let number = |result: io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
        let path = Path::new;
        assert_eq!(number(disk.create_directory(path("/a"))), libc::EEXIST);
        assert_eq!(number(disk.create_directory(path("/x/y"))), libc::ENOENT);
        assert_eq!(number(disk.create_directory(path("/a/y"))), libc::ENOTDIR);
        assert_eq!(number(disk.remove_file(path("/d"))), libc::EISDIR);
        assert_eq!(number(disk.remove_directory(path("/d"))), libc::ENOTEMPTY);
        assert_eq!(number(disk.rename(path("/a"), path("/d"))), libc::EISDIR);
        assert_eq!(number(disk.rename(path("/d"), path("/a"))), libc::ENOTDIR);
    }
}
