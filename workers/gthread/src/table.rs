//! The connections of a worker. The table owns a connection while it waits for its descriptor, and keeps an entry for it
//! while it is lent to a thread or to the application.
//!
//! Each connection is added to the epoll once, edge-triggered, for all events. So waiting for the next request on a
//! connection that is kept alive takes no system call. An event that arrives while the connection is lent is stored in
//! its entry, and considered when the connection returns. A connection whose request is still arriving is muted while a
//! thread reads it, so that not each part of the request wakes the leader.
//!
//! The table never calls a waker: a waker is foreign code, and the table is locked. It returns the wakers to fire.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use jimu_kit::{Connection, Deadline, Registry, crowd};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use worker_api::{Interest, Waker};

/// The connections by descriptor.
#[derive(Default)]
pub(crate) struct Table {
    entries: Registry<Entry>,
    /// The latest deadline of idle connections; never while the worker serves.
    idle_drain: Deadline,
}

/// The entry of a connection.
pub(crate) struct Entry {
    watch: Watch,
    owner: Owner,
    /// Whether the client has shut down its side. No further event reports that, so each wait for reading ends at once.
    hung_up: bool,
    /// To be fired when the client disconnects.
    on_disconnect: Option<Waker>,
}

/// What the epoll reports of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// Nothing: it has not been added.
    None,
    /// That the client has shut down its side, or that the connection is broken.
    Hangup,
    /// All events.
    All,
}

enum Owner {
    /// The table: the connection waits for its descriptor.
    Table(Box<Connection>, Interest),
    /// A thread or the application. `pending` are the events that have arrived since and fired no waker.
    Lent { pending: EpollFlags, armed: Armed },
}

/// The wakers of an exchange: it may wait for both directions at a time.
struct Armed {
    /// With what fires it: a read may have to send first.
    read: Option<(Interest, Waker)>,
    write: Option<Waker>,
    /// When both fire in any case.
    deadline: Deadline,
}

impl Table {
    /// Adds an entry for a connection that was just accepted and that the caller owns.
    pub(crate) fn insert_lent(&mut self, fd: RawFd) {
        let entry =
            Entry { watch: Watch::None, owner: Owner::LENT, hung_up: false, on_disconnect: None };
        self.entries.insert(fd, entry);
    }

    /// Removes the entry of a connection that is closed. The caller drops it after unlocking the table: its wakers are
    /// foreign code.
    #[must_use]
    pub(crate) fn remove(&mut self, fd: RawFd) -> Option<Entry> {
        self.entries.remove(fd)
    }

    /// Takes a connection that waits for its descriptor; returns it if the descriptor is ready already. If it cannot be
    /// watched, the caller closes it.
    pub(crate) fn park(
        &mut self,
        epoll: &Epoll,
        mut connection: Box<Connection>,
        interest: Interest,
    ) -> Result<Option<Box<Connection>>, (io::Error, Box<Connection>)> {
        let fd = connection.fd();
        let Some(entry) = self.entries.get_mut(fd) else { return Ok(None) };
        let ended = entry.hung_up && interest == Interest::READ;
        let is_yielding = connection.is_yielding();
        if let Owner::Lent { pending, .. } = &mut entry.owner
            && !is_yielding
            && (fits(interest, mem::replace(pending, EpollFlags::empty())) || ended)
        {
            return Ok(Some(connection));
        }
        // Data that the socket holds already is reported again.
        let watched = if is_yielding && entry.watch == Watch::All {
            modify(epoll, connection.as_fd(), ALL)
        } else {
            entry.watch_all(epoll, connection.as_fd())
        };
        if let Err(error) = watched {
            return Err((error, connection));
        }
        connection.shorten_idle_deadline(self.idle_drain);
        let (deadline, since_ns) = (connection.deadline(), connection.waits_since_ns());
        entry.owner = Owner::Table(connection, interest);
        self.entries.begin_wait(fd, deadline, since_ns);
        Ok(None)
    }

