//! A control group (version 1) that a scenario makes, and that is gone when it is dropped.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use rustix::process::Pid;

const ROOT: &str = "/sys/fs/cgroup";

/// See the file.
pub struct Cgroup {
    controller: &'static str,
    folder: PathBuf,
}

impl Cgroup {
    /// A new group of this controller (`cpu`, `memory`, `pids`), with these values in its files.
    pub fn new(controller: &'static str, values: &[(&str, String)]) -> anyhow::Result<Self> {
        let name = format!("flowstone-faults-{}", std::process::id());
        let folder = PathBuf::from(ROOT).join(controller).join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let group = Self { controller, folder };
        values.iter().try_for_each(|(file, value)| group.set(file, value))?;
        Ok(group)
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A number in one of its files, behind this name where the file has names.
    pub fn number(&self, file: &str, name: &str) -> anyhow::Result<u64> {
        let text = fs::read_to_string(self.folder.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name} in {file}"))?;
        Ok(line.trim().parse()?)
    }

    /// Puts a process, with all its threads, under it.
    pub fn hold(&self, pid: Pid) -> anyhow::Result<()> {
        self.set("cgroup.procs", &pid.as_raw_nonzero().to_string())
    }

    /// Words that start a program under it from its first instruction on.
    pub fn words(&self) -> Vec<String> {
        let procs = self.folder.join("cgroup.procs");
        let script = format!("echo $$ > {} && exec \"$0\" \"$@\"", procs.display());
        vec!["sh".to_owned(), "-c".to_owned(), script]
    }

    /// Why scenarios cannot have this controller here.
    pub fn missing(controller: &str) -> Option<String> {
        let folder = PathBuf::from(ROOT).join(controller);
        let there = folder.join("cgroup.procs").is_file() && rustix::process::geteuid().is_root();
        (!there).then(|| format!("needs root and {} (control groups, v1)", folder.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let own = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        let parent = PathBuf::from(ROOT).join(self.controller).join("cgroup.procs");
        for process in own.lines() {
            let _ = fs::write(&parent, process); // It may have ended just now.
        }
        let _ = fs::remove_dir(&self.folder);
    }
}
