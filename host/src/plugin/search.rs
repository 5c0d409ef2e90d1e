//! Finds the library for the operator's words: short names are looked up beside the executable, in `../lib/host/`
//! from there, and in the directories of `JIMU_PLUGIN_PATH`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use super::kind::Kind;
use crate::process;
use crate::settings::{Settings, class_advice, class_alias, is_django_project};
use crate::similar::distance;

/// Returns whether the application of these settings is Python's.
pub fn is_python(settings: &Settings) -> bool {
    match settings.wsgi_app.as_deref() {
        Some(spec) => !is_library(spec),
        None => is_django_project(&settings.chdir),
    }
}

/// An application as the operator named it: its library, and what that library serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppChoice {
    /// The library.
    pub library: PathBuf,
    /// The operator's argument; empty without one.
    pub spec: String,
}

/// The directories in which short names are looked up, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// Returns the directories of this process: those of its executable, and of `JIMU_PLUGIN_PATH`.
    pub fn of_process() -> Self {
        let executable = std::env::current_exe().unwrap_or_default();
        Self::new(&[executable], std::env::var_os(VARIABLE).as_deref())
    }

    /// Returns the same for a server that was started in `directory`. The executable is looked up again by
    /// the path that the user gave, so that a new release at that path provides its libraries.
    pub fn of_server(program: &OsStr, directory: &Path) -> Self {
        let named = process::program_path(program, directory).canonicalize().ok();
        let mut executables: Vec<PathBuf> =
            named.into_iter().chain(std::env::current_exe().ok()).collect();
        executables.dedup();
        Self::new(&executables, std::env::var_os(VARIABLE).as_deref())
    }

    fn new(executables: &[PathBuf], variable: Option<&OsStr>) -> Self {
        let named = variable.map(std::env::split_paths).into_iter().flatten();
        let around = executables.iter().flat_map(|executable| {
            let beside = executable.parent().unwrap_or(Path::new("/"));
            let installed = beside.parent().map(|prefix| prefix.join("lib/host"));
            std::iter::once(beside.to_owned()).chain(installed)
        });
        let directories = around.chain(named);
        Self(directories.filter(|directory| !directory.as_os_str().is_empty()).collect())
    }

    /// Finds the library of a worker class: a path is used unchanged, a short name is looked up. If no
    /// library has the name of a gunicorn worker, the class that replaces that worker is used.
    pub fn class(&self, class: &str) -> Result<PathBuf, NotFound> {
        if is_path(class) {
            return Ok(class.into());
        }
        self.find(Kind::Class, class).or_else(|not_found| {
            let alias = class_alias(class).filter(|alias| *alias != class).ok_or(not_found)?;
            self.find(Kind::Class, alias)
        })
    }

    /// Finds the library of an application. A path that ends in `.so` is a library, and everything else is
    /// for the plugin of that name. Without an argument it is the Django project in `directory`, if there is a
    /// `manage.py`, and the built-in welcome page otherwise.
    pub fn app(
        &self,
        spec: Option<&str>,
        directory: &Path,
        plugin: &str,
    ) -> Result<AppChoice, NotFound> {
        let library = match spec {
            None if is_django_project(directory) => self.find(Kind::App, plugin)?,
            None => self.find(Kind::App, WELCOME)?,
            Some(spec) if is_library(spec) => spec.into(),
            Some(_) => self.find(Kind::App, plugin)?,
        };
        Ok(AppChoice { library, spec: spec.unwrap_or_default().to_owned() })
    }

    /// Finds another file of the server's installation.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        self.0.iter().map(|directory| directory.join(name)).find(|path| path.is_file())
    }

    /// Returns the directories.
    pub fn directories(&self) -> &[PathBuf] {
        &self.0
    }

    /// Returns the application that checks worker classes.
    pub fn checking_app(&self) -> Result<PathBuf, NotFound> {
        self.find(Kind::App, CHECK)
    }

    fn find(&self, kind: Kind, name: &str) -> Result<PathBuf, NotFound> {
        let file = file_of(kind, name);
        self.file(&file).ok_or_else(|| NotFound {
            kind,
            name: name.to_owned(),
            directories: self.0.clone(),
            similar: self.similar(kind, name),
        })
    }

    /// Returns the most similar name of an existing library.
    fn similar(&self, kind: Kind, name: &str) -> Option<String> {
        let far = 1 + name.chars().count() / 4;
        self.names(kind)
            .into_iter()
            .map(|candidate| (distance(name, &candidate), candidate))
            .filter(|(distance, _)| *distance <= far)
            .min()
            .map(|(_, candidate)| candidate)
    }

    /// Returns the short names of all existing libraries of that kind.
    fn names(&self, kind: Kind) -> BTreeSet<String> {
        let entries =
            self.0.iter().filter_map(|directory| directory.read_dir().ok()).flatten().flatten();
        entries
            .filter_map(|entry| {
                let file = entry.file_name().into_string().ok()?;
                let name = file.strip_prefix("lib")?.strip_suffix(suffix_of(kind))?;
                Some(name.to_owned())
            })
            .collect()
    }
}

