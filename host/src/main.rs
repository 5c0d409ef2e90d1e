//! The command `host`: the server, for the plugins of the stable ABI. No logic of its own.

fn main() {
    std::process::exit(host::serve::main::<host::plugin::Plugins>());
}
