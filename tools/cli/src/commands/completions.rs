//! `flowstone completions`.

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
    #[expect(clippy::unnecessary_wraps, reason = "as every command")]
    pub fn run<C: CommandFactory>(&self) -> anyhow::Result<()> {
        clap_complete::generate(self.shell, &mut C::command(), "flowstone", &mut std::io::stdout());
        Ok(())
    }
}
