//! An application whose library is opened in each worker, because it does not survive a fork (Go's runtime does not) or
//! starts threads when it is opened: by a flag in its table, or by the setting `load`.
//!
//! The mold has copied the file and checked what it exports: the numbers of the table of `jimu.h`, or the name of
//! `worker-api`'s root module. What is known only in a worker is refused there, as a failure to boot.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{RResult, RSlice, RStr, RString, RVec};
use worker_api::raw::{AppBox, EngineBox, ExchangeBox, HostBox, RawApp, RawApp_TO, RuntimeBox};
use worker_api::{Failure, RawAppContext, Result};

use super::error::LoadError;
use super::names::LateNames;

/// Opens a library: with the copies of a mold, in a worker.
pub(super) type Open = Box<dyn FnOnce() -> Result<Create, LoadError> + Send>;

/// Creates the application of an opened library.
pub(super) type Create = Box<dyn FnOnce(HostBox, RawAppContext) -> Result<AppBox>>;

/// A library that is not opened yet.
pub struct LateApplication {
    name: String,
    path: PathBuf,
    needs: u64,
    names: Option<Arc<LateNames>>,
    open: Mutex<Option<Open>>,
    /// The process that must not open it.
    mold: AtomicU32,
}

impl LateApplication {
    /// The library at `path`, what its table says that it needs (nothing, if only the opened library says so), and its
    /// names once it is opened. It lives as long as the process.
    pub(super) fn new(
        path: &Path,
        needs: u64,
        names: Option<Arc<LateNames>>,
        open: Open,
    ) -> &'static Self {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem.strip_prefix("lib").unwrap_or(&stem);
        let name = name.strip_suffix("_app").unwrap_or(name).to_owned();
        let open = Mutex::new(Some(open));
        let mold = AtomicU32::new(std::process::id());
        Box::leak(Box::new(Self { name, path: path.to_owned(), needs, names, open, mold }))
    }

    /// Has this process open it, too: one that forks no worker.
    pub(super) fn open_here(&self) {
        self.mold.store(0, Ordering::Relaxed);
    }

    /// Returns the name of the file without what all files of applications have in common: its own name is not known yet.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns how debuggers find it.
    pub(super) fn names(&self) -> Option<Arc<LateNames>> {
        self.names.clone()
    }

    /// Returns the application, which is created when it is loaded.
    pub(super) fn create(&'static self, host: HostBox, context: RawAppContext) -> AppBox {
        let arguments = Mutex::new(Some((host, context)));
        let app = LateApp { library: self, arguments, app: OnceLock::new() };
        RawApp_TO::from_value(app, TD_Opaque)
    }

    fn open(&self) -> Result<Create> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(open) = open else { return Err(Failure::unsupported("it is opened already")) };
        // As in the mold, a library that does not fit is a wrong setting.
        open().map_err(|error| Failure::config(reason(&error, &self.path)))
    }
}

/// The error without the path, which the caller's message begins with.
fn reason(error: &LoadError, path: &Path) -> String {
    let words = error.to_string();
    let own = format!("{}: ", path.display());
    words.strip_prefix(&own).map(ToOwned::to_owned).unwrap_or(words)
}

struct LateApp {
    library: &'static LateApplication,
    arguments: Mutex<Option<(HostBox, RawAppContext)>>,
    app: OnceLock<AppBox>,
}

impl LateApp {
    fn create(&self) -> Result<&AppBox> {
        let create = self.library.open()?;
        let arguments = self.arguments.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((host, context)) = arguments else {
            return Err(Failure::unsupported("it is created already"));
        };
        let app = create(host, context)?;
        Ok(self.app.get_or_init(|| app))
    }
}

impl RawApp for LateApp {
    fn requirements(&self) -> u64 {
        self.app.get().map_or(self.library.needs, RawApp_TO::requirements)
    }

    /// In the mold it does nothing.
    fn load(&self) -> RResult<(), Failure> {
        let is_mold = std::process::id() == self.library.mold.load(Ordering::Relaxed);
        if is_mold || self.app.get().is_some() {
            return RResult::ROk(());
        }
        self.create().and_then(|app| app.load().into_result()).into()
    }

    fn before_fork(&self) {}

    fn after_fork(&self, _: bool) {}

    fn init_worker(&self, runtime: RuntimeBox) -> RResult<(), Failure> {
        if let RResult::RErr(failure) = self.load() {
            return RResult::RErr(failure);
        }
        match self.app.get() {
            Some(app) => app.init_worker(runtime),
            None => RResult::RErr(Failure::unsupported("it is opened in a worker only")),
        }
    }

    fn call(&self, exchange: ExchangeBox) {
        // Without an application no worker has booted.
        if let Some(app) = self.app.get() {
            app.call(exchange);
        }
    }

    fn run_loop(&self, engine: EngineBox) -> RResult<(), Failure> {
        match self.app.get() {
            Some(app) => app.run_loop(engine),
            None => RResult::RErr(Failure::unsupported("it is opened in a worker only")),
        }
    }

    fn hook(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure> {
        self.app.get().map_or(RResult::ROk(()), |app| app.hook(event, facts))
    }

    fn trace(&self) -> RString {
        self.app.get().map_or_else(RString::new, RawApp_TO::trace)
    }

    fn files(&self) -> RVec<RString> {
        self.app.get().map_or_else(RVec::new, RawApp_TO::files)
    }

    fn shutdown(&self) {
        if let Some(app) = self.app.get() {
            app.shutdown();
        }
    }

    fn drain(&self) {
        if let Some(app) = self.app.get() {
            app.drain();
        }
    }

    fn stack_size(&self) -> u64 {
        self.app.get().map_or(0, RawApp_TO::stack_size)
    }

    fn run_signal_handlers(&self) {
        if let Some(app) = self.app.get() {
            app.run_signal_handlers();
        }
    }

    fn wait_in_mold(&self, _: i32) {}
}
