//! Opens a library and checks that it is compatible before any of its code except constructors runs.
//!
//! `abi_stable`'s own loader is not used: it binds lazily, supports one library per type and process, and refuses
//! a library that is older than the host.

use std::ffi::c_void;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

use c_api::from_c::module::{
    ForeignApplication, ForeignClass, ForeignHooksModule, ModuleKind, Numbers, SYMBOL,
};
use c_api::from_c::table::Misfit;
use libloading::os::unix::Library;
use worker_api::abi::abi_stability::check_layout_compatibility;
use worker_api::abi::library::{
    AbiHeaderRef, LibHeader, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule,
    RootModuleError,
};
use worker_api::abi::type_layout::TypeLayout;
use worker_api::{AppModuleRef, HooksModuleRef, WorkerClassRef};

use crate::interpreter::Runtime;

use super::build_id::BuildId;
use super::error::LoadError;
use super::kind::Kind;
use super::late::{Create, LateApplication};
use super::link::{Linked, Prepared, Source, Unreadable, handle_of};
use super::module::{AppModule, ClassModule, HooksModule};
use super::names::LibraryName;

/// An opened and checked library that exports `M`. It stays open for the life of the process.
pub struct Plugin<M> {
    /// The file it came from.
    pub path: PathBuf,
    /// The version of `worker-api` or `jimu.h` that it was built against.
    pub api_version: String,
    /// What it exports.
    pub root: M,
    /// The libraries that it brought along.
    pub private: Vec<PathBuf>,
    /// How debuggers find it, and then these libraries, where they were loaded from private copies.
    pub names: Vec<LibraryName>,
}

/// Opens a worker class.
pub fn open_class(path: &Path) -> Result<Plugin<ClassModule>, LoadError> {
    open(Kind::Class, path, Time::Now)
}

/// Opens an application, unless its table asks for being opened in each worker.
pub fn open_app(path: &Path) -> Result<Plugin<AppModule>, LoadError> {
    open(Kind::App, path, Time::Now)
}

/// Checks an application that will be opened in each worker.
pub fn open_app_in_workers(path: &Path) -> Result<Plugin<AppModule>, LoadError> {
    open(Kind::App, path, Time::AfterFork)
}

/// Opens a hook plugin.
pub fn open_hooks(path: &Path) -> Result<Plugin<HooksModule>, LoadError> {
    open(Kind::Hooks, path, Time::Now)
}

/// When a library is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    Now,
    /// In each worker.
    AfterFork,
}

fn open<M: Module>(kind: Kind, path: &Path, time: Time) -> Result<Plugin<M>, LoadError> {
    let path = path.to_owned();
    let source = match Source::of(&path) {
        Ok(source) => source,
        Err(Unreadable::System(error)) => return Err(LoadError::Unreadable { kind, path, error }),
        Err(Unreadable::NotALibrary(reason)) => {
            return Err(LoadError::NotALibrary { path, reason });
        }
    };
    let numbers = source.exported(&path).map(|found| of_kind(found, kind, &path)).transpose()?;
    if numbers.is_none() && time == Time::AfterFork && !source.exports(&path, root_symbol()) {
        return Err(LoadError::NoRootModule { kind, path });
    }
    let prepared = Prepared::of(&path, source)?;
    let door = numbers.as_ref().map_or(Door::Rust, |_| Door::C);
    if time == Time::AfterFork || numbers.as_ref().is_some_and(|numbers| numbers.loads_in_worker) {
        let private = prepared.private();
        let features = numbers.as_ref().map_or(0, |numbers| numbers.features);
        let root = M::late(&path, features, prepared, door);
        let api_version = numbers.as_ref().map_or_else(String::new, version_of);
        return Ok(Plugin { path, api_version, root, private, names: Vec::new() });
    }
    let Linked { library, private, names } = prepared.link(&path)?;
    let (root, api_version) = match &numbers {
        Some(numbers) => (c_root(&library, &path)?, version_of(numbers)),
        None => rust_root(&library, kind, &path)?,
    };
    Ok(Plugin { path, api_version, root, private, names })
}

fn version_of(numbers: &Numbers) -> String {
    format!("jimu.h {}.{}", numbers.version.0, numbers.version.1)
}

/// The interface that a library exports.
#[derive(Clone, Copy)]
enum Door {
    /// `worker-api`.
    Rust,
    /// `jimu.h`.
    C,
}

/// Name of the symbol that every library of `worker-api` exports.
fn root_symbol() -> &'static str {
    ROOT_MODULE_LOADER_NAME_WITH_NUL.trim_end_matches('\0')
}

/// Returns the root module of a library of `worker-api`, and the version that it was built against.
fn rust_root<M: Module>(
    library: &Library,
    kind: Kind,
    path: &Path,
) -> Result<(M, String), LoadError> {
    let Some(header) = header_of(library) else {
        return Err(LoadError::NoRootModule { kind, path: path.to_owned() });
    };
    let header = header.upgrade().map_err(|error| incompatible(path, None, &error))?;
    let root = check::<M::Root>(header, kind, path)?;
    Ok((M::from(root), header.version_strings().version.to_string()))
}

