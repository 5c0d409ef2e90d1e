//! Copies a library and opens the copy, so that replacing the file changes nothing that runs.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use c_api::from_c::module::Numbers;
use c_api::from_c::table::Misfit;
use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};

use super::copy::Draft;
use super::elf::{self, NotALibrary};
use super::error::LoadError;
use super::exported::{exports, numbers_of};
use super::names::{LateNames, LibraryName};
use super::private::{LibraryCopy, Missing, Tree, Unusable};
use crate::limits;

/// Where a library is loaded from: a complete file.
pub(super) enum Source {
    /// A copy, and what the file was when it was copied.
    Copy(Draft, Box<Metadata>),
    /// The file itself, where no copy can be made for this reason.
    File(io::Error),
}

impl Source {
    /// Copies a file once its beginning shows that it can be a library: no other file is worth the memory,
    /// and some (devices, pipes) have no end.
    pub(super) fn of(path: &Path) -> Result<Self, Unreadable> {
        let facts = std::fs::metadata(path)?;
        if facts.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
        }
        if !facts.is_file() {
            return Err(NotALibrary::NotElf.into());
        }
        let mut file = File::open(path)?;
        elf::check_header(&elf::start_of(&file, elf::HEADER_SIZE)?)?;
        // Read before the copy is made, so that a change during copying is noticed later.
        let metadata = file.metadata()?;
        let source = match Draft::new(path, &mut file) {
            Ok(copy) => Self::Copy(copy, Box::new(metadata)),
            Err(error) => Self::File(error),
        };
        // Check the copy: the file may still be growing.
        let whole = if let Self::Copy(copy, _) = &source { copy.file() } else { &file };
        elf::check_whole(&elf::start_of(whole, elf::START_SIZE)?, whole.metadata()?.len())?;
        Ok(source)
    }

    /// Returns whether the library exports a symbol of this name.
    pub(super) fn exports(&self, path: &Path, name: &str) -> bool {
        match self {
            Self::Copy(draft, _) => exports(draft.file(), name),
            Self::File(_) => File::open(path).is_ok_and(|file| exports(&file, name)),
        }
    }

    /// Returns the checked numbers of the table that a library of `jimu.h` exports, or `None` for any other library.
    pub(super) fn exported(&self, path: &Path) -> Option<Result<Numbers, Misfit>> {
        match self {
            Self::Copy(draft, _) => numbers_of(draft.file()),
            Self::File(_) => numbers_of(&File::open(path).ok()?),
        }
    }
}

/// Why there is no library to load.
pub(super) enum Unreadable {
    System(io::Error),
    NotALibrary(NotALibrary),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<NotALibrary> for Unreadable {
    fn from(reason: NotALibrary) -> Self {
        Self::NotALibrary(reason)
    }
}

/// A library that was loaded.
pub(super) struct Linked {
    pub(super) library: Library,
    pub(super) private: Vec<PathBuf>,
    pub(super) names: Vec<LibraryName>,
}

/// A library that can be opened: the copies of it and of what it brings, or its file where the system executes no copies.
pub(super) enum Prepared {
    Copies(Vec<LibraryCopy>, Vec<Missing>),
    InPlace,
}

impl Prepared {
    /// Copies what the library brings along.
    pub(super) fn of(path: &Path, source: Source) -> Result<Self, LoadError> {
        let sealed = match source {
            Source::Copy(draft, metadata) => Tree::of(path, *metadata, draft)
                .and_then(|tree| tree.seal().map_err(Unusable::Copy)),
            Source::File(error) => Err(Unusable::Copy(error)),
        };
        match sealed {
            Ok((copies, missing)) => Ok(Self::Copies(copies, missing)),
            Err(Unusable::Library(library, reason)) => {
                Err(LoadError::PrivateLibrary { path: path.to_owned(), library, reason })
            }
            Err(Unusable::Copy(error)) => {
                let reason = limits::describe_io(&error);
                tracing::warn!(
                    "{}: cannot create a private copy ({reason}); loading the file itself; do not overwrite it in \
                     place while the server runs",
                    path.display()
                );
                Ok(Self::InPlace)
            }
        }
    }

    /// Returns the names of the libraries that are opened later; `None` where they are loaded from their files.
    pub(super) fn late_names(&self, path: &Path) -> Option<Arc<LateNames>> {
        match self {
            Self::Copies(copies, _) => LateNames::new(path, copies[0].copy.file()),
            Self::InPlace => None,
        }
    }

    /// Returns the files of the libraries that the library brings along.
    pub(super) fn private(&self) -> Vec<PathBuf> {
        match self {
            Self::Copies(copies, _) => copies[1..].iter().map(|copy| copy.path.clone()).collect(),
            Self::InPlace => Vec::new(),
        }
    }

