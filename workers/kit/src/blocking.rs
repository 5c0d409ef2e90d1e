//! What classes whose threads may block have in common: a runtime whose waits are system calls, and the
//! conversion of a wait's result.

use std::io;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{RResult, RStr, RString, RVec};
use worker_api::guard::catch_flat;
use worker_api::raw::{Interest, RawRuntime, RawRuntime_TO, RuntimeBox, TaskBox};
use worker_api::{Failure, FailureKind, Result};

use crate::clock::now_ns;
use crate::connect::connect;
use crate::context::ServerContext;
use crate::deadline::Deadline;
use crate::resolve::{self, Resolver};
use crate::{poll, threads};

/// Creates a runtime for applications under a class whose threads may block. The worker's heartbeat continues
/// while a thread waits: a waiting thread does not hang.
pub fn runtime(context: &Arc<ServerContext>) -> RuntimeBox {
    let blocking = Blocking { context: Arc::clone(context), resolver: Resolver::default() };
    RawRuntime_TO::from_value(blocking, TD_Opaque)
}

/// Converts the result of [`poll::wait`] to what [`crate::ConnectionDriver::wait`] returns: false becomes a
/// timeout.
pub fn in_time(waited: io::Result<bool>) -> Result<()> {
    match waited {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(FailureKind::TIMEOUT, "the deadline passed")),
        Err(error) => Err(Failure::io("cannot wait for the client", &error)),
    }
}

struct Blocking {
    context: Arc<ServerContext>,
    resolver: Resolver,
}

impl RawRuntime for Blocking {
    fn cooperative(&self) -> bool {
        false
    }

    fn wait_fd(&self, fd: i32, interest: Interest, timeout_ns: u64) -> RResult<bool, Failure> {
        let deadline = Deadline::at_ns(now_ns()).later_by(timeout_ns);
        catch_flat("a wait for a descriptor", || {
            poll::wait(fd, interest, deadline, || self.context.host.notify())
                .map_err(|error| Failure::io("cannot wait for a descriptor", &error))
        })
        .into()
    }

    fn sleep(&self, ns: u64) -> RResult<(), Failure> {
        thread::sleep(Duration::from_nanos(ns));
        RResult::ROk(())
    }

    fn spawn(&self, mut task: TaskBox) -> RResult<(), Failure> {
        let running = self.context.background.begin_task();
        thread::Builder::new()
            .name("task".to_owned())
            .stack_size(threads::default_stack_size())
            .spawn(move || {
                task.run();
                drop(running);
            })
            .map(drop)
            .map_err(|error| Failure::io("cannot start a thread for a task", &error))
            .into()
    }

    fn offload(&self, mut task: TaskBox) -> RResult<(), Failure> {
        task.run();
        RResult::ROk(())
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
        let deadline = Deadline::at_ns(now_ns()).later_by(timeout_ns);
        catch_flat("a lookup", || {
            self.resolver.resolve(host.as_str(), port, deadline, || self.context.host.notify())
        })
        .map(|found| resolve::texts(&found))
        .into()
    }
}
