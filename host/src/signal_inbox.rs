//! Signals of the arbiter: handlers write a record into a pipe, in the order of arrival and with the sender's
//! process ID, and the main loop reads them. Unlike with a signalfd nothing is blocked, so a second TTIN is not
//! merged into the first, and children inherit no mask.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// A received signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedSignal {
    /// Signal number.
    pub signal: Signal,
    /// Process that sent it; 0 if the kernel did or it is unknown.
    pub sender: u32,
}

/// The reading end of the pipe. The handlers use the other end as long as the process lives.
pub struct SignalInbox {
    pipe: OwnedFd,
}

impl SignalInbox {
    /// Installs handlers for `signals`. There is one inbox per process: a second one would take over the
    /// signals of the first.
    pub fn install(signals: &[Signal]) -> nix::Result<Self> {
        let (pipe, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        PIPE.store(writer.into_raw_fd(), Ordering::Release);
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESTART;
        let action = SigAction::new(SigHandler::SigAction(on_signal), flags, SigSet::all());
        for &signal in signals {
            // SAFETY: `on_signal` is async-signal-safe: it stores into atomics and calls write(2).
            unsafe { sigaction(signal, &action) }?;
        }
        Ok(Self { pipe })
    }

    /// Returns everything that arrived since the previous call, in order.
    pub fn take(&self) -> Vec<ReceivedSignal> {
        let mut caught = Vec::new();
        let mut buffer = [0; RECORD * BATCH];
        while let Ok(length) = nix::unistd::read(&self.pipe, &mut buffer) {
            caught.extend(buffer[..length].chunks_exact(RECORD).filter_map(decode));
            if length < buffer.len() {
                break;
            }
        }
        let overflown = OVERFLOWN.swap(0, Ordering::AcqRel);
        caught.extend(
            Signal::iterator()
                .filter(|&signal| overflown & (1 << signal as u32) != 0)
                .map(|signal| ReceivedSignal { signal, sender: 0 }),
        );
        caught
    }
}

impl AsFd for SignalInbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let sender = sender_of(info);
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&signal.to_ne_bytes());
    record[4..].copy_from_slice(&sender.to_ne_bytes());
    let saved_errno = nix::errno::Errno::last();
    // SAFETY: write(2) is async-signal-safe; the buffer is RECORD bytes long, and the pipe stays open while
    // the handler is installed.
    let written =
        unsafe { libc::write(PIPE.load(Ordering::Acquire), record.as_ptr().cast(), RECORD) };
    if written != RECORD as isize {
        OVERFLOWN.fetch_or(1 << signal, Ordering::AcqRel);
    }
    saved_errno.set();
}

/// Returns the sender of a signal from the information passed to a handler; 0 for the kernel.
pub(crate) fn sender_of(info: *const libc::siginfo_t) -> u32 {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO. si_pid is defined for
    // the codes of kill, sigqueue and tgkill, to which this is restricted.
    unsafe {
        match (*info).si_code {
            libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => (*info).si_pid() as u32,
            _ => 0,
        }
    }
}

fn decode(record: &[u8]) -> Option<ReceivedSignal> {
    let (signal, sender) = record.split_at(4);
    let signal = i32::from_ne_bytes(signal.try_into().ok()?);
    let sender = u32::from_ne_bytes(sender.try_into().ok()?);
    Some(ReceivedSignal { signal: Signal::try_from(signal).ok()?, sender })
}

static PIPE: AtomicI32 = AtomicI32::new(-1);
/// Signals that did not fit into the pipe: they are merged, as one bit each.
static OVERFLOWN: AtomicU64 = AtomicU64::new(0);
const RECORD: usize = 8;
const BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_keep_their_number_their_order_and_their_sender() {
        let inbox = SignalInbox::install(&[Signal::SIGTTIN, Signal::SIGTTOU]).unwrap();
        for signal in [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGTTIN] {
            nix::sys::signal::raise(signal).unwrap();
        }
        let caught = inbox.take();
        let signals: Vec<_> = caught.iter().map(|caught| caught.signal).collect();
        assert_eq!(signals, [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGTTIN]);
        assert!(caught.iter().all(|caught| caught.sender == std::process::id()));
        assert_eq!(inbox.take(), []);
    }
}
