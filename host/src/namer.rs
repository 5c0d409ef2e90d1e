//! Finds the names of the functions in workers' stacks: in short-lived processes that the mold forks.
//!
//! ```text
//!     mold ──fork──▶ (between) ──fork──▶ namer ──fork──▶ one process for each stack
//!       │            ends at once          ▲  the arbiter's child
//!       └────────────── stacks ────────────┘
//! ```
//!
//! The namer takes stacks from the mold until none is left, one after the other. If the process that names a stack fails,
//! hangs, or the arbiter ends, the namer logs that stack without names.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, getppid};
use serde::{Deserialize, Serialize};

use crate::listener;
use crate::message::{Channel, Received};
use crate::payload::{MoldContext, Payload};
use crate::process::{self, End, Twice};
use crate::stack::StackReport;
use crate::title;

/// A stack of a worker, for the namer.
#[derive(Debug, Serialize, Deserialize)]
struct ToNamer {
    pid: u32,
    report: StackReport,
}

/// The mold's side.
#[derive(Default)]
pub(crate) struct Namer {
    /// Leads to the namer that was started last, which may have exited.
    queue: Option<Channel>,
}

impl Namer {
    /// Returns the descriptor that workers must close.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.queue.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Has a stack of worker `pid` logged, with names if that is possible. The new process closes the descriptors of
    /// `close`.
    pub(crate) fn name<P: Payload>(
        &mut self,
        payload: &P,
        context: &MoldContext,
        close: &[RawFd],
        pid: u32,
        report: StackReport,
    ) {
        // Addresses mean nothing here in a worker of an earlier mold of the generation.
        let is_own = report.mold == std::process::id();
        let message = ToNamer { pid, report };
        if !is_own || !self.send(payload, context, close, &message) {
            message.report.log_unnamed(&context.log, pid);
        }
    }

    /// Sends a stack to the running namer, or to a new one; returns whether that was possible.
    fn send<P: Payload>(
        &mut self,
        payload: &P,
        context: &MoldContext,
        close: &[RawFd],
        message: &ToNamer,
    ) -> bool {
        match self.queue.as_ref().map(|queue| queue.try_send(message)) {
            Some(Ok(())) => return true,
            // Its queue is full.
            Some(Err(nix::errno::Errno::EAGAIN)) => return false,
            // It has exited.
            Some(Err(_)) | None => self.queue = None,
        }
        let Ok((near, far)) = Channel::pair() else { return false };
        if far.try_send(message).is_err() {
            return false;
        }
        match process::fork_twice(|_| {}) {
            Ok(Twice::Caller(intermediate)) => {
                drop(near);
                let has_begun = process::wait_for_intermediate(intermediate).is_ok();
                self.queue = has_begun.then_some(far);
                has_begun
            }
            Ok(Twice::Grandchild(intermediate)) => {
                process::close_inherited(close);
                drop(far);
                serve(payload, context, &near, intermediate)
            }
            Err(_) => false,
        }
    }
}

/// The namer's life. All signals stay blocked.
fn serve<P: Payload>(payload: &P, context: &MoldContext, queue: &Channel, intermediate: Pid) -> ! {
    process::reset_signal_handlers();
    title::set(&context.settings, "namer");
    listener::close_copies(&context.listeners);
    let arbiter = context.arbiter_pid;
    let is_tied = process::wait_for_parent(arbiter, intermediate)
        && process::tie_to_parent(arbiter, Signal::SIGTERM);
    loop {
        match queue.receive::<ToNamer>() {
            Ok(Received::Message(ToNamer { pid, report }, _)) => {
                let may_name = is_tied && getppid() == arbiter;
                if !may_name || !name_apart(payload, context, pid, &report) {
                    report.log_unnamed(&context.log, pid);
                }
            }
            // From now on the mold starts another namer. What it has sent before is still received.
            Ok(Received::Nothing) => queue.refuse_more(),
            Ok(Received::Garbled(_)) => {}
            Ok(Received::Closed) | Err(_) => process::exit_now(0),
        }
    }
}

/// Names a stack in a process made for it, and returns whether that has logged it.
fn name_apart<P: Payload>(
    payload: &P,
    context: &MoldContext,
    pid: u32,
    report: &StackReport,
) -> bool {
    let namer = nix::unistd::getpid();
    match process::fork_with_signals_blocked() {
        Ok(ForkResult::Parent { child }) => {
            process::end_within(child, NAMING_MAX) == Some(End::Status(0))
        }
        Ok(ForkResult::Child) => {
            if process::tie_to_parent(namer, Signal::SIGKILL) {
                payload.prepare_naming();
                report.log_named(&context.log, pid);
                process::exit_now(0);
            }
            process::exit_now(1)
        }
        Err(_) => false,
    }
}

/// How long it may take to name a stack: about a second in debug builds on an idle machine.
const NAMING_MAX: Duration = Duration::from_secs(20);
