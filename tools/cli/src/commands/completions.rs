//! `flowstone completions`.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  flowstone completions bash > /etc/bash_completion.d/flowstone
  flowstone completions zsh > ~/.zfunc/_flowstone
  flowstone completions fish > ~/.config/fish/completions/flowstone.fish";

/// Print a shell's completion script.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script for the command line of `C`.
    pub fn run<C: CommandFactory>(&self) -> anyhow::Result<()> {
        let mut script = Vec::new(); // clap_complete panics where it cannot write.
        clap_complete::generate(self.shell, &mut C::command(), "flowstone", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}
