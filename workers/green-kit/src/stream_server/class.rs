//! A worker like gunicorn's `GeventWorker`: starts the servers, sends heartbeats, stops.

use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use crate::{CAPABILITIES, ProcessCell, WorkerState};
use jimu_kit::WorkerBase;
use jimu_kit::config::Config;
use worker_api::{Capabilities, Host, Result, Worker, WorkerContext, WorkerFactory};

use crate::process::ended;
use crate::stream_server::handler::Handler;
use crate::stream_server::pool::Greenlets;
use crate::stream_server::server::StreamServer;

/// The definition of a class of this kind: gunicorn's `server_class` and `wsgi_handler`.
pub trait ServerClass: 'static {
    /// The class's short name.
    const NAME: &'static str;
    /// One line that says how it serves.
    const DESCRIPTION: &'static str;
    /// The guest loop that the class is made for.
    const GUEST_LOOP: &'static str = "gevent";

    /// How requests are served.
    type Handler: Handler;
}

/// A worker of a class of this kind.
pub struct GeventWorker<C> {
    base: Rc<WorkerBase>,
    process: ProcessCell,
    class: PhantomData<C>,
}

impl<C: ServerClass> Worker for GeventWorker<C> {
    fn init_process(&self) -> Result<()> {
        self.process.init(&self.base)
    }

    fn run(&self) -> Result<()> {
        let process = self.process.get()?;
        let state = Rc::clone(process.state());
        let greenlets = Greenlets::new::<C::Handler>(&state, process.greenlets_max());
        process.run(move || main(&state, &greenlets))
    }

    fn handle_exit(&self) {
        self.process.handle_exit();
    }

    fn handle_quit(&self) {
        self.process.handle_quit();
    }
}

impl<C: ServerClass> WorkerFactory for GeventWorker<C> {
    const NAME: &'static str = C::NAME;
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = C::DESCRIPTION;
    const CAPABILITIES: Capabilities = CAPABILITIES;
    const GUEST_LOOP: &'static str = C::GUEST_LOOP;
    const ACCESS_LOG_FORMAT: &'static str = C::Handler::LOG_FORMAT;

    fn setup(host: &Host) -> Result<()> {
        Config::check(host)
    }

    fn new(context: WorkerContext) -> Result<Self> {
        let base = Rc::new(WorkerBase::with_style(context, true, C::Handler::STYLE)?);
        Ok(Self { base, process: ProcessCell::default(), class: PhantomData })
    }
}

/// Runs the main greenlet.
fn main(state: &Rc<WorkerState>, greenlets: &Rc<Greenlets>) -> Result<()> {
    // A worker that shares its listeners accepts one connection at a time, as gevent's servers do.
    let alone = state.base.is_alone();
    let max_accept = if alone { MAX_ACCEPT } else { 1 };
    let server = |acceptor| StreamServer::new(acceptor, greenlets, max_accept);
    let servers: Vec<Rc<StreamServer>> =
        state.base.acceptors.iter().map(server).collect::<Result<_>>()?;
    for server in &servers {
        server.start();
    }
    state.run_until_stopped()?;
    for server in &servers {
        server.stop_accepting();
    }
    if state.is_quitting() { Ok(()) } else { stop(state, greenlets, servers) }
}

/// Stops gracefully: accepts the part of the backlog that no other worker would serve, then finishes the requests that have
/// begun. Kills requests that outlast `graceful_timeout`.
fn stop(
    state: &Rc<WorkerState>,
    greenlets: &Rc<Greenlets>,
    servers: Vec<Rc<StreamServer>>,
) -> Result<()> {
    let deadline = state.base.graceful_deadline();
    state.base.context.drain();
    servers.iter().try_for_each(|server| server.accept_backlog(deadline))?;
    drop(servers);
    state.base.host.close_listeners();
    state.connections.drain();
    if state.wait_empty(deadline)? || state.is_quitting() {
        return Ok(());
    }
    state.base.cut_requests(state.connections.len());
    greenlets.pool().kill();
    greenlets.pool().join(Some(STOP_TIMEOUT)).map(drop).map_err(|interrupt| ended(&interrupt))
}

/// gevent's `max_accept`: the number of connections that a server accepts in a turn.
const MAX_ACCEPT: usize = 100;
/// How long requests that were killed may take to end: gunicorn's `server.stop(timeout=1)`.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
