//! Errors in settings: one line per problem, with the location, the key, what was expected and the likely
//! intention.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::unsupported;
use crate::exit_status::EX_CONFIG;

/// Origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// An environment variable that replaces a default.
    Variable(&'static str),
    /// A line of the settings file; 0 if the line is unknown.
    File(Arc<PathBuf>, usize),
    /// The flags in the environment variable of this name.
    CommandVariable(&'static str),
    /// The command line.
    CommandLine,
    /// A request of `hostctl`.
    Request,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Variable(name) | Self::CommandVariable(name) => write!(f, "${name}"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::CommandLine => f.write_str("command line"),
            Self::Request => f.write_str("hostctl"),
        }
    }
}

/// One problem, as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    location: Location,
    message: String,
}

/// Location of a problem: the origin of a value, or a file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    Origin(Origin),
    File(PathBuf),
}

impl Problem {
    /// Creates a problem at a location, without a key.
    pub(super) fn at(origin: &Origin, message: impl Into<String>) -> Self {
        Self { location: Location::Origin(origin.clone()), message: message.into() }
    }

    /// Creates a problem of a whole file.
    pub(super) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self { location: Location::File(path.to_owned()), message: message.into() }
    }

    /// Returns the line in the file; 0 if there is none.
    pub(super) fn line(&self) -> usize {
        match &self.location {
            Location::Origin(Origin::File(_, line)) => *line,
            _ => 0,
        }
    }

    /// Creates a problem of an invalid value, shown as written.
    pub(super) fn value(origin: &Origin, name: &str, expected: &str, found: &str) -> Self {
        let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut = found.char_indices().nth(FOUND_SHOWN).map_or(found.len(), |(at, _)| at);
        let dots = if cut < found.len() { "…" } else { "" };
        Self::at(origin, format!("{name}: {expected}, found {}{dots}", &found[..cut]))
    }

    /// Creates a warning for a key or flag of gunicorn that is accepted but has no effect; `None` for any
    /// other name.
    pub(super) fn ignored(origin: &Origin, name: &str) -> Option<Self> {
        let reason = unsupported::ignored_reason(name)?;
        Some(Self::at(origin, format!("{name} (of gunicorn) has no effect: {reason}")))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Origin(origin) => write!(f, "{origin}: {}", self.message),
            Location::File(path) => write!(f, "{}: {}", path.display(), self.message),
        }
    }
}

/// Why reading the settings failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid values, keys or files: one line each.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// Invalid flags, or `--help` and `--version`, as reported by clap.
    #[error("{0}")]
    Flags(clap::Error),
}

impl Error {
    /// Returns the exit status: 0 after `--help` and `--version`, otherwise [`EX_CONFIG`].
    pub fn exit_status(&self) -> i32 {
        match self {
            Self::Flags(error) if !error.use_stderr() => 0,
            _ => EX_CONFIG,
        }
    }

    /// Prints requested output to standard output and errors to standard error.
    pub fn print(&self) {
        match self {
            // Nothing can be done if the terminal itself no longer exists.
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

/// Maximum number of characters of an invalid value shown in a message.
const FOUND_SHOWN: usize = 60;
