//! An application for tests that brings a bare asyncio loop: that a guest loop other than gevent's and eventlet's can
//! drive a worker class's engine, with nothing but [`worker_api::Engine`] and wakers. Not an example of how to serve
//! ASGI: it answers each request with its body, after `?ms=` milliseconds of `asyncio.sleep`.
//!
//! | module | what it is |
//! | --- | --- |
//! | `lib` | the application: exchanges by number |
//! | `python` | the interpreter that `loop.py` runs in, and what it calls |

mod python;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use worker_api::{
    App, AppContext, AppFactory, Engine, Exchange, Header, Needs, Result, Step, Waker,
};

worker_api::export_app!(Asyncio);

/// The application.
pub struct Asyncio {
    came: Came,
}

/// Exchanges that have come and that no task serves yet.
type Came = Arc<Mutex<VecDeque<Exchange>>>;

/// What the loop's thread knows.
struct Serving {
    engine: Engine,
    came: Came,
    open: HashMap<i64, Open>,
    last: i64,
    /// The numbers of exchanges whose wakers have fired.
    woken: Arc<Mutex<VecDeque<i64>>>,
}

/// An exchange that a task of the loop serves.
struct Open {
    exchange: Exchange,
    body: Vec<u8>,
    /// How much of the body has gone out, once the answer has begun.
    sent: Option<usize>,
}

impl AppFactory for Asyncio {
    const NAME: &'static str = "asyncio";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(_: AppContext) -> Result<Self> {
        Ok(Self { came: Came::default() })
    }
}

impl App for Asyncio {
    fn needs(&self) -> Needs {
        Needs::LOOP | Needs::LATER
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        locked(&self.came).push_back(exchange.keep());
        Ok(())
    }

    fn run_loop(&self, engine: Engine) -> Result<()> {
        python::run(Serving {
            engine,
            came: Arc::clone(&self.came),
            open: HashMap::new(),
            last: 0,
            woken: Arc::default(),
        })
    }
}

impl Serving {
    /// Lets the engine work; not yet while it goes on, and well when it has stopped.
    fn turn(&self) -> Outcome {
        match self.engine.turn() {
            Ok(()) if self.engine.stopped() => Outcome::Well,
            Ok(()) => Outcome::NotYet,
            Err(_) => Outcome::Failed,
        }
    }

    /// The number that an exchange which has come is called by from now on; 0 where none has.
    fn came(&mut self) -> i64 {
        let Some(exchange) = locked(&self.came).pop_front() else { return 0 };
        self.last += 1;
        self.open.insert(self.last, Open { exchange, body: Vec::new(), sent: None });
        self.last
    }

    fn woken(&self) -> i64 {
        locked(&self.woken).pop_front().unwrap_or_default()
    }

    /// The milliseconds of `?ms=`.
    fn delay(&self, number: i64) -> i64 {
        let Some(open) = self.open.get(&number) else { return 0 };
        let target = String::from_utf8_lossy(open.exchange.head().target.as_slice()).into_owned();
        target.split_once("ms=").and_then(|(_, digits)| digits.parse().ok()).unwrap_or_default()
    }

    /// Takes more of the request's body; well when it is whole.
    fn read(&mut self, number: i64) -> Outcome {
        let woken = Arc::clone(&self.woken);
        let Some(open) = self.open.get_mut(&number) else { return Outcome::Failed };
        let mut part = [0; 16 << 10];
        loop {
            let waker = waker(&woken, number);
            match open.exchange.poll_read(&mut part, Some(waker)) {
                Step::Ready(0) => return Outcome::Well,
                Step::Ready(n) => open.body.extend_from_slice(&part[..n]),
                Step::NotYet => return Outcome::NotYet,
                Step::Failed(_) => return self.forget(number),
            }
        }
    }

    /// Sends more of the answer, which is the request's body; well when it is whole.
    fn put(&mut self, number: i64) -> Outcome {
        let woken = Arc::clone(&self.woken);
        let Some(open) = self.open.get_mut(&number) else { return Outcome::Failed };
        match open.put(|| waker(&woken, number)) {
            Ok(true) => {
                self.open.remove(&number);
                Outcome::Well
            }
            Ok(false) => Outcome::NotYet,
            Err(_) => self.forget(number),
        }
    }

    /// Dropped before it is finished, an exchange is failed.
    fn forget(&mut self, number: i64) -> Outcome {
        self.open.remove(&number);
        Outcome::Failed
    }
}

impl Open {
    /// Whether all is sent.
    fn put(&mut self, waker: impl Fn() -> Waker) -> Result<bool> {
        if self.sent.is_none() {
            let length = self.body.len().to_string();
            let fields = [Header::new("Content-Length", length.as_bytes())];
            self.exchange.start(200, "", &fields)?;
        }
        let sent = self.sent.get_or_insert_default();
        while *sent < self.body.len() {
            match self.exchange.poll_write(&self.body[*sent..], Some(waker())) {
                Step::Ready(n) => *sent += n,
                Step::NotYet => return Ok(false),
                Step::Failed(failure) => return Err(failure),
            }
        }
        self.exchange.finish().map(|()| true)
    }
}

/// What a step came to, as `loop.py` has it.
#[derive(Clone, Copy)]
#[repr(i64)]
enum Outcome {
    Failed = -1,
    NotYet = 0,
    Well = 1,
}

fn waker(woken: &Arc<Mutex<VecDeque<i64>>>, number: i64) -> Waker {
    let woken = Arc::clone(woken);
    Waker::new(move || locked(&woken).push_back(number))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
