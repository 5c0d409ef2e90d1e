//! Why a library is refused: one line with the file, the fault and the next step.

use std::io;
use std::path::PathBuf;

use c_api::from_c::table::Misfit;
use worker_api::{Failure, FailureKind};

use super::elf::{self, NotALibrary};
use super::kind::Kind;
use super::search::NotFound;
use crate::exit_status::{APP_LOAD_ERROR, BOOT_ERROR, EX_CONFIG};

/// Why a library is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No library has this short name.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// A settings file without an application: the welcome page is for a start without settings.
    #[error("{}: no application; set wsgi_app, or pass one as the argument APPLICATION", .file.display())]
    NoApplication {
        /// The settings file.
        file: PathBuf,
    },
    /// The setting `load` does not apply.
    #[error(
        "load = \"worker\" is for native applications: a Python application is loaded in each worker unless \
         preload_app is set; remove load"
    )]
    PythonInWorker,
    /// The file does not exist, is a directory, or cannot be read.
    #[error("{}: {}", .path.display(), unreadable(.error, *.kind))]
    Unreadable {
        /// The expected kind.
        kind: Kind,
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file is not a shared library of this machine.
    #[error("{}: {}", .path.display(), unfit(.reason))]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        reason: NotALibrary,
    },
    /// A library that it brings along cannot be loaded.
    #[error("{}: cannot be loaded: its library {} is {}", .path.display(), .library.display(), unfit_library(.reason))]
    PrivateLibrary {
        /// The file.
        path: PathBuf,
        /// The file of the library.
        library: PathBuf,
        /// What it is instead.
        reason: NotALibrary,
    },
    /// The dynamic linker refused it.
    #[error("{}: cannot be loaded: {}", .path.display(), linker(.reason))]
    Linker {
        /// The file.
        path: PathBuf,
        /// The linker's message.
        reason: String,
    },
    /// It exports no root module.
    #[error(
        "{}: is a shared library, but not {}: it exports neither a root module nor jimu_module; build it with worker-api and {}, or with jimu.h",
        .path.display(), .kind.with_article(), macro_of(*.kind)
    )]
    NoRootModule {
        /// The expected kind.
        kind: Kind,
        /// The file.
        path: PathBuf,
    },
    /// It is of another kind.
    #[error(
        "{}: is {}, expected {}; {}",
        .path.display(), .found.with_article(), .kind.with_article(), .found.how_to_pass()
    )]
    OtherKind {
        /// The expected kind.
        kind: Kind,
        /// The actual kind.
        found: Kind,
        /// The file.
        path: PathBuf,
    },
    /// It was built against an incompatible worker-api.
    #[error(
        "{}: was built against worker-api {found}, this host has {}: {reason}; rebuild it against {}",
        .path.display(), worker_api::API_VERSION, worker_api::API_VERSION
    )]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// The version that it was built against, if known.
        found: String,
        /// The difference.
        reason: String,
    },
    /// What it exports by `jimu.h` does not fit.
    #[error("{}: {reason}", .path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// The table, the field and the fault.
        reason: Misfit,
    },
    /// Creating its root module panicked.
    #[error("{}: creating its root module failed: it {reason}; this is a bug in the library", .path.display())]
    Constructor {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// It reported a failure in the mold, while it was set up, created or loaded.
    #[error("{}: the {} refuses to start: {}", .path.display(), .kind.name(), one_line(.failure))]
    Refused {
        /// The kind of plugin that refuses.
        kind: Kind,
        /// The file.
        path: PathBuf,
        /// The failure.
        failure: Failure,
    },
    /// It reported a failure in a worker, before that could serve.
    #[error("{}: the {} cannot boot: {}", .path.display(), .kind.name(), one_line(.failure))]
    Boot {
        /// The kind of plugin that fails.
        kind: Kind,
        /// The file.
        path: PathBuf,
        /// The failure.
        failure: Failure,
    },
    /// The application requires a capability that the class lacks.
    #[error(
        "{}: the application {need}, which the worker class {class} does not support; choose another class with --worker-class"
        , .path.display()
    )]
    Requirements {
        /// The application's file.
        path: PathBuf,
        /// The requirement, as the end of "the application …".
        need: &'static str,
        /// Name of the class.
        class: String,
    },
}