    /// Registers a waker that fires when the descriptor of an exchange is ready. Returns true if it is ready already:
    /// the caller fires the waker itself. Otherwise `waker` is replaced by the one registered before, if any.
    ///
    /// The caller fires or drops what `waker` holds after unlocking the table: wakers are foreign code.
    pub(crate) fn arm(
        &mut self,
        epoll: &Epoll,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Deadline,
        waker: &mut Option<Waker>,
    ) -> io::Result<bool> {
        let Some(entry) = self.entries.get_mut(fd.as_raw_fd()) else { return Ok(false) };
        entry.watch_all(epoll, fd)?;
        let ended = entry.hung_up && interest == Interest::READ;
        if let Owner::Lent { pending, armed } = &mut entry.owner {
            if fits(interest, *pending) || ended {
                // The other direction may not have seen its event yet.
                pending.remove(wanted(interest) | HANGUP);
                return Ok(true);
            }
            armed.deadline = if armed.is_empty() { deadline } else { armed.deadline.min(deadline) };
            let deadline = armed.deadline;
            armed.replace(interest, waker);
            self.entries.begin_wait(fd.as_raw_fd(), deadline, None);
        }
        Ok(false)
    }

    /// Registers a waker that fires when the client disconnects. Replaces `waker` by the one registered before, if any,
    /// which the caller drops after unlocking the table.
    pub(crate) fn on_disconnect(
        &mut self,
        epoll: &Epoll,
        fd: BorrowedFd<'_>,
        waker: &mut Option<Waker>,
    ) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(fd.as_raw_fd()) else { return Ok(()) };
        entry.watch_all(epoll, fd)?;
        mem::swap(&mut entry.on_disconnect, waker);
        Ok(())
    }

    /// Stops the epoll from reporting that a connection is ready, which a thread is going to read or write, until the
    /// table waits for it again.
    pub(crate) fn mute(&mut self, epoll: &Epoll, fd: BorrowedFd<'_>) {
        let Some(entry) = self.entries.get_mut(fd.as_raw_fd()) else { return };
        if entry.watch == Watch::All && modify(epoll, fd, MUTED).is_ok() {
            entry.watch = Watch::Hangup;
        }
    }

    /// Handles an event of a descriptor: returns the connection that waited for it, or records the event. Adds the
    /// wakers that the caller has to fire after unlocking the table to `wakers`.
    pub(crate) fn on_event(
        &mut self,
        fd: RawFd,
        flags: EpollFlags,
        wakers: &mut Vec<Waker>,
    ) -> Option<Box<Connection>> {
        let entry = self.entries.get_mut(fd)?;
        if flags.intersects(HANGUP) {
            entry.hung_up = true;
            wakers.extend(entry.on_disconnect.take());
        }
        match &mut entry.owner {
            Owner::Table(_, interest) if fits(*interest, flags) => {}
            Owner::Table(..) => return None,
            Owner::Lent { pending, armed } => {
                let is_waiting = !armed.is_empty();
                *pending |= armed.fire(flags, wakers);
                if is_waiting && armed.is_empty() {
                    self.entries.end_wait(fd);
                }
                return None;
            }
        }
        let connection = entry.take();
        self.entries.end_wait(fd);
        connection
    }

    /// Takes the connections whose deadline has passed. Adds the wakers whose deadline has passed to `wakers`: the caller
    /// fires them after unlocking the table.
    pub(crate) fn expire(&mut self, now_ns: u64, wakers: &mut Vec<Waker>) -> Vec<Box<Connection>> {
        let mut expired = Vec::new();
        while let Some(fd) = self.entries.pop_expired(now_ns) {
            let Some(entry) = self.entries.get_mut(fd) else { continue };
            match &mut entry.owner {
                Owner::Table(..) => expired.extend(entry.take()),
                Owner::Lent { armed, .. } => armed.fire_all(wakers),
            }
        }
        expired
    }

    /// Stops keeping connections alive: moves the deadline of idle ones to `idle_drain` if it is later, those of
    /// connections that become idle from now on included.
    pub(crate) fn drain(&mut self, idle_drain: Deadline) {
        self.idle_drain = idle_drain;
        self.entries.update_deadlines(|entry| match &mut entry.owner {
            Owner::Table(connection, _) => {
                connection.shorten_idle_deadline(idle_drain);
                Some(connection.deadline())
            }
            Owner::Lent { .. } => None,
        });
    }

    /// Returns a lower bound of all deadlines.
    pub(crate) fn deadline(&self) -> Deadline {
        self.entries.deadline()
    }

    /// Takes the connections that have waited longest for a request, up to `needed` of them.
    pub(crate) fn take_oldest(&mut self, needed: usize) -> Vec<Box<Connection>> {
        let since_ns = crowd::evictable_since_ns();
        let mut oldest = Vec::new();
        while oldest.len() < needed
            && let Some(fd) = self.entries.pop_oldest(since_ns)
        {
            oldest.extend(self.entries.get_mut(fd).and_then(Entry::take));
        }
        oldest
    }

    /// Returns the number of connections.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Owner {
    const LENT: Self = Self::Lent { pending: EpollFlags::empty(), armed: Armed::NONE };
}

