//! Which settings file is read: a `host.toml`, or a `gunicorn.conf.py`, which Python evaluates.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Uid, User, geteuid};

use super::error::{Error, Origin, Problem};
use super::file::{self, FileSettings};
use super::gunicorn::{self, Report};
use super::table::{Settings, TABLE};
use super::value::Value;
use super::{Action, GivenFlags, Sources, index_of};

/// A settings file, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigName {
    /// A TOML file.
    Toml(PathBuf),
    /// A Python file.
    Python(PathBuf),
    /// A Python module, and the directory in which it is looked up first.
    Module(String, PathBuf),
}

/// A settings file that Python has to evaluate.
#[derive(Debug)]
pub struct PythonFile {
    pub(super) sources: Sources,
    pub(super) name: ConfigName,
    pub(super) settings: Arc<Settings>,
}

impl ConfigName {
    /// Chooses the file: the named one, else those with a default name in `directory`. A Python file that is not read
    /// because there is a TOML file becomes a warning.
    pub(super) fn choose(
        named: Option<&Path>,
        directory: &Path,
    ) -> (Option<Self>, Option<Problem>) {
        if let Some(named) = named {
            return (Some(Self::of(named, directory)), None);
        }
        let [toml, python] = [TOML_DEFAULT, PYTHON_DEFAULT].map(|name| directory.join(name));
        match (toml.exists(), python.exists()) {
            (true, false) => (Some(Self::Toml(toml)), None),
            (true, true) => {
                let message = format!(
                    "not read, because there is {} as well; remove one of them, or name one with --config",
                    toml.display()
                );
                (Some(Self::Toml(toml)), Some(Problem::file(&python, message)))
            }
            (false, true) => (Some(Self::Python(python)), None),
            (false, false) => (None, None),
        }
    }

    /// Returns the file of that name, in the spellings of gunicorn.
    fn of(named: &Path, directory: &Path) -> Self {
        let text = named.to_str().unwrap_or_default();
        if let Some(module) = text.strip_prefix("python:") {
            return Self::Module(module.to_owned(), directory.to_owned());
        }
        let path = text.strip_prefix("file:").map_or(named, Path::new);
        let is = |ending: &str| path.extension().is_some_and(|found| found == ending);
        let is_python = is("py") || is("pyc") || path != named && !is("toml");
        let path = directory.join(path);
        if is_python { Self::Python(path) } else { Self::Toml(path) }
    }

    /// Returns the settings that decide who evaluates a Python file, as far as they are known without evaluating it:
    /// lines such as `user = "www"`, and for root the owner of the file, or of the directory that imports search first.
    pub(super) fn early_settings(
        &self,
        flags: &GivenFlags,
        start_directory: &Path,
    ) -> Result<FileSettings, Problem> {
        let mut early = FileSettings::default();
        let (path, text) = match self {
            Self::Module(_, directory) => (directory, String::new()),
            Self::Python(path) | Self::Toml(path) => {
                let text = file::read_bytes(path)
                    .map_err(|error| Problem::file(path, format!("cannot be read: {error}")))?;
                (path, String::from_utf8_lossy(&text).into_owned())
            }
        };
        let file = Arc::new(path.clone());
        for name in ["user", "group"] {
            let literal = text
                .lines()
                .zip(1..)
                .filter_map(|(line, number)| literal(line, name).map(|value| (value, number)));
            if let (Some((value, number)), Some(index)) = (literal.last(), index_of(name)) {
                let origin = Origin::File(Arc::clone(&file), number);
                let value = TABLE[index]
                    .parse(value)
                    .map_err(|expected| Problem::value(&origin, name, &expected, value))?;
                early.values.push((index, value, origin));
            }
        }
        let user = index_of("user").unwrap_or_default();
        let is_named = flags.has(user) || early.values.iter().any(|(index, ..)| *index == user);
        if geteuid().is_root() && !is_named {
            for code in [path, start_directory] {
                let added = add_owner(code, &mut early);
                let is_roots = added.map_err(|error| {
                    Problem::file(code, format!("the owner is unknown: {error}"))
                })?;
                if !is_roots {
                    break;
                }
            }
        }
        Ok(early)
    }
}

impl PythonFile {
    /// Returns the name of the file or module.
    pub fn name(&self) -> &ConfigName {
        &self.name
    }

