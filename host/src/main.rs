//! The command `host`: the server, for plugins of the stable ABI. Contains no logic.

fn main() {
    std::process::exit(host::command::main());
}
