//! Which interpreter to execute: the setting `python`, or the one that belongs to the server's installation.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::process;
use crate::settings::Settings;

/// An interpreter's path, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    source: &'static str,
}

impl Program {
    /// Finds the interpreter: the setting `python`, else that of the virtual environment that the server is installed
    /// in, else that of `$VIRTUAL_ENV`, else the one beside the server's executable, else `python3` on `PATH`.
    pub fn find(settings: &Settings) -> Self {
        match &settings.python {
            Some(named) => Self::named(Path::new(named), &settings.chdir),
            None => Self::of_installation(&settings.program, &settings.start_directory),
        }
    }

    /// Finds the interpreter without the setting, for a command of the server that was called as `program` in
    /// `directory`.
    pub fn of_installation(program: &OsStr, directory: &Path) -> Self {
        let server = process::program_path(program, directory);
        let executables = [Some(server), env::current_exe().ok()];
        let beside: Vec<&Path> =
            executables.iter().flatten().filter_map(|path| path.parent()).collect();
        let active = env::var_os("VIRTUAL_ENV").filter(|directory| !directory.is_empty());
        Self::choose(&beside, active.as_deref().map(Path::new), directory)
    }

    /// Returns the interpreter's path. Its directory is not resolved: an interpreter finds its virtual environment by
    /// it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The setting may also name a virtual environment, or a program on `PATH`.
    fn named(named: &Path, directory: &Path) -> Self {
        let environment = directory.join(named);
        let path = if environment.is_dir() {
            environment.join("bin/python")
        } else {
            process::program_path(named.as_os_str(), directory)
        };
        Self { path, source: " (setting `python`)" }
    }

    fn choose(beside: &[&Path], active: Option<&Path>, directory: &Path) -> Self {
        let mut in_environment = beside.iter().filter(|beside| is_in_environment(beside));
        if let Some(path) = in_environment.find_map(|beside| interpreter_in(beside)) {
            return Self { path, source: " (of the server's virtual environment)" };
        }
        if let Some(active) = active {
            return Self { path: active.join("bin/python"), source: " (from $VIRTUAL_ENV)" };
        }
        if let Some(path) = beside.iter().find_map(|beside| interpreter_in(beside)) {
            return Self { path, source: " (beside the server)" };
        }
        let path = process::program_path(OsStr::new("python3"), directory);
        Self { path, source: " (from PATH)" }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path.display(), self.source)
    }
}

/// Returns whether a directory for executables belongs to a virtual environment or to one of conda.
fn is_in_environment(directory: &Path) -> bool {
    let Some(prefix) = directory.parent() else { return false };
    prefix.join("pyvenv.cfg").is_file() || prefix.join("conda-meta").is_dir()
}

fn interpreter_in(directory: &Path) -> Option<PathBuf> {
    ["python", "python3"].iter().map(|name| directory.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_files(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        directory
    }

    #[test]
    fn the_interpreter_of_the_servers_environment_comes_first() {
        let prefix = with_files(&["venv/bin/python", "venv/pyvenv.cfg", "usr/bin/python3"]);
        let [venv, usr] = ["venv/bin", "usr/bin"].map(|directory| prefix.path().join(directory));
        let active = Path::new("/active");
        let path = |beside: &Path, active| {
            Program::choose(&[beside], active, Path::new("/")).path().to_owned()
        };
        assert_eq!(path(&venv, Some(active)), venv.join("python"));
        assert_eq!(path(&usr, Some(active)), active.join("bin/python"));
        assert_eq!(path(&usr, None), usr.join("python3"));
        assert_eq!(path(Path::new("/nonexistent/bin"), None).file_name().unwrap(), "python3");
    }

    #[test]
    fn the_setting_is_a_path_an_environment_or_a_name() {
        let prefix = with_files(&["venv/bin/python"]);
        let path = |named: &str| Program::named(Path::new(named), prefix.path()).path;
        assert_eq!(path("venv"), path("venv/bin/python"));
        assert_eq!(path("./venv/bin/python"), prefix.path().join("./venv/bin/python"));
        assert!(path("sh").ends_with("bin/sh"));
        assert_eq!(path("no-such-program"), Path::new("no-such-program"));
    }
}
