//! Opens a library and checks that it is compatible before any of its code except constructors runs.
//!
//! `abi_stable`'s own loader is not used: it binds lazily, supports one library per type and process, and refuses
//! a library that is older than the host.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};
use worker_api::abi::abi_stability::check_layout_compatibility;
use worker_api::abi::library::{
    AbiHeaderRef, LibHeader, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule,
    RootModuleError,
};
use worker_api::abi::type_layout::TypeLayout;
use worker_api::{AppModuleRef, HooksModuleRef, WorkerClassRef};

use crate::interpreter::Runtime;
use crate::limits;

use super::build_id::BuildId;
use super::copy::Draft;
use super::elf::{self, NotALibrary};
use super::error::LoadError;
use super::kind::Kind;
use super::names::LibraryName;
use super::private::{LibraryCopy, Missing, Tree, Unusable};

/// An opened and checked library with the root module `M`. It stays open for the life of the process.
pub struct Plugin<M> {
    /// The file it came from.
    pub path: PathBuf,
    /// The version of `worker-api` that it was built against.
    pub api_version: String,
    /// The exported root module.
    pub root: M,
    /// The libraries that it brought along.
    pub private: Vec<PathBuf>,
    /// How debuggers find it, and then these libraries, where they were loaded from private copies.
    pub names: Vec<LibraryName>,
}

/// Opens a worker class.
pub fn open_class(path: &Path) -> Result<Plugin<WorkerClassRef>, LoadError> {
    open(Kind::Class, path)
}

/// Opens an application.
pub fn open_app(path: &Path) -> Result<Plugin<AppModuleRef>, LoadError> {
    open(Kind::App, path)
}

/// Opens a hook plugin.
pub fn open_hooks(path: &Path) -> Result<Plugin<HooksModuleRef>, LoadError> {
    open(Kind::Hooks, path)
}

fn open<M: RootModule>(kind: Kind, path: &Path) -> Result<Plugin<M>, LoadError> {
    let path = path.to_owned();
    let source = match Source::of(&path) {
        Ok(source) => source,
        Err(Unreadable::System(error)) => return Err(LoadError::Unreadable { kind, path, error }),
        Err(Unreadable::NotALibrary(reason)) => {
            return Err(LoadError::NotALibrary { path, reason });
        }
    };
    let Linked { library, private, names } = link(&path, source)?;
    let Some(header) = header_of(&library) else {
        return Err(LoadError::NoRootModule { kind, path });
    };
    let header = header.upgrade().map_err(|error| incompatible(&path, None, &error))?;
    let root = check(header, kind, &path)?;
    let api_version = header.version_strings().version.to_string();
    Ok(Plugin { path, api_version, root, private, names })
}

/// Where a library is loaded from: a complete file.
enum Source {
    /// A copy, and what the file was when it was copied.
    Copy(Draft, Box<Metadata>),
    /// The file itself, where no copy can be made for this reason.
    File(io::Error),
}

