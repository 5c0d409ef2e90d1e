//! The matrix of behaviors as a program, for the author of a class who has no checkout:
//!
//! ```text
//!     bin/jimu-matrix             the tests that concern a class
//!     lib/jimu-matrix/            the applications and classes that they load
//!     lib/jimu-matrix/source/     the files that they read and compile
//! ```
//!
//! It runs the `host` beside it, or the one that the variable `HOST` names.

use std::path::{Path, PathBuf};

use crate::{
    files,
    paths::root,
    run::{output, run},
    stage::{Linker, build_command, directory, file_of, strip},
};

/// Builds the program and lays it out in `prefix`. With the profile of the tests: they need nothing faster.
pub(crate) fn stage(linker: Linker, prefix: &Path) -> Result<(), String> {
    let mut libraries = build_command(linker)?;
    libraries.arg("--lib");
    run(libraries.args(FIXTURES.iter().flat_map(|(package, _)| ["-p", package])))?;
    strip(&program(linker)?, &prefix.join("bin/jimu-matrix"), None)?;
    let fixtures = prefix.join("lib/jimu-matrix");
    for (_, library) in FIXTURES {
        let file = file_of(library);
        // With symbols and lines, which the stack of a panic shows.
        files::copy(&directory(linker, "debug").join(&file), &fixtures.join(&file))?;
    }
    for path in SOURCES {
        files::copy_tree(&root().join(path), &fixtures.join("source").join(path))?;
    }
    Ok(())
}

/// Builds the test binary, and returns its path, which contains a hash.
fn program(linker: Linker) -> Result<PathBuf, String> {
    let mut command = build_command(linker)?;
    command.args(["-p", "jimu-tests", "--test", "matrix"]);
    let messages = output(command.arg("--message-format=json-render-diagnostics"))?;
    let executable = messages.lines().find_map(executable_in);
    executable.ok_or_else(|| "cargo names no executable of the matrix".to_owned())
}

/// Returns the executable that a message of cargo names, if it is the matrix's.
fn executable_in(message: &str) -> Option<PathBuf> {
    let (_, executable) = message.split_once("\"executable\":\"")?;
    let (path, _) = executable.split_once('"')?;
    message.contains("\"name\":\"matrix\"").then(|| path.into())
}

/// Packages whose libraries the tests of a class load, and the names of these libraries.
const FIXTURES: [(&str, &str); 8] = [
    ("asyncio-app", "asyncio-app"),
    ("check-app", "check-app"),
    ("faulty-app", "faulty-app"),
    ("faulty-class", "faulty-worker"),
    ("hello-app", "hello-app"),
    ("hello-axum-app", "hello-axum-app"),
    ("mirror-app", "mirror-app"),
    ("websocket-echo-app", "websocket-echo-app"),
];
/// Directories of the source tree that they read.
const SOURCES: [&str; 6] = [
    "worker-api/include",
    "workers/kit-c/include",
    "plugins/examples/hello-c",
    "plugins/examples/hello-cpp",
    "plugins/examples/hello-go",
    "plugins/examples/hello-zig",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_that_of_the_matrix() {
        let matrix =
            r#"{"target":{"kind":["test"],"name":"matrix"},"executable":"/t/deps/matrix-1"}"#;
        assert_eq!(executable_in(matrix), Some("/t/deps/matrix-1".into()));
        for other in [
            r#"{"target":{"kind":["bin"],"name":"host"},"executable":"/t/host"}"#,
            r#"{"target":{"kind":["test"],"name":"matrix"},"executable":null}"#,
        ] {
            assert_eq!(executable_in(other), None, "{other}");
        }
    }
}
