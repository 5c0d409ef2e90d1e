//! The C compiler, which Rust needs for linking anyway, for libraries that a test creates.

use std::{fs, path::Path, process::Command};

/// Compiles a shared library that needs the libraries among `arguments`, whether or not it uses them.
pub fn compile(source: &str, library: &Path, arguments: &[&str]) {
    let code = library.with_extension("c");
    fs::write(&code, source).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(library).arg(&code);
    assert!(command.args(arguments).status().unwrap().success(), "{command:?}");
}