    /// Returns the settings without those of the file, except for `user` and `group`: those with which the file is
    /// evaluated.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Creates a problem of the file as a whole, or of a line of it.
    pub fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        match &self.name {
            ConfigName::Python(path) | ConfigName::Toml(path) => {
                Problem::at(&Origin::File(Arc::new(path.clone()), line), message)
            }
            ConfigName::Module(name, _) if line > 0 => {
                Problem::at(&Origin::File(Arc::new(name.into()), line), message)
            }
            ConfigName::Module(name, _) => Problem::file(Path::new(name), message),
        }
    }

    /// Merges what Python has reported about the file with all other sources.
    pub fn finish(&self, report: Report) -> Result<(Arc<Settings>, Action), Error> {
        let mut evaluated = match report {
            Report::Evaluated(evaluated) => evaluated,
            Report::Failed { line, reason, .. } => return Err(self.problem(line, reason).into()),
        };
        if let ConfigName::Python(path) = &self.name {
            // Python's report has only text.
            evaluated.file.clone_from(path);
        }
        let mut settings = gunicorn::settings(&evaluated).map_err(Error::Invalid)?;
        let hooks = index_of("hooks_module").unwrap_or_default();
        if evaluated.has_hooks() && !settings.values.iter().any(|(index, ..)| *index == hooks) {
            let name = match &self.name {
                ConfigName::Module(name, _) => name.clone(),
                ConfigName::Python(_) | ConfigName::Toml(_) => {
                    evaluated.file.to_string_lossy().into_owned()
                }
            };
            let origin = Origin::File(Arc::new(evaluated.file.clone()), 0);
            settings.values.insert(0, (hooks, Value::Text(name), origin));
        }
        let flags = self.sources.flags()?;
        let (mut settings, action) = self.sources.merge(&flags, settings, Some(evaluated.file))?;
        settings.file_imports = evaluated.imports;
        Ok((Arc::new(settings), action))
    }
}

/// Returns the value if `line` is `name = "value"`, or the same with a number.
fn literal<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim();
    let value = value.split_once('#').map_or(value, |(value, _)| value.trim_end());
    let quoted = ['"', '\''].iter().find_map(|quote| {
        let inner = value.strip_prefix(*quote)?.strip_suffix(*quote)?;
        (!inner.is_empty() && !inner.contains(['"', '\'', '\\'])).then_some(inner)
    });
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    quoted.or_else(|| is_number.then_some(value))
}

/// Makes the owner of `path` the user, unless it is root: returns whether it is. The group of a user that the system
/// does not know is that of `path`.
fn add_owner(path: &Path, settings: &mut FileSettings) -> io::Result<bool> {
    let facts = path.metadata()?;
    if facts.uid() == 0 {
        return Ok(true);
    }
    let origin = Origin::File(Arc::new(path.to_owned()), 0);
    let mut set = |name: &str, number: u32| {
        if let Some(index) = index_of(name) {
            settings.values.push((index, Value::Text(number.to_string()), origin.clone()));
        }
    };
    set("user", facts.uid());
    if !matches!(User::from_uid(Uid::from_raw(facts.uid())), Ok(Some(_))) {
        set("group", facts.gid());
    }
    Ok(false)
}

/// The name that is read first.
const TOML_DEFAULT: &str = "host.toml";
/// gunicorn's name.
const PYTHON_DEFAULT: &str = "gunicorn.conf.py";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_toml_python_or_a_module() {
        let of = |name: &str| ConfigName::of(Path::new(name), Path::new("/d"));
        for (name, path) in [
            ("gunicorn.conf.py", "/d/gunicorn.conf.py"),
            ("/etc/x.py", "/etc/x.py"),
            ("file:conf/x.py", "/d/conf/x.py"),
            ("file:/etc/x.conf", "/etc/x.conf"),
        ] {
            assert_eq!(of(name), ConfigName::Python(path.into()), "{name}");
        }
        for (name, path) in [("x.toml", "/d/x.toml"), ("file:x.toml", "/d/x.toml"), ("x", "/d/x")] {
            assert_eq!(of(name), ConfigName::Toml(path.into()), "{name}");
        }
        assert_eq!(of("python:a.b"), ConfigName::Module("a.b".to_owned(), "/d".into()));
    }

    #[test]
    fn only_literals_are_known_before_the_file_is_evaluated() {
        for (line, value) in [
            ("user = \"www\"", Some("www")),
            ("user='www'  # of nginx", Some("www")),
            ("user = 33", Some("33")),
            ("user = os.environ['USER']", None),
            ("user = name", None),
            ("user = 'a' + 'b'", None),
            ("users = 'a'", None),
            ("    user = 'a'", None),
            ("user == 'a'", None),
        ] {
            assert_eq!(literal(line, "user"), value, "{line}");
        }
    }
}