    /// Opens the library.
    pub(super) fn link(self, path: &Path) -> Result<Linked, LoadError> {
        let Self::Copies(copies, missing) = self else { return link_in_place(path) };
        match dlopen(&copies[0].copy.path()) {
            Ok(library) => Ok(keep(library, copies)),
            Err(reason) => {
                let reported = with_originals(&reason, &copies);
                if is_about_a_file(&reason, &copies) {
                    tracing::warn!("{}: loaded from the file itself ({reason})", path.display());
                    return link_in_place(path);
                }
                let reason = describe_missing(&reason, &missing).unwrap_or(reported);
                Err(LoadError::Linker { path: path.to_owned(), reason })
            }
        }
    }
}

fn link_in_place(path: &Path) -> Result<Linked, LoadError> {
    match dlopen(path) {
        Ok(library) => Ok(Linked { library, private: Vec::new(), names: Vec::new() }),
        Err(reason) => Err(LoadError::Linker { path: path.to_owned(), reason }),
    }
}

/// Keeps the copies of a loaded plugin and of what it brought, and names them for debuggers.
fn keep(library: Library, copies: Vec<LibraryCopy>) -> Linked {
    let handle = library.into_raw();
    let mut names = Vec::new();
    let mut private = Vec::new();
    for (index, LibraryCopy { path, metadata, copy }) in copies.into_iter().enumerate() {
        let handle = if index == 0 {
            Some(handle)
        } else {
            private.push(path.clone());
            handle_of(&copy.path())
        };
        let name =
            handle.and_then(|handle| LibraryName::new(handle, &path, &metadata, copy.file()));
        // The first name is the plugin's.
        if index == 0 || !names.is_empty() {
            names.extend(name);
        }
        copy.keep();
    }
    // SAFETY: the handle is that of the library that was taken apart above.
    let library = unsafe { Library::from_raw(handle) };
    Linked { library, private, names }
}

/// Returns the handle of a library that is loaded, and stays so.
pub(super) fn handle_of(path: &Path) -> Option<*mut std::ffi::c_void> {
    // SAFETY: with this flag nothing is loaded, so that no code of a library runs.
    let library = unsafe { Library::open(Some(path), RTLD_LAZY | libc::RTLD_NOLOAD) };
    Some(library.ok()?.into_raw())
}

/// Replaces the paths of copies by those of their originals.
fn with_originals(reason: &str, copies: &[LibraryCopy]) -> String {
    let mut names: Vec<(String, &Path)> =
        copies.iter().map(|copy| (name_of_copy(copy), copy.path.as_path())).collect();
    // One path can be the beginning of another one.
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    names.iter().fold(reason.to_owned(), |reason, (name, path)| {
        reason.replace(name, &path.to_string_lossy())
    })
}

fn name_of_copy(copy: &LibraryCopy) -> String {
    copy.copy.path().to_string_lossy().into_owned()
}

/// Describes a library that is expected beside a plugin and was found nowhere, if that is the reason.
fn describe_missing(reason: &str, missing: &[Missing]) -> Option<String> {
    let is_not_found = COPY_REFUSALS[..2].iter().any(|words| reason.contains(words));
    let Missing { name, directories } =
        missing.iter().find(|missing| is_not_found && reason.contains(&missing.name))?;
    let list: Vec<String> =
        directories.iter().map(|directory| directory.display().to_string()).collect();
    Some(format!(
        "found no readable {name} in {} or the system's directories; copy it to {}",
        list.join(", "),
        list.first()?
    ))
}

fn is_about_a_file(reason: &str, copies: &[LibraryCopy]) -> bool {
    copies.iter().any(|copy| is_about_the_copy(reason, &name_of_copy(copy)))
}

/// Whether dlopen(3) could not open or map the copy, as opposed to not liking what is in it.
fn is_about_the_copy(reason: &str, name: &str) -> bool {
    reason.contains(name) && COPY_REFUSALS.iter().any(|words| reason.contains(words))
}

/// Calls dlopen(3) with all symbols bound immediately, local to the library. The library is never unloaded.
fn dlopen(path: &Path) -> Result<Library, String> {
    let flags = RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE;
    // SAFETY: the library's constructors run here. The operator named this file as code to run; this process
    // is a mold, which exists so that they may do anything.
    unsafe { Library::open(Some(path), flags) }.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        source.unwrap_or_else(|| error.to_string())
    })
}

/// Messages of glibc and musl if a file cannot be opened, or may not be mapped as code.
const COPY_REFUSALS: [&str; 4] = [
    "cannot open shared object file",
    "Error loading shared library",
    "failed to map segment",
    "Operation not permitted",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_copy_lead_to_the_file() {
        let name = "/proc/self/fd/7";
        for reason in [
            "/proc/self/fd/7: failed to map segment from shared object",
            "/proc/self/fd/7: cannot open shared object file: Permission denied",
        ] {
            assert!(is_about_the_copy(reason, name), "{reason}");
        }
        for reason in [
            "/proc/self/fd/7: undefined symbol: nowhere",
            "libnone.so.1: cannot open shared object file: No such file or directory",
        ] {
            assert!(!is_about_the_copy(reason, name), "{reason}");
        }
    }
}
