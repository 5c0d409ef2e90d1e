//! The state of the pool: which thread does what, and who leads. Decides, and wakes nobody.

use std::collections::VecDeque;

use jimu_kit::clock::now_ns;

/// The state of a thread of the pool: see the drawing in [the module](super).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum ThreadState {
    /// Was spawned, or is about to be, and has not called `Pool::next` yet.
    #[default]
    Starting,
    /// Looks for something to do: it has returned from the connection epoll, or is in `Pool::next`.
    Choosing,
    /// Has a request and is not blocked on its client.
    Serving,
    /// Is blocked on the client of its request: another thread may serve in its place.
    Blocked,
    /// Has nothing to do: it is parked, or about to park.
    Following,
    /// Waits on the connection epoll.
    Leading,
}

/// The thread that waits on the connection epoll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leader {
    Main,
    /// A thread of the pool, which is [`ThreadState::Leading`]. `woken`: it will return from the epoll without a request.
    Pool {
        woken: bool,
    },
    /// None, at the latest until then: the last leader of the pool serves what it received, or the main thread rests because
    /// all threads serve.
    Vacant {
        until_ns: u64,
    },
}

/// A thread to be woken, for a request.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Wake {
    Follower,
    Leader,
}

/// The state of the threads, and the queue of requests.
pub(super) struct State<T> {
    queue: VecDeque<Waiting<T>>,
    /// The number of threads in each state, by [`ThreadState`].
    counts: [usize; STATES],
    /// The threads that are [`ThreadState::Following`] and parked.
    pub(super) parked: usize,
    /// Those of the parked threads that have been unparked and have not run yet.
    unparked: usize,
    leader: Leader,
    /// When the main thread's timer expires, after which it calls `Pool::take_over_if_vacant`.
    timer_at_ns: Option<u64>,
    pub(super) closed: bool,
    /// The number of threads that serve at a time.
    limit: usize,
}

/// A request in the queue.
struct Waiting<T> {
    request: T,
    since_ns: u64,
}

impl<T> State<T> {
    /// Returns the state of a pool of `limit` threads that are starting, with the main thread as the leader.
    pub(super) fn new(limit: usize) -> Self {
        let mut state = Self {
            queue: VecDeque::new(),
            counts: [0; STATES],
            parked: 0,
            unparked: 0,
            leader: Leader::Main,
            timer_at_ns: None,
            closed: false,
            limit,
        };
        state.counts[ThreadState::Starting as usize] = limit;
        state
    }

    /// Counts a thread in its new state.
    pub(super) fn enter(&mut self, thread: ThreadState) {
        self.counts[thread as usize] += 1;
    }

    /// Stops counting a thread in its old state.
    pub(super) fn leave(&mut self, thread: ThreadState) {
        self.counts[thread as usize] -= 1;
    }

    /// Counts a thread that changes its state.
    pub(super) fn change(&mut self, from: ThreadState, to: ThreadState) {
        self.leave(from);
        self.enter(to);
    }

    /// Returns the number of threads in a state. Those that serve exceed the limit only after threads have returned from a
    /// blocking wait.
    pub(super) fn count(&self, thread: ThreadState) -> usize {
        self.counts[thread as usize]
    }

    /// Returns the number of threads that have nothing to do.
    pub(super) fn idle(&self) -> usize {
        self.count(ThreadState::Following) + self.count(ThreadState::Leading)
    }

    pub(super) fn leader(&self) -> Leader {
        self.leader
    }

    pub(super) fn set_leader(&mut self, leader: Leader) {
        self.leader = leader;
    }

    /// Queues requests. Returns the current time.
    pub(super) fn extend(&mut self, requests: impl IntoIterator<Item = T>) -> u64 {
        let since_ns = now_ns();
        let requests = requests.into_iter();
        self.queue.extend(requests.map(|request| Waiting { request, since_ns }));
        since_ns
    }

