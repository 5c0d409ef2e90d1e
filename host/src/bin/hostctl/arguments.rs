//! The command line of `hostctl`, from which help, completions and manual pages come.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

/// Talk to a running host
#[derive(Parser)]
#[command(
    name = "hostctl",
    version,
    after_help = "Exit status: 0 done; 1 refused, with the reason; 2 wrong usage; 69 no server answers."
)]
pub(crate) struct Arguments {
    #[arg(long, global = true, value_name = "PATH", help = SOCKET_HELP)]
    pub(crate) socket: Option<PathBuf>,
    /// Write the server's answer as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seconds to wait for an answer; 0 waits for ever [default: 10; 600 for commands that start or end workers]
    #[arg(long, global = true, value_parser = timeout)]
    pub(crate) timeout: Option<f64>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// How long an answer may take.
    pub(crate) fn limit(&self) -> Option<Duration> {
        let seconds = self.timeout.unwrap_or(if self.command.changes_workers() {
            CHANGE_SECONDS
        } else {
            ANSWER_SECONDS
        });
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
    }
}

impl Command {
    /// Whether the answer comes only when workers have booted or ended.
    fn changes_workers(&self) -> bool {
        matches!(
            self,
            Self::Reload { .. }
                | Self::Swap { .. }
                | Self::Promote
                | Self::Rollback { .. }
                | Self::Generation { command: GenerationCommand::Rollback { .. } }
        )
    }
}

fn timeout(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds".to_owned())?;
    if (0.0..=1e9).contains(&seconds) { Ok(seconds) } else { Err("expected seconds".to_owned()) }
}

/// What the server answers at once it answers within this time.
const ANSWER_SECONDS: f64 = 10.0;
/// Longer than `boot_timeout` and `graceful_timeout` are by default.
const CHANGE_SECONDS: f64 = 600.0;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show generations, molds and workers
    Status,
    /// Show them again and again, with requests a second
    Top {
        /// Seconds between two looks
        #[arg(short, long, default_value_t = 1.0, value_parser = interval)]
        interval: f64,
        /// End after so many looks
        #[arg(short = 'n', long)]
        count: Option<u32>,
    },
    /// Replace everything by a new generation, and wait until that is done or refused
    Reload {
        /// Serve with another worker class until the next reload
        #[arg(short = 'k', long, value_name = "NAME|PATH")]
        worker_class: Option<String>,
    },
    /// Replace the worker class until the next reload
    Swap {
        /// The class, by its name or as a library
        #[arg(value_name = "NAME|PATH")]
        worker_class: String,
        /// Try it with so many workers first, until it is promoted or rolled back
        #[arg(long, value_name = "WORKERS", num_args = 0..=1, default_missing_value = "1")]
        canary: Option<usize>,
    },
    /// Let the generation on trial take over
    Promote,
    /// End the generation on trial, or go back to the one before
    Rollback {
        /// Go back to what this generation was
        generation: Option<u32>,
    },
    /// Generations: those that there are, and those that were
    Generation {
        #[command(subcommand)]
        command: GenerationCommand,
    },
    /// Serve with another number of workers until the next reload
    Scale {
        /// How many
        workers: usize,
    },
    /// Single workers
    Workers {
        #[command(subcommand)]
        command: WorkersCommand,
    },
    /// The server's settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// End the server when it has answered what it accepted
    Stop,
    /// End the server now
    Quit,
    /// Open the log files anew
    Reopen,
    /// Write a gunicorn.conf.py as a host.toml to standard output, and name what cannot stand there
    Convert {
        /// gunicorn's file, which Python runs
        #[arg(value_name = "gunicorn.conf.py")]
        file: PathBuf,
        #[arg(long, value_name = "PATH", help = PYTHON_HELP)]
        python: Option<PathBuf>,
    },
    /// Write a script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual page, or those of all commands to a folder
    Man {
        /// The folder
        folder: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum GenerationCommand {
    /// List them
    List,
    /// As `rollback`
    Rollback {
        /// Go back to what this generation was
        generation: Option<u32>,
    },
}

#[derive(Subcommand)]
pub(crate) enum WorkersCommand {
    /// End workers gracefully; others take their places
    Kill {
        /// Their process ids
        #[arg(required = true, value_name = "PID")]
        pids: Vec<u32>,
    },
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write the settings in force as TOML
    Show,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds from 0.1 to 3600".to_owned())
}

const SOCKET_HELP: &str =
    "The server's control socket [default: host.ctl in $XDG_RUNTIME_DIR, or in ~/.host]";

const PYTHON_HELP: &str = "The interpreter [default: that of $VIRTUAL_ENV, or python3]";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_canary_is_one_worker_unless_it_is_said() {
        let canary = |words: &[&str]| {
            let words = [&["hostctl", "swap", "./x.so"], words].concat();
            match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
                Ok(Command::Swap { canary, .. }) => canary,
                _ => panic!("no swap"),
            }
        };
        assert_eq!(canary(&[]), None);
        assert_eq!(canary(&["--canary"]), Some(1));
        assert_eq!(canary(&["--canary", "3"]), Some(3));
    }
}
