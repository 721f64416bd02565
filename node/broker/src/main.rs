//! `flowstoned`: the Flowstone broker's command line, and what must be right before it can start.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use flowstone_broker::{Boot, Served};
use flowstone_config::{Config, File, Loaded, LogFormat, Problems, reference};
use flowstone_runtime::{Plan, launch, probe, set_memory_limit};
use flowstone_store::{Action, StorageError};
use rustix::fs::{FlockOperation, fcntl_lock};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// Returns what it frees to the system, and survives a request for more than there is.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Status after a start that cannot work: configuration or command line.
const EXIT_USAGE: u8 = 2;
/// Status after a start or stop that failed for another reason.
const EXIT_FAILED: u8 = 1;

/// Held beside the data for as long as the process lives, as Kafka does: two brokers on one
/// directory would destroy it.
const LOCK_FILE: &str = ".lock";

/// A Kafka-compatible event broker.
#[derive(Parser)]
#[command(name = "flowstoned", version, max_term_width = 100, after_help = EXAMPLES)]
struct Command {
    /// Kafka's server.properties, with our own flowstone.* keys.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    set: Set,
    #[command(subcommand)]
    mode: Option<Mode>,
}

#[derive(Args)]
struct Set {
    /// A key that goes before the file's; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

#[derive(Subcommand)]
enum Mode {
    /// Runs a node that needs no file: broker and controller in one, formatted by itself.
    Dev {
        /// Where the data is kept.
        #[arg(long, value_name = "DIR", default_value = "flowstone-data")]
        data: PathBuf,
        /// The port for clients, on localhost; 0 lets the kernel choose one.
        #[arg(long, value_name = "PORT", default_value_t = 9092)]
        port: u16,
        #[command(flatten)]
        set: Set,
    },
    /// Prints every configuration key, with type, default, range and meaning.
    Config {
        /// All of them.
        #[arg(long, required = true)]
        list: bool,
        /// As Markdown.
        #[arg(long)]
        markdown: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  flowstoned dev                                  try it: data in ./flowstone-data, port 9092
  flowstoned dev --port 0 --set num.partitions=4
  flowstone format --standalone -t $(flowstone format random-uuid) -c server.properties
  flowstoned --config server.properties
  flowstoned config --list

Exit status: 0 stopped as told, 1 failed, 2 wrong configuration or command line, 101 a bug of ours.";

fn main() -> ExitCode {
    let command = Command::parse();
    let (loaded, dev) = match command.mode {
        Some(Mode::Config { markdown, .. }) => {
            let text = if markdown { reference::markdown() } else { reference::text() };
            // Into `head` or a pager that has seen enough: nothing to complain of.
            let written = io::stdout().write_all(text.as_bytes());
            return match written {
                Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
                    fail(EXIT_FAILED, &why.into())
                }
                _ => ExitCode::SUCCESS,
            };
        }
        Some(Mode::Dev { data, port, set }) => {
            let set = [command.set.set, set.set].concat();
            (Config::dev(&data.to_string_lossy(), port, &set), true)
        }
        None => match load(command.config.as_deref(), &command.set.set) {
            Ok(loaded) => (loaded, false),
            Err(why) => return fail(EXIT_USAGE, &why),
        },
    };
    let Loaded { config, warnings } = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("flowstoned: the configuration cannot be used:");
            problems.0.iter().for_each(|problem| eprintln!("  {problem}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    log_to_stderr(&config);
    for warning in warnings {
        warn!("{warning}");
    }
    match run(config, dev) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(EXIT_FAILED, &why),
    }
}

fn fail(status: u8, why: &anyhow::Error) -> ExitCode {
    eprintln!("flowstoned: {why:#}");
    ExitCode::from(status)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn load(path: Option<&Path>, set: &[(String, String)]) -> anyhow::Result<Result<Loaded, Problems>> {
    let Some(path) = path else {
        bail!("which configuration? Give --config FILE, or try `flowstoned dev` (see --help)");
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    let name = path.display().to_string();
    Ok(Config::load(Some(File { name: &name, text: &text }), set))
}

fn log_to_stderr(config: &Config) {
    let settings = &config.settings;
    let filter =
        EnvFilter::try_new(&settings.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let human = match settings.log_format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if human {
        lines.with_target(false).with_ansi(io::stderr().is_terminal()).init();
    } else {
        lines.json().flatten_event(true).init();
    }
}

fn run(config: Config, dev: bool) -> anyhow::Result<()> {
    let host = probe()?;
    let cpus = cpus(&config, &host.topology.cpus)?;
    let (_locks, unlocked) = lock_data(&config, dev)?;
    let share = host.memory_bytes / MEMORY_SHARE;
    let share = if dev { share.min(DEV_MEMORY_BYTES) } else { share };
    let memory = config.settings.memory_bytes.map_or(share, i64::unsigned_abs);
    set_memory_limit(usize::try_from(memory).unwrap_or(usize::MAX));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.settings.node_id,
        roles = config.settings.process_roles.0.join(","),
        shards = cpus.len(),
        cpus = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        memory_mib = memory >> 20,
        durability = ?config.topic(None).durability,
        dirs = config.data_dirs.join(","),
        kernel = host.kernel,
        open_files = host.limits.open_files,
        "flowstoned starts"
    );
    let served = if dev { Served::Dev } else { Served::Formatted };
    let boot = Boot::new(config, cpus.len(), memory, served, unlocked);
    let shards = boot.clone();
    launch(Plan { cpus }, move |index| shards.clone().run(index))?;
    boot.outcome()
}

/// Where `flowstone.memory.bytes` is not set: this part of what the process may use. The rest is for
/// the page cache of other programs, the kernel's sockets, and metadata.
const MEMORY_SHARE: u64 = 4;
/// The same for `dev`, which runs beside everything else that a developer has open.
const DEV_MEMORY_BYTES: u64 = 512 * 1024 * 1024;

/// One CPU for each shard.
fn cpus(config: &Config, allowed: &[usize]) -> anyhow::Result<Vec<usize>> {
    let chosen = match &config.settings.cpus {
        None => allowed.to_vec(),
        Some(list) => parse_cpus(list)?,
    };
    if let Some(missing) = chosen.iter().find(|cpu| !allowed.contains(cpu)) {
        bail!("flowstone.cpus: this process may not run on CPU {missing}; it may on {allowed:?}");
    }
    let shards = config.settings.shards.map_or(chosen.len(), |shards| shards as usize);
    if shards > chosen.len() {
        warn!(shards, cpus = chosen.len(), "more shards than CPUs: some share one");
    }
    Ok(chosen.iter().copied().cycle().take(shards).collect())
}

/// `0-3,8` and the like.
fn parse_cpus(list: &str) -> anyhow::Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |text: &str| text.trim().parse::<usize>();
        let (Ok(first), Ok(last)) = (parse(first), parse(last)) else {
            bail!("flowstone.cpus: {part:?} is no CPU and no range such as 0-3");
        };
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// Log directories that could not be locked, and why.
type Unlocked = BTreeMap<PathBuf, StorageError>;

/// The locks of the log directories that could be locked, and why the others could not. That of the metadata log must be,
/// and none may be missing or in use.
fn lock_data(config: &Config, dev: bool) -> anyhow::Result<(Vec<std::fs::File>, Unlocked)> {
    let (mut locks, mut unlocked) = (Vec::new(), Unlocked::new());
    for name in config.all_dirs() {
        let dir = Path::new(name);
        let opened = if dev { std::fs::create_dir_all(dir) } else { Ok(()) };
        let opened = opened.and_then(|()| {
            let mut options = std::fs::File::options();
            options.create(true).truncate(false).write(true).open(dir.join(LOCK_FILE))
        });
        let shown = dir.display();
        let file = match opened {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => bail!(
                "{shown} does not exist: correct log.dirs, mount the disk, or make it and run \
                 `flowstone format --standalone -t CLUSTER_ID -c FILE` once"
            ),
            Err(why) if *name == config.metadata_dir => {
                return Err(why).with_context(|| no_access(dir));
            }
            Err(why) => {
                let (action, source) = (Action::Open, Arc::new(why));
                let why = StorageError::Io { action, path: dir.join(LOCK_FILE), source };
                unlocked.insert(dir.to_owned(), why);
                continue;
            }
        };
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!(
                "{shown} is in use by another broker process: stop that one, or correct log.dirs"
            )
        })?;
        locks.push(file);
    }
    Ok((locks, unlocked))
}

fn no_access(dir: &Path) -> String {
    format!("cannot write to {}: it must belong to the user that runs flowstoned", dir.display())
}
