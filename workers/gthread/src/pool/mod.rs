//! A leader/followers pool: the threads that call the application, and the queue of complete requests.
//!
//! At most one thread accepts connections and waits for requests at a time: the *leader*, which is the main thread or a
//! thread of the pool. The *followers* are parked. The states of a thread of the pool ([`ThreadState`]):
//!
//! ```text
//!    spawned
//!       │
//!  ┌────▼─────┐    ┌──────────┐           request            ┌─────────┐  begin_blocking  ┌─────────┐
//!  │ Starting ├───►│          ├─────────────────────────────►│         ├─────────────────►│ Blocked │
//!  └──────────┘    │ Choosing │◄─────────────────────────────┤ Serving │                  │  on a   │
//!                  │          │            done              │         │◄─────────────────┤  client │
//!                  │ in next  │                              └────▲────┘   end_blocking   └─────────┘
//!                  │          │ no request  ┌───────────┐ unparked│
//!                  │          ├────────────►│ Following ├─────────┘
//!                  │          │             │ parked    ├──► ended
//!                  │          │             └───────────┘ pool closed
//!                  │          │ no request,
//!                  │          │ last ones   ┌───────────┐
//!                  │          │    short    │ Leading   │
//!                  │          ├────────────►│ in epoll_ │
//!                  │          │◄────────────┤ wait      │
//!                  └────┬─────┘   finish_   └───────────┘
//!                       │         leading
//!                       └──► ended: pool closed, or not needed
//! ```
//!
//! | transition | by |
//! | --- | --- |
//! | Starting, Serving → Choosing; Choosing → Serving, Following, Leading, ended | the thread itself, in [`Pool::next`] |
//! | Leading → Choosing | the thread itself, in [`Pool::finish_leading`], after the kernel has reported requests, or [`Poller::wake_leader`] was called because no thread is parked |
//! | Following → Serving | the main thread, the leader or a thread that begins to block: [`Pool::push`], [`Pool::push_and_wake_one`], [`Pool::wake_if_overdue`], [`Pool::begin_blocking`] |
//! | Serving → Blocked → Serving | the thread itself, when its client keeps it waiting and when the client is ready |
//! | Following → ended | [`Pool::close`]; a thread that is not needed ends in [`Pool::next`] instead of parking |
//!
//! The leadership:
//!
//! ```text
//!      ┌──────┐  next: last requests short    ┌──────┐  finish_leading  ┌────────┐
//!      │ Main ├──────────────────────────────►│ Pool ├─────────────────►│ Vacant │
//!      └──▲───┘                               └──▲───┘                  └─┬────┬─┘
//!         │                                      └────────────────────────┘    │
//!         │                                         next: last requests short  │
//!         │                                    Main: rest_if_saturated ──► Vacant │
//!         └────────────────────────────────────────────────────────────────────┘
//!                next: last requests long, or none to receive; take_over_if_vacant; begin_blocking
//! ```
//!
//! Waking a thread costs more than a short request, and several running threads slow an application with one global lock
//! (Python's). So the requests of one `epoll_wait` wake one thread, which serves them one after the other. A second thread
//! is woken only when a request has waited for `wake_delay_ns`: the first thread is then computing for long, or blocked
//! inside the application.
//!
//! A thread whose last requests were short becomes the leader when the queue is empty: then its next request wakes no
//! thread at all. While it serves what it received as the leader, the leadership is vacant; if that takes long after all,
//! the main thread takes over ([`Pool::take_over_if_vacant`]).
//!
//! While all threads serve and requests wait, the main thread cannot pass on further ones, and being woken for each of
//! them takes time from the threads. So it rests, and reads several at a time ([`Pool::rest_if_saturated`]), until a thread
//! has nothing to do.
//!
//! A thread that is blocked on its client does not count as serving, and another thread serves in its place. So clients
//! that send or read a byte now and then delay no other request, however many they are.

mod state;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use jimu_kit::clock::now_ns;

use state::{Leader, State, ThreadState, Wake};

/// The poller of the connections, which the requests come from. Its methods are called while the pool is locked.
pub(crate) trait Poller {
    /// Makes the main thread the leader, or ends its leadership.
    fn set_main_is_leader(&self, leader: bool);
    /// Wakes the thread of the pool that is the leader.
    fn wake_leader(&self);
}

/// The threads and the queue of requests.
pub(crate) struct Pool<T, P> {
    state: Mutex<State<T>>,
    /// Parked threads wait here.
    followers: Condvar,
    pub(crate) poller: P,
    wake_delay_ns: u64,
}

/// What a thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// Serve this request.
    Serve(T),
    /// Wait for requests and connections, accept up to this number, and pass the requests to [`Pool::finish_leading`].
    Lead(usize),
    /// End: the pool is closed and the queue is empty, or enough other threads are idle.
    End,
}

