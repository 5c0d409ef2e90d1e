//! The host's side of plugins, with real libraries: which are opened and which refused ([`load`], and [`broken_c`] for
//! those of `jimu.h`), the messages of the command ([`refusals`]), the events of hook plugins ([`hooks`]), and private
//! libraries of plugins ([`private`]).

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod broken_c;
mod hooks;
mod load;
mod private;
mod refusals;

use std::path::PathBuf;

/// Returns a library that cargo built for this test as a dependency.
fn built(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let path = program.with_file_name(format!("lib{name}.so"));
    assert!(path.is_file(), "{} was not built", path.display());
    path
}
