//! The command `hostctl` as a separate executable, for development: it is installed as a script that executes
//! `host --hostctl`. Contains no logic.

fn main() {
    std::process::exit(host::hostctl::main(std::env::args_os().skip(1)));
}