impl LoadError {
    /// Returns the exit status of `host` if this happens at start: gunicorn's 4 if the application cannot be
    /// loaded, 3 if a worker cannot boot, and `EX_CONFIG` for wrong settings.
    pub fn exit_status(&self) -> i32 {
        match self {
            Self::Refused { failure, .. } | Self::Boot { failure, .. }
                if matches!(failure.kind, FailureKind::LOAD | FailureKind::INTERFACE) =>
            {
                APP_LOAD_ERROR
            }
            Self::Boot { failure, .. } if failure.kind != FailureKind::CONFIG => BOOT_ERROR,
            _ => EX_CONFIG,
        }
    }

    /// Returns the failure reported by a plugin, if it is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Refused { failure, .. } | Self::Boot { failure, .. } => Some(failure),
            _ => None,
        }
    }
}

/// Formats a failure and its causes in one line. Causes of several lines (tracebacks) are left out: they go to
/// the log.
pub(super) fn one_line(failure: &Failure) -> String {
    let causes = failure.chain.iter().filter(|cause| !cause.trim_end().contains('\n'));
    let parts: Vec<String> = std::iter::once(&failure.message)
        .chain(causes)
        .map(|part| part.trim().replace(char::is_control, " "))
        .collect();
    parts.join(": ")
}

fn unreadable(error: &io::Error, kind: Kind) -> String {
    let kind = kind.name();
    match error.kind() {
        io::ErrorKind::NotFound => format!("no such file; check the path of the {kind}"),
        io::ErrorKind::IsADirectory => {
            format!("is a directory; pass the {kind}'s library in it, a file that ends in .so")
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot be read by the workers' user ({error})")
        }
        _ => format!("cannot be read: {error}"),
    }
}

fn unfit(reason: &NotALibrary) -> String {
    match reason {
        NotALibrary::NotElf => {
            "not an ELF file, so not a shared library; pass the file that cargo built as a cdylib"
                .to_owned()
        }
        NotALibrary::Machine { found } => {
            let this = elf::this_machine();
            format!("built for {found}, this machine is {this}; build it for this machine")
        }
        NotALibrary::NotShared => {
            "an ELF file, but not a shared library; build it as a cdylib".to_owned()
        }
        NotALibrary::Truncated => "a truncated ELF file; copy it again".to_owned(),
    }
}

/// Describes a library that the operator did not name.
pub fn unfit_library(reason: &NotALibrary) -> &'static str {
    match reason {
        NotALibrary::NotElf => "not an ELF file",
        NotALibrary::Machine { .. } => "built for another machine",
        NotALibrary::NotShared => "an ELF file, but no shared library",
        NotALibrary::Truncated => "cut short; copy it again, as a whole",
    }
}

fn linker(reason: &str) -> String {
    let reason = reason.trim().replace('\n', " ");
    if reason.contains("undefined symbol") {
        format!("{reason}; link it with the library that has this symbol")
    } else if reason.contains("cannot open shared object file") {
        format!("{reason}; install that library, or set LD_LIBRARY_PATH")
    } else {
        reason
    }
}

fn macro_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Class => "export_worker_class!",
        Kind::App => "export_app!",
        Kind::Hooks => "export_hooks!",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_with_a_meaningful_status() {
        let failure = Failure::new(FailureKind::LOAD, "cannot import app.wsgi\n")
            .with_detail("No module named 'app'")
            .with_detail("Traceback:\n  File …");
        let error = LoadError::Refused { kind: Kind::App, path: "/x/a.so".into(), failure };
        assert_eq!(
            error.to_string(),
            "/x/a.so: the application refuses to start: cannot import app.wsgi: No module named 'app'"
        );
        assert_eq!(error.exit_status(), APP_LOAD_ERROR);
        let boot = |failure| LoadError::Boot { kind: Kind::App, path: "/x/a.so".into(), failure };
        assert_eq!(boot(Failure::config("root is no directory")).exit_status(), EX_CONFIG);
        assert_eq!(boot(Failure::unsupported("no threads here")).exit_status(), BOOT_ERROR);
    }

    #[test]
    fn the_other_kind_is_reported_with_the_next_step() {
        let error =
            LoadError::OtherKind { kind: Kind::Class, found: Kind::App, path: "/x/a.so".into() };
        assert_eq!(
            error.to_string(),
            "/x/a.so: is an application, expected a worker class; pass it as the argument APPLICATION"
        );
    }
}
