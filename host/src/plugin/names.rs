//! The path under which debuggers find the file of a loaded library.
//!
//! Debuggers, and the backtraces of std, read a library's path from the dynamic linker's list of loaded libraries. A
//! library is loaded from its private copy ([`super::copy`]), by the path of the mold's descriptor, `/proc/PID/fd/N`,
//! which names nothing, or another file, once the mold has exited. So the entry in the list is one of:
//!
//! - the path of the original, as long as that file is the build that was copied. It is valid in other processes, and
//!   for a core that is read after the process has ended.
//! - the path of the process's own descriptor of the copy, once the original was replaced or cannot be read: an old path
//!   must not lead a debugger to the symbols of another build.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::{File, Metadata};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use libloading::os::unix::Library;

use super::build_id::BuildId;
use super::copy::descriptor_path;
use super::kind::Kind;
use crate::message::LoadedLibrary;

/// The name of a library that was loaded from a copy.
#[derive(Debug)]
pub struct LibraryName {
    path: PathBuf,
    original: &'static CStr,
    copy: RawFd,
    build_id: Option<BuildId>,
    /// The entry in the dynamic linker's list.
    entry: &'static AtomicPtr<c_char>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The original when it was last opened, and whether that was the build that was copied.
    seen: Option<(Identity, bool)>,
    /// The identity of the file that was copied.
    copied: Identity,
    /// The path of the copy, and the process that it belongs to.
    copy_path: Option<(u32, &'static CStr)>,
}

impl LibraryName {
    /// Names the library with this handle of dlopen(3), which is never closed, after its original at `path`.
    /// `original` describes the file that was copied, and `copy` is the descriptor of the copy.
    pub fn new(handle: *mut c_void, path: &Path, original: &Metadata, copy: &File) -> Option<Self> {
        use std::os::fd::AsRawFd as _;
        let path = std::fs::canonicalize(path).ok()?;
        let name = Self {
            original: leak(path.as_os_str().as_bytes())?,
            path,
            copy: copy.as_raw_fd(),
            build_id: BuildId::of(copy),
            entry: entry_of(handle)?,
            state: Mutex::new(State {
                seen: None,
                copied: Identity::of(original),
                copy_path: None,
            }),
        };
        name.refresh();
        Some(name)
    }

    /// Chooses between the original and the copy.
    fn refresh(&self) {
        let Ok(mut state) = self.state.try_lock() else { return };
        if self.is_original_intact(&mut state) {
            self.entry.store(self.original.as_ptr().cast_mut(), Ordering::Release);
        } else {
            self.use_copy(&mut state);
        }
    }

    fn use_copy(&self, state: &mut State) {
        let process = std::process::id();
        if state.copy_path.is_none_or(|(owner, _)| owner != process) {
            // At most one string per library and process is leaked.
            let path = leak(descriptor_path(self.copy).as_os_str().as_bytes());
            state.copy_path = path.map(|path| (process, path));
        }
        if let Some((_, path)) = state.copy_path {
            self.entry.store(path.as_ptr().cast_mut(), Ordering::Release);
        }
    }

    /// Returns whether the file at the original's path can be read and is the build that was copied. It is
    /// opened only if it is not the file that was seen last.
    fn is_original_intact(&self, state: &mut State) -> bool {
        let Ok(metadata) = std::fs::metadata(&self.path) else { return false };
        if let Some((identity, intact)) = &state.seen
            && *identity == Identity::of(&metadata)
        {
            return *intact;
        }
        // Any other kind of file could keep the caller waiting.
        let file = metadata.is_file().then(|| File::open(&self.path).ok()).flatten();
        let intact = file.is_some_and(|file| {
            let is_copied = Identity::of(&metadata) == state.copied;
            is_copied || (self.build_id.is_some() && BuildId::of(&file) == self.build_id)
        });
        state.seen = Some((Identity::of(&metadata), intact));
        intact
    }
}

/// The names of an application that is opened in a worker, and of what it brings.
#[derive(Debug)]
pub struct LateNames {
    application: LoadedLibrary,
    names: OnceLock<Vec<LibraryName>>,
}

impl LateNames {
    /// The names of the application at `path`, which will be loaded from `copy`.
    pub fn new(path: &Path, copy: &File) -> Option<Arc<Self>> {
        let path = std::fs::canonicalize(path).ok()?;
        let application = describe(Kind::App, &path, BuildId::of(copy).as_ref());
        Some(Arc::new(Self { application, names: OnceLock::new() }))
    }

