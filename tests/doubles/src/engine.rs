//! The engine of a worker class in memory, for applications with their own loop.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex};

use nix::sys::eventfd::{EfdFlags, EventFd};
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::RResult;
use worker_api::raw::{ExchangeBox, RawEngine, RawEngine_TO};
use worker_api::{AppHandle, Failure, Waker};

use crate::exchange::Turn;
use crate::{Request, Response, locked};

/// A worker class's engine. It hands over the exchanges that were added, and stops when all have ended.
pub struct Engine {
    wakers: Mutex<Vec<Waker>>,
    waiting: Mutex<Vec<ExchangeBox>>,
    seen: Mutex<Vec<Arc<Mutex<Response>>>>,
    event: File,
}

impl Engine {
    /// Creates an engine without requests.
    pub fn new() -> Arc<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let event = EventFd::from_value_and_flags(0, flags).expect("there are descriptors left");
        let event = File::from(OwnedFd::from(event));
        Arc::new(Self {
            wakers: Mutex::default(),
            waiting: Mutex::default(),
            seen: Mutex::default(),
            event,
        })
    }

    /// Adds a request, which is handed over in the next turn.
    pub fn add(self: &Arc<Self>, mut request: Request) -> Arc<Mutex<Response>> {
        let turn: Arc<dyn Turn> = Arc::<Self>::clone(self);
        request.engine = Some(turn);
        let (exchange, seen) = request.exchange();
        locked(&self.waiting).push(exchange);
        locked(&self.seen).push(Arc::clone(&seen));
        self.signal();
        seen
    }

    /// Runs the application's loop until all requests have ended.
    pub fn run(self: &Arc<Self>, app: &AppHandle) -> Result<(), Failure> {
        let driven = Driven { engine: Arc::clone(self), app: app.clone() };
        app.run_loop(RawEngine_TO::from_value(driven, TD_Opaque))
    }

    fn signal(&self) {
        (&self.event).write_all(&1_u64.to_ne_bytes()).expect("an event can be counted");
    }
}

impl Turn for Engine {
    fn wake_later(&self, waker: Waker) {
        locked(&self.wakers).push(waker);
        self.signal();
    }
}

struct Driven {
    engine: Arc<Engine>,
    app: AppHandle,
}

impl RawEngine for Driven {
    fn descriptor(&self) -> i32 {
        self.engine.event.as_raw_fd()
    }

    fn turn(&self) -> RResult<(), Failure> {
        let _ = (&self.engine.event).read(&mut [0; 8]);
        let wakers = std::mem::take(&mut *locked(&self.engine.wakers));
        for waker in wakers {
            waker.wake();
        }
        let waiting = std::mem::take(&mut *locked(&self.engine.waiting));
        for exchange in waiting {
            self.app.call(exchange);
        }
        if !self.stopped() {
            // In place of an engine's timers: the next turn checks what has ended.
            self.engine.signal();
        }
        RResult::ROk(())
    }

    fn stopped(&self) -> bool {
        let over = |seen: &Arc<Mutex<Response>>| {
            let seen = locked(seen);
            seen.finished || seen.failed.is_some() || seen.hijacked
        };
        locked(&self.engine.seen).iter().all(over)
    }
}
