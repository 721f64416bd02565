//! A node's files, read and told: which file is what, and what is in it. Nothing here writes to them.
//!
//! Names and formats are those of the crates that own them; a file that they refuse is damaged, which is
//! told where it stands, and the rest goes on.

mod debug;
mod decode;
mod segment;
mod small;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use flowstone_log::{FileKind, names};
use flowstone_raft::SnapshotId;
use flowstone_types::Offset;
use serde_json::{Value, json};

pub use decode::Decoder;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Each record, not only the batches.
    pub records: bool,
    /// How records are decoded; `None` to tell by the directory's name.
    pub decoder: Option<Decoder>,
    /// JSON, an object a line.
    pub json: bool,
}

/// Where it is told, and how much was damaged.
pub struct Report<'a> {
    out: &'a mut dyn Write,
    options: Options,
    damaged: usize,
}

impl<'a> Report<'a> {
    /// A report on `out`.
    pub fn new(out: &'a mut dyn Write, options: Options) -> Self {
        Self { out, options, damaged: 0 }
    }

    /// Number of damages told.
    pub const fn damaged(&self) -> usize {
        self.damaged
    }

    /// Reads a file, or everything in a directory.
    pub fn path(&mut self, path: &Path) -> anyhow::Result<()> {
        let context = || path.display().to_string();
        if !fs::metadata(path).with_context(context)?.is_dir() {
            return self.file(path).with_context(context);
        }
        let mut inside: Vec<PathBuf> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>())
            .with_context(context)?;
        inside.sort();
        inside.iter().try_for_each(|path| self.path(path))
    }

    fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let decoder = self.options.decoder.unwrap_or_else(|| Decoder::of_directory(&dir));
        if let names::Named::Segment(base, kind) = names::classify(&name) {
            return match kind {
                FileKind::Log => self.segment(path, decoder),
                FileKind::OffsetIndex => self.offset_index(path, base),
                FileKind::TimeIndex => self.time_index(path, base),
                FileKind::TransactionIndex => self.transaction_index(path),
                FileKind::Snapshot => self.producers(path, base),
            };
        }
        let is_snapshot = SnapshotId::from_file_name(&name).is_some();
        match &*name {
            _ if is_snapshot || name == "bootstrap.checkpoint" => self.metadata_snapshot(path),
            names::EPOCHS => self.epochs(path),
            names::PARTITION_METADATA => self.partition_metadata(path),
            names::META_PROPERTIES => self.meta_properties(path),
            names::CLEAN_SHUTDOWN => self.clean_shutdown(path),
            names::RECOVERY_POINTS | names::LOG_STARTS | names::HIGH_WATERMARKS => {
                self.offsets(path)
            }
            // Kafka makes it empty, and fills it when it first compacts.
            "cleaner-offset-checkpoint" if fs::metadata(path)?.len() > 0 => self.offsets(path),
            "quorum-state" => self.quorum_state(path),
            _ => Ok(()), // Locks, leftovers, and what is not ours.
        }
    }

    /// Begins a file.
    fn begin(&mut self, path: &Path, kind: &str, about: &str) -> io::Result<()> {
        if self.options.json {
            return Ok(()); // Each line says its file.
        }
        let gap = if about.is_empty() { "" } else { ", " };
        writeln!(self.out, "{}: {kind}{gap}{about}", path.display())
    }

    /// Tells one thing of a file: the line, or the object with the file's name in it.
    fn tell(&mut self, path: &Path, line: &str, mut object: Value) -> io::Result<()> {
        if self.options.json {
            object["file"] = json!(path.display().to_string());
            writeln!(self.out, "{object}")
        } else {
            writeln!(self.out, "  {line}")
        }
    }

    /// Tells that something is damaged.
    fn damage(&mut self, path: &Path, what: &str) -> io::Result<()> {
        self.damaged += 1;
        let line = format!("DAMAGED: {}: {what}", path.display());
        self.tell(path, &line, json!({ "damaged": what }))
    }
}

/// Twenty digits of a segment's name, for messages.
fn base_text(base: Offset) -> String {
    format!("base offset {base}")
}

#[cfg(test)]
mod tests;