/// A short name that no library has.
#[derive(Debug, thiserror::Error)]
pub struct NotFound {
    kind: Kind,
    name: String,
    directories: Vec<PathBuf>,
    similar: Option<String>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (self.kind.name(), &self.name);
        let file = file_of(self.kind, name);
        write!(f, "{kind} {name:?} not found: no {file} in ")?;
        for (index, directory) in self.directories.iter().enumerate() {
            let between = if index == 0 { "" } else { ", " };
            write!(f, "{between}{}", directory.display())?;
        }
        let advice = (self.kind == Kind::Class).then(|| class_advice(name)).flatten();
        if let Some(advice) = advice {
            return write!(f, "; {advice}");
        }
        match (&self.similar, self.kind) {
            (Some(similar), _) => write!(f, "; did you mean {similar}?"),
            (None, Kind::Class | Kind::Hooks) => write!(f, "; give its path, or set {VARIABLE}"),
            (None, Kind::App) => write!(f, "; build it (cargo build), or set {VARIABLE}"),
        }
    }
}

/// Returns whether a worker class is named by its path.
fn is_path(text: &str) -> bool {
    text.contains('/') || is_library(text)
}

fn is_library(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|extension| extension == "so")
}

fn file_of(kind: Kind, name: &str) -> String {
    format!("lib{name}{}", suffix_of(kind))
}

fn suffix_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Class => "_worker.so",
        Kind::App => "_app.so",
        Kind::Hooks => "_hooks.so",
    }
}

/// Further directories to search, separated by colons.
const VARIABLE: &str = "JIMU_PLUGIN_PATH";
/// The application that is served without an argument.
const WELCOME: &str = "welcome";
/// The application of `--check-worker`.
const CHECK: &str = "check";

#[cfg(test)]
mod tests {
    use super::*;

    /// A prefix with an executable, libraries beside it and installed ones, and a further directory.
    fn house() -> (tempfile::TempDir, SearchPath) {
        let house = tempfile::tempdir().unwrap();
        let files = [
            "bin/libsync_worker.so",
            "bin/libwelcome_app.so",
            "lib/host/libsync_worker.so",
            "lib/host/libgthread_worker.so",
            "mine/libown_worker.so",
            "mine/libwsgi_app.so",
        ];
        for file in files {
            let path = house.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let variable = format!("/nowhere::{}", house.path().join("mine").display());
        let path = SearchPath::new(&[house.path().join("bin/host")], Some(OsStr::new(&variable)));
        (house, path)
    }

    #[test]
    fn short_names_are_searched_in_order() {
        let (house, path) = house();
        for (name, file) in [
            ("sync", "bin/libsync_worker.so"),
            ("gthread", "lib/host/libgthread_worker.so"),
            ("own", "mine/libown_worker.so"),
        ] {
            assert_eq!(path.class(name).unwrap(), house.path().join(file));
        }
    }

    #[test]
    fn paths_are_used_unchanged() {
        let (_house, path) = house();
        for name in ["/a/b", "./sync", "libx.so", "a/libx.so"] {
            assert_eq!(path.class(name).unwrap(), Path::new(name));
        }
    }

    #[test]
    fn an_application_is_a_library_or_the_welcome_page_or_wsgi() {
        let (house, path) = house();
        let at = |file: &str| house.path().join(file);
        let none = path.app(None, house.path(), "wsgi").unwrap();
        assert_eq!((none.library, none.spec.as_str()), (at("bin/libwelcome_app.so"), ""));
        let native = path.app(Some("/a/libx.so"), house.path(), "wsgi").unwrap();
        assert_eq!((native.library, native.spec.as_str()), ("/a/libx.so".into(), "/a/libx.so"));
        let wsgi = path.app(Some("project.wsgi:app"), house.path(), "wsgi").unwrap();
        assert_eq!(
            (wsgi.library, wsgi.spec.as_str()),
            (at("mine/libwsgi_app.so"), "project.wsgi:app")
        );
        std::fs::write(at("manage.py"), "").unwrap();
        let django = path.app(None, house.path(), "wsgi").unwrap();
        assert_eq!((django.library, django.spec.as_str()), (at("mine/libwsgi_app.so"), ""));
    }

    #[test]
    fn a_missing_library_is_reported_with_directories_and_a_suggestion() {
        let (house, path) = house();
        let words = path.class("gtread").unwrap_err().to_string();
        assert!(words.starts_with("worker class \"gtread\" not found: no libgtread_worker.so in "));
        for directory in ["bin", "lib/host", "mine"] {
            assert!(words.contains(&house.path().join(directory).display().to_string()), "{words}");
        }
        assert!(words.ends_with("; did you mean gthread?"), "{words}");
        let words = path.class("unlike-any").unwrap_err().to_string();
        assert!(words.ends_with("; give its path, or set JIMU_PLUGIN_PATH"), "{words}");
        let words = path.class("tornado").unwrap_err().to_string();
        assert!(words.contains("not supported; ") && words.contains("use gthread"), "{words}");
    }

    #[test]
    fn a_directory_of_the_right_name_is_not_a_library() {
        let (house, path) = house();
        std::fs::create_dir(house.path().join("bin/libown_worker.so")).unwrap();
        assert_eq!(path.class("own").unwrap(), house.path().join("mine/libown_worker.so"));
    }
}