impl Source {
    /// Copies a file once its beginning shows that it can be a library: no other file is worth the memory,
    /// and some (devices, pipes) have no end.
    fn of(path: &Path) -> Result<Self, Unreadable> {
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
}

/// Why there is no library to load.
enum Unreadable {
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
struct Linked {
    library: Library,
    private: Vec<PathBuf>,
    names: Vec<LibraryName>,
}

/// Loads the library from a private copy, or from its file where the system executes no copies.
fn link(path: &Path, source: Source) -> Result<Linked, LoadError> {
    let sealed = match source {
        Source::Copy(draft, metadata) => {
            Tree::of(path, *metadata, draft).and_then(|tree| tree.seal().map_err(Unusable::Copy))
        }
        Source::File(error) => Err(Unusable::Copy(error)),
    };
    let (copies, missing) = match sealed {
        Ok(sealed) => sealed,
        Err(Unusable::Library(library, reason)) => {
            return Err(LoadError::PrivateLibrary { path: path.to_owned(), library, reason });
        }
        Err(Unusable::Copy(error)) => {
            let reason = limits::describe_io(&error);
            tracing::warn!(
                "{}: cannot create a private copy ({reason}); loading the file itself; do not overwrite it in place \
                 while the server runs",
                path.display()
            );
            return link_in_place(path);
        }
    };
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

/// Names the runtime that an interpreter has loaded, if its file is still the build that was copied.
pub fn name_of_runtime(runtime: &Runtime) -> Option<LibraryName> {
    let handle = handle_of(&runtime.opened)?;
    let metadata = std::fs::metadata(&runtime.path).ok().filter(Metadata::is_file)?;
    let build = BuildId::of(&File::open(&runtime.path).ok()?);
    (build.is_some() && build == BuildId::of(&runtime.copy)).then_some(())?;
    LibraryName::new(handle, &runtime.path, &metadata, &runtime.copy)
}

/// Returns the handle of a library that is loaded, and stays so.
fn handle_of(path: &Path) -> Option<*mut std::ffi::c_void> {
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

/// Returns the header by which `abi_stable` finds a root module.
fn header_of(library: &Library) -> Option<AbiHeaderRef> {
    // SAFETY: a symbol of this name is a static `LibHeader`, which begins with an `AbiHeader`; the
    // reference to it lives as long as the library, which is never unloaded. `AbiHeaderRef` is a
    // pointer to it that reads nothing but the magic string and two numbers before it is upgraded.
    let symbol =
        unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    symbol.ok().map(|symbol| *symbol)
}

/// Returns the root module of a library if it is compatible with this host: by `abi_stable`'s check, or, for an
/// older library, by the reverse check.
///
/// `abi_stable` accepts a library with more fields and methods than the host has. An older library has fewer, and
/// from its side the host is the one with more: the library's fields are then in the same place on both sides,
/// and the ones it lacks are read as absent, which is the purpose of prefix types.
fn check<M: RootModule>(
    header: &'static LibHeader,
    kind: Kind,
    path: &Path,
) -> Result<M, LoadError> {
    let Some(layout) = header.layout() else {
        return Err(LoadError::Incompatible {
            path: path.to_owned(),
            found: header.version_strings().version.to_string(),
            reason: "it was built without a description of its types".to_owned(),
        });
    };
    let is_of = |kind: &Kind| name_of(layout) == name_of(kind_layout(*kind));
    if let Some(found) = Kind::ALL.into_iter().filter(|other| *other != kind).find(is_of) {
        return Err(LoadError::OtherKind { kind, found, path: path.to_owned() });
    }
    let error = match header.init_root_module::<M>() {
        Ok(root) => return Ok(root),
        Err(error) => error,
    };
    let is_layout = matches!(error, LibraryError::AbiInstability(_));
    if is_layout && check_layout_compatibility(layout, M::LAYOUT).is_ok() {
        tracing::debug!("{}: is older than this host, but compatible", path.display());
        // SAFETY: the library's own check, with the host in the place of the newer side, has just
        // found that every type that both sides know has the same layout, and that the host's
        // additions are where prefix types may have them. That holds in both directions, since a
        // prefix type carries which of its fields exist.
        return unsafe { header.init_root_module_with_unchecked_layout::<M>() }
            .map_err(|error| incompatible(path, Some(header), &error));
    }
    Err(incompatible(path, Some(header), &error))
}

/// Returns the refusal for an error of `abi_stable`, whose own text can be hundreds of lines.
fn incompatible(path: &Path, header: Option<&LibHeader>, error: &LibraryError) -> LoadError {
    tracing::debug!("{}: {error:?}", path.display());
    let path = path.to_owned();
    if let LibraryError::RootModule { err, .. } = error {
        let reason = match err {
            RootModuleError::Unwound => "panicked".to_owned(),
            RootModuleError::Returned(error) => first_line(&error.to_string()),
        };
        return LoadError::Constructor { path, reason };
    }
    let found = header.map(|header| header.version_strings().version.to_string());
    let reason = match error {
        LibraryError::IncompatibleVersionNumber { .. } => "another major version".to_owned(),
        LibraryError::InvalidAbiHeader(_) => "another version of abi_stable".to_owned(),
        LibraryError::AbiInstability(errors) => first_difference(&errors.to_string()),
        other => first_line(&other.to_string()),
    };
    LoadError::Incompatible { path, found: found.unwrap_or("of an unknown version".into()), reason }
}

/// Returns the first difference in `abi_stable`'s report.
fn first_difference(report: &str) -> String {
    let lines = || report.lines().map(str::trim);
    let error = lines().find_map(|line| line.strip_prefix("Error:"));
    let error = error.map(str::trim).filter(|words| !words.is_empty());
    let words = error.or_else(|| lines().find(|line| !line.is_empty()));
    words.unwrap_or("their types differ").trim_end_matches([':', '.']).to_owned()
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

fn name_of(layout: &TypeLayout) -> String {
    layout.full_type().to_string()
}

fn kind_layout(kind: Kind) -> &'static TypeLayout {
    match kind {
        Kind::Class => <WorkerClassRef as RootModule>::CONSTANTS.layout(),
        Kind::App => <AppModuleRef as RootModule>::CONSTANTS.layout(),
        Kind::Hooks => <HooksModuleRef as RootModule>::CONSTANTS.layout(),
    }
    .into_option()
    .expect("the root modules of worker-api are declared with their layout")
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

    #[test]
    fn the_first_difference_of_a_report_is_one_line() {
        let report = "\nCompared <this>:\n  --- Type Layout ---\nError:too many fields\nError:b\n";
        assert_eq!(first_difference(report), "too many fields");
        assert_eq!(first_difference(""), "their types differ");
    }
}
