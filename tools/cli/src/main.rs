//! The command `flowstone`: everything an operator does with a cluster, and with a node's files.
//!
//! A command is one file in `commands`; what talks to brokers is in `client`; what reads a node's files
//! is in `dump`; the load generator is in `bench`. Exit statuses are in `failure`.

mod bench;
mod client;
mod commands;
mod dump;
mod failure;
mod output;
mod random;
mod units;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use client::Cluster;
use failure::{EXIT_CODES, FAILED, Failure};

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Brokers to ask first, host:port, separated by commas
    #[arg(
        short = 'b',
        long,
        value_name = "HOST:PORT",
        env = "FLOWSTONE_BOOTSTRAP",
        default_value = "127.0.0.1:9092",
        global = true
    )]
    bootstrap_server: String,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
    /// How long a request may take, such as 500ms or 30s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration, global = true)]
    timeout: Duration,
}

impl Common {
    fn connect(&self) -> Result<Cluster, Failure> {
        Cluster::connect(&self.bootstrap_server, self.timeout)
    }
}

/// Work with Flowstone, or with any Kafka cluster.
#[derive(Parser, Debug)]
#[command(name = "flowstone", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  flowstone topics create orders --partitions 6
  echo 'k1:hello' | flowstone produce orders -K :
  flowstone consume orders --from beginning --exit
  flowstone consume orders --group billing
  flowstone groups describe billing
  flowstone -b broker1:9092 cluster brokers --json
  flowstone bench produce --partitions 8 --batch-bytes 16KiB --seconds 10
  flowstone format -t $(flowstone random-uuid) -c server.properties --standalone
  flowstone log dump /var/lib/flowstone/orders-0

`flowstone COMMAND --help` has examples of each.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Write a node's identity to its log directories, before its first start
    Format(commands::format::Format),
    /// Print a fresh cluster id
    RandomUuid,
    /// Say what a node's log directories hold
    Info(commands::format::Info),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topics(commands::topics::Topics),
    /// Describe, set and delete the configs of topics and brokers
    #[command(subcommand)]
    Configs(commands::configs::Configs),
    /// Send lines of standard input as records
    Produce(commands::produce::Produce),
    /// Print records
    Consume(commands::consume::Consume),
    /// List, describe, reset and delete consumer groups
    #[command(subcommand)]
    Groups(commands::groups::Groups),
    /// Show the cluster: id, brokers, quorum, API versions, log directories
    #[command(subcommand)]
    Cluster(commands::cluster::ClusterCommand),
    /// Read a node's files (never changes them)
    #[command(subcommand)]
    Log(commands::log::Log),
    /// Measure a cluster under load
    #[command(subcommand)]
    Bench(commands::bench::Bench),
    /// Print a shell's completion script
    Completions(commands::completions::Completions),
}

fn main() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    let result = match command {
        Command::Format(format) => format.run(&common),
        Command::RandomUuid => commands::format::random_uuid(),
        Command::Info(info) => info.run(&common),
        Command::Topics(topics) => topics.run(&common),
        Command::Configs(configs) => configs.run(&common),
        Command::Produce(produce) => produce.run(&common),
        Command::Consume(consume) => consume.run(&common),
        Command::Groups(groups) => groups.run(&common),
        Command::Cluster(cluster) => cluster.run(&common),
        Command::Log(log) => log.run(&common),
        Command::Bench(bench) => bench.run(&common),
        Command::Completions(completions) => completions.run::<Cli>(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS, // `flowstone ... | head` has what it wants.
        Err(error) => {
            eprintln!("flowstone: {error:#}");
            ExitCode::from(error.downcast_ref::<Failure>().map_or(FAILED, Failure::status))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// "--help teaches by example": each command that does something has one.
    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            for inner in command.get_subcommands() {
                walk(inner, &path);
            }
            let has_options = command.get_positionals().next().is_some() || path.contains("bench");
            if !command.has_subcommands() && has_options {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("flowstone "), "{path} has no example");
            }
        }
        walk(&Cli::command(), "");
    }

    #[test]
    fn options_that_all_commands_take_may_come_last() {
        let cli = Cli::try_parse_from(["flowstone", "topics", "list", "--json", "-b", "h:1"]);
        let cli = cli.unwrap();
        assert!(cli.common.json);
        assert_eq!(cli.common.bootstrap_server, "h:1");
    }
}
