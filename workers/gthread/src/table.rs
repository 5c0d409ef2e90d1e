//! The connections of a worker: those that wait are here, of those that somebody has only the place is.
//!
//! Each connection is registered with the poller once, edge-triggered, for all that can happen to it. So a connection
//! that is kept alive costs no system call for being waited for; an event that comes while a thread has it is noted
//! in its place, and looked at when it comes back.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use kit::clock::earlier;
use kit::{Connection, crowd};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use worker_api::{Interest, Waker};

/// The connections by descriptor.
#[derive(Default)]
pub(crate) struct Table {
    places: Vec<Option<Place>>,
    count: usize,
    /// Not later than the earliest deadline of all that wait; 0 where there is none.
    deadline_ns: u64,
}

/// One connection's place.
pub(crate) struct Place {
    registered: bool,
    holder: Owner,
    /// Whether the client has ended its side: no further event tells of that, so each wait to read is over at once.
    hung_up: bool,
    /// Fires when the client hangs up.
    gone: Option<Waker>,
}

enum Owner {
    /// It waits here for its descriptor to be ready.
    Nobody(Box<Connection>, Interest),
    /// A thread or the application has it; the flags came meanwhile.
    Somebody { came: EpollFlags, armed: Option<Armed> },
}

/// Whom to wake, and why at the latest.
struct Armed {
    interest: Interest,
    deadline_ns: u64,
    waker: Waker,
}

impl Table {
    /// Makes the place of a connection that was just accepted: somebody has it.
    pub(crate) fn enter(&mut self, fd: RawFd) {
        let index = fd as usize;
        if self.places.len() <= index {
            self.places.resize_with(index + 1, || None);
        }
        let holder = Owner::Somebody { came: EpollFlags::empty(), armed: None };
        self.places[index] = Some(Place { registered: false, holder, hung_up: false, gone: None });
        self.count += 1;
    }

    /// Removes the place of a connection that is closed. The caller drops it after unlocking the table: its wakers are
    /// foreign code.
    #[must_use]
    pub(crate) fn leave(&mut self, fd: RawFd) -> Option<Place> {
        let place = self.places.get_mut(fd as usize)?.take()?;
        self.count -= 1;
        Some(place)
    }

