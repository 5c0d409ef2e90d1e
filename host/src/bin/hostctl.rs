//! The command `hostctl` as a separate executable, for development: it is installed as a script that executes
//! `host --hostctl`. Contains no logic.

use std::process::ExitCode;

fn main() -> ExitCode {
    host::hostctl::main(std::env::args_os().skip(1))
}
