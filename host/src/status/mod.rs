//! The status process, which serves metrics: Prometheus text, the status page, StatsD. It reads the scoreboard,
//! `/proc` and the kernel's socket diagnosis, and writes nothing that other processes read, so neither the
//! arbiter nor a worker parses a request of a monitoring client. The arbiter forks it, and forks another when it
//! dies.
//!
//! | module | purpose |
//! | --- | --- |
//! | `http` | minimal HTTP |
//! | `server` | connections: few, short, and bounded |
//! | `view` | a snapshot of all metrics |
//! | `backlog` | number of connections that wait in the kernel |
//! | `prometheus`, `statsd` | the formats of the metrics |
//!
//! **Invariants:** one thread, no plugin code; it runs as the workers' user and holds no socket that receives
//! requests for the application.

mod backlog;
mod http;
mod live;
mod prometheus;
mod server;
mod statsd;
mod view;

use std::fmt;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::listener::Listener;
use crate::message::Channel;
use crate::scoreboard::Scoreboard;
use crate::settings::{Bind, Settings};
use crate::{privileges, process, title};
use live::LiveScoreboard;
use server::Server;
use statsd::Statsd;

/// The service of a listener of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Metrics for Prometheus.
    Metrics,
    /// The page for browsers.
    Page,
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Metrics => "Metrics",
            Self::Page => "Status page",
        })
    }
}

/// The data that the process receives from the arbiter.
pub struct StatusStart {
    /// Settings of the serving generation.
    pub settings: Arc<Settings>,
    /// Source of the metrics.
    pub scoreboard: Arc<Scoreboard>,
    /// Receives slots of the scoreboard that are created later.
    pub slots: Channel,
    /// Its listeners.
    pub listeners: Vec<(Service, Arc<Listener>)>,
    /// Descriptors to keep besides those of the channel and the listeners.
    pub keep: Vec<RawFd>,
}

/// Runs the process, from immediately after the fork, when all signals are still blocked.
pub fn run(start: &StatusStart) -> ! {
    let listeners = start.listeners.iter().map(|(_, listener)| listener.descriptor());
    let own = listeners.chain([start.slots.as_raw_fd()]);
    process::begin_forked(start.keep.iter().copied().chain(own));
    title::set(&start.settings, "status");
    if let Err(error) = privileges::drop_to(&start.settings) {
        tracing::error!("metrics and status page cannot be served: {error}");
        process::exit_now(1);
    }
    let arbiter = start.scoreboard.arbiter_pid();
    if !process::tie_to_parent(arbiter, Signal::SIGKILL) {
        process::exit_now(0);
    }
    let listeners = start.listeners.iter().filter_map(|(service, listener)| {
        let socket = listener.as_fd().try_clone_to_owned().ok()?;
        Some((*service, listener.address().clone(), socket))
    });
    let statsd = Statsd::new(&start.settings);
    let bound = bound_names(&start.settings);
    let live = LiveScoreboard { scoreboard: &start.scoreboard, slots: &start.slots };
    match Server::new(listeners, statsd, live, bound).serve() {
        Ok(never) => match never {},
        Err(error) => {
            tracing::error!("metrics and status page cannot be served: {error}");
            process::exit_now(1);
        }
    }
}

/// Returns the hosts to which the settings bind this process's listeners.
fn bound_names(settings: &Settings) -> Vec<String> {
    let binds = [&settings.metrics_bind, &settings.status_bind].into_iter().flatten().flatten();
    let hosts = binds.filter_map(|bind| match bind {
        Bind::Tcp { host, .. } => Some(host.clone()),
        _ => None,
    });
    hosts.collect()
}
