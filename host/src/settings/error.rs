//! What can be wrong with settings, and how it is said: one line for each problem, with the place
//! it was found at, the key, what was expected and the likely intention.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{absent, declare::Setting, table::TABLE};
use crate::similar::distance;

/// Exit status for settings that cannot be used: `EX_CONFIG` of sysexits(3).
pub const EX_CONFIG: i32 = 78;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// An environment variable that stands for a default.
    Variable(&'static str),
    /// A line of the settings file.
    File(Arc<PathBuf>, usize),
    /// The flags in `HOST_CMD_ARGS`.
    CommandVariable,
    /// The command line.
    CommandLine,
    /// A request of `hostctl`.
    Request,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Variable(name) => write!(f, "${name}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::CommandVariable => f.write_str("$HOST_CMD_ARGS"),
            Self::CommandLine => f.write_str("command line"),
            Self::Request => f.write_str("hostctl"),
        }
    }
}

/// One thing that is wrong, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    message: String,
}

/// Where something is wrong: the origin of a value, or a file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Origin(Origin),
    File(PathBuf),
}

impl Problem {
    /// Something that is wrong at a place, with no key to name.
    pub(super) fn at(origin: &Origin, message: impl Into<String>) -> Self {
        Self { place: Place::Origin(origin.clone()), message: message.into() }
    }

    /// Something that is wrong with a file as a whole.
    pub(super) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self { place: Place::File(path.to_owned()), message: message.into() }
    }

    /// The line of a file, 0 where there is none.
    pub(super) fn line(&self) -> usize {
        match &self.place {
            Place::Origin(Origin::File(_, line)) => *line,
            _ => 0,
        }
    }

    /// A value that does not fit, as it was written.
    pub(super) fn value(origin: &Origin, name: &str, expected: &str, found: &str) -> Self {
        let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut = found.char_indices().nth(FOUND_SHOWN).map_or(found.len(), |(at, _)| at);
        let dots = if cut < found.len() { "…" } else { "" };
        Self::at(origin, format!("{name}: {expected}, found {}{dots}", &found[..cut]))
    }

    /// A key or flag of gunicorn's that is accepted and has no effect; `None` for any other name.
    pub(super) fn ignored(origin: &Origin, name: &str) -> Option<Self> {
        let reason = absent::ignored_reason(name)?;
        Some(Self::at(origin, format!("{name} (of gunicorn) has no effect: {reason}")))
    }

    /// A key that no setting has.
    pub(super) fn unknown(origin: &Origin, key: &str) -> Self {
        let hint = match (absent::reason(key), nearest(key)) {
            (Some(reason), _) => format!(" (of gunicorn): {reason}"),
            (None, Some(setting)) => format!("; did you mean {:?}?", setting.name),
            (None, None) => String::new(),
        };
        Self::at(origin, format!("unknown key {key:?}{hint}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Origin(origin) => write!(f, "{origin}: {}", self.message),
            Place::File(path) => write!(f, "{}: {}", path.display(), self.message),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Values, keys or files that cannot be used: each one in a line of its own.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// Flags that cannot be parsed, or `--help` and `--version`, in clap's words.
    #[error("{0}")]
    Flags(clap::Error),
}

impl Error {
    /// The exit status: 0 after `--help` and `--version`, else [`EX_CONFIG`].
    pub fn exit_status(&self) -> i32 {
        match self {
            Self::Flags(error) if !error.use_stderr() => 0,
            _ => EX_CONFIG,
        }
    }

    /// Tells the user, on standard output what was asked for, on standard error what is wrong.
    pub fn print(&self) {
        match self {
            // Nothing is left to be done where the terminal itself is gone.
            Self::Flags(error) => drop(error.print()),
            Self::Invalid(problems) => {
                for problem in problems {
                    eprintln!("error: {problem}");
                }
            }
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The setting whose name or flag is most like `key`, if one is alike enough to be meant.
fn nearest(key: &str) -> Option<&'static Setting> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let spellings = |setting: &'static Setting| {
        let flags = setting.long.into_iter().chain(setting.aliases.iter().copied());
        std::iter::once(setting.name).chain(flags)
    };
    TABLE
        .iter()
        .filter_map(|setting| {
            let distance =
                spellings(setting).map(|name| distance(&key, &name.replace('-', "_"))).min()?;
            Some((distance, setting))
        })
        .filter(|(distance, _)| *distance <= 1 + key.chars().count() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, setting)| setting)
}

/// How much of a wrong value a message shows, in characters.
const FOUND_SHOWN: usize = 60;
