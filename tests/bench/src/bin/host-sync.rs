//! `host` with the worker class sync linked in: the other side of the measurement of what it costs
//! that a class is a library. All else is as in `host`; the application is loaded.

use std::path::Path;

use host::plugin::load::Plugin;
use host::plugin::module::ClassModule;
use host::plugin::plugins::ClassSource;
use host::plugin::{LoadError, Plugins};

fn main() {
    std::process::exit(host::serve::main::<Plugins<Linked>>());
}

/// The class of this executable.
struct Linked;

impl ClassSource for Linked {
    fn open(path: &Path) -> Result<Plugin<ClassModule>, LoadError> {
        let root = sync_worker::root_module();
        Ok(Plugin {
            path: path.to_owned(),
            api_version: worker_api::API_VERSION.into(),
            root: ClassModule::Rust(root),
            private: Vec::new(),
            names: Vec::new(),
        })
    }
}
