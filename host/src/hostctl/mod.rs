//! The command `hostctl`: controls a running `host` through its control socket. Exit status 0: done; 1: the
//! server refused, with a reason; 2: wrong usage; 69: no server responds.

mod arguments;
mod convert;
mod new;
mod show;
mod sockets;
mod top;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::control::client::{ClientError, ask};
use crate::control::{Request, Response};
use crate::exit_status::FAILED;
use crate::settings::default_control_socket;
use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use arguments::{Arguments, Command, ConfigCommand, GenerationCommand, WorkersCommand};

/// Runs a command with these arguments, without the program's name, and returns the exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> i32 {
    let name = std::iter::once(NAME.into());
    let arguments = Arguments::parse_from(name.chain(arguments));
    match &arguments.command {
        Command::Completions { shell, directory } => {
            return completions(*shell, directory.as_deref());
        }
        Command::Man { directory } => return man(directory.as_deref()),
        Command::Convert { file, python } => return convert::run(file, python.clone()),
        Command::New(project) => return new::run(project),
        _ => {}
    }
    let path = match control_socket(&arguments) {
        Ok(path) => path,
        Err(message) => {
            eprintln!("error: {message}");
            return UNAVAILABLE;
        }
    };
    let result = match &arguments.command {
        Command::Top { interval, count } => top::run(&path, arguments.limit(), *interval, *count),
        command => requests(command).iter().try_fold(Response::default(), |_, request| {
            let response = ask(&path, request, arguments.limit())?;
            show(&arguments, &response);
            Ok(response)
        }),
    };
    match result {
        Ok(Response { ok: true, .. }) => 0,
        Ok(_) => FAILED,
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                ClientError::Unreachable { .. } => UNAVAILABLE,
                _ => FAILED,
            }
        }
    }
}

/// Returns the named socket, otherwise that of the only running server.
fn control_socket(arguments: &Arguments) -> Result<PathBuf, String> {
    if let Some(path) = &arguments.socket {
        return Ok(path.clone());
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let default = default_control_socket(&environment)
        .ok_or("no default control socket; pass one with --socket PATH")?;
    let mut running = sockets::running(&default);
    match running.len() {
        0 => Ok(default),
        1 => Ok(running.remove(0)),
        _ => {
            let paths: Vec<_> = running.iter().map(|path| path.display().to_string()).collect();
            Err(format!(
                "several servers are running; select one with --socket: {}",
                paths.join(", ")
            ))
        }
    }
}

/// Returns the requests of a command, in order.
fn requests(command: &Command) -> Vec<Request> {
    vec![match command {
        Command::Status | Command::Generation { command: GenerationCommand::List } => {
            Request::Status
        }
        Command::Reload { worker_class } => {
            Request::Reload { worker_class: worker_class.as_deref().map(absolute), canary: None }
        }
        Command::Swap { worker_class, canary } => {
            Request::Reload { worker_class: Some(absolute(worker_class)), canary: *canary }
        }
        Command::Promote => Request::Promote,
        Command::Rollback { generation }
        | Command::Generation { command: GenerationCommand::Rollback { generation } } => {
            Request::Rollback { generation: *generation }
        }
        Command::Scale { workers } => Request::Scale { workers: *workers },
        Command::Workers { command: WorkersCommand::Kill { pids } } => {
            return pids.iter().map(|&pid| Request::KillWorker { pid }).collect();
        }
        Command::Config { command: ConfigCommand::Show } => Request::Config,
        Command::Stop => Request::Stop,
        Command::Quit => Request::Quit,
        Command::Reopen => Request::Reopen,
        Command::Top { .. }
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Convert { .. }
        | Command::New(_) => return vec![],
    }]
}

fn show(arguments: &Arguments, response: &Response) {
    if arguments.json {
        say(show::json(response));
        return;
    }
    if !response.ok {
        let reason = response.error.as_deref().unwrap_or("the server gave no reason");
        eprintln!("refused: {reason}");
    }
    if let Some(status) = &response.status {
        let list = matches!(arguments.command, Command::Generation { .. });
        say(if list { show::generations(status) } else { show::status(status) });
    }
    if let Some(config) = &response.config {
        say(config);
    }
}

/// Writes completion scripts: that of `hostctl` to standard output, or those of all commands, under both names of each,
/// to a directory.
fn completions(shell: Shell, directory: Option<&Path>) -> i32 {
    let Some(directory) = directory else {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
        say(script);
        return 0;
    };
    let commands = [
        ("host", crate::settings::command()),
        ("jimu", crate::settings::command()),
        (NAME, Arguments::command()),
        ("jimuctl", Arguments::command()),
    ];
    let result = std::fs::create_dir_all(directory).and_then(|()| {
        commands.into_iter().try_for_each(|(name, mut command)| {
            clap_complete::generate_to(shell, &mut command, name, directory).map(drop)
        })
    });
    written(result, "completion scripts")
}

/// Writes manual pages: that of `hostctl` to standard output, or those of all commands to a directory.
fn man(directory: Option<&Path>) -> i32 {
    let command = Arguments::command();
    let result = match directory {
        Some(directory) => std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command, directory))
            .and_then(|()| clap_mangen::generate_to(crate::settings::command(), directory)),
        None => clap_mangen::Man::new(command).render(&mut std::io::stdout()),
    };
    written(result, "manual pages")
}

fn written(result: std::io::Result<()>, what: &str) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: cannot write the {what}: {error}");
            FAILED
        }
    }
}

/// Writes to standard output. If the reader has closed it, as `head` does, the rest is dropped.
fn say(text: impl AsRef<[u8]>) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_ref()).and_then(|()| output.flush());
}

/// Makes a path absolute, because the server has another working directory than the user.
fn absolute(class: &str) -> String {
    let path = if class.contains('/') { std::path::absolute(class).ok() } else { None };
    path.map_or_else(|| class.to_owned(), |path| path.to_string_lossy().into_owned())
}

const NAME: &str = "hostctl";
/// sysexits' `EX_UNAVAILABLE`.
const UNAVAILABLE: i32 = 69;
