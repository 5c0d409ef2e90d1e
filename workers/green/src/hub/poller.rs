//! The epoll descriptor and the hub's own entries in it: the wake-up and the guest loop's timer. Works with
//! tokens, not sources.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::wake::Shared;

#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    events: RefCell<Vec<EpollEvent>>,
    guest: OnceCell<GuestTimer>,
}

/// Result of one wait.
pub(crate) struct Events {
    list: Vec<EpollEvent>,
    count: usize,
}

impl Events {
    /// Events with their tokens, without the hub's own.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (EpollFlags, u64)> {
        let found = self.list[..self.count].iter().map(|event| (event.events(), event.data()));
        found.filter(|(_, token)| *token != OWN_TOKEN)
    }
}

/// Makes the epoll descriptor readable when the next timer is due, for a loop that polls it.
#[derive(Debug)]
struct GuestTimer {
    timer: TimerFd,
    armed: Cell<Option<Instant>>,
}

impl Poller {
    pub(crate) fn new(shared: &Arc<Shared>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Edge-triggered: each write to the eventfd is an edge, so its counter need not be read.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(shared.eventfd(), EpollEvent::new(flags, OWN_TOKEN))?;
        let events = RefCell::new(vec![EpollEvent::empty(); EVENTS_PER_POLL]);
        Ok(Self { epoll, events, guest: OnceCell::new() })
    }

    pub(crate) fn add(&self, fd: RawFd, flags: EpollFlags, token: u64) -> io::Result<()> {
        debug_assert_ne!(token, OWN_TOKEN);
        self.control(libc::EPOLL_CTL_ADD, fd, flags, token)
    }

    pub(crate) fn modify(&self, fd: RawFd, flags: EpollFlags, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, flags, token)
    }

    pub(crate) fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, EpollFlags::empty(), 0)
    }

    /// Calls `epoll_ctl` with any number: an application's may not be an open descriptor.
    fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        flags: EpollFlags,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: flags.bits() as u32, u64: token };
        let epoll = self.epoll.0.as_raw_fd();
        // SAFETY: the event is valid for the whole call, and the kernel checks both numbers.
        let result = unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits up to `timeout` for events (without limit if `None`). A signal ends the wait like a time-out.
    /// Return the events with [`recycle`](Self::recycle).
    pub(crate) fn poll(&self, timeout: Option<Duration>) -> io::Result<Events> {
        let mut events = Events { list: self.events.take(), count: 0 };
        let room = if self.is_guest() { EVENTS_PER_GUEST_TURN } else { EVENTS_PER_POLL };
        match self.epoll.wait(&mut events.list[..room], round_up(timeout)) {
            Ok(count) => events.count = count,
            Err(Errno::EINTR) => {}
            Err(errno) => {
                self.recycle(events);
                return Err(errno.into());
            }
        }
        Ok(events)
    }

    pub(crate) fn recycle(&self, events: Events) {
        self.events.replace(events.list);
    }

    /// Returns the pollable descriptor; from now on a guest loop drives the hub.
    pub(crate) fn become_guest(&self) -> io::Result<BorrowedFd<'_>> {
        if self.guest.get().is_none() {
            let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            self.epoll.add(&timer, EpollEvent::new(flags, OWN_TOKEN))?;
            self.guest.get_or_init(|| GuestTimer { timer, armed: Cell::new(None) });
        }
        Ok(self.epoll.0.as_fd())
    }

    pub(crate) fn is_guest(&self) -> bool {
        self.guest.get().is_some()
    }

    /// Makes the descriptor readable at `next`. No system call while an earlier expiry is pending: that one
    /// leads to a turn, which arms the timer again.
    pub(crate) fn arm_guest_timer(&self, next: Option<Instant>) -> io::Result<()> {
        let (Some(guest), Some(next)) = (self.guest.get(), next) else { return Ok(()) };
        let now = Instant::now();
        if guest.armed.get().is_some_and(|armed| armed > now && armed <= next) {
            return Ok(());
        }
        let delay = next.saturating_duration_since(now).max(Duration::from_nanos(1));
        let expiry = Expiration::OneShot(TimeSpec::from_duration(delay));
        guest.timer.set(expiry, TimerSetTimeFlags::empty())?;
        guest.armed.set(Some(now + delay));
        Ok(())
    }
}

/// epoll counts in milliseconds: rounded up, so that a timer neither fires early nor makes the hub spin.
fn round_up(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX)
}

/// Token of the hub's own descriptors, which only end the wait.
pub(crate) const OWN_TOKEN: u64 = u64::MAX;
const EVENTS_PER_POLL: usize = 256;
/// Between two turns the guest loop runs what they have started, and its timers. With larger turns, requests that came
/// one by one start together, and stay together: so do their timers, and what follows from these.
const EVENTS_PER_GUEST_TURN: usize = 32;
