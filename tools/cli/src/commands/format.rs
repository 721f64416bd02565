//! `flowstone format`, `random-uuid` and `info`: what kafka-storage does.
//!
//! What formatting writes is decided in `flowstone_metadata::format`; here are the options and the files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use flowstone_config::{Config, Loaded};
use flowstone_log::{MetaProperties, names};
use flowstone_metadata::MetadataVersion;
use flowstone_metadata::features::{KRAFT_VERSION, METADATA_VERSION};
use flowstone_metadata::format::{Endpoint, Format as Contents};
use flowstone_types::{NodeId, Timestamp, Uuid};
use serde_json::json;

use super::produce::now_ms;
use crate::failure::Failure;
use crate::output::{Table, print_json, say};
use crate::{Common, random};

const FORMAT_EXAMPLES: &str = "\
Examples:
  flowstone format -t $(flowstone random-uuid) -c server.properties --standalone
  flowstone format -t MkU3OEVBNTcwNTJENDM2Qg -c server.properties -s --ignore-formatted
  flowstone format -t MkU3OEVBNTcwNTJENDM2Qg -c server.properties -s -r 4.2 -f group.version=0

All nodes of a cluster get the same cluster id. A controller needs --standalone (it is the first voter
of a new quorum) unless controller.quorum.voters is set.";
const INFO_EXAMPLES: &str = "Examples:\n  flowstone info -c server.properties";

/// Write a node's identity to its log directories, before its first start.
#[derive(Args, Debug)]
#[command(after_help = FORMAT_EXAMPLES)]
pub struct Format {
    /// The cluster's id: `flowstone random-uuid` makes one
    #[arg(short = 't', long, value_name = "ID", value_parser = cluster_id)]
    cluster_id: String,
    /// The node's server.properties
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// This controller is the only voter of a new quorum
    #[arg(short, long)]
    standalone: bool,
    /// This controller is no voter yet: it is added to a running quorum later
    #[arg(short = 'N', long, conflicts_with = "standalone")]
    no_initial_controllers: bool,
    /// Leave directories that are formatted already as they are
    #[arg(short = 'g', long)]
    ignore_formatted: bool,
    /// Start the cluster at the level of this release, such as 4.2 or 4.2-IV1
    #[arg(short, long, value_name = "VERSION", value_parser = release)]
    release_version: Option<MetadataVersion>,
    /// Start a feature at another level than the release's; may be given several times
    #[arg(short, long, value_name = "NAME=LEVEL", value_parser = feature)]
    feature: Vec<(String, i16)>,
}

/// Say what a node's log directories hold.
#[derive(Args, Debug)]
#[command(after_help = INFO_EXAMPLES)]
pub struct Info {
    /// The node's server.properties
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

/// Prints a fresh cluster id.
pub fn random_uuid() -> anyhow::Result<()> {
    Ok(say(random::uuid().context("/dev/urandom")?)?)
}

impl Format {
    /// Writes the files.
    pub fn run(&self, common: &Common) -> anyhow::Result<()> {
        let config = load(&self.config)?;
        let voter = self.voter(&config)?;
        let (version, features) = self.levels(voter.is_some())?;
        let dirs = directories(&config);
        let mut ids = Vec::new();
        let mut fresh = Vec::new();
        for dir in &dirs {
            let meta = read_meta(dir)?;
            let known = meta.as_ref().and_then(|meta| meta.directory_id);
            if let Some(meta) = &meta {
                self.check_formatted(dir, meta, &config)?;
            }
            fresh.push(meta.is_none());
            ids.push(known.map_or_else(random::uuid, Ok).context("/dev/urandom")?);
        }
        let contents = Contents {
            cluster_id: self.cluster_id.clone(),
            node_id: NodeId(config.settings.node_id),
            version,
            features,
            standalone: voter,
            directory_ids: ids,
        };
        let files = contents
            .files(Timestamp(now_ms()))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        for file in files.iter().filter(|file| fresh[file.dir]) {
            let path = dirs[file.dir].join(&file.path);
            write_durably(&path, &file.bytes).with_context(|| path.display().to_string())?;
        }
        report(common, &contents, &dirs, &fresh)
    }

    /// A directory that has an identity is left alone, and must be of this cluster and node.
    fn check_formatted(
        &self,
        dir: &Path,
        meta: &MetaProperties,
        config: &Config,
    ) -> anyhow::Result<()> {
        let place = dir.display();
        if !self.ignore_formatted {
            bail!(
                "{place} is formatted already (cluster {}, node {}). Use --ignore-formatted to leave \
                 it as it is and format the others.",
                meta.cluster_id,
                meta.node_id
            );
        }
        if meta.cluster_id != self.cluster_id {
            bail!("{place} belongs to cluster {}, not to {}", meta.cluster_id, self.cluster_id);
        }
        if meta.node_id.0 != config.settings.node_id {
            bail!("{place} belongs to node {}, not to {}", meta.node_id, config.settings.node_id);
        }
        Ok(())
    }

