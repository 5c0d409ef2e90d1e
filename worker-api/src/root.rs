//! Root modules: what a `.so` exports, and the macros that export them.
//!
//! A library exports exactly one root module. They are prefix types: a later minor version appends fields.

// The derive for prefix types writes `Clone` for a `Copy` type by hand.
#![allow(clippy::expl_impl_clone_on_copy)]

use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RStr, RString};
use abi_stable::{StableAbi, package_version_strings};

use crate::app::{self, AppContext, AppFactory, AppHandle};
use crate::failure::Failure;
use crate::guard::catch_flat;
use crate::hooks::{self, HooksFactory};
use crate::host::Host;
use crate::log;
use crate::raw::{AppBox, HooksBox, HostBox, WorkerBox};
use crate::worker::{self, WorkerContext, WorkerFactory};

/// The root module of a worker class.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = WorkerClassRef)))]
#[sabi(missing_field(panic))]
pub struct WorkerClass {
    /// See [`WorkerFactory::NAME`].
    pub name: RStr<'static>,
    /// See [`WorkerFactory::VERSION`].
    pub version: RStr<'static>,
    /// See [`WorkerFactory::DESCRIPTION`].
    pub description: RStr<'static>,
    /// The bits of [`crate::Capabilities`].
    pub capabilities: u64,
    /// See [`WorkerFactory::GUEST_LOOP`].
    pub guest_loop: RStr<'static>,
    /// See [`WorkerFactory::ACCESS_LOG_FORMAT`].
    pub access_log_format: RStr<'static>,
    /// Called in the mold: connects the library to the host's log and checks the settings; see [`WorkerFactory::setup`].
    pub setup: extern "C" fn(host: HostBox) -> RResult<(), Failure>,
    /// Called in a worker process: creates the worker; see [`WorkerFactory::new`].
    #[sabi(last_prefix_field)]
    pub new: extern "C" fn(host: HostBox, app: AppBox) -> RResult<WorkerBox, Failure>,
}

