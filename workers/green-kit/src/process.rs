//! A cooperative worker's process: hub, signals, heartbeat and stop. The class provides the main greenlet. The hub runs
//! its own loop, or is driven by the application's loop if it has one (a guest loop).

use std::cell::{Cell, OnceCell};
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use jimu_green::sync::Event;
use jimu_green::{Greenlet, Hub, HubError, Interest, Source, StackConfig, StackError, Trigger};
use jimu_kit::{Deadline, WorkerBase};
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::RResult;
use worker_api::guard::catch_flat;
use worker_api::raw::{Counter, RawEngine, RawEngine_TO};
use worker_api::{Capabilities, Failure, FailureKind, LogLevel, Requirements, Result};

use crate::connections::{Connections, Serve};
use crate::driver::GreenDriver;
use crate::runtime::runtime;

/// The parts of a cooperative worker that exist before its class starts to serve.
pub struct Process {
    hub: Rc<Hub>,
    state: Rc<WorkerState>,
    guest: bool,
    greenlets_max: usize,
    // Holds the registration in the hub.
    _signals: Source<BorrowedFd<'static>>,
}

/// A worker's process, which the class's `init_process` creates.
#[derive(Default)]
pub struct ProcessCell(OnceCell<Process>);

/// The state of a worker, for its main greenlet.
pub struct WorkerState {
    /// The base of the worker.
    pub base: Rc<WorkerBase>,
    /// Its connections.
    pub connections: Rc<Connections>,
    end: Event,
    quit: Cell<bool>,
    busy_reported: Cell<i64>,
    serve: OnceCell<Rc<dyn Serve>>,
}

impl ProcessCell {
    /// Creates the process. To be called by the class's `init_process`.
    pub fn init(&self, base: &Rc<WorkerBase>) -> Result<()> {
        let process = Process::new(Rc::clone(base))?;
        self.0.set(process).map_err(|_| Failure::application("init_process was called twice"))
    }

    /// Returns the process, for the class's `run`.
    pub fn get(&self) -> Result<&Process> {
        self.0.get().ok_or_else(|| Failure::application("run was called before init_process"))
    }

    /// Stops the worker gracefully. To be called by the class's `handle_exit` (TERM).
    pub fn handle_exit(&self) {
        if let Some(process) = self.0.get() {
            process.state.end.set();
        }
    }

    /// Stops the worker at once. To be called by the class's `handle_quit` (QUIT, INT).
    pub fn handle_quit(&self) {
        if let Some(process) = self.0.get() {
            process.state.quit.set(true);
            process.state.end.set();
        }
    }
}

impl Process {
    /// Creates the hub and prepares the application. To be called after the fork, on the worker's main thread.
    fn new(base: Rc<WorkerBase>) -> Result<Self> {
        let guest = base.app.requirements().contains(Requirements::LOOP);
        let (hub, greenlets_max) = make_hub(&base, guest)?;
        let driver = Arc::new(GreenDriver::new(hub.handle()));
        let connections = Connections::new(&base, hub.handle(), driver, guest);
        let signals = watch_signals(&base)?;
        base.app.init_worker(runtime(hub.handle(), &base.context))?;
        // A guest loop creates its own greenlets: up to one for each connection.
        let slots = if guest { base.context.config.worker_connections } else { greenlets_max };
        base.host.count(Counter::SLOTS, slots as i64);
        let state = Rc::new(WorkerState {
            base,
            connections,
            end: Event::new(),
            quit: Cell::new(false),
            busy_reported: Cell::new(0),
            serve: OnceCell::new(),
        });
        Ok(Self { hub: Rc::new(hub), state, guest, greenlets_max, _signals: signals })
    }

    /// Returns the worker's state.
    pub fn state(&self) -> &Rc<WorkerState> {
        &self.state
    }

    /// Returns the number of requests that can be in greenlets at a time.
    pub fn greenlets_max(&self) -> usize {
        self.greenlets_max
    }

    /// Runs `main` in a greenlet, and the hub's loop or the application's own until `main` ends.
    pub fn run(&self, main: impl FnOnce() -> Result<()> + 'static) -> Result<()> {
        if self.guest {
            return self.run_guest(main);
        }
        self.hub
            .block_on(main)
            .map_err(|error| Failure::new(FailureKind::OTHER, "the hub failed").caused_by(&error))?
    }