    /// This node as the only voter, where it is to be.
    fn voter(&self, config: &Config) -> Result<Option<Endpoint>, Failure> {
        let static_voters = !config.settings.controller_quorum_voters.0.is_empty();
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        if static_voters && (self.standalone || self.no_initial_controllers) {
            return usage(
                "controller.quorum.voters is set, so the quorum is static: leave --standalone and \
                 --no-initial-controllers out, or replace that key by \
                 controller.quorum.bootstrap.servers",
            );
        }
        if !self.standalone {
            let voters_told = static_voters || self.no_initial_controllers;
            if config.roles.controller && !voters_told {
                return usage(
                    "controller.quorum.voters is not set, so a controller needs --standalone (a new \
                     quorum) or --no-initial-controllers (it joins a running one)",
                );
            }
            return Ok(None);
        }
        let Some(own) = config.controller_listeners.first().filter(|_| config.roles.controller)
        else {
            return usage("--standalone is for a node with the role controller (process.roles)");
        };
        let advertised = config.advertised.iter().find(|told| told.listener == own.listener);
        let told = advertised.unwrap_or(own);
        let host = told.host.clone().filter(|host| host != "0.0.0.0" && host != "::");
        Ok(Some(Endpoint {
            listener: own.listener.clone(),
            host: host.unwrap_or_else(own_host_name),
            port: told.port,
        }))
    }

    /// The metadata version, and the features that are to start elsewhere than it says.
    fn levels(&self, standalone: bool) -> Result<(MetadataVersion, Vec<(String, i16)>), Failure> {
        let usage = |text: String| Err(Failure::Usage(text));
        let told = self.feature.iter().find(|(name, _)| name == METADATA_VERSION);
        let version = match (self.release_version, told) {
            (Some(_), Some(_)) => {
                return usage(format!(
                    "--release-version and --feature {METADATA_VERSION} say the same: use one"
                ));
            }
            (Some(version), None) => version,
            (None, Some((_, level))) => MetadataVersion(*level),
            (None, None) => MetadataVersion::LATEST,
        };
        let kraft =
            self.feature.iter().find(|(name, _)| name == KRAFT_VERSION).map(|(_, level)| *level);
        let dynamic = standalone || self.no_initial_controllers;
        if kraft.is_some_and(|level| level != i16::from(dynamic)) {
            let level = i16::from(dynamic);
            let quorum = if dynamic {
                "dynamic (its voters are in its log)"
            } else {
                "static (controller.quorum.voters)"
            };
            return usage(format!("{KRAFT_VERSION} must be {level}: the quorum is {quorum}"));
        }
        let others = self.feature.iter().filter(|(name, _)| name != METADATA_VERSION);
        Ok((version, others.cloned().collect()))
    }
}

fn report(
    common: &Common,
    contents: &Contents,
    dirs: &[PathBuf],
    fresh: &[bool],
) -> anyhow::Result<()> {
    let mut table = Table::new(&["directory", "directory_id", "formatted", "metadata"]);
    for (at, dir) in dirs.iter().enumerate() {
        let id = contents.directory_ids[at].to_string();
        table.push([json!(dir.display().to_string()), json!(id), json!(fresh[at]), json!(at == 0)]);
    }
    if common.json {
        let document = json!({
            "cluster_id": contents.cluster_id,
            "node_id": contents.node_id.0,
            "metadata_version": contents.version.to_string(),
            "directories": table.to_json(),
        });
        return Ok(print_json(&document)?);
    }
    for (at, dir) in dirs.iter().enumerate() {
        let kind = match (at, &contents.standalone) {
            (0, Some(_)) => "metadata voter directory",
            (0, None) => "metadata directory",
            (_, _) => "data directory",
        };
        if fresh[at] {
            say(format_args!(
                "Formatted {kind} {} with metadata.version {}.",
                dir.display(),
                contents.version
            ))?;
        } else {
            say(format_args!("{kind} {} was formatted already.", dir.display()))?;
        }
    }
    Ok(())
}

impl Info {
    /// Prints what is there; fails where it does not belong together.
    pub fn run(&self, common: &Common) -> anyhow::Result<()> {
        let config = load(&self.config)?;
        let mut table =
            Table::new(&["directory", "cluster_id", "node_id", "directory_id", "problem"]);
        let mut clusters = Vec::new();
        let mut problems = 0;
        for dir in directories(&config) {
            let meta = read_meta(&dir);
            let problem = match &meta {
                Err(error) => Some(format!("{error:#}")),
                Ok(None) if !dir.exists() => Some("is not there".to_owned()),
                Ok(None) => Some("is not formatted".to_owned()),
                Ok(Some(meta)) if meta.node_id.0 != config.settings.node_id => {
                    Some(format!("the configuration says node {}", config.settings.node_id))
                }
                Ok(Some(meta)) if clusters.first().is_some_and(|id| *id != meta.cluster_id) => {
                    Some("another cluster than the directories above".to_owned())
                }
                Ok(Some(_)) => None,
            };
            problems += usize::from(problem.is_some());
            let meta = meta.ok().flatten();
            clusters.extend(meta.iter().map(|meta| meta.cluster_id.clone()));
            table.push([
                json!(dir.display().to_string()),
                json!(meta.as_ref().map(|meta| &meta.cluster_id)),
                json!(meta.as_ref().map(|meta| meta.node_id.0)),
                json!(meta.as_ref().and_then(|meta| meta.directory_id).map(|id| id.to_string())),
                json!(problem),
            ]);
        }
        table.print(common.json)?;
        match problems {
            0 => Ok(()),
            count => bail!("{count} of {} directories cannot be used as they are", table.len()),
        }
    }
}

fn load(path: &Path) -> anyhow::Result<Config> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| name.clone())?;
    let file = flowstone_config::File { name: &name, text: &text };
    let Loaded { config, warnings } = Config::load(Some(file), &[])?;
    for warning in warnings {
        eprintln!("flowstone: {warning}");
    }
    Ok(config)
}

