//! The process that shows figures: Prometheus text, the status page, StatsD. It reads the scoreboard
//! and what `/proc` and the kernel's socket diagnosis say, and writes nothing that others read, so
//! neither the arbiter nor a worker parses a request of those who watch. The arbiter forks it, and
//! forks another when it dies.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `http` | the little HTTP that it understands |
//! | `server` | connections: few, short, and bounded |
//! | `view` | all figures at one moment |
//! | `backlog` | how many connections wait in the kernel |
//! | `prometheus`, `statsd` | the figures as these want them |
//!
//! **Invariants:** one thread, no plugin code; it runs as the workers' user and holds no socket that
//! requests of the application come from.

mod backlog;
mod figures;
mod http;
mod prometheus;
mod server;
mod statsd;
mod view;

use std::fmt;
use std::os::fd::{AsFd as _, RawFd};
use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::listener::Listener;
use crate::message::Channel;
use crate::scoreboard::Scoreboard;
use crate::settings::{Bind, Settings};
use crate::{privileges, process, title};
use figures::Figures;
use server::Server;
use statsd::Statsd;

/// What a listener of this process serves.
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

/// What the process gets from the arbiter.
pub struct StatusStart {
    /// The settings of the generation that serves.
    pub settings: Arc<Settings>,
    /// Where the figures are.
    pub scoreboard: Arc<Scoreboard>,
    /// Where it learns of slots of the scoreboard that are created later.
    pub slots: Channel,
    /// Where it listens.
    pub listeners: Vec<(Service, Arc<Listener>)>,
    /// Descriptors of the arbiter's that it may not hold.
    pub close: Vec<RawFd>,
}

/// The life of the process, from just behind the fork, where all signals are still blocked.
pub fn run(start: &StatusStart) -> ! {
    process::begin_forked(&start.close);
    title::set(&start.settings, "status");
    if let Err(error) = privileges::drop_to(&start.settings) {
        tracing::error!("No metrics and no status page: {error}");
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
    let figures = Figures { scoreboard: &start.scoreboard, slots: &start.slots };
    match Server::new(listeners, statsd, figures, bound).serve() {
        Ok(never) => match never {},
        Err(error) => {
            tracing::error!("Metrics and status page cannot be served: {error}");
            process::exit_now(1);
        }
    }
}

/// The hosts that the settings bind this process's listeners to.
fn bound_names(settings: &Settings) -> Vec<String> {
    let binds = [&settings.metrics_bind, &settings.status_bind].into_iter().flatten().flatten();
    let hosts = binds.filter_map(|bind| match bind {
        Bind::Tcp { host, .. } => Some(host.clone()),
        _ => None,
    });
    hosts.collect()
}
