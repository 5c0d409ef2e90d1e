//! The command `hostctl`: talks to a running `host` through its control socket. Exit status 0: done;
//! 1: the server refused, and said why; 2: wrong usage; 69: no server answers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use host::control::client::{ClientError, ask};
use host::control::{Request, Response, Status};
use host::settings::default_control_socket;

#[derive(Parser)]
#[command(version, about = "Talk to a running host")]
struct Arguments {
    #[arg(long, global = true, value_name = "PATH", help = SOCKET_HELP)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show generations, molds and workers
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace everything by a new generation, and wait until that is done or refused
    Reload {
        /// Serve with another worker class until the next reload
        #[arg(short = 'k', long, value_name = "NAME|PATH")]
        worker_class: Option<String>,
    },
    /// Serve with another number of workers until the next reload
    Scale {
        /// How many
        workers: usize,
    },
    /// End the server when it has answered what it accepted
    Stop,
    /// End the server now
    Quit,
    /// Open the log files anew
    Reopen,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let Some(path) = arguments.socket.or_else(|| default_control_socket(&environment)) else {
        eprintln!("error: no control socket is known: name one with --socket PATH");
        return ExitCode::from(UNAVAILABLE);
    };
    let request = match &arguments.command {
        Command::Status { .. } => Request::Status,
        Command::Reload { worker_class } => {
            Request::Reload { worker_class: worker_class.as_deref().map(absolute) }
        }
        Command::Scale { workers } => Request::Scale { workers: *workers },
        Command::Stop => Request::Stop,
        Command::Quit => Request::Quit,
        Command::Reopen => Request::Reopen,
    };
    match ask(&path, &request) {
        Ok(Response { ok: true, status, .. }) => {
            if let Some(status) = status {
                let json = matches!(arguments.command, Command::Status { json: true });
                print!("{}", if json { as_json(&status) } else { as_text(&status) });
            }
            ExitCode::SUCCESS
        }
        Ok(Response { error, .. }) => {
            eprintln!("refused: {}", error.as_deref().unwrap_or("the server gave no reason"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                ClientError::Unreachable { .. } => ExitCode::from(UNAVAILABLE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// A path means the same to the server as to the user, whose working directory is another.
fn absolute(class: &str) -> String {
    let path = if class.contains('/') { std::path::absolute(class).ok() } else { None };
    path.map_or_else(|| class.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn as_json(status: &Status) -> String {
    // The status is made of texts and numbers, which JSON has.
    let mut text = serde_json::to_string_pretty(status).unwrap_or_default();
    text.push('\n');
    text
}

fn as_text(status: &Status) -> String {
    let mut lines = vec![format!(
        "host {} (pid {}), {}, listening at {}",
        status.version,
        status.pid,
        status.state,
        status.listeners.join(", ")
    )];
    for generation in &status.generations {
        let class = generation.class.as_deref().unwrap_or("worker class not loaded");
        let app = generation.app.as_deref().unwrap_or("application not loaded");
        let id = generation.id;
        lines.push(format!("generation {id}: {}, {class}, {app}", generation.state));
        if let Some(mold) = &generation.mold {
            let memory = memory(mold.memory_kib);
            lines.push(format!("  mold   {:>7}  {:<9} {memory}", mold.pid, mold.state));
        }
        for worker in &generation.workers {
            lines.push(format!(
                "  worker {:>7}  {:<9} {}  busy {}  requests {}  age {} s  {}",
                worker.pid,
                worker.state,
                memory(worker.memory_kib),
                worker.busy,
                worker.requests,
                worker.uptime,
                worker.in_flight.join(", ")
            ));
        }
    }
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    trimmed.join("\n") + "\n"
}

fn memory(kib: Option<u64>) -> String {
    kib.map_or_else(
        || "?".to_owned(),
        |kib| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024),
    )
}

const SOCKET_HELP: &str =
    "The server's control socket [default: host.ctl in $XDG_RUNTIME_DIR, or in ~/.host]";

/// sysexits' `EX_UNAVAILABLE`.
const UNAVAILABLE: u8 = 69;
