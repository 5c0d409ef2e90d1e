//! What a library exports, whichever door it came through: `worker-api` or `jimu.h`.

use std::sync::Arc;

use c_api::from_c::module::{ForeignApplication, ForeignClass, ForeignHooksModule};
use worker_api::raw::{AppBox, HooksBox, HostBox, WorkerBox};
use worker_api::{AppModuleRef, HooksModuleRef, RawAppContext, Result, WorkerClassRef};

use super::late::LateApplication;
use super::names::LateNames;

/// A worker class.
pub enum ClassModule {
    /// By `worker-api`.
    Rust(WorkerClassRef),
    /// By `jimu.h`.
    C(Box<ForeignClass>),
}

impl ClassModule {
    /// Returns the class's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rust(root) => root.name().as_str(),
            Self::C(module) => module.name,
        }
    }

    /// Returns the class's version.
    pub fn version(&self) -> &'static str {
        match self {
            Self::Rust(root) => root.version().as_str(),
            Self::C(module) => module.version,
        }
    }

    /// Returns the bits of [`worker_api::Capabilities`].
    pub fn capabilities(&self) -> u64 {
        match self {
            Self::Rust(root) => root.capabilities(),
            Self::C(module) => module.capabilities,
        }
    }

    /// Returns the guest loop that the class is made for.
    pub fn guest_loop(&self) -> &'static str {
        match self {
            Self::Rust(root) => root.guest_loop().as_str(),
            Self::C(module) => module.guest_loop,
        }
    }

    /// Returns the class's format of the access log; empty for the server's.
    pub fn access_log_format(&self) -> &'static str {
        match self {
            Self::Rust(root) => root.access_log_format().as_str(),
            Self::C(module) => module.access_log_format,
        }
    }

    /// Checks the class's settings.
    pub fn setup(&self, host: HostBox) -> Result<()> {
        match self {
            Self::Rust(root) => (root.setup())(host).into_result(),
            Self::C(module) => module.setup(host),
        }
    }

    /// Creates a worker.
    pub fn create(&self, host: HostBox, app: AppBox) -> Result<WorkerBox> {
        match self {
            Self::Rust(root) => (root.new())(host, app).into_result(),
            Self::C(module) => module.create(host, app),
        }
    }
}

/// An application.
pub enum AppModule {
    /// By `worker-api`.
    Rust(AppModuleRef),
    /// By `jimu.h`.
    C(Box<ForeignApplication>),
    /// By either, opened in each worker.
    Late(&'static LateApplication),
}

impl AppModule {
    /// Returns the application's version; empty if its library is not opened yet.
    pub fn version(&self) -> &str {
        match self {
            Self::Rust(root) => root.version().as_str(),
            Self::C(module) => module.version,
            Self::Late(_) => "",
        }
    }

    /// Returns the application's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Rust(root) => root.name().as_str(),
            Self::C(module) => module.name,
            Self::Late(late) => late.name(),
        }
    }

    /// Returns the names of an application that is opened in each worker.
    pub fn late_names(&self) -> Option<Arc<LateNames>> {
        if let Self::Late(late) = self { late.names() } else { None }
    }

    /// Creates the application.
    pub fn create(&self, host: HostBox, context: RawAppContext) -> Result<AppBox> {
        match self {
            Self::Rust(root) => (root.new())(host, context).into_result(),
            Self::C(module) => module.create(host, &context),
            Self::Late(late) => Ok(late.create(host, context)),
        }
    }
}

/// A hook plugin.
pub enum HooksModule {
    /// By `worker-api`.
    Rust(HooksModuleRef),
    /// By `jimu.h`.
    C(Box<ForeignHooksModule>),
}

impl HooksModule {
    /// Returns the plugin's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rust(root) => root.name().as_str(),
            Self::C(module) => module.name,
        }
    }

    /// Returns the plugin's version.
    pub fn version(&self) -> &'static str {
        match self {
            Self::Rust(root) => root.version().as_str(),
            Self::C(module) => module.version,
        }
    }

    /// Creates the hooks.
    pub fn create(&self, host: HostBox) -> Result<HooksBox> {
        match self {
            Self::Rust(root) => (root.new())(host).into_result(),
            Self::C(module) => module.create(host),
        }
    }
}

impl From<WorkerClassRef> for ClassModule {
    fn from(root: WorkerClassRef) -> Self {
        Self::Rust(root)
    }
}

impl From<AppModuleRef> for AppModule {
    fn from(root: AppModuleRef) -> Self {
        Self::Rust(root)
    }
}

impl From<HooksModuleRef> for HooksModule {
    fn from(root: HooksModuleRef) -> Self {
        Self::Rust(root)
    }
}
