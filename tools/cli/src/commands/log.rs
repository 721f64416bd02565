//! `flowstone log`: what kafka-dump-log does.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::Common;
use crate::dump::{Decoder, Options, Report};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  flowstone log dump /var/lib/flowstone                          everything, batch by batch
  flowstone log dump /var/lib/flowstone/orders-0 --records       each record
  flowstone log dump 00000000000000000000.log 00000000000000000000.index
  flowstone log dump /var/lib/flowstone/__cluster_metadata-0 -r  the cluster's metadata in words
  flowstone log dump /var/lib/flowstone/__consumer_offsets-12 -r committed offsets and groups
  flowstone log dump orders-0 -r --json | jq '.records[]?.value'

Reads segments, offset and time indexes (held against their segment), aborted transactions, producer
snapshots, checkpoints, identities, the metadata log and its snapshots. Files are never changed. Ends
with status 5 where something is damaged.";

/// `flowstone log`.
#[derive(Subcommand, Debug)]
pub enum Log {
    /// Say what is in files, or in all files of directories
    #[command(after_help = EXAMPLES)]
    Dump(Dump),
}

/// `flowstone log dump`.
#[derive(Args, Debug)]
pub struct Dump {
    /// Files or directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Each record, too
    #[arg(short, long)]
    records: bool,
    /// How records are decoded; by the directory's name without
    #[arg(short, long, value_enum)]
    decode: Option<Decoder>,
}

impl Log {
    /// Does it.
    pub fn run(&self, common: &Common) -> anyhow::Result<()> {
        let Self::Dump(dump) = self;
        let options = Options { records: dump.records, decoder: dump.decode, json: common.json };
        let mut out = BufWriter::new(std::io::stdout().lock());
        let mut report = Report::new(&mut out, options);
        dump.paths.iter().try_for_each(|path| report.path(path))?;
        let damaged = report.damaged();
        out.flush()?;
        match damaged {
            0 => Ok(()),
            count => {
                Err(Failure::Damaged(format!("{count} damaged places, marked DAMAGED above"))
                    .into())
            }
        }
    }
}
