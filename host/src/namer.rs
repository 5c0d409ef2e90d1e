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
    /// Has a stack of worker `pid` logged, with names if that is possible. Returns `None` in the mold; in a new
    /// process, what that process is to run.
    pub(crate) fn name(
        &mut self,
        context: &MoldContext,
        pid: u32,
        report: StackReport,
    ) -> Option<NamerProcess> {
        // Addresses mean nothing here in a worker of an earlier mold of the generation.
        let is_own = report.mold == std::process::id();
        let message = ToNamer { pid, report };
        let sent = if is_own { self.send(&message) } else { Sent::No };
        match sent {
            Sent::Yes => {}
            Sent::No => message.report.log_unnamed(&context.log, pid),
            Sent::InNamer(process) => return Some(process),
        }
        None
    }

    /// Sends a stack to the running namer, or to a new one.
    fn send(&mut self, message: &ToNamer) -> Sent {
        match self.queue.as_ref().map(|queue| queue.try_send(message)) {
            Some(Ok(())) => return Sent::Yes,
            // Its queue is full.
            Some(Err(nix::errno::Errno::EAGAIN)) => return Sent::No,
            // It has exited.
            Some(Err(_)) | None => self.queue = None,
        }
        let Ok((near, far)) = Channel::pair() else { return Sent::No };
        if far.try_send(message).is_err() {
            return Sent::No;
        }
        match process::fork_twice(|_| {}) {
            Ok(Twice::Caller(intermediate)) => {
                drop(near);
                if process::wait_for_intermediate(intermediate).is_err() {
                    return Sent::No;
                }
                self.queue = Some(far);
                Sent::Yes
            }
            Ok(Twice::Grandchild(intermediate)) => {
                Sent::InNamer(NamerProcess { queue: near, intermediate })
            }
            Err(_) => Sent::No,
        }
    }
}

/// Result of sending a stack to a namer, in the two processes in which that can return.
enum Sent {
    Yes,
    No,
    /// This is the new namer.
    InNamer(NamerProcess),
}

/// A new namer, in its own process. All signals stay blocked.
pub(crate) struct NamerProcess {
    queue: Channel,
    /// The process between mold and namer, which is about to exit.
    intermediate: Pid,
}

impl NamerProcess {
    /// Logs the stacks that the mold sends, until it closes the queue.
    pub(crate) fn serve<P: Payload>(self, payload: &P, context: &MoldContext) -> ! {
        let Self { queue, intermediate } = self;
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