/// The log directories, that of the metadata log first.
fn directories(config: &Config) -> Vec<PathBuf> {
    config.all_dirs().map(PathBuf::from).collect()
}

fn read_meta(dir: &Path) -> anyhow::Result<Option<MetaProperties>> {
    let path = dir.join(names::META_PROPERTIES);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
        Ok(text) => {
            let meta = MetaProperties::decode(&text);
            Ok(Some(meta.with_context(|| path.display().to_string())?))
        }
    }
}

/// Writes a file so that after a crash it is there whole or not at all.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().expect("a file stands in a directory");
    fs::create_dir_all(dir)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()?;
    // The directory may be new, and so its name in its own parent.
    dir.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn own_host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn cluster_id(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || !text.chars().all(valid) {
        return Err(
            "expected an id such as MkU3OEVBNTcwNTJENDM2Qg: `flowstone random-uuid` makes one"
                .to_owned(),
        );
    }
    if text.parse::<Uuid>().is_ok_and(Uuid::is_zero) {
        return Err("that id means \"none\"".to_owned());
    }
    Ok(text.to_owned())
}

fn release(text: &str) -> Result<MetadataVersion, String> {
    MetadataVersion::from_name(text).ok_or_else(|| {
        format!("expected a release from {} to {}", MetadataVersion::MIN, MetadataVersion::LATEST)
    })
}

fn feature(text: &str) -> Result<(String, i16), String> {
    let wrong = || "expected NAME=LEVEL, such as group.version=1".to_owned();
    let (name, level) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.trim().to_owned(), level.trim().parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        format: Format,
    }

    const DYNAMIC: &str = "controller.quorum.bootstrap.servers=h:9093\n";

    fn check(options: &str, properties: &str) -> Result<(i16, Option<u16>), String> {
        let base = "process.roles=broker,controller\nnode.id=1\nlisteners=PLAINTEXT://h:9092,CONTROLLER://h:9093\n\
                    controller.listener.names=CONTROLLER\nlog.dirs=/tmp/none\n";
        let text = format!("{base}{properties}");
        let file = flowstone_config::File { name: "f", text: &text };
        let config = Config::load(Some(file), &[]).unwrap().config;
        let options = format!("format -t abc -c f {options}");
        let format =
            Line::try_parse_from(options.split_whitespace()).map_err(|e| e.to_string())?.format;
        let voter = format.voter(&config).map_err(|e| e.to_string())?;
        let (version, _) = format.levels(voter.is_some()).map_err(|e| e.to_string())?;
        Ok((version.0, voter.map(|voter| voter.port)))
    }

    #[test]
    fn voters_are_told_once() {
        assert_eq!(check("--standalone", DYNAMIC), Ok((30, Some(9093))));
        assert_eq!(check("-N", DYNAMIC), Ok((30, None)));
        assert!(check("", DYNAMIC).unwrap_err().contains("needs --standalone"));
        let fixed = "controller.quorum.voters=1@h:9093\n";
        assert_eq!(check("", fixed), Ok((30, None)));
        assert!(check("-s", fixed).unwrap_err().contains("static"));
    }

    #[test]
    fn levels_are_told_once() {
        assert_eq!(check("-s -r 4.2", DYNAMIC), Ok((29, Some(9093))));
        assert_eq!(check("-s -f metadata.version=28", DYNAMIC), Ok((28, Some(9093))));
        assert_eq!(check("-s -f kraft.version=1", DYNAMIC), Ok((30, Some(9093))));
        for bad in
            ["-s -r 1.0", "-s -r 4.2 -f metadata.version=28", "-s -f kraft.version=0", "-s -f x"]
        {
            assert!(check(bad, DYNAMIC).is_err(), "{bad}");
        }
        assert!(cluster_id("a b").is_err() && cluster_id("").is_err());
        assert!(cluster_id("AAAAAAAAAAAAAAAAAAAAAA").is_err());
    }
}
