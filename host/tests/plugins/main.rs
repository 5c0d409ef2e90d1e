//! Plugins on the host's side, with real libraries: what is opened and what is refused ([`load`]),
//! what the command says of it ([`refusals`]), what hook plugins hear ([`hooks`]), and what plugins
//! bring along ([`private`]).

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod hooks;
mod load;
mod private;
mod refusals;

use std::path::PathBuf;

/// A library that cargo built for this test as a dependency.
fn built(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let path = program.with_file_name(format!("lib{name}.so"));
    assert!(path.is_file(), "{} was not built", path.display());
    path
}
