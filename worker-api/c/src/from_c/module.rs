//! What a library exports as `jimu_module`: checks it, and creates its objects.
//!
//! The check has two parts. [`Numbers`] are read from the file, before the library is opened, so that no code of a
//! library of another version or kind runs. [`ForeignApplication::of`] and its like check the rest, once the pointers in the table
//! are resolved.

use std::ffi::{c_char, c_void};
use std::ptr;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::raw::{AppBox, HooksBox, HostBox, RawApp_TO, RawHooks_TO, RawWorker_TO, WorkerBox};
use worker_api::{RawAppContext, Result};

use super::app::ForeignApp;
use super::hooks::ForeignHooks;
use super::table::{Misfit, check_size, check_version, copy, extend};
use super::worker::ForeignWorker;
use crate::tables::{
    AppObject, AppTable, Application, Context, HooksModule, HooksTable, HostObject, LOAD_IN_WORKER,
    MAGIC, RawFailure, Str, Table, WorkerClass, WorkerTable,
};
use crate::values::c_text;

/// The name of the exported constant.
pub const SYMBOL: &str = "jimu_module";

/// The kind of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// `jimu_application`.
    Application,
    /// `jimu_worker_class`.
    WorkerClass,
    /// `jimu_hooks_module`.
    Hooks,
}

/// The numbers at the beginning of a module, which are the same in the file and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The kind.
    pub kind: ModuleKind,
    /// Major and minor version of `jimu.h`.
    pub version: (u16, u16),
    /// Whether the library must not be opened before the fork.
    pub loads_in_worker: bool,
    /// What an application needs, or a class supports.
    pub features: u64,
}

impl Numbers {
    /// Number of bytes that hold them.
    pub const LENGTH: usize = 32;

    /// Checks the first [`Numbers::LENGTH`] bytes of a module that is exported with this size; 0 if the file does not say.
    pub fn check(bytes: &[u8; Self::LENGTH], exported: u64) -> Result<Self, Misfit> {
        let number = |at: usize, size: usize| {
            let bytes = bytes[at..at + size].iter().rev();
            bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let magic = number(8, 4) as u32;
        if magic != MAGIC {
            return Err(Misfit::Magic { found: magic });
        }
        let table = Table {
            size: number(0, 4) as u32,
            major: number(4, 2) as u16,
            minor: number(6, 2) as u16,
        };
        // A later major version may have other kinds and fields.
        check_version(table, SYMBOL)?;
        let (kind, name, oldest, flags) = match number(12, 4) as u32 {
            1 => (
                ModuleKind::Application,
                "jimu_application",
                size_of::<Application>(),
                LOAD_IN_WORKER,
            ),
            2 => (ModuleKind::WorkerClass, "jimu_worker_class", size_of::<WorkerClass>(), 0),
            3 => (ModuleKind::Hooks, "jimu_hooks_module", size_of::<HooksModule>(), 0),
            found => return Err(Misfit::Kind { found }),
        };
        check_size(table, name, oldest)?;
        if exported != 0 && exported < u64::from(table.size) {
            return Err(Misfit::Exported { table: name, found: table.size, exported });
        }
        let found = number(16, 8);
        if found & !flags != 0 {
            return Err(Misfit::Flags { table: name, found, known: flags });
        }
        Ok(Self {
            kind,
            version: (table.major, table.minor),
            loads_in_worker: found & LOAD_IN_WORKER != 0,
            features: number(24, 8),
        })
    }
}

/// Returns a text of a module.
///
/// # Safety
/// It is NULL or ends in NUL, and is valid for the life of the process.
unsafe fn text(
    text: *const c_char,
    table: &'static str,
    field: &'static str,
) -> Result<&'static str, Misfit> {
    if text.is_null() {
        return Err(Misfit::Missing { table, field });
    }
    // SAFETY: as the caller promises.
    unsafe { c_text(text) }.ok_or(Misfit::Text { table, field })
}

/// An optional text: the empty one if it is NULL.
///
/// # Safety
/// See [`text`].
unsafe fn optional_text(
    place: *const c_char,
    table: &'static str,
    field: &'static str,
) -> Result<&'static str, Misfit> {
    // SAFETY: as the caller promises.
    if place.is_null() { Ok("") } else { unsafe { text(place, table, field) } }
}

/// An application of the other side.
#[derive(Clone, Copy)]
pub struct ForeignApplication {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    module: Application,
    functions: AppTable,
}

impl ForeignApplication {
    /// Checks the module of a library.
    ///
    /// # Safety
    /// `module` is one whose [`Numbers`] were checked, and it and what it refers to is valid for the life of the process.
    pub unsafe fn of(module: *const c_void) -> Result<Self, Misfit> {
        const TABLE: &str = "jimu_application";
        // SAFETY: as the caller promises, here and below.
        unsafe {
            let module = extend(module.cast::<Application>(), TABLE, size_of::<Application>())?;
            let name = text(module.head.name, TABLE, "name")?;
            let version = text(module.head.version, TABLE, "version")?;
            if module.create.is_none() {
                return Err(Misfit::Missing { table: TABLE, field: "create" });
            }
            let functions = copy(module.functions, TABLE)?;
            let needs_loop = module.head.features & worker_api::Requirements::LOOP.0 != 0;
            if needs_loop && functions.run_loop.is_none() {
                return Err(Misfit::Missing { table: "jimu_app_table", field: "run_loop" });
            }
            Ok(Self { name, version, module, functions })
        }
    }

