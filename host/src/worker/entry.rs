//! The entry point of a worker: what its mold passes to it, and its life from the fork to its exit status.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::signal_handlers::WorkerSignals;
use super::{Wake, WorkerContext, forks};
use crate::exit_status::{BOOT_ERROR, PANICKED};
use crate::log::AccessLog;
use crate::message::{Channel, FromWorker};
use crate::payload::{MoldContext, Payload};
use crate::scoreboard::{AccessBuffer, SlotMemory, SlotWriter};
use crate::{allocator, process, title};

/// What a new worker gets from its mold.
pub(crate) struct WorkerStart<'a> {
    pub(crate) context: &'a MoldContext,
    pub(crate) report: Channel,
    pub(crate) slot: SlotWriter,
    pub(crate) memory: SlotMemory,
    pub(crate) slot_number: u32,
    pub(crate) age: u64,
    /// The process between mold and worker, which is about to exit.
    pub(crate) intermediate: Pid,
}

/// Runs a worker. Called right after the fork, while all signals are still blocked.
pub(crate) fn run<P: Payload>(mut payload: P, start: WorkerStart<'_>) -> ! {
    let arbiter = start.context.arbiter_pid;
    if let Err(error) = start.slot.enter(start.memory) {
        tracing::error!("cannot map a worker's slot of the scoreboard: {error}");
        process::exit_now(BOOT_ERROR);
    }
    // Handlers of other signals that the application has installed in the mold stay, as under gunicorn.
    let signals = match WorkerSignals::install(start.slot, arbiter) {
        Ok(signals) => signals,
        Err(error) => {
            end(start.slot, &format!("cannot install signal handlers: {error}"), BOOT_ERROR)
        }
    };
    if let Err(error) = forks::watch(&start.context.listeners) {
        end(start.slot, &format!("cannot watch for forks: {error}"), BOOT_ERROR);
    }
    if !process::wait_for_parent(arbiter, start.intermediate)
        || !process::tie_to_parent(arbiter, Signal::SIGTERM)
    {
        end(start.slot, "the arbiter has exited", 0);
    }
    // An arbiter that does not learn of this worker could never stop it.
    if let Err(error) = start.report.send(&FromWorker::Started { age: start.age }) {
        end(start.slot, &format!("cannot report to the arbiter: {error}"), BOOT_ERROR);
    }
    title::set(&start.context.settings, "worker");
    allocator::keep_freed_memory();
    payload.after_fork_child();
    payload.hook("post_fork", &[i64::from(std::process::id()), start.age as i64]);
    process::unblock_signals();
    let access_log = open_access_log(start.context, start.slot);
    // Without a timer, lines are written at the heartbeat.
    let timer = access_log.as_ref().and_then(AccessLog::timer);
    let wake = timer.and_then(|timer| Wake::new(&signals, timer).ok());
    let context = WorkerContext {
        settings: Arc::clone(&start.context.settings),
        generation: start.context.generation,
        age: start.age,
        listeners: start.context.listeners.clone(),
        slot: start.slot,
        slot_number: start.slot_number,
        arbiter,
        parent_due_ns: AtomicU64::new(0),
        upkeep_due_ns: AtomicU64::new(0),
        report: start.report,
        signals,
        log: Arc::clone(&start.context.log),
        access_log,
        wake,
        listeners_closed: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
        retiring: AtomicBool::new(false),
        awaits_first_heartbeat: AtomicBool::new(false),
        is_ready: AtomicBool::new(false),
    };
    let slot = context.slot;
    match catch_unwind(AssertUnwindSafe(|| payload.run_worker(context))) {
        Ok(status) => process::exit_now(status),
        Err(panic) => end(slot, &format!("panicked: {}", panic_text(&*panic)), PANICKED),
    }
}

fn open_access_log(context: &MoldContext, slot: SlotWriter) -> Option<AccessLog> {
    let file = context.access.as_ref()?;
    let buffer = AccessBuffer::take(slot)?;
    Some(AccessLog::new(&context.settings, Arc::clone(file), buffer))
}

fn end(slot: SlotWriter, reason: &str, status: i32) -> ! {
    slot.leave_last_words(reason);
    process::exit_now(status)
}

/// Returns the message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
