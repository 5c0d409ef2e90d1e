//! The command `host`: the server, for plugins of the stable ABI. Also the command `hostctl`, so that an installation has
//! one executable. Contains no logic.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == AS_HOSTCTL) {
        return host::hostctl::main(arguments);
    }
    std::process::exit(host::serve::main::<host::plugin::Plugins>());
}

/// First argument from the script that is installed as `hostctl`.
const AS_HOSTCTL: &str = "--hostctl";
