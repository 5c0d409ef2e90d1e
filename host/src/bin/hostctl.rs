//! The command `hostctl`: talks to a running `host` through its control socket.

fn main() {}
