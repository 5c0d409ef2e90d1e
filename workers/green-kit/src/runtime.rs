//! The runtime of the cooperative classes: while the application waits, other requests run. On a thread that the
//! application started, the same calls block that thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jimu_green::{Handle, Interrupt, OffloadError, Timeout};
use jimu_kit::background::{Background, Task};
use jimu_kit::clock::now_ns;
use jimu_kit::connect::connect;
use jimu_kit::resolve::{self, Resolver};
use jimu_kit::{Deadline, ServerContext, poll};
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{RResult, RStr, RString, RVec};
use worker_api::guard::catch_flat;
use worker_api::raw::{Interest, RawRuntime, RawRuntime_TO, RuntimeBox, TaskBox};
use worker_api::{Failure, FailureKind, Result, fork};

use crate::connections::Connections;
use crate::driver::interrupted;
use crate::entry::hub_interest;

/// Creates the runtime for the application of a cooperative worker.
pub(crate) fn runtime(handle: Handle, context: &ServerContext) -> RuntimeBox {
    let background = Arc::clone(&context.background);
    let cooperative = Cooperative { handle, background, resolver: Resolver::default() };
    RawRuntime_TO::from_value(cooperative, TD_Opaque)
}

struct Cooperative {
    handle: Handle,
    background: Arc<Background>,
    /// For threads that the application started.
    resolver: Resolver,
}

impl RawRuntime for Cooperative {
    fn cooperative(&self) -> bool {
        true
    }

    fn wait_fd(&self, fd: i32, interest: Interest, timeout_ns: u64) -> RResult<bool, Failure> {
        catch_flat("a wait for a descriptor", || wait_fd(fd, interest, timeout_ns)).into()
    }

    fn sleep(&self, ns: u64) -> RResult<(), Failure> {
        let duration = Duration::from_nanos(ns);
        catch_flat("a sleep", || {
            if !on_hub() {
                thread::sleep(duration);
                return Ok(());
            }
            in_time()?;
            jimu_green::sleep(duration).map_err(interrupted)
        })
        .into()
    }

    fn spawn(&self, task: TaskBox) -> RResult<(), Failure> {
        catch_flat("the start of a task", || {
            let running = self.background.begin_task();
            if on_hub() {
                return start(task, running);
            }
            self.handle.call(move || {
                if let Err(failure) = start(task, running) {
                    tracing::error!("cannot start a task: {failure}");
                }
            });
            Ok(())
        })
        .into()
    }

    fn offload(&self, mut task: TaskBox) -> RResult<(), Failure> {
        catch_flat("offloaded work", || {
            if !on_hub() {
                task.run();
                return Ok(());
            }
            in_time()?;
            jimu_green::offload(move || task.run()).map_err(|error| match error {
                OffloadError::Interrupted(interrupt) => interrupted(interrupt),
                other => Failure::new(FailureKind::OTHER, other.to_string()),
            })
        })
        .into()
    }

    fn connect(&self, address: RStr<'_>, timeout_ns: u64) -> RResult<i32, Failure> {
        catch_flat("a connection", || connect(self, address.as_str(), timeout_ns))
            .map(IntoRawFd::into_raw_fd)
            .into()
    }

    fn resolve(
        &self,
        host: RStr<'_>,
        port: u16,
        timeout_ns: u64,
    ) -> RResult<RVec<RString>, Failure> {
        catch_flat("a lookup", || {
            if on_hub() {
                return resolve_on_hub(host.as_str(), port, timeout_ns);
            }
            let deadline = Deadline::at_ns(now_ns()).later_by(timeout_ns);
            self.resolver.resolve(host.as_str(), port, deadline, || ())
        })
        .map(|found| resolve::texts(&found))
        .into()
    }
}

fn resolve_on_hub(host: &str, port: u16, timeout_ns: u64) -> Result<Vec<SocketAddr>> {
    if let Some(address) = resolve::literal(host, port) {
        return Ok(vec![address]);
    }
    in_time()?;
    let name = (host.to_owned(), port);
    let found = match limit(timeout_ns) {
        Some(limit) => Timeout::silent(limit)
            .map_err(io::Error::from)
            .and_then(|timeout| timeout.scope(|| jimu_green::net::resolve(name))),
        None => jimu_green::net::resolve(name).map(Some),
    };
    match found {
        Ok(Some(addresses)) => Ok(addresses),
        Ok(None) => Err(resolve::late(host)),
        Err(error) => Err(match Interrupt::of(&error) {
            Some(interrupt) => interrupted(interrupt),
            None => resolve::unknown(host, &error),
        }),
    }
}

fn wait_fd(fd: i32, interest: Interest, timeout_ns: u64) -> Result<bool> {
    let cannot = |error| Failure::io("cannot wait for a descriptor", &error);
    let timeout = limit(timeout_ns);
    if !on_hub() {
        let deadline = Deadline::after(now_ns(), timeout);
        return poll::wait(fd, interest, deadline, || ()).map_err(cannot);
    }
    in_time()?;
    jimu_green::wait_fd(fd, hub_interest(interest), timeout).map_err(|error| {
        match Interrupt::of(&error) {
            Some(interrupt) => interrupted(interrupt),
            None => cannot(error),
        }
    })
}

fn limit(timeout_ns: u64) -> Option<Duration> {
    (timeout_ns != u64::MAX).then(|| Duration::from_nanos(timeout_ns))
}

/// Returns whether a wait is the hub's: not on a thread that the application started, and not in a process that it forked,
/// which would change the epoll of the worker's hub.
fn on_hub() -> bool {
    !fork::is_child() && Connections::current().is_some()
}

/// Fails if the current request has timed out: it must not wait for anything.
fn in_time() -> Result<()> {
    if Connections::current_request_has_timed_out() {
        Err(interrupted(Interrupt::Exit))
    } else {
        Ok(())
    }
}

fn start(mut task: TaskBox, running: Task) -> Result<()> {
    let run = move || {
        task.run();
        fork::end_if_child();
        drop(running);
    };
    jimu_green::spawn(run).map(drop).map_err(|error| {
        Failure::new(FailureKind::OTHER, "cannot start a greenlet").caused_by(&error)
    })
}
