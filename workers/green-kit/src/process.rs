//! A cooperative worker's process: its hub, its signals, its heartbeat, and how it ends. Its main greenlet is the
//! class's; what the application does with it depends on whether it brings a loop of its own.

use std::cell::{Cell, OnceCell};
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use green::sync::Event;
use green::{Greenlet, Hub, HubError, Interest, Source, StackConfig, StackError, Trigger};
use kit::WorkerBase;
use kit::clock::{nanoseconds, now_ns};
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::RResult;
use worker_api::guard::catch_flat;
use worker_api::raw::{Counter, RawEngine, RawEngine_TO};
use worker_api::{Failure, FailureKind, Requirements, Result};

use crate::connections::{Connections, Serve};
use crate::runtime::runtime;

/// What a worker of a cooperative class consists of, before its class makes it serve.
pub struct Process {
    hub: Rc<Hub>,
    state: Rc<WorkerState>,
    guest: bool,
    greenlets_max: usize,
    // Kept for its registration.
    _signals: Source<BorrowedFd<'static>>,
}

/// The life of a worker, as its main greenlet leads it.
pub struct WorkerState {
    /// The base worker.
    pub base: Rc<WorkerBase>,
    /// Its connections.
    pub connections: Rc<Connections>,
    end: Event,
    quit: Cell<bool>,
    busy_told: Cell<i64>,
    serve: OnceCell<Rc<dyn Serve>>,
}

impl Process {
    /// Makes the hub and prepares the application. After the fork, on the worker's main thread.
    pub fn new(base: Rc<WorkerBase>) -> Result<Self> {
        let guest = base.app.requirements().contains(Requirements::LOOP);
        let (hub, greenlets_max) = make_hub(&base, guest)?;
        let connections = Connections::new(&base, hub.handle(), guest);
        let signals = watch_signals(&base)?;
        base.app.init_worker(runtime(hub.handle(), &base.context))?;
        // A guest loop's greenlets are its own, as many as there may be connections.
        let slots = if guest { base.context.config.worker_connections } else { greenlets_max };
        base.host.count(Counter::SLOTS, slots as i64);
        let state = Rc::new(WorkerState {
            base,
            connections,
            end: Event::new(),
            quit: Cell::new(false),
            busy_told: Cell::new(0),
            serve: OnceCell::new(),
        });
        Ok(Self { hub: Rc::new(hub), state, guest, greenlets_max, _signals: signals })
    }

    /// The worker's life.
    pub fn state(&self) -> &Rc<WorkerState> {
        &self.state
    }

    /// The most requests that can be in greenlets at once.
    pub fn greenlets_max(&self) -> usize {
        self.greenlets_max
    }

    /// Runs `main` in a greenlet, and the loop, the application's own where it brings one, until it ends.
    pub fn run(&self, main: impl FnOnce() -> Result<()> + 'static) -> Result<()> {
        if self.guest {
            return self.run_guest(main);
        }
        self.hub.block_on(main).map_err(|error| {
            Failure::new(FailureKind::OTHER, "the hub cannot go on").caused_by(&error)
        })?
    }

    fn run_guest(&self, main: impl FnOnce() -> Result<()> + 'static) -> Result<()> {
        let main = green::spawn(main).map_err(|error| {
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
            // Does not wait any more, and so needs no greenlet.
            return main.join().map_err(|error| {
                Failure::new(FailureKind::OTHER, "the main greenlet failed").caused_by(&error)
            })?;
        }
        Err(Failure::application("the application's loop ended before the worker was to end"))
    }

    /// TERM came: to be called by the class's `handle_exit`.
    pub fn handle_exit(&self) {
        self.state.end.set();
    }

    /// QUIT or INT came: to be called by the class's `handle_quit`.
    pub fn handle_quit(&self) {
        self.state.quit.set(true);
        self.state.end.set();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        Connections::forget();
    }
}

impl WorkerState {
    /// Says how the class serves, for as long as this lives.
    pub fn served_by(&self, serve: Rc<dyn Serve>) {
        let weak: Weak<dyn Serve> = Rc::downgrade(&serve);
        if self.serve.set(serve).is_ok() {
            self.connections.served_by(weak);
        }
    }

    /// Shows a sign of life each second until the worker is to end.
    pub fn run_until_stopped(&self) -> Result<()> {
        while self.base.host.alive() && !self.quit.get() {
            self.tick();
            self.end.wait(Some(self.base.pause())).map_err(|interrupt| ended(&interrupt))?;
        }
        Ok(())
    }

    /// Whether the worker is to end at once.
    pub fn is_quitting(&self) -> bool {
        self.quit.get()
    }

    /// Waits until no one is connected and the application does nothing beside requests, until `deadline_ns` at the
    /// latest, with heartbeats; returns whether that is so.
    pub fn wait_empty(&self, deadline_ns: u64) -> Result<bool> {
        if !self.wait_for_connections(deadline_ns)? {
            return Ok(false);
        }
        while !self.base.context.background.is_idle() && !self.quit.get() {
            if deadline_ns != 0 && now_ns() >= deadline_ns {
                return Ok(false);
            }
            self.tick();
            let pause = WorkerBase::look_again_ns().saturating_sub(now_ns());
            green::sleep(Duration::from_nanos(pause)).map_err(|interrupt| ended(&interrupt))?;
        }
        Ok(true)
    }

    fn wait_for_connections(&self, deadline_ns: u64) -> Result<bool> {
        loop {
            self.tick();
            let next = now_ns() + nanoseconds(self.base.pause());
            let until = if deadline_ns == 0 { next } else { next.min(deadline_ns) };
            let empty =
                self.connections.wait_empty(until).map_err(|interrupt| ended(&interrupt))?;
            if empty || self.quit.get() || (deadline_ns != 0 && now_ns() >= deadline_ns) {
                return Ok(empty);
            }
        }
    }

    /// A sign of life, and what is counted or looked at once a second.
    fn tick(&self) {
        self.base.tick();
        self.connections.end_rest();
        let busy = self.connections.busy() as i64;
        self.base.host.count(Counter::BUSY_SLOTS, busy - self.busy_told.replace(busy));
    }
}

fn ended(interrupt: &green::Interrupt) -> Failure {
    Failure::new(FailureKind::INTERRUPTED, "the main greenlet was ended").caused_by(interrupt)
}

/// The hub, and how many greenlets may serve in it.
fn make_hub(base: &WorkerBase, guest: bool) -> Result<(Hub, usize)> {
    let cannot = |error: &HubError| {
        Failure::new(FailureKind::OTHER, "cannot make the worker's hub").caused_by(error)
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
        made => made,
    }
    .map_err(|error| cannot(&error))?;
    if !guest {
        green::report_overflow("greenlet_stack")
            .map_err(|error| Failure::io("cannot watch for stack overflows", &error))?;
        if let Some(limit) = base.host.setting_duration("greenlet_block_warning")
            && let Err(error) = hub.watch_blocking(limit)
        {
            // A diagnosis alone: the requests of a system that refuses threads are served without it.
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

/// The worker's engine for a guest loop.
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
            self.hub.turn().map_err(|error| Failure::io("the hub cannot turn", &error))?;
            self.state.connections.call_guest();
            Ok(())
        })
        .into()
    }

    fn stopped(&self) -> bool {
        self.main.is_finished()
    }
}

/// Stacks for greenlets that serve no request: main, acceptors, the application's own tasks.
const SPARE_STACKS: usize = 64;