/// Checks that a library of `jimu.h` is of this kind.
fn of_kind(
    numbers: Result<Numbers, Misfit>,
    kind: Kind,
    path: &Path,
) -> Result<Numbers, LoadError> {
    let path = path.to_owned();
    let numbers = match numbers {
        Ok(numbers) => numbers,
        Err(reason) => return Err(LoadError::Misfit { path, reason }),
    };
    let found = match numbers.kind {
        ModuleKind::Application => Kind::App,
        ModuleKind::WorkerClass => Kind::Class,
        ModuleKind::Hooks => Kind::Hooks,
    };
    if found == kind { Ok(numbers) } else { Err(LoadError::OtherKind { kind, found, path }) }
}

/// Returns the checked module of a library of `jimu.h`, whose numbers were checked.
fn c_root<M: Module>(library: &Library, path: &Path) -> Result<M, LoadError> {
    let module = module_of(library, path)?;
    // SAFETY: its numbers were checked in the file, and the library is never unloaded.
    unsafe { M::of_c(module) }.map_err(|reason| LoadError::Misfit { path: path.to_owned(), reason })
}

/// Returns the address of a library's module.
fn module_of(library: &Library, path: &Path) -> Result<*const c_void, LoadError> {
    // SAFETY: the symbol is a constant of one of jimu.h's types; nothing of it is read here.
    let symbol = unsafe { library.get::<*const c_void>(SYMBOL.as_bytes()) };
    symbol.map(|symbol| symbol.into_raw().cast_const().cast()).map_err(|_| LoadError::Linker {
        path: path.to_owned(),
        reason: format!("undefined symbol: {SYMBOL}"),
    })
}

/// A kind of module, by the two doors that it can come through.
trait Module: Sized + From<Self::Root> {
    /// The root module of `worker-api`.
    type Root: RootModule;

    /// Checks the module of a library of `jimu.h`.
    ///
    /// # Safety
    /// Its numbers were checked, and it is valid for the life of the process.
    unsafe fn of_c(module: *const c_void) -> Result<Self, Misfit>;

    /// Returns the module of a library that is opened in workers. Only applications are.
    fn late(path: &Path, needs: u64, prepared: Prepared, door: Door) -> Self;
}

impl Module for ClassModule {
    type Root = WorkerClassRef;

    unsafe fn of_c(module: *const c_void) -> Result<Self, Misfit> {
        // SAFETY: as the caller promises.
        unsafe { ForeignClass::of(module) }.map(|module| Self::C(Box::new(module)))
    }

    fn late(_: &Path, _: u64, _: Prepared, _: Door) -> Self {
        unreachable!(
            "`Numbers::check` accepts the flag of applications only, and only they have a setting"
        )
    }
}

impl Module for AppModule {
    type Root = AppModuleRef;

    unsafe fn of_c(module: *const c_void) -> Result<Self, Misfit> {
        // SAFETY: as the caller promises.
        unsafe { ForeignApplication::of(module) }.map(|module| Self::C(Box::new(module)))
    }

    fn late(path: &Path, needs: u64, prepared: Prepared, door: Door) -> Self {
        let of = path.to_owned();
        let names = prepared.late_names(path);
        let set_names = names.clone();
        let open = move || {
            let Linked { library, names, .. } = prepared.link(&of)?;
            if let Some(late) = set_names {
                late.set(names);
            }
            let module: Self = match door {
                Door::Rust => rust_root(&library, Kind::App, &of)?.0,
                Door::C => c_root(&library, &of)?,
            };
            let create: Create = Box::new(move |host, context| module.create(host, context));
            Ok(create)
        };
        Self::Late(LateApplication::new(path, needs, names, Box::new(open)))
    }
}

impl Module for HooksModule {
    type Root = HooksModuleRef;

    unsafe fn of_c(module: *const c_void) -> Result<Self, Misfit> {
        // SAFETY: as the caller promises.
        unsafe { ForeignHooksModule::of(module) }.map(|module| Self::C(Box::new(module)))
    }

    fn late(_: &Path, _: u64, _: Prepared, _: Door) -> Self {
        unreachable!(
            "`Numbers::check` accepts the flag of applications only, and only they have a setting"
        )
    }
}

/// Names the runtime that an interpreter has loaded, if its file is still the build that was copied.
pub fn name_of_runtime(runtime: &Runtime) -> Option<LibraryName> {
    let handle = handle_of(&runtime.opened)?;
    let metadata = std::fs::metadata(&runtime.path).ok().filter(Metadata::is_file)?;
    let build = BuildId::of(&File::open(&runtime.path).ok()?);
    (build.is_some() && build == BuildId::of(&runtime.copy)).then_some(())?;
    LibraryName::new(handle, &runtime.path, &metadata, &runtime.copy)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_of_a_report_is_one_line() {
        let report = "\nCompared <this>:\n  --- Type Layout ---\nError:too many fields\nError:b\n";
        assert_eq!(first_difference(report), "too many fields");
        assert_eq!(first_difference(""), "their types differ");
    }
}