    fn run_guest(&self, main: impl FnOnce() -> Result<()> + 'static) -> Result<()> {
        let main = jimu_green::spawn(main).map_err(|error| {
            Failure::new(FailureKind::OTHER, "cannot start the main greenlet").caused_by(&error)
        })?;
        let engine = Engine {
            descriptor: std::os::fd::AsRawFd::as_raw_fd(
                &self.hub.descriptor().map_err(|e| Failure::io("the hub has no descriptor", &e))?,
            ),
            hub: Rc::clone(&self.hub),
            state: Rc::clone(&self.state),
            main: main.greenlet().clone(),
        };
        self.state.base.app.run_loop(RawEngine_TO::from_value(engine, TD_Opaque))?;
        if main.is_finished() {
            // `join` returns at once, so it needs no greenlet.
            return main.join().map_err(|error| {
                Failure::new(FailureKind::OTHER, "the main greenlet failed").caused_by(&error)
            })?;
        }
        Err(Failure::application("the application's event loop ended while the worker was serving"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        Connections::clear_current();
    }
}

impl WorkerState {
    /// Sets how the class serves, and keeps `serve` alive.
    pub fn set_serve(&self, serve: Rc<dyn Serve>) {
        let weak: Weak<dyn Serve> = Rc::downgrade(&serve);
        if self.serve.set(serve).is_ok() {
            self.connections.set_serve(weak);
        }
    }

    /// Sends heartbeats until the worker has to stop.
    pub fn run_until_stopped(&self) -> Result<()> {
        while self.base.host.alive() && !self.quit.get() {
            self.tick();
            self.end.wait(Some(self.base.pause())).map_err(|interrupt| ended(&interrupt))?;
        }
        Ok(())
    }

    /// Returns whether the worker has to stop at once.
    pub fn is_quitting(&self) -> bool {
        self.quit.get()
    }

    /// Waits until there are no connections and no background tasks of the application, until `deadline` at the latest,
    /// and sends heartbeats. Returns whether there are none.
    pub fn wait_empty(&self, deadline: Deadline) -> Result<bool> {
        if !self.wait_for_connections(deadline)? {
            return Ok(false);
        }
        while !self.base.context.background.is_idle() && !self.quit.get() {
            if deadline.is_past() {
                return Ok(false);
            }
            self.tick();
            let pause = WorkerBase::look_again().left().unwrap_or_default();
            jimu_green::sleep(pause).map_err(|interrupt| ended(&interrupt))?;
        }
        Ok(true)
    }

    fn wait_for_connections(&self, deadline: Deadline) -> Result<bool> {
        loop {
            self.tick();
            let until = Deadline::from_now(self.base.pause()).min(deadline);
            let empty =
                self.connections.wait_empty(until).map_err(|interrupt| ended(&interrupt))?;
            if empty || self.quit.get() || deadline.is_past() {
                return Ok(empty);
            }
        }
    }

    /// Sends a heartbeat, and does what is due once a second.
    fn tick(&self) {
        self.base.tick();
        self.connections.end_unused_spare();
        let busy = self.connections.busy() as i64;
        self.base.host.count(Counter::BUSY_SLOTS, busy - self.busy_reported.replace(busy));
    }
}

/// Returns the failure of a main greenlet that was killed while it waited.
pub(crate) fn ended(interrupt: &jimu_green::Interrupt) -> Failure {
    Failure::new(FailureKind::INTERRUPTED, "the main greenlet was killed").caused_by(interrupt)
}

/// Creates the hub; returns it and the number of greenlets that may serve requests in it.
fn make_hub(base: &WorkerBase, guest: bool) -> Result<(Hub, usize)> {
    let cannot = |error: &HubError| {
        Failure::new(FailureKind::OTHER, "cannot create the worker's hub").caused_by(error)
    };
    let mut stacks = StackConfig::default();
    if let Some(size) = base.host.setting_usize("greenlet_stack") {
        stacks.size = size;
    }
    stacks.stacks_max =
        (base.context.config.worker_connections + SPARE_STACKS).min(stacks.stacks_max);
    let hub = match Hub::with_stacks(stacks) {
        Err(HubError::Stack(StackError::TooMany { possible, .. })) if possible > SPARE_STACKS => {
            stacks.stacks_max = possible;
            Hub::with_stacks(stacks)
        }
        result => result,
    }
    .map_err(|error| cannot(&error))?;
    if !guest {
        jimu_green::report_overflow("greenlet_stack")
            .map_err(|error| Failure::io("cannot watch for stack overflows", &error))?;
        let host = base.host.clone();
        jimu_green::report_stacks(move |heading, addresses| {
            host.log_stack(LogLevel::WARNING, "green", heading, addresses);
        });
        if let Some(limit) = base.host.setting_duration("greenlet_block_warning")
            && let Err(error) = hub.watch_blocking(limit)
        {
            // It is for diagnosis only: a worker that cannot start a thread serves without it.
            tracing::warn!(
                "greenlet_block_warning has no effect: cannot start its thread: {error}"
            );
        }
    }
    Ok((hub, stacks.stacks_max - SPARE_STACKS))
}

fn watch_signals(base: &WorkerBase) -> Result<Source<BorrowedFd<'static>>> {
    let cannot = |error| Failure::io("cannot watch for signals", &error);
    let signals = Source::new(base.wake_fd(), Trigger::Level).map_err(cannot)?;
    let services = base.host.clone();
    signals.watch(Interest::Read, move |_| services.deliver_signals());
    signals.start().map_err(cannot)?;
    Ok(signals)
}

/// The engine that a guest loop drives.
struct Engine {
    hub: Rc<Hub>,
    state: Rc<WorkerState>,
    main: Greenlet,
    descriptor: i32,
}

impl RawEngine for Engine {
    fn descriptor(&self) -> i32 {
        self.descriptor
    }

    fn turn(&self) -> RResult<(), Failure> {
        catch_flat("the engine's turn", || {
            self.hub.turn().map_err(|error| Failure::io("a turn of the hub failed", &error))?;
            self.state.connections.call_guest();
            Ok(())
        })
        .into()
    }

    fn stopped(&self) -> bool {
        self.main.is_finished()
    }
}

/// What a cooperative class can do.
pub const CAPABILITIES: Capabilities =
    Capabilities(Capabilities::DEFERRED.0 | Capabilities::LOOP.0 | Capabilities::COOPERATIVE.0);

/// Stacks for greenlets that serve no request: the main greenlet, acceptors, tasks of the application.
const SPARE_STACKS: usize = 64;
