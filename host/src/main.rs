//! The command `host`: reads the settings and hands over to the arbiter. No logic of its own.

use host::settings::{Action, Sources};

fn main() {
    let sources = Sources::of_process().unwrap_or_else(|error| {
        eprintln!("error: the working directory cannot be read: {error}");
        std::process::exit(host::settings::EX_CONFIG);
    });
    let (settings, action) = sources.load().unwrap_or_else(|error| {
        error.print();
        std::process::exit(error.exit_status());
    });
    if action == Action::PrintConfig {
        print!("{}", settings.to_toml());
    }
}
