//! The engine of a worker class in memory, for applications with their own loop.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::RResult;

use crate::app::AppHandle;
use crate::failure::{Failure, Result};
use crate::raw::{ExchangeBox, Interest, RawEngine, RawEngine_TO};
use crate::testing::exchange::{Recorded, Turn};
use crate::testing::runtime::poll;
use crate::testing::{Request, locked};
use crate::waker::Waker;

/// The engine of a worker class. It passes the requests that were added to the application, has each of their operations
/// wait for a turn, and stops when all have ended.
///
/// ```
/// use std::sync::Mutex;
///
/// use worker_api::testing::{Request, TestEngine};
/// use worker_api::{App, AppHandle, Engine, Exchange, Requirements, Result};
///
/// /// Responds in its loop to what it has received in a turn.
/// #[derive(Default)]
/// struct Later(Mutex<Vec<Exchange>>);
///
/// impl App for Later {
///     fn requirements(&self) -> Requirements {
///         Requirements::DEFERRED | Requirements::LOOP
///     }
///
///     fn call(&self, exchange: &mut Exchange) -> Result<()> {
///         self.0.lock().unwrap().push(exchange.detach());
///         Ok(())
///     }
///
///     fn run_loop(&self, engine: Engine) -> Result<()> {
///         while !engine.stopped() {
///             // A real loop waits for `engine.descriptor()` to become readable.
///             engine.turn()?;
///             for mut exchange in self.0.lock().unwrap().drain(..) {
///                 exchange.start(204, "", &[])?;
///                 exchange.finish()?;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// let engine = TestEngine::default();
/// let recorded = [engine.add(Request::get("/a")), engine.add(Request::get("/b"))];
/// engine.run(&AppHandle::from_app(Later::default()))?;
/// assert!(recorded.iter().all(|recorded| recorded.response().status == 204));
/// # Ok::<(), worker_api::Failure>(())
/// ```
#[derive(Clone, Default)]
pub struct TestEngine(Arc<State>);

struct State {
    wakers: Mutex<Vec<Waker>>,
    waiting: Mutex<Vec<ExchangeBox>>,
    added: Mutex<Vec<Recorded>>,
    /// One byte is in it while there is something to do.
    signal: UnixStream,
    signaled: UnixStream,
}

impl Default for State {
    fn default() -> Self {
        let (signal, signaled) = UnixStream::pair().expect("there are descriptors left");
        for end in [&signal, &signaled] {
            end.set_nonblocking(true).expect("a socket can be non-blocking");
        }
        let (wakers, waiting, added) = Default::default();
        Self { wakers, waiting, added, signal, signaled }
    }
}

impl State {
    fn signal(&self) {
        // A full buffer is a signal, too.
        let _ = (&self.signal).write(&[1]);
    }
}

impl TestEngine {
    /// Adds a request, which is passed to the application in the next turn.
    pub fn add(&self, mut request: Request) -> Recorded {
        let turn: Arc<dyn Turn> = Arc::<State>::clone(&self.0);
        request.engine = Some(turn);
        let (exchange, recorded) = request.raw_exchange();
        locked(&self.0.waiting).push(exchange);
        locked(&self.0.added).push(recorded.clone());
        self.0.signal();
        recorded
    }

    /// Runs the application's loop until all requests have ended.
    pub fn run(&self, app: &AppHandle) -> Result<()> {
        app.run_loop(RawEngine_TO::from_value(self.driven(app), TD_Opaque))
    }

    /// Turns until all requests have ended, for applications that keep exchanges and complete them in their own threads.
    pub fn serve(&self, app: &AppHandle) -> Result<()> {
        let driven = self.driven(app);
        while !driven.stopped() {
            poll(driven.descriptor(), Interest::READ, None)
                .map_err(|error| Failure::io("cannot wait for the engine", &error))?;
            driven.turn().into_result()?;
        }
        Ok(())
    }

    fn driven(&self, app: &AppHandle) -> Driven {
        Driven { engine: Arc::clone(&self.0), app: app.clone() }
    }
}

impl std::fmt::Debug for TestEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestEngine").field("added", &locked(&self.0.added)).finish()
    }
}

impl Turn for State {
    fn wake_later(&self, waker: Waker) {
        locked(&self.wakers).push(waker);
        self.signal();
    }

    fn ended(&self) {
        self.signal();
    }
}

struct Driven {
    engine: Arc<State>,
    app: AppHandle,
}

impl RawEngine for Driven {
    fn descriptor(&self) -> i32 {
        self.engine.signaled.as_raw_fd()
    }

    fn turn(&self) -> RResult<(), Failure> {
        let mut bytes = [0; 1024];
        while (&self.engine.signaled).read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
        let wakers = std::mem::take(&mut *locked(&self.engine.wakers));
        wakers.iter().for_each(Waker::wake);
        let waiting = std::mem::take(&mut *locked(&self.engine.waiting));
        for exchange in waiting {
            self.app.call(exchange);
        }
        RResult::ROk(())
    }

    fn stopped(&self) -> bool {
        locked(&self.engine.added).iter().all(|recorded| recorded.response().is_over())
    }
}