/// What a thread has to do after it has led.
pub(crate) struct AfterLeading {
    /// Set the main thread's timer to [`VACANT_MAX_NS`].
    pub(crate) set_timer: bool,
    /// Wake the main thread: it can accept no more connections for now.
    pub(crate) is_full: bool,
}

/// What a thread of the pool does, and the requests that it has served since it was last idle.
#[derive(Default)]
pub(crate) struct PoolThread {
    state: ThreadState,
    since_ns: u64,
    served: u64,
}

impl<T, P: Poller> Pool<T, P> {
    /// Creates the pool of `threads` threads, which the caller spawns. A request waits for `wake_delay_ns` for a running
    /// thread before another thread is woken for it.
    pub(crate) fn new(threads: usize, wake_delay_ns: u64, poller: P) -> Self {
        let state = Mutex::new(State::new(threads));
        Self { state, followers: Condvar::new(), poller, wake_delay_ns }
    }

    /// Queues requests, and wakes a thread for each of them while there are idle threads.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.extend(requests);
        for _ in 0..state.wakeable().min(state.unassigned()) {
            self.wake_one(&mut state);
        }
    }

    /// Queues requests, and wakes at most one thread. While [`Pool::needs_overdue_check`] returns true, the caller must
    /// call [`Pool::wake_if_overdue`] after the wake delay.
    pub(crate) fn push_and_wake_one(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        let was_empty = state.queued() == 0;
        state.extend(requests);
        if was_empty && state.queued() > 0 && state.waking() == 0 {
            self.wake_one(&mut state);
        }
    }

    /// Returns whether requests wait that no thread has been woken for, although a thread is idle.
    pub(crate) fn needs_overdue_check(&self) -> bool {
        let state = self.lock();
        state.unassigned() > 0 && state.wakeable() > 0
    }

    /// Returns whether a request waits for a thread.
    pub(crate) fn has_waiting(&self) -> bool {
        self.lock().queued() > 0
    }

    /// Wakes a thread if the oldest request has waited for longer than the wake delay.
    pub(crate) fn wake_if_overdue(&self) {
        self.wake_if_overdue_locked(&mut self.lock());
    }

    /// Returns what the calling thread does next; parks it until there is something. Calls `idle` when there is no request
    /// for it, and `may_lead`, with the pool locked, to ask whether it may become the leader.
    pub(crate) fn next(
        &self,
        thread: &mut PoolThread,
        idle: impl Fn(),
        may_lead: impl Fn() -> bool,
    ) -> Next<T> {
        let mut state = self.lock();
        thread.enter(&mut state, ThreadState::Choosing);
        if !state.can_proceed() {
            let next = self.choose_idle(&mut state, thread, may_lead);
            drop(state);
            idle();
            if let Some(next) = next {
                return next;
            }
            state = self.park();
        }
        let Some(request) = state.take() else {
            state.leave(thread.state);
            return Next::End;
        };
        thread.enter(&mut state, ThreadState::Serving);
        self.wake_if_overdue_locked(&mut state);
        drop(state);
        thread.count_request();
        Next::Serve(request)
    }

    /// Ends the leadership of a thread of the pool, and queues the requests that it received.
    pub(crate) fn finish_leading(
        &self,
        thread: &mut PoolThread,
        requests: impl IntoIterator<Item = T>,
    ) -> AfterLeading {
        let mut state = self.lock();
        let since_ns = state.extend(requests);
        let set_timer = state.vacate(since_ns + VACANT_MAX_NS);
        let is_full = state.free() <= state.queued();
        thread.enter(&mut state, ThreadState::Choosing);
        AfterLeading { set_timer, is_full }
    }

    /// Makes the main thread the leader if there has been none for long. To be called when the main thread's timer expires;
    /// returns the nanoseconds to set it to again, if any.
    pub(crate) fn take_over_if_vacant(&self) -> Option<u64> {
        let mut state = self.lock();
        let until_ns = state.timer_expired()?;
        let left_ns = until_ns.saturating_sub(now_ns());
        if left_ns == 0 {
            self.hand_over(&mut state, Leader::Main);
            return None;
        }
        state.vacate(until_ns);
        Some(left_ns)
    }

    /// Ends the main thread's leadership for [`REST_NS`] at most if all threads serve and requests wait. Returns the
    /// nanoseconds to set its timer to, if any.
    pub(crate) fn rest_if_saturated(&self) -> Option<u64> {
        let mut state = self.lock();
        if state.leader() != Leader::Main || !state.is_saturated() {
            return None;
        }
        self.poller.set_main_is_leader(false);
        state.vacate(now_ns() + REST_NS).then_some(REST_NS)
    }

    /// Returns whether the main thread is the leader.
    pub(crate) fn main_is_leader(&self) -> bool {
        self.lock().leader() == Leader::Main
    }

    /// Marks the calling thread as blocked on its client, so that another thread can serve in its place. Returns whether
    /// there are too few threads for that: the caller then spawns one, or calls [`Pool::spawn_failed`].
    pub(crate) fn begin_blocking(&self) -> bool {
        let mut state = self.lock();
        state.change(ThreadState::Serving, ThreadState::Blocked);
        if state.unassigned() > 0 {
            self.wake_one(&mut state);
        }
        if let Leader::Vacant { .. } = state.leader() {
            self.hand_over(&mut state, Leader::Main);
        }
        let too_few = state.has_too_few();
        if too_few {
            state.enter(ThreadState::Starting);
        }
        too_few
    }

    /// Takes back the announcement of a thread that could not be spawned.
    pub(crate) fn spawn_failed(&self) {
        self.lock().leave(ThreadState::Starting);
    }

    /// Marks the calling thread as serving again, after [`Pool::begin_blocking`].
    pub(crate) fn end_blocking(&self) {
        self.lock().change(ThreadState::Blocked, ThreadState::Serving);
    }

    /// Returns whether more threads are free than requests wait, with `more` that are about to be queued.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        let state = self.lock();
        state.free() > state.queued() + more
    }

    /// Closes the pool: its threads end once the queue is empty.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.followers.notify_all();
        self.poller.wake_leader();
    }

    /// Makes a thread without a request a follower or the leader, or ends it. Returns what it does next; `None` to park.
    fn choose_idle(
        &self,
        state: &mut State<T>,
        thread: &mut PoolThread,
        may_lead: impl Fn() -> bool,
    ) -> Option<Next<T>> {
        let is_needed = state.needs_idle_thread();
        let limit = if is_needed { state.lead_limit() } else { 0 };
        let leads = limit > 0 && thread.served_short() && may_lead();
        thread.served = 0;
        if leads {
            self.hand_over(state, Leader::Pool { woken: false });
            thread.enter(state, ThreadState::Leading);
            return Some(Next::Lead(limit));
        }
        if !matches!(state.leader(), Leader::Pool { .. }) {
            self.hand_over(state, Leader::Main);
        }
        if is_needed {
            thread.enter(state, ThreadState::Following);
            return None;
        }
        state.leave(thread.state);
        Some(Next::End)
    }

    /// Parks the calling thread, a follower, until it can proceed.
    fn park(&self) -> MutexGuard<'_, State<T>> {
        let mut state = self.lock();
        while !state.can_proceed() {
            state.parked += 1;
            state = self.followers.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.unpark();
        }
        state
    }

    fn wake_one(&self, state: &mut State<T>) {
        match state.wake_one() {
            Some(Wake::Follower) => self.followers.notify_one(),
            Some(Wake::Leader) => self.poller.wake_leader(),
            None => {}
        }
    }

    fn wake_if_overdue_locked(&self, state: &mut State<T>) {
        if state.wakeable() == 0 || state.unassigned() == 0 {
            return;
        }
        let since_ns = state.oldest_since_ns().unwrap_or(u64::MAX);
        if now_ns().saturating_sub(since_ns) >= self.wake_delay_ns {
            self.wake_one(state);
        }
    }

    fn hand_over(&self, state: &mut State<T>, to: Leader) {
        let is_main = |leader| leader == Leader::Main;
        if is_main(to) != is_main(state.leader()) {
            self.poller.set_main_is_leader(is_main(to));
        }
        state.set_leader(to);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolThread {
    fn enter<T>(&mut self, state: &mut State<T>, new: ThreadState) {
        state.change(self.state, new);
        self.state = new;
    }

    fn count_request(&mut self) {
        if self.served == 0 {
            self.since_ns = now_ns();
        }
        self.served += 1;
    }

    /// Returns whether its last requests were short, or it had none.
    fn served_short(&self) -> bool {
        let average_ns = || now_ns().saturating_sub(self.since_ns) / self.served;
        self.served == 0 || average_ns() <= SHORT_NS
    }
}

/// The default wake delay: the time of about ten short requests.
pub(crate) const WAKE_DELAY_NS: u64 = 200_000;
/// How long the leadership may be vacant while the last leader serves.
pub(crate) const VACANT_MAX_NS: u64 = 1_000_000;
/// How long the main thread rests while all threads serve. Requests that arrive in that time are read later, and the
/// time for which they have waited counts from then.
const REST_NS: u64 = 5_000_000;
/// The longest average time of a thread's requests with which it becomes the leader. Longer requests are better served
/// with the main thread as the leader, which passes the next one to another thread at once.
const SHORT_NS: u64 = 100_000;

#[cfg(test)]
mod tests;
