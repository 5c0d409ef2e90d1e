//! The command line of `hostctl`, from which help, completions and manual pages are generated.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::new::Project;

/// Control a running host
#[derive(Parser)]
#[command(
    name = "hostctl",
    version,
    after_help = "Exit status: 0 done; 1 refused, with the reason; 2 wrong usage; 69 no server responds."
)]
pub(super) struct Arguments {
    #[arg(long, visible_alias = "control-socket", global = true, value_name = "PATH", help = SOCKET_HELP)]
    pub(super) socket: Option<PathBuf>,
    /// Print the server's response as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Seconds to wait for a response; 0 waits without limit [default: 10; 600 for commands that start or
    /// stop workers]
    #[arg(long, global = true, value_parser = timeout)]
    pub(super) timeout: Option<f64>,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    /// Returns the time limit for the response.
    pub(super) fn limit(&self) -> Option<Duration> {
        let seconds = self.timeout.unwrap_or(if self.command.changes_workers() {
            CHANGE_SECONDS
        } else {
            ANSWER_SECONDS
        });
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
    }
}

impl Command {
    /// Returns whether the response comes only after workers have booted or exited.
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

/// Time limit of commands with an immediate response.
const ANSWER_SECONDS: f64 = 10.0;
/// Longer than the defaults of `boot_timeout` and `graceful_timeout`.
const CHANGE_SECONDS: f64 = 600.0;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show generations, molds and workers
    Status,
    /// Show them continuously, with requests per second
    Top {
        /// Seconds between updates
        #[arg(short, long, default_value_t = 1.0, value_parser = interval)]
        interval: f64,
        /// Exit after this many updates
        #[arg(short = 'n', long)]
        count: Option<u32>,
    },
    /// Reload settings, worker class and application; return once the old workers have exited, or with a refusal
    Reload {
        /// Use this worker class until the next reload
        #[arg(short = 'k', long, value_name = "NAME|PATH")]
        worker_class: Option<String>,
    },
    /// Swap the worker class until the next reload, without dropping a request
    Swap {
        /// Worker class: a name, or the path of a library
        #[arg(value_name = "NAME|PATH")]
        worker_class: String,
        /// Start with this many workers of the new class as a canary, until it is promoted or rolled back
        #[arg(long, value_name = "WORKERS", num_args = 0..=1, default_missing_value = "1")]
        canary: Option<usize>,
    },
    /// Promote the canary generation
    Promote,
    /// Remove the canary generation, or return to the previous generation
    Rollback {
        /// Return to this generation
        generation: Option<u32>,
    },
    /// List current and past generations
    Generation {
        #[command(subcommand)]
        command: GenerationCommand,
    },
    /// Change the number of workers until the next reload
    Scale {
        /// Number of workers
        workers: usize,
    },
    /// Manage single workers
    Workers {
        #[command(subcommand)]
        command: WorkersCommand,
    },
    /// Show the server's settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Stop the server gracefully
    Stop,
    /// Stop the server at once
    Quit,
    /// Reopen the log files
    Reopen,
    /// Convert a gunicorn.conf.py to a host.toml on standard output, and list what cannot be converted
    Convert {
        /// gunicorn's configuration file, which Python evaluates
        #[arg(value_name = "gunicorn.conf.py")]
        file: PathBuf,
        #[arg(long, value_name = "PATH", help = PYTHON_HELP)]
        python: Option<PathBuf>,
    },
    /// Write the project of an application, a worker class or hooks, in Rust, C, C++ or Go, with a test
    New(Project),
    /// Print the completion script of hostctl, or write those of all commands to a directory
    Completions {
        /// Shell
        shell: Shell,
        /// Directory
        directory: Option<PathBuf>,
    },
    /// Print the manual page, or write those of all commands to a directory
    Man {
        /// Directory
        directory: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(super) enum GenerationCommand {
    /// List them
    List,
    /// Like `rollback`
    Rollback {
        /// Return to this generation
        generation: Option<u32>,
    },
}

#[derive(Subcommand)]
pub(super) enum WorkersCommand {
    /// Stop workers gracefully; the server replaces them
    Kill {
        /// Process IDs of the workers
        #[arg(required = true, value_name = "PID")]
        pids: Vec<u32>,
    },
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the effective settings as TOML
    Show,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds from 0.1 to 3600".to_owned())
}

const SOCKET_HELP: &str =
    "The server's control socket [default: host.ctl in $XDG_RUNTIME_DIR, or in ~/.host]";

const PYTHON_HELP: &str =
    "Python interpreter to use [default: the one that host uses without --python]";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_socket_may_be_named_as_hosts_flag_is() {
        for flag in ["--socket", "--control-socket"] {
            let arguments = Arguments::try_parse_from(["hostctl", flag, "/run/a.ctl", "status"]);
            assert_eq!(arguments.unwrap().socket.unwrap(), Path::new("/run/a.ctl"));
        }
    }

    #[test]
    fn a_canary_is_one_worker_by_default() {
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
