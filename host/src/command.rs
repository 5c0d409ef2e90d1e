//! The installed command: `host`, and under the name that its script gives, `hostctl`.

use crate::plugin::Plugins;
use crate::{hostctl, serve};

/// Runs the command with the arguments of this process, and returns the exit status.
pub fn main() -> i32 {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == AS_HOSTCTL) {
        return hostctl::main(arguments);
    }
    serve::main::<Plugins>()
}

/// First argument from the script that is installed as `hostctl`.
const AS_HOSTCTL: &str = "--hostctl";
