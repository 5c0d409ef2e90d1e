//! An application for tests that fails where it is told to, and answers `ok` otherwise.
//!
//! `FAULTY_APP` or `[application] fault` names faults by the place where they happen: `constructor` (when the library is
//! opened), `root` (when its root module is made), `new`, `load`, `before_fork`, `after_fork`, `init_worker`, `call`,
//! `shutdown`; see [`fault`]. `needs=later` and `needs=loop` ask a class for what it may not have. A request for
//! `/fault/WHAT` makes that fault in the worker that serves it. A request for `/task` spawns a task that runs until half a
//! second after the worker has begun to end, and then says so on standard error.

mod fault;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use worker_api::{
    App, AppContext, AppFactory, AppModuleRef, Exchange, Header, Needs, Result, Runtime,
};

use fault::Faults;

/// The application.
pub struct Faulty {
    faults: Faults,
    runtime: OnceLock<Runtime>,
    drains: Arc<AtomicBool>,
}

impl AppFactory for Faulty {
    const NAME: &'static str = "faulty";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(context: AppContext) -> Result<Self> {
        let faults = Faults::of(VARIABLE, &context.host.section());
        faults.happen("new")?;
        Ok(Self { faults, runtime: OnceLock::new(), drains: Arc::default() })
    }
}

impl App for Faulty {
    fn needs(&self) -> Needs {
        match self.faults.at("needs") {
            Some("later") => Needs::LATER,
            Some("loop") => Needs::LOOP,
            _ => Needs::NOTHING,
        }
    }

    fn load(&self) -> Result<()> {
        self.faults.happen("load")
    }

    fn before_fork(&self) {
        // There is nobody to return a failure to.
        let _ = self.faults.happen("before_fork");
    }

    fn after_fork(&self, in_child: bool) {
        if in_child {
            let _ = self.faults.happen("after_fork");
        }
    }

    fn init_worker(&self, runtime: Runtime) -> Result<()> {
        let _ = self.runtime.set(runtime);
        self.faults.happen("init_worker")
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        self.faults.happen("call")?;
        let what = exchange.head().path_str().strip_prefix("/fault/").map(str::to_owned);
        if let Some(what) = what {
            fault::make("call", &what)?;
        }
        if exchange.head().path_str() == "/task" {
            self.spawn_task()?;
        }
        exchange.respond(200, &[Header::new("Content-Type", "text/plain")], b"ok\n")
    }

    fn drain(&self) {
        self.drains.store(true, Ordering::Release);
    }

    fn shutdown(&self) {
        let _ = self.faults.happen("shutdown");
    }
}

impl Faulty {
    fn spawn_task(&self) -> Result<()> {
        let Some(runtime) = self.runtime.get().cloned() else { return Ok(()) };
        let (spawner, drains) = (runtime.clone(), Arc::clone(&self.drains));
        spawner.spawn(move || {
            while !drains.load(Ordering::Acquire) && runtime.sleep(LOOK_AGAIN).is_ok() {}
            if runtime.sleep(LAST_WORK).is_ok() {
                eprintln!("the task has ended");
            }
        })
    }
}

/// The root module, made by hand because its making can fail too.
pub fn root_module() -> AppModuleRef {
    // The fault that is a failure has no way out of here, and is none.
    let _ = Faults::of_environment(VARIABLE).happen("root");
    worker_api::__app_module::<Faulty>()
}

worker_api::__export_root!(AppModuleRef);

/// What the dynamic linker calls when it opens the library.
extern "C" fn constructor() {
    let _ = Faults::of_environment(VARIABLE).happen("constructor");
}

// SAFETY: the section holds pointers to functions of the C ABI, and this is one.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a task still works when the worker has begun to end.
const LAST_WORK: Duration = Duration::from_millis(500);
const VARIABLE: &str = "FAULTY_APP";