    /// Takes the oldest request of the queue.
    pub(super) fn take(&mut self) -> Option<T> {
        self.queue.pop_front().map(|waiting| waiting.request)
    }

    /// Returns the number of requests in the queue.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns since when the oldest request has waited.
    pub(super) fn oldest_since_ns(&self) -> Option<u64> {
        self.queue.front().map(|waiting| waiting.since_ns)
    }

    /// Returns the thread to wake for a request, and counts it as woken: a parked one, or the leader if none is parked; none
    /// if `limit` threads are serving or waking up.
    pub(super) fn wake_one(&mut self) -> Option<Wake> {
        if self.wakeable() == 0 {
            return None;
        }
        if self.parked > self.unparked {
            self.unparked += 1;
            return Some(Wake::Follower);
        }
        if self.leader == (Leader::Pool { woken: false }) {
            self.leader = Leader::Pool { woken: true };
            return Some(Wake::Leader);
        }
        None
    }

    /// Counts a parked thread that runs again.
    pub(super) fn unpark(&mut self) {
        self.parked -= 1;
        self.unparked = self.unparked.saturating_sub(1);
    }

    /// Returns the number of idle threads that may serve.
    pub(super) fn free(&self) -> usize {
        self.idle().min(self.may_serve())
    }

    /// Returns the number of free threads that have not been woken.
    pub(super) fn wakeable(&self) -> usize {
        self.free().saturating_sub(self.waking())
    }

    /// Returns the number of waiting requests that no thread has been woken for.
    pub(super) fn unassigned(&self) -> usize {
        self.queued().saturating_sub(self.waking())
    }

    /// Returns the number of threads that have been woken and have not taken a request yet.
    pub(super) fn waking(&self) -> usize {
        self.unparked + usize::from(self.leader == Leader::Pool { woken: true })
    }

    /// Returns whether an idle thread need not park.
    pub(super) fn can_proceed(&self) -> bool {
        self.closed || self.queued() > 0 && self.may_serve() > 0
    }

    /// Returns whether a thread without a request has to stay.
    pub(super) fn needs_idle_thread(&self) -> bool {
        self.idle() < self.limit
    }

    /// Returns whether fewer threads can serve than may.
    pub(super) fn has_too_few(&self) -> bool {
        let starting = self.count(ThreadState::Starting);
        self.idle() + self.count(ThreadState::Serving) + starting < self.limit
    }

    /// Returns the number of connections that an idle thread may accept as the leader, one for each free thread; 0 if
    /// another thread of the pool leads.
    pub(super) fn lead_limit(&self) -> usize {
        if self.closed || matches!(self.leader, Leader::Pool { .. }) {
            return 0;
        }
        (self.idle() + 1).min(self.may_serve())
    }

    /// Makes the leadership vacant. Returns whether the main thread's timer has to be set: it does not expire in time.
    pub(super) fn vacate(&mut self, until_ns: u64) -> bool {
        self.leader = Leader::Vacant { until_ns };
        let expires_in_time = self.timer_at_ns.is_some_and(|at_ns| at_ns <= until_ns);
        if !expires_in_time {
            self.timer_at_ns = Some(until_ns);
        }
        !expires_in_time
    }

    /// Counts the main thread's timer as expired. Returns until when the leadership is vacant, if it is.
    pub(super) fn timer_expired(&mut self) -> Option<u64> {
        self.timer_at_ns = None;
        match self.leader {
            Leader::Vacant { until_ns } => Some(until_ns),
            _ => None,
        }
    }

    /// Returns whether no thread can serve a further request, and some wait already.
    pub(super) fn is_saturated(&self) -> bool {
        self.may_serve() == 0 && self.queued() > 0
    }

    /// Returns how many more threads may serve.
    fn may_serve(&self) -> usize {
        self.limit.saturating_sub(self.count(ThreadState::Serving))
    }
}

/// The number of states of a thread.
const STATES: usize = ThreadState::Leading as usize + 1;
