//! Where the source tree and cargo's target directory are.

use std::{env, path::PathBuf};

/// Returns the top directory of the sources that cargo was called for. Checkouts that share a target directory also share
/// this executable, so the directory it was compiled in may be that of another one.
pub(crate) fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    here.ancestors().nth(2).expect("this crate is in tests/xtask").to_owned()
}

/// Returns cargo's target directory: this executable is in `debug/` below it.
pub(crate) fn target() -> PathBuf {
    let executable = env::current_exe().expect("a process knows its executable");
    executable.ancestors().nth(2).expect("cargo builds into target/debug").to_owned()
}
