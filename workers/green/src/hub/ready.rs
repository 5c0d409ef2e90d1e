//! Readiness: what to wait for, what can have happened, and how epoll reports it.

use nix::sys::epoll::EpollFlags;

/// Readiness to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Data, a connection, or the end of the stream.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
}

/// What has happened to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready(u8);

impl Ready {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const READ: Self = Self(1);
    pub(crate) const WRITE: Self = Self(2);
    pub(crate) const HANGUP: Self = Self(4);
    pub(crate) const TIMED_OUT: Self = Self(8);
    pub(crate) const EXPIRED: Self = Self(16);
    /// The read side has ended: reading never blocks again.
    pub(super) const READ_END: Self = Self(32);

    /// Reading does not block. It may only return the end of the stream or an error.
    pub fn is_readable(self) -> bool {
        self.intersects(Self(Self::READ.0 | Self::HANGUP.0))
    }

    /// Writing does not block.
    pub fn is_writable(self) -> bool {
        self.intersects(Self(Self::WRITE.0 | Self::HANGUP.0))
    }

    /// The peer has closed the connection, or it is broken.
    pub fn is_hangup(self) -> bool {
        self.intersects(Self::HANGUP)
    }

    /// The peer sends no more data: reading never blocks again.
    pub fn is_end(self) -> bool {
        self.intersects(Self(Self::READ_END.0 | Self::HANGUP.0))
    }

    /// The timeout has passed.
    pub fn is_timed_out(self) -> bool {
        self.intersects(Self::TIMED_OUT)
    }

    /// [`expire_idle`](crate::expire_idle) ended the wait.
    pub fn is_expired(self) -> bool {
        self.intersects(Self::EXPIRED)
    }

    pub(super) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn satisfies(self, interest: Interest) -> bool {
        self.intersects(Self(interest.ready().0 | Self::HANGUP.0))
    }
}

impl From<EpollFlags> for Ready {
    fn from(flags: EpollFlags) -> Self {
        let mut ready = Self::NONE;
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI) {
            ready = ready.with(Self::READ);
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            ready = ready.with(Self::WRITE);
        }
        let gone = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        if flags.intersects(gone) {
            ready = ready.with(Self::HANGUP);
        }
        // The peer sends no more data but may still read: not a reason to write.
        if flags.contains(EpollFlags::EPOLLRDHUP) {
            ready = ready.with(Self::READ).with(Self::READ_END);
        }
        ready
    }
}

impl Interest {
    pub(super) fn ready(self) -> Ready {
        match self {
            Self::Read => Ready::READ,
            Self::Write => Ready::WRITE,
            Self::Both => Ready::READ.with(Ready::WRITE),
        }
    }

    pub(super) fn wants_read(self) -> bool {
        self != Self::Write
    }

    pub(super) fn wants_write(self) -> bool {
        self != Self::Read
    }
}

/// How epoll reports a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Once per change. For descriptors of one process: connections, pipes.
    Edge,
    /// While the condition holds. For listeners and for descriptors that other processes read, too.
    Level,
    /// Like `Level`, but only one of the processes that wait for a shared listener is woken
    /// (`EPOLLEXCLUSIVE`). The kernel prefers the one that has waited longest: stopping and starting a watch
    /// after an accept moves this process to the end of the queue and spreads the load.
    Exclusive,
}