impl Armed {
    const NONE: Self = Self { read: None, write: None, deadline: Deadline::NEVER };

    fn is_empty(&self) -> bool {
        self.read.is_none() && self.write.is_none()
    }

    /// Exchanges the waker of a direction for `waker`.
    fn replace(&mut self, interest: Interest, waker: &mut Option<Waker>) {
        if interest == Interest::WRITE {
            mem::swap(&mut self.write, waker);
        } else {
            let read = waker.take().map(|waker| (interest, waker));
            *waker = mem::replace(&mut self.read, read).map(|(_, waker)| waker);
        }
    }

    /// Moves the wakers that an event fires to `wakers`. Returns the part of the event that fired none.
    fn fire(&mut self, flags: EpollFlags, wakers: &mut Vec<Waker>) -> EpollFlags {
        let mut left = flags;
        if let Some((interest, waker)) = self.read.take_if(|(interest, _)| fits(*interest, flags)) {
            left.remove(wanted(interest) | HANGUP);
            wakers.push(waker);
        }
        if let Some(waker) = self.write.take_if(|_| fits(Interest::WRITE, flags)) {
            left.remove(wanted(Interest::WRITE) | HANGUP);
            wakers.push(waker);
        }
        left
    }

    /// Moves all wakers to `wakers`.
    fn fire_all(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.read.take().map(|(_, waker)| waker));
        wakers.extend(self.write.take());
    }
}

impl Entry {
    /// Makes the epoll report all events, those that are pending included if it did not.
    fn watch_all(&mut self, epoll: &Epoll, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.watch {
            Watch::None => epoll.add(fd, EpollEvent::new(ALL, fd.as_raw_fd() as u64))?,
            Watch::Hangup => modify(epoll, fd, ALL)?,
            Watch::All => {}
        }
        self.watch = Watch::All;
        Ok(())
    }

    /// Lends the connection to the caller.
    fn take(&mut self) -> Option<Box<Connection>> {
        match mem::replace(&mut self.owner, Owner::LENT) {
            Owner::Table(connection, _) => Some(connection),
            Owner::Lent { .. } => None,
        }
    }
}

/// Changes what the epoll reports. It reports again what is pending now.
fn modify(epoll: &Epoll, fd: BorrowedFd<'_>, flags: EpollFlags) -> io::Result<()> {
    epoll.modify(fd, &mut EpollEvent::new(flags, fd.as_raw_fd() as u64)).map_err(io::Error::from)
}

/// Returns whether an event ends a wait for `interest`. An error or a hang-up ends a wait for either direction.
fn fits(interest: Interest, flags: EpollFlags) -> bool {
    flags.intersects(wanted(interest) | HANGUP)
}

fn wanted(interest: Interest) -> EpollFlags {
    match interest {
        Interest::READ => EpollFlags::EPOLLIN,
        Interest::READ_WRITE => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        _ => EpollFlags::EPOLLOUT,
    }
}