impl RootModule for WorkerClassRef {
    abi_stable::declare_root_module_statics! {WorkerClassRef}
    const BASE_NAME: &'static str = "worker";
    const NAME: &'static str = "worker class";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// The root module of an application.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = AppModuleRef)))]
#[sabi(missing_field(panic))]
pub struct AppModule {
    /// See [`AppFactory::NAME`].
    pub name: RStr<'static>,
    /// See [`AppFactory::VERSION`].
    pub version: RStr<'static>,
    /// Called in the mold: creates the application; see [`AppFactory::new`].
    #[sabi(last_prefix_field)]
    pub new: extern "C" fn(host: HostBox, context: RawAppContext) -> RResult<AppBox, Failure>,
}

impl RootModule for AppModuleRef {
    abi_stable::declare_root_module_statics! {AppModuleRef}
    const BASE_NAME: &'static str = "app";
    const NAME: &'static str = "application";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// The root module of a hook plugin.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HooksModuleRef)))]
#[sabi(missing_field(panic))]
pub struct HooksModule {
    /// See [`HooksFactory::NAME`].
    pub name: RStr<'static>,
    /// See [`HooksFactory::VERSION`].
    pub version: RStr<'static>,
    /// Called in the mold: creates the hooks; see [`HooksFactory::new`].
    #[sabi(last_prefix_field)]
    pub new: extern "C" fn(host: HostBox) -> RResult<HooksBox, Failure>,
}

impl RootModule for HooksModuleRef {
    abi_stable::declare_root_module_statics! {HooksModuleRef}
    const BASE_NAME: &'static str = "hooks";
    const NAME: &'static str = "hook plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// The strings of an [`AppContext`], as passed across the boundary.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawAppContext {
    /// See [`AppContext::spec`].
    pub spec: RString,
    /// See [`AppContext::class`].
    pub class: RString,
    /// See [`AppContext::guest_loop`].
    pub guest_loop: RString,
}

/// Version of `worker-api` that this library was compiled against.
pub const API_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Exports a [`WorkerFactory`] as this library's worker class. Use it once in a `cdylib`.
#[macro_export]
macro_rules! export_worker_class {
    ($worker:ty) => {
        /// Returns the class's root module, which the host looks up in the library.
        pub fn root_module() -> $crate::WorkerClassRef {
            $crate::__worker_class::<$worker>()
        }

        $crate::__export_root!($crate::WorkerClassRef);
    };
}

/// Exports an [`AppFactory`] as this library's application. Use it once in a `cdylib`.
#[macro_export]
macro_rules! export_app {
    ($app:ty) => {
        /// Returns the application's root module, which the host looks up in the library.
        pub fn root_module() -> $crate::AppModuleRef {
            $crate::__app_module::<$app>()
        }

        $crate::__export_root!($crate::AppModuleRef);
    };
}

/// Exports a [`HooksFactory`] as this library's hooks. Use it once in a `cdylib`.
#[macro_export]
macro_rules! export_hooks {
    ($hooks:ty) => {
        /// Returns the hooks' root module, which the host looks up in the library.
        pub fn root_module() -> $crate::HooksModuleRef {
            $crate::__hooks_module::<$hooks>()
        }

        $crate::__export_root!($crate::HooksModuleRef);
    };
}

/// Defines the static by which `abi_stable` finds a root module. The attribute of `abi_stable` refers to the crate as
/// `::abi_stable`, which does not resolve in a library that depends only on `worker-api`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_root {
    ($module:ty) => {
        const _: () = {
            extern "C" fn erased() -> $crate::abi::library::RootModuleResult {
                $crate::abi::library::__call_root_module_loader(root_module)
            }

            // SAFETY: `abi_stable` reserves this name for the root module's header, and a library defines it once.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::abi::library::LibHeader =
                // SAFETY: `erased` returns a root module of exactly this type.
                unsafe {
                    $crate::abi::library::LibHeader::from_constructor::<$module>(
                        erased,
                        $crate::abi::library::CheckTypeLayout::Yes,
                    )
                };
        };
    };
}

#[doc(hidden)]
pub fn __worker_class<W: WorkerFactory>() -> WorkerClassRef {
    use abi_stable::prefix_type::PrefixTypeTrait;
    WorkerClass {
        name: RStr::from_str(W::NAME),
        version: RStr::from_str(W::VERSION),
        description: RStr::from_str(W::DESCRIPTION),
        capabilities: W::CAPABILITIES.0,
        guest_loop: RStr::from_str(W::GUEST_LOOP),
        access_log_format: RStr::from_str(W::ACCESS_LOG_FORMAT),
        setup: setup::<W>,
        new: new_worker::<W>,
    }
    .leak_into_prefix()
}

#[doc(hidden)]
pub fn __app_module<A: AppFactory>() -> AppModuleRef {
    use abi_stable::prefix_type::PrefixTypeTrait;
    AppModule {
        name: RStr::from_str(A::NAME),
        version: RStr::from_str(A::VERSION),
        new: new_app::<A>,
    }
    .leak_into_prefix()
}

#[doc(hidden)]
pub fn __hooks_module<H: HooksFactory>() -> HooksModuleRef {
    use abi_stable::prefix_type::PrefixTypeTrait;
    HooksModule {
        name: RStr::from_str(H::NAME),
        version: RStr::from_str(H::VERSION),
        new: new_hooks::<H>,
    }
    .leak_into_prefix()
}

extern "C" fn setup<W: WorkerFactory>(host: HostBox) -> RResult<(), Failure> {
    let host = Host::from_raw(host);
    log::install(&host);
    catch_flat("the worker class's setup", || W::setup(&host)).into()
}

extern "C" fn new_worker<W: WorkerFactory>(
    host: HostBox,
    app: AppBox,
) -> RResult<WorkerBox, Failure> {
    let context = WorkerContext { host: Host::from_raw(host), app: AppHandle::from_raw(app) };
    catch_flat("the worker's constructor", || W::new(context)).map(worker::to_raw).into()
}

extern "C" fn new_app<A: AppFactory>(
    host: HostBox,
    context: RawAppContext,
) -> RResult<AppBox, Failure> {
    let host = Host::from_raw(host);
    log::install(&host);
    let context = AppContext {
        host,
        spec: context.spec.into(),
        class: context.class.into(),
        guest_loop: context.guest_loop.into(),
    };
    catch_flat("the application's constructor", || A::new(context)).map(app::to_raw).into()
}

extern "C" fn new_hooks<H: HooksFactory>(host: HostBox) -> RResult<HooksBox, Failure> {
    let host = Host::from_raw(host);
    log::install(&host);
    catch_flat("the hooks' constructor", || H::new(host)).map(hooks::to_raw).into()
}

#[cfg(test)]
mod tests {
    use abi_stable::library::ROOT_MODULE_LOADER_NAME;

    #[test]
    fn the_exported_name_is_the_one_that_abi_stable_looks_for() {
        assert_eq!(ROOT_MODULE_LOADER_NAME, "_1as_0lib_1header_0root_bmodule_bloader");
    }
}
