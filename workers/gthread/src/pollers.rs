//! Who looks at the connections: the main thread, or a thread of the pool that has nothing else to do.
//!
//! ```text
//!   gate ──┬── listeners
//!          └── base ──┬── wake, bell, timer
//!                     └── connections ──┬── poke
//!                                       └── each connection, edge-triggered
//! ```
//!
//! The main thread waits at the gate or at the base. It hears of the connections only while it is the one who looks at
//! them; a thread of the pool waits at them alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use crate::pool::Poller;

/// The descriptors for which a worker waits, the listeners apart.
pub(crate) struct Pollers {
    pub(crate) connections: Epoll,
    pub(crate) base: Epoll,
    /// Wakes the main thread out of its wait.
    main_wakeup: EventFd,
    /// Wakes the thread that waits at the connections.
    leader_wakeup: EventFd,
    timer: TimerFd,
}

/// What an event at the base or at the connections is.
pub(crate) enum Event {
    /// The connections are ready, as a whole.
    Connections,
    /// The main thread is to look round.
    MainWakeup,
    /// The time is up that was set with [`Pollers::set_timer`].
    Timer,
    /// A waiting thread is to look round.
    LeaderWakeup,
    /// A descriptor of somebody else's.
    Other(RawFd),
}

impl Pollers {
    /// With the main thread as the one who looks at the connections, and for `wake`.
    pub(crate) fn new(wake: BorrowedFd<'_>) -> io::Result<Self> {
        let new_epoll = || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let new_eventfd = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let pollers = Self {
            connections: new_epoll()?,
            base: new_epoll()?,
            main_wakeup: new_eventfd()?,
            leader_wakeup: new_eventfd()?,
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
        };
        let Self { connections, base, main_wakeup, leader_wakeup, timer } = &pollers;
        for fd in [wake, main_wakeup.as_fd(), timer.as_fd(), connections.0.as_fd()] {
            base.add(fd, readable(fd))?;
        }
        connections.add(leader_wakeup, readable(leader_wakeup.as_fd()))?;
        Ok(pollers)
    }

    /// What an event of either is.
    pub(crate) fn event(&self, event: &EpollEvent) -> Event {
        match event.data() as RawFd {
            fd if fd == self.connections.0.as_raw_fd() => Event::Connections,
            fd if fd == self.main_wakeup.as_raw_fd() => {
                // An empty bell has been heard already.
                let _ = self.main_wakeup.read();
                Event::MainWakeup
            }
            fd if fd == self.leader_wakeup.as_raw_fd() => {
                let _ = self.leader_wakeup.read();
                Event::LeaderWakeup
            }
            fd if fd == self.timer.as_fd().as_raw_fd() => {
                let _ = self.timer.unset();
                Event::Timer
            }
            fd => Event::Other(fd),
        }
    }

    /// Wakes the main thread.
    pub(crate) fn wake_main(&self) {
        // A counter at its limit is a bell that rings already.
        let _ = self.main_wakeup.write(1);
    }

    /// Wakes the main thread after so long.
    pub(crate) fn set_timer(&self, after_ns: u64) {
        let after = Expiration::OneShot(Duration::from_nanos(after_ns).into());
        if let Err(error) = self.timer.set(after, TimerSetTimeFlags::empty()) {
            tracing::debug!("no timer can be set: {error}");
            self.wake_main();
        }
    }
}

impl Poller for Pollers {
    fn set_main_is_leader(&self, leader: bool) {
        let fd = self.connections.0.as_fd();
        let mut event = if leader { readable(fd) } else { EpollEvent::new(EpollFlags::empty(), 0) };
        if let Err(error) = self.base.modify(fd, &mut event) {
            tracing::warn!("cannot watch the connections: {error}");
        }
    }

    fn wake_leader(&self) {
        let _ = self.leader_wakeup.write(1);
    }
}

/// An interest in what can be read from a descriptor, which the event names.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, fd.as_raw_fd() as u64)
}

/// Waits for events, of which there are none where a signal came first.
pub(crate) fn wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: EpollTimeout,
) -> io::Result<usize> {
    match epoll.wait(events, timeout) {
        Ok(count) => Ok(count),
        Err(Errno::EINTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}
