//! The command `host`: reads the settings and hands over to the arbiter. No logic of its own.

fn main() {}
