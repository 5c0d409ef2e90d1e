//! A recipe of `docs/deploy`: the configuration of a proxy, and in its comment the command that starts each server.

use std::{fs, path::PathBuf};

use crate::artifacts;

/// A configuration file.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Path of the file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Recipe {
    /// Reads a file of `docs/deploy`.
    pub fn read(name: &str) -> Self {
        let path = artifacts::root().join("docs/deploy").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { path, text }
    }

    /// Returns the flags of the command in the comment, which is indented and begins with `host`.
    pub fn flags(&self) -> Vec<String> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("#     "));
        let words = lines.flat_map(str::split_whitespace).filter(|word| *word != "\\");
        let mut words = words.map(|word| word.trim_matches('\'').to_owned());
        assert_eq!(words.next().as_deref(), Some("host"), "the command in {}", self.path.display());
        words.collect()
    }
}