    /// Creates the application.
    pub fn create(&self, host: HostBox, context: &RawAppContext) -> Result<AppBox> {
        let context = Context {
            size: size_of::<Context>() as u32,
            spec: Str::of(&context.spec),
            worker_class: Str::of(&context.class),
            guest_loop: Str::of(&context.guest_loop),
        };
        let create = self.module.create.expect("a checked module has it");
        let mut this: *mut c_void = ptr::null_mut();
        let host: *const HostObject = HostObject::of(host);
        // SAFETY: the module is checked; the arguments are valid during the call, the host for the life of the process.
        RawFailure::catch(|failure| unsafe {
            create(host, &raw const context, &raw mut this, failure)
        })?;
        // SAFETY: `create` made `this` for these functions.
        let app = unsafe { ForeignApp::new(self.functions, this, self.module.head.features) };
        Ok(RawApp_TO::from_value(app, TD_Opaque))
    }
}

/// A worker class of the other side.
#[derive(Clone, Copy)]
pub struct ForeignClass {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// How it serves, in one line.
    pub description: &'static str,
    /// The guest loop that it is made for, or nothing.
    pub guest_loop: &'static str,
    /// Its format of the access log, or nothing.
    pub access_log_format: &'static str,
    /// The bits of `worker_api::Capabilities`.
    pub capabilities: u64,
    module: WorkerClass,
    functions: WorkerTable,
}

impl ForeignClass {
    /// Checks the module of a library.
    ///
    /// # Safety
    /// See [`ForeignApplication::of`].
    pub unsafe fn of(module: *const c_void) -> Result<Self, Misfit> {
        const TABLE: &str = "jimu_worker_class";
        // SAFETY: as the caller promises, here and below.
        unsafe {
            let module = extend(module.cast::<WorkerClass>(), TABLE, size_of::<WorkerClass>())?;
            let name = text(module.head.name, TABLE, "name")?;
            let version = text(module.head.version, TABLE, "version")?;
            let description = text(module.description, TABLE, "description")?;
            let guest_loop = optional_text(module.guest_loop, TABLE, "guest_loop")?;
            let access_log_format =
                optional_text(module.access_log_format, TABLE, "access_log_format")?;
            if module.create.is_none() {
                return Err(Misfit::Missing { table: TABLE, field: "create" });
            }
            let functions = copy(module.functions, TABLE)?;
            let capabilities = module.head.features;
            Ok(Self {
                name,
                version,
                description,
                guest_loop,
                access_log_format,
                capabilities,
                module,
                functions,
            })
        }
    }

    /// Checks the class's settings.
    pub fn setup(&self, host: HostBox) -> Result<()> {
        let Some(setup) = self.module.setup else { return Ok(()) };
        let host: *const HostObject = HostObject::of(host);
        // SAFETY: the module is checked, and the host is valid for the life of the process.
        RawFailure::catch(|failure| unsafe { setup(host, failure) })
    }

    /// Creates a worker.
    pub fn create(&self, host: HostBox, app: AppBox) -> Result<WorkerBox> {
        let create = self.module.create.expect("a checked module has it");
        let mut this: *mut c_void = ptr::null_mut();
        let host: *const HostObject = HostObject::of(host);
        let app: *const AppObject = AppObject::of(app);
        // SAFETY: the module is checked; host and application are valid for the life of the process.
        RawFailure::catch(|failure| unsafe { create(host, app, &raw mut this, failure) })?;
        // SAFETY: `create` made `this` for these functions.
        let worker = unsafe { ForeignWorker::new(self.functions, this) };
        Ok(RawWorker_TO::from_value(worker, TD_Opaque))
    }
}

/// A hook plugin of the other side.
#[derive(Clone, Copy)]
pub struct ForeignHooksModule {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    module: HooksModule,
    functions: HooksTable,
}

impl ForeignHooksModule {
    /// Checks the module of a library.
    ///
    /// # Safety
    /// See [`ForeignApplication::of`].
    pub unsafe fn of(module: *const c_void) -> Result<Self, Misfit> {
        const TABLE: &str = "jimu_hooks_module";
        // SAFETY: as the caller promises, here and below.
        unsafe {
            let module = extend(module.cast::<HooksModule>(), TABLE, size_of::<HooksModule>())?;
            let name = text(module.head.name, TABLE, "name")?;
            let version = text(module.head.version, TABLE, "version")?;
            if module.create.is_none() {
                return Err(Misfit::Missing { table: TABLE, field: "create" });
            }
            let functions = copy(module.functions, TABLE)?;
            Ok(Self { name, version, module, functions })
        }
    }

    /// Creates the hooks.
    pub fn create(&self, host: HostBox) -> Result<HooksBox> {
        let create = self.module.create.expect("a checked module has it");
        let mut this: *mut c_void = ptr::null_mut();
        let host: *const HostObject = HostObject::of(host);
        // SAFETY: the module is checked, and the host is valid for the life of the process.
        RawFailure::catch(|failure| unsafe { create(host, &raw mut this, failure) })?;
        // SAFETY: `create` made `this` for these functions.
        let hooks = unsafe { ForeignHooks::new(self.functions, this) };
        Ok(RawHooks_TO::from_value(hooks, TD_Opaque))
    }
}

// SAFETY: modules are constants of a library that is never unloaded.
unsafe impl Send for ForeignApplication {}
// SAFETY: see above.
unsafe impl Sync for ForeignApplication {}
// SAFETY: see above.
unsafe impl Send for ForeignClass {}
// SAFETY: see above.
unsafe impl Sync for ForeignClass {}
