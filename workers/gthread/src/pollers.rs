//! The epolls of a worker, and the descriptors that wake its threads.
//!
//! ```text
//!   main ──┬── listeners
//!          └── base ──┬── signals, main_wakeup, timer
//!                     └── connections ──┬── leader_wakeup
//!   lead ──┬── connections              └── each connection, edge-triggered
//!          └── listeners
//! ```
//!
//! The main thread waits on the main epoll while it is the leader and can accept connections, otherwise on the base epoll.
//! The connection epoll is an active member of the base epoll only while the main thread is the leader. A thread of the
//! pool that is the leader waits on the lead epoll while connections are accepted, otherwise on the connection epoll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use crate::pool::Poller;

/// The descriptors that a worker waits for. The listeners are added by [`Entrance`](crate::entrance::Entrance).
pub(crate) struct Pollers {
    pub(crate) connections: Epoll,
    pub(crate) base: Epoll,
    pub(crate) main: Epoll,
    pub(crate) lead: Epoll,
    /// Interrupts the main thread's wait.
    main_wakeup: EventFd,
    /// Interrupts the wait of a thread of the pool on the connection epoll.
    leader_wakeup: EventFd,
    timer: TimerFd,
}

/// The source of an event. The listeners are not among them.
pub(crate) enum Event {
    /// The connection epoll: it has events to read.
    Connections,
    /// [`Pollers::wake_main`] was called.
    MainWakeup,
    /// The timer that [`Pollers::set_timer`] set has expired.
    Timer,
    /// [`Poller::wake_leader`] was called.
    LeaderWakeup,
    /// Another descriptor: a connection, or the one that reports signals.
    Other(RawFd),
}

impl Pollers {
    /// Creates the epolls, with the main thread as the leader. `wake` is the descriptor that reports signals.
    pub(crate) fn new(wake: BorrowedFd<'_>) -> io::Result<Self> {
        let new_epoll = || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let new_eventfd = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let pollers = Self {
            connections: new_epoll()?,
            base: new_epoll()?,
            main: new_epoll()?,
            lead: new_epoll()?,
            main_wakeup: new_eventfd()?,
            leader_wakeup: new_eventfd()?,
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
        };
        let Self { connections, base, main, lead, main_wakeup, leader_wakeup, timer } = &pollers;
        for fd in [wake, main_wakeup.as_fd(), timer.as_fd(), connections.0.as_fd()] {
            base.add(fd, readable(fd))?;
        }
        connections.add(leader_wakeup, readable(leader_wakeup.as_fd()))?;
        main.add(&base.0, readable(base.0.as_fd()))?;
        lead.add(&connections.0, readable(connections.0.as_fd()))?;
        Ok(pollers)
    }

    /// Returns the source of an event, and resets it if it is one of the wake-ups or the timer.
    pub(crate) fn event(&self, event: &EpollEvent) -> Event {
        match event.data() as RawFd {
            fd if fd == self.connections.0.as_raw_fd() => Event::Connections,
            fd if fd == self.main_wakeup.as_raw_fd() => {
                // An empty counter has been read already.
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

    /// Interrupts the main thread's wait.
    pub(crate) fn wake_main(&self) {
        // A counter at its limit is readable already.
        let _ = self.main_wakeup.write(1);
    }

    /// Wakes the main thread after `after_ns`.
    pub(crate) fn set_timer(&self, after_ns: u64) {
        let after = Expiration::OneShot(Duration::from_nanos(after_ns).into());
        if let Err(error) = self.timer.set(after, TimerSetTimeFlags::empty()) {
            tracing::debug!("cannot set a timer: {error}");
            self.wake_main();
        }
    }
}

impl Poller for Arc<Pollers> {
    fn set_main_is_leader(&self, leader: bool) {
        let fd = self.connections.0.as_fd();
        let mut event = if leader { readable(fd) } else { EpollEvent::new(EpollFlags::empty(), 0) };
        if let Err(error) = self.base.modify(fd, &mut event) {
            tracing::warn!("cannot watch connections: {error}");
        }
        if leader {
            // It may wait on the base epoll, and has to accept again.
            self.wake_main();
        }
    }

    fn wake_leader(&self) {
        let _ = self.leader_wakeup.write(1);
    }
}

/// Returns an event for reading, which carries the number of the descriptor.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, fd.as_raw_fd() as u64)
}

/// Waits for events and returns their number: 0 if a signal interrupted the wait.
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