const HANGUP: EpollFlags =
    EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);
/// What [`Watch::Hangup`] asks for. The kernel reports an error and a complete hang-up in any case.
const MUTED: EpollFlags = EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLET);
const ALL: EpollFlags = MUTED.union(EpollFlags::EPOLLIN).union(EpollFlags::EPOLLOUT);

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

    use super::*;

    /// A table with the entry of one socket, which is lent.
    struct Lent {
        table: Table,
        epoll: Epoll,
        socket: UnixStream,
        peer: UnixStream,
    }

    impl Lent {
        fn new() -> Self {
            let (socket, peer) = UnixStream::pair().unwrap();
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            let mut table = Table::default();
            table.insert_lent(socket.as_raw_fd());
            Self { table, epoll, socket, peer }
        }

        /// Arms a waker; returns the number of times that it has fired, or `None` if the direction is ready already.
        fn arm(&mut self, interest: Interest) -> Option<Arc<AtomicUsize>> {
            let fired = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&fired);
            let mut waker = Some(Waker::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }));
            let Self { table, epoll, socket, .. } = self;
            let ready =
                table.arm(epoll, socket.as_fd(), interest, Deadline::NEVER, &mut waker).unwrap();
            assert!(ready || waker.is_none(), "no other waker is replaced");
            (!ready).then_some(fired)
        }

        /// Returns what the epoll reports.
        fn reported(&self) -> EpollFlags {
            let mut events = [EpollEvent::empty()];
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
            if count == 0 { EpollFlags::empty() } else { events[0].events() }
        }

        fn event(&mut self, flags: EpollFlags) {
            let mut wakers = Vec::new();
            let connection = self.table.on_event(self.socket.as_raw_fd(), flags, &mut wakers);
            assert!(connection.is_none());
            wakers.iter().for_each(Waker::wake);
        }
    }

    #[test]
    fn each_direction_has_a_waker() {
        let mut lent = Lent::new();
        let read = lent.arm(Interest::READ).unwrap();
        let write = lent.arm(Interest::WRITE).unwrap();
        lent.event(EpollFlags::EPOLLOUT);
        assert_eq!((read.load(Ordering::Relaxed), write.load(Ordering::Relaxed)), (0, 1));
        lent.event(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT);
        assert_eq!((read.load(Ordering::Relaxed), write.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn what_fires_one_waker_is_kept_for_the_other_direction() {
        let mut lent = Lent::new();
        let read = lent.arm(Interest::READ).unwrap();
        lent.event(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT);
        assert_eq!(read.load(Ordering::Relaxed), 1);
        assert!(lent.arm(Interest::READ).is_some(), "its event is used up");
        assert!(lent.arm(Interest::WRITE).is_none(), "ready already");
        assert!(lent.arm(Interest::WRITE).is_some(), "that is used up, too");
    }

    #[test]
    fn a_muted_connection_reports_only_that_the_client_leaves_until_it_is_awaited() {
        let mut lent = Lent::new();
        assert!(lent.arm(Interest::READ).is_some());
        assert_eq!(lent.reported(), EpollFlags::EPOLLOUT);
        let Lent { table, epoll, socket, .. } = &mut lent;
        table.mute(epoll, socket.as_fd());
        lent.peer.write_all(b"x").unwrap();
        assert_eq!(lent.reported(), EpollFlags::empty());
        assert!(lent.arm(Interest::WRITE).is_some());
        assert_eq!(lent.reported(), EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT);
        let Lent { table, epoll, socket, .. } = &mut lent;
        table.mute(epoll, socket.as_fd());
        lent.peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(lent.reported(), EpollFlags::EPOLLRDHUP);
    }

    #[test]
    fn a_read_that_has_to_send_first_waits_for_either_direction() {
        for event in [EpollFlags::EPOLLIN, EpollFlags::EPOLLOUT] {
            let mut lent = Lent::new();
            let read = lent.arm(Interest::READ_WRITE).unwrap();
            lent.event(event);
            assert_eq!(read.load(Ordering::Relaxed), 1);
        }
    }
}