    /// Has a connection wait here; gives it back where it is ready already.
    pub(crate) fn wait(
        &mut self,
        epoll: &Epoll,
        connection: Box<Connection>,
        interest: Interest,
    ) -> io::Result<Option<Box<Connection>>> {
        let fd = connection.fd();
        let Some(place) = self.place(fd) else { return Ok(None) };
        let ended = place.hung_up && interest == Interest::READ;
        let is_yielding = connection.is_yielding();
        if let Owner::Somebody { came, .. } = &mut place.holder
            && !is_yielding
            && (fits(interest, mem::replace(came, EpollFlags::empty())) || ended)
        {
            return Ok(Some(connection));
        }
        let fresh = !place.registered;
        let watched = place.register(epoll, connection.as_fd()).and_then(|()| {
            // What is there already is reported again.
            if is_yielding && !fresh { rearm(epoll, connection.as_fd()) } else { Ok(()) }
        });
        if let Err(error) = watched {
            drop(self.leave(fd));
            return Err(error);
        }
        let deadline_ns = connection.deadline_ns();
        place.holder = Owner::Nobody(connection, interest);
        self.deadline_ns = earlier(self.deadline_ns, deadline_ns);
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
        deadline_ns: u64,
        waker: &mut Option<Waker>,
    ) -> io::Result<bool> {
        let Some(place) = self.place(fd.as_raw_fd()) else { return Ok(false) };
        place.register(epoll, fd)?;
        let ended = place.hung_up && interest == Interest::READ;
        if let Owner::Somebody { came, armed } = &mut place.holder {
            if fits(interest, *came) || ended {
                *came = EpollFlags::empty();
                return Ok(true);
            }
            let previous = armed.take().map(|armed| armed.waker);
            if let Some(waker) = mem::replace(waker, previous) {
                *armed = Some(Armed { interest, deadline_ns, waker });
                self.deadline_ns = earlier(self.deadline_ns, deadline_ns);
            }
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
        let Some(place) = self.place(fd.as_raw_fd()) else { return Ok(()) };
        place.register(epoll, fd)?;
        mem::swap(&mut place.gone, waker);
        Ok(())
    }

    /// Handles an event of a descriptor: returns the connection that waited for it, or records the event. Adds the
    /// wakers that the caller has to fire after unlocking the table to `wakers`.
    pub(crate) fn ready(
        &mut self,
        fd: RawFd,
        flags: EpollFlags,
        wakers: &mut Vec<Waker>,
    ) -> Option<Box<Connection>> {
        let place = self.place(fd)?;
        if flags.intersects(HANGUP) {
            place.hung_up = true;
            wakers.extend(place.gone.take());
        }
        match &mut place.holder {
            Owner::Nobody(_, interest) if fits(*interest, flags) => place.take(),
            Owner::Nobody(..) => None,
            Owner::Somebody { came, armed } => {
                match armed.take_if(|armed| fits(armed.interest, flags)) {
                    Some(armed) => wakers.push(armed.waker),
                    None => *came |= flags,
                }
                None
            }
        }
    }

    /// Takes the connections whose deadline has passed. Adds the wakers whose deadline has passed to `wakers`: the caller
    /// fires them after unlocking the table.
    pub(crate) fn expire(&mut self, now_ns: u64, wakers: &mut Vec<Waker>) -> Vec<Box<Connection>> {
        if self.deadline_ns == 0 || now_ns < self.deadline_ns {
            return Vec::new();
        }
        let is_past = |deadline_ns: u64| deadline_ns != 0 && deadline_ns <= now_ns;
        let mut late = Vec::new();
        for place in self.places.iter_mut().flatten() {
            match &mut place.holder {
                Owner::Nobody(connection, _) if is_past(connection.deadline_ns()) => {
                    late.extend(place.take());
                }
                Owner::Nobody(..) => {}
                Owner::Somebody { armed, .. } => {
                    let expired = armed.take_if(|armed| is_past(armed.deadline_ns));
                    wakers.extend(expired.map(|armed| armed.waker));
                }
            }
        }
        self.refresh_deadline();
        late
    }

    /// Shortens the wait of connections that are idle.
    pub(crate) fn shorten_idle_deadline(&mut self, deadline_ns: u64) {
        for place in self.places.iter_mut().flatten() {
            if let Owner::Nobody(connection, _) = &mut place.holder {
                connection.shorten_idle_deadline(deadline_ns);
            }
        }
        self.refresh_deadline();
    }

    /// Not later than the earliest deadline of all that wait; 0 where there is none.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    fn refresh_deadline(&mut self) {
        let deadlines = self.places.iter().flatten().map(|place| match &place.holder {
            Owner::Nobody(connection, _) => connection.deadline_ns(),
            Owner::Somebody { armed, .. } => armed.as_ref().map_or(0, |armed| armed.deadline_ns),
        });
        self.deadline_ns = deadlines.fold(0, earlier);
    }

    /// Takes the connections that are to give way to `needed` others.
    pub(crate) fn take_oldest(&mut self, needed: usize) -> Vec<Box<Connection>> {
        let waits = |(index, place): (usize, &Option<Place>)| match &place.as_ref()?.holder {
            Owner::Nobody(connection, _) => Some((connection.waits_since_ns()?, index)),
            Owner::Somebody { .. } => None,
        };
        let oldest = crowd::pick(self.places.iter().enumerate().filter_map(waits), needed);
        oldest.into_iter().filter_map(|index| self.places[index].as_mut()?.take()).collect()
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    fn place(&mut self, fd: RawFd) -> Option<&mut Place> {
        self.places.get_mut(fd as usize)?.as_mut()
    }
}

impl Place {
    fn register(&mut self, epoll: &Epoll, fd: BorrowedFd<'_>) -> io::Result<()> {
        if !self.registered {
            epoll.add(fd, EpollEvent::new(ALL, fd.as_raw_fd() as u64))?;
            self.registered = true;
        }
        Ok(())
    }

    /// Takes the connection away: somebody has it now.
    fn take(&mut self) -> Option<Box<Connection>> {
        let somebody = Owner::Somebody { came: EpollFlags::empty(), armed: None };
        match mem::replace(&mut self.holder, somebody) {
            Owner::Nobody(connection, _) => Some(connection),
            Owner::Somebody { .. } => None,
        }
    }
}

/// Has the poller report a descriptor that is ready now as if it had just become so.
fn rearm(epoll: &Epoll, fd: BorrowedFd<'_>) -> io::Result<()> {
    epoll.modify(fd, &mut EpollEvent::new(ALL, fd.as_raw_fd() as u64)).map_err(io::Error::from)
}

/// Whether an event is what somebody waits for; an error or the end is worth looking at in either direction.
fn fits(interest: Interest, flags: EpollFlags) -> bool {
    let wanted =
        if interest == Interest::READ { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT };
    flags.intersects(wanted | HANGUP)
}

const HANGUP: EpollFlags =
    EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);
const ALL: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);