    /// Sets the names, once the libraries are loaded.
    pub fn set(&self, names: Vec<LibraryName>) {
        // Fails only if they are already set.
        let _ = self.names.set(names);
    }

    fn get(&self) -> &[LibraryName] {
        self.names.get().map_or(&[], Vec::as_slice)
    }
}

/// The libraries of a process: plugins, and what they brought.
#[derive(Debug)]
pub struct LibraryNames {
    loaded: Vec<(Option<Kind>, LibraryName)>,
    late: Option<Arc<LateNames>>,
}

impl LibraryNames {
    /// A process's libraries; those that a plugin brought have no kind. `late` are those that will be opened in a worker.
    pub fn new(loaded: Vec<(Option<Kind>, LibraryName)>, late: Option<Arc<LateNames>>) -> Self {
        Self { loaded, late }
    }

    /// Describes the plugins for the status.
    pub fn describe(&self) -> Vec<LoadedLibrary> {
        let of_kind = |(kind, name): &(Option<Kind>, LibraryName)| {
            Some(describe((*kind)?, &name.path, name.build_id.as_ref()))
        };
        let mut libraries: Vec<_> = self.loaded.iter().filter_map(of_kind).collect();
        if let Some(late) = &self.late {
            // Behind the worker class.
            libraries.insert(libraries.len().min(1), late.application.clone());
        }
        libraries
    }

    fn all(&self) -> impl Iterator<Item = &LibraryName> {
        let late = self.late.iter().flat_map(|late| late.get());
        self.loaded.iter().map(|(_, name)| name).chain(late)
    }

    /// Names the copies: in a process that looks at nothing again and may outlive the originals.
    pub fn use_copies(&self) {
        for name in self.all() {
            if let Ok(mut state) = name.state.try_lock() {
                name.use_copy(&mut state);
            }
        }
    }

    /// Names what is right in this process now.
    pub fn refresh(&self) {
        self.all().for_each(LibraryName::refresh);
    }
}

fn describe(kind: Kind, path: &Path, build_id: Option<&BuildId>) -> LoadedLibrary {
    LoadedLibrary {
        kind: kind.name().to_owned(),
        path: path.to_string_lossy().chars().take(PATH_MAX).collect(),
        build_id: build_id.map(BuildId::to_string),
    }
}

/// Distinguishes a file from an earlier one at the same path.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

fn leak(text: &[u8]) -> Option<&'static CStr> {
    CString::new(text).ok().map(|text| &*Box::leak(text.into_boxed_c_str()))
}

/// The beginning of the dynamic linker's record of a library (`struct link_map` in link.h).
#[cfg(target_env = "gnu")]
#[repr(C)]
struct LinkMap {
    address: usize,
    name: *mut c_char,
}

/// Finds the dynamic linker's record of a library.
#[cfg(target_env = "gnu")]
fn record_of(handle: *mut c_void) -> Option<*mut LinkMap> {
    let mut map: *mut LinkMap = std::ptr::null_mut();
    // SAFETY: the caller's handle is that of a library that is open. With RTLD_DI_LINKMAP dlinfo writes one pointer.
    let result =
        unsafe { libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut map).cast::<c_void>()) };
    (result == 0 && !map.is_null()).then_some(map)
}

/// Returns by how much the addresses of an open library differ from those in its file: no two libraries have the same.
#[cfg(target_env = "gnu")]
pub fn address_of(library: Library) -> Option<u64> {
    let map = record_of(library.into_raw())?;
    // SAFETY: taken apart, the library stays open, and its record with it.
    Some(unsafe { (*map).address } as u64)
}

/// Of other C libraries the record is not known.
#[cfg(not(target_env = "gnu"))]
pub fn address_of(_: Library) -> Option<u64> {
    None
}

/// Finds where the dynamic linker keeps a library's path.
#[cfg(target_env = "gnu")]
fn entry_of(handle: *mut c_void) -> Option<&'static AtomicPtr<c_char>> {
    let map = record_of(handle)?;
    // SAFETY: the record lives as long as the library, which is never closed; the pointer in it is aligned. The linker
    // writes it when it creates the record and only reads it afterwards, a word at a time; what this module stores there
    // are strings that live as long as the process, and the string that they replace is never freed.
    Some(unsafe { AtomicPtr::from_ptr(&raw mut (*map).name) })
}

/// The record of other C libraries is unknown.
#[cfg(not(target_env = "gnu"))]
fn entry_of(_: *mut c_void) -> Option<&'static AtomicPtr<c_char>> {
    None
}

/// Three longer paths would not fit into the mold's message to the arbiter.
const PATH_MAX: usize = 400;
