//! A leader/followers pool: the threads that call the application, and the queue of complete requests.
//!
//! At most one thread waits on the connection epoll at a time: the *leader*, which is the main thread or a thread of the
//! pool. The other threads of the pool that have nothing to do are parked followers.
//!
//! ```text
//!     spawned                              ┌─────────┐  begin_blocking   ┌─────────┐
//!        │                    request ────►│         ├──────────────────►│ blocked │
//!   ┌────▼─────┐   ┌────────┐     │        │ serving │                   │  on a   │
//!   │ starting ├──►│        ├─────┘        │         │◄──────────────────┤ client  │
//!   └──────────┘   │        │◄─────────────┤         │   end_blocking    └─────────┘
//!                  │        │ request done └─▲───────┘
//!                  │  next  │                │ unpark
//!                  │        │           ┌────┴────┐
//!                  │        ├──────────►│ parked  │  in `Condvar::wait`
//!                  │        │           └─────────┘
//!                  │        │           ┌─────────┐
//!                  │        ├──────────►│ leading │  in `epoll_wait` on the connections
//!                  │        │◄──────────┤         │
//!                  └───┬────┘           └─────────┘
//!                      └──► ended         finish_leading
//! ```
//!
//! | transition | by |
//! | --- | --- |
//! | starting, serving or leading → serving, parked, leading, ended | the thread itself, in [`Pool::next`] |
//! | leading → `next` | the kernel, with the requests of clients; or [`Poller::wake_leader`], if no thread is parked |
//! | parked → serving | the main thread, the leader or a thread that begins to block: [`Pool::push`], [`Pool::push_and_wake_one`], [`Pool::wake_if_overdue`], [`Pool::begin_blocking`] |
//! | serving → blocked → serving | the thread itself, when its client keeps it waiting and when the client is ready |
//! | parked → ended | [`Pool::close`]; a thread that is not needed ends in [`Pool::next`] instead of parking |
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
//! A thread that is blocked on its client does not count as serving, and another thread serves in its place. So clients
//! that send or read a byte now and then delay no other request, however many they are.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kit::clock::now_ns;

/// The poller of the connections, which the requests come from. Its methods are called while the pool is locked.
pub(crate) trait Poller {
    /// Makes the main thread the leader, or ends its leadership.
    fn set_main_is_leader(&self, leader: bool);
    /// Wakes the thread of the pool that is the leader.
    fn wake_leader(&self);
}

/// The state of the threads, and the queue of requests.
pub(crate) struct Pool<T, P> {
    state: Mutex<State<T>>,
    /// Parked threads wait here.
    followers: Condvar,
    pub(crate) poller: P,
    wake_delay_ns: u64,
    /// The number of threads that serve at a time.
    threads: usize,
}

/// What a thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// Serve this request.
    Serve(T),
    /// Wait on the connection epoll, and pass up to this number of requests to [`Pool::finish_leading`].
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

/// What a thread has done since it was last idle.
#[derive(Default)]
pub(crate) struct ThreadActivity {
    last: Last,
    since_ns: u64,
    served: u64,
}

/// What a thread did last.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Last {
    /// It has just started.
    #[default]
    Started,
    Served,
    Led,
}

struct State<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Threads that have a request and are not blocked on its client. Exceeds `threads` only after threads have returned
    /// from a blocking wait.
    serving: usize,
    /// Threads that were spawned and have not called [`Pool::next`] yet.
    starting: usize,
    /// Threads that have nothing to do: parked, about to park, or leading.
    idle: usize,
    /// Those of them that are parked.
    parked: usize,
    /// Those of the parked ones that have been unparked and have not run yet.
    unparked: usize,
    /// Whether the leader has been woken and has not called [`Pool::finish_leading`] yet.
    leader_woken: bool,
    leader: Leader,
    /// Whether the main thread's timer is set, after which it calls [`Pool::take_over_if_vacant`].
    timer_set: bool,
    closed: bool,
}

/// The thread that waits on the connection epoll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leader {
    Main,
    /// A thread of the pool.
    Follower,
    /// None since then: the last leader serves what it received.
    Vacant {
        since_ns: u64,
    },
}

/// A request in the queue.
struct Waiting<T> {
    request: T,
    since_ns: u64,
}

impl<T, P: Poller> Pool<T, P> {
    /// Creates the pool of `threads` threads, which the caller spawns. A request waits for `wake_delay_ns` for a running
    /// thread before another thread is woken for it.
    pub(crate) fn new(threads: usize, wake_delay_ns: u64, poller: P) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            serving: 0,
            starting: threads,
            idle: 0,
            parked: 0,
            unparked: 0,
            leader_woken: false,
            leader: Leader::Main,
            timer_set: false,
            closed: false,
        };
        Self { state: Mutex::new(state), followers: Condvar::new(), poller, wake_delay_ns, threads }
    }

    /// Queues requests, and wakes a thread for each of them while there are idle threads.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.extend(requests);
        for _ in 0..self.wakeable(&state).min(state.unassigned()) {
            self.wake_one(&mut state);
        }
    }

    /// Queues requests, and wakes at most one thread. While [`Pool::needs_overdue_check`] returns true, the caller must
    /// call [`Pool::wake_if_overdue`] after the wake delay.
    pub(crate) fn push_and_wake_one(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        let was_empty = state.waiting.is_empty();
        state.extend(requests);
        if was_empty && !state.waiting.is_empty() && state.waking() == 0 {
            self.wake_one(&mut state);
        }
    }

    /// Returns whether requests wait that no thread has been woken for, although a thread is idle.
    pub(crate) fn needs_overdue_check(&self) -> bool {
        let state = self.lock();
        state.unassigned() > 0 && self.wakeable(&state) > 0
    }

    /// Returns whether a request waits for a thread.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Wakes a thread if the oldest request has waited for longer than the wake delay.
    pub(crate) fn wake_if_overdue(&self) {
        self.wake_if_overdue_locked(&mut self.lock());
    }

    /// Returns what the calling thread does next; parks it until there is something. Calls `idle` when there is no request
    /// for it.
    pub(crate) fn next(&self, activity: &mut ThreadActivity, idle: impl Fn()) -> Next<T> {
        let mut state = self.lock();
        match std::mem::replace(&mut activity.last, Last::Served) {
            Last::Started => state.starting -= 1,
            Last::Served => state.serving -= 1,
            Last::Led => {}
        }
        if !self.can_proceed(&state) {
            let is_needed = state.idle < self.threads;
            let limit = if is_needed { self.lead_limit(&state, activity) } else { 0 };
            activity.served = 0;
            state.idle += usize::from(is_needed);
            if limit > 0 {
                activity.last = Last::Led;
                self.hand_over(&mut state, Leader::Follower);
            } else if state.leader != Leader::Follower {
                self.hand_over(&mut state, Leader::Main);
            }
            drop(state);
            idle();
            if !is_needed {
                return Next::End;
            }
            if limit > 0 {
                return Next::Lead(limit);
            }
            state = self.park();
        }
        let Some(waiting) = state.waiting.pop_front() else { return Next::End };
        state.serving += 1;
        self.wake_if_overdue_locked(&mut state);
        drop(state);
        if activity.served == 0 {
            activity.since_ns = now_ns();
        }
        activity.served += 1;
        Next::Serve(waiting.request)
    }

    /// Ends the leadership of a thread of the pool, and queues the requests that it received.
    pub(crate) fn finish_leading(&self, requests: impl IntoIterator<Item = T>) -> AfterLeading {
        let mut state = self.lock();
        state.leader_woken = false;
        let since_ns = state.extend(requests);
        state.leader = Leader::Vacant { since_ns };
        let is_full = self.free(&state) <= state.waiting.len();
        state.idle -= 1;
        AfterLeading { set_timer: !std::mem::replace(&mut state.timer_set, true), is_full }
    }

    /// Makes the main thread the leader if there has been none for [`VACANT_MAX_NS`]. To be called when the main thread's
    /// timer expires; returns the nanoseconds to set it to again, if any.
    pub(crate) fn take_over_if_vacant(&self) -> Option<u64> {
        let mut state = self.lock();
        state.timer_set = false;
        let Leader::Vacant { since_ns } = state.leader else { return None };
        let passed_ns = now_ns().saturating_sub(since_ns);
        state.timer_set = passed_ns < VACANT_MAX_NS;
        if !state.timer_set {
            self.hand_over(&mut state, Leader::Main);
        }
        state.timer_set.then(|| VACANT_MAX_NS - passed_ns)
    }

    /// Returns whether the main thread is the leader.
    pub(crate) fn main_is_leader(&self) -> bool {
        self.lock().leader == Leader::Main
    }

    /// Marks the calling thread as blocked on its client, so that another thread can serve in its place. Returns whether
    /// there are too few threads for that: the caller then spawns one, or calls [`Pool::spawn_failed`].
    pub(crate) fn begin_blocking(&self) -> bool {
        let mut state = self.lock();
        state.serving -= 1;
        if state.unassigned() > 0 {
            self.wake_one(&mut state);
        }
        let too_few = state.idle + state.serving + state.starting < self.threads;
        state.starting += usize::from(too_few);
        too_few
    }

    /// Takes back the announcement of a thread that could not be spawned.
    pub(crate) fn spawn_failed(&self) {
        self.lock().starting -= 1;
    }

    /// Marks the calling thread as serving again, after [`Pool::begin_blocking`].
    pub(crate) fn end_blocking(&self) {
        self.lock().serving += 1;
    }

    /// Returns whether more threads are free than requests wait.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        self.free(&state) > state.waiting.len()
    }

    /// Closes the pool: its threads end once the queue is empty.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.followers.notify_all();
        self.poller.wake_leader();
    }

    /// Parks the calling thread until it can proceed. It is not idle afterwards.
    fn park(&self) -> MutexGuard<'_, State<T>> {
        let mut state = self.lock();
        while !self.can_proceed(&state) {
            state.parked += 1;
            state = self.followers.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.parked -= 1;
            state.unparked = state.unparked.saturating_sub(1);
        }
        state.idle -= 1;
        state
    }

    /// Unparks a follower, or wakes the leader if none is parked, unless `threads` threads are serving or waking up.
    fn wake_one(&self, state: &mut State<T>) {
        if self.wakeable(state) == 0 {
            return;
        }
        if state.parked > state.unparked {
            state.unparked += 1;
            self.followers.notify_one();
        } else if state.leader == Leader::Follower && !state.leader_woken {
            state.leader_woken = true;
            self.poller.wake_leader();
        }
    }

    fn wake_if_overdue_locked(&self, state: &mut State<T>) {
        if self.wakeable(state) == 0 || state.unassigned() == 0 {
            return;
        }
        let since_ns = state.waiting.front().map_or(u64::MAX, |waiting| waiting.since_ns);
        if now_ns().saturating_sub(since_ns) >= self.wake_delay_ns {
            self.wake_one(state);
        }
    }

    /// Returns the number of requests that an idle thread may receive as the leader: 0, so that it parks, if another thread
    /// of the pool leads or if its last requests were not short. One thread stays free in any case: the main thread
    /// decides whether a connection can be accepted, and is not notified of the requests that another leader receives.
    fn lead_limit(&self, state: &State<T>, activity: &ThreadActivity) -> usize {
        let served_none = activity.served == 0;
        let is_short = || now_ns().saturating_sub(activity.since_ns) / activity.served <= SHORT_NS;
        if state.closed || state.leader == Leader::Follower || !(served_none || is_short()) {
            return 0;
        }
        (state.idle + 1).min(self.threads.saturating_sub(state.serving)).saturating_sub(1)
    }

    fn hand_over(&self, state: &mut State<T>, to: Leader) {
        let is_main = |leader| leader == Leader::Main;
        if is_main(to) != is_main(state.leader) {
            self.poller.set_main_is_leader(is_main(to));
        }
        state.leader = to;
    }

    /// Returns the number of idle threads that may serve.
    fn free(&self, state: &State<T>) -> usize {
        state.idle.min(self.threads.saturating_sub(state.serving))
    }

    /// Returns the number of free threads that have not been woken.
    fn wakeable(&self, state: &State<T>) -> usize {
        self.free(state).saturating_sub(state.waking())
    }

    /// Returns whether an idle thread need not park.
    fn can_proceed(&self, state: &State<T>) -> bool {
        state.closed || !state.waiting.is_empty() && state.serving < self.threads
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Queues requests. Returns the current time.
    fn extend(&mut self, requests: impl IntoIterator<Item = T>) -> u64 {
        let since_ns = now_ns();
        let requests = requests.into_iter();
        self.waiting.extend(requests.map(|request| Waiting { request, since_ns }));
        since_ns
    }

    /// Returns the number of threads that have been woken and have not taken a request yet.
    fn waking(&self) -> usize {
        self.unparked + usize::from(self.leader_woken)
    }

    /// Returns the number of waiting requests that no thread has been woken for.
    fn unassigned(&self) -> usize {
        self.waiting.len().saturating_sub(self.waking())
    }
}

/// The default wake delay: the time of about ten short requests.
pub(crate) const WAKE_DELAY_NS: u64 = 200_000;
/// How long the leadership may be vacant while the last leader serves.
pub(crate) const VACANT_MAX_NS: u64 = 1_000_000;
/// The longest average time of a thread's requests with which it becomes the leader. Longer requests are better served
/// with the main thread as the leader, which passes the next one to another thread at once.
const SHORT_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Duration;

    type Numbers = Pool<u32, FakePoller>;

    /// A poller without descriptors. Counts its wake-ups, each of which releases a thread in [`FakePoller::wait`].
    #[derive(Default)]
    struct FakePoller {
        wakeups: Mutex<usize>,
        woken: Condvar,
        main_is_leader: AtomicBool,
    }

    impl FakePoller {
        fn wait(&self) {
            let wakeups = self.wakeups.lock().unwrap();
            *self.woken.wait_while(wakeups, |wakeups| *wakeups == 0).unwrap() -= 1;
        }
    }

    impl Poller for FakePoller {
        fn set_main_is_leader(&self, leader: bool) {
            self.main_is_leader.store(leader, Ordering::Relaxed);
        }

        fn wake_leader(&self) {
            *self.wakeups.lock().unwrap() += 1;
            self.woken.notify_one();
        }
    }

    /// Starts a thread of the pool that sends each request it took, and serves it until the returned sender is used.
    fn start(pool: &Arc<Numbers>, took: &Sender<u32>) -> Sender<()> {
        let (pool, took) = (Arc::clone(pool), took.clone());
        let (finish, finished) = channel();
        thread::spawn(move || {
            let mut activity = ThreadActivity::default();
            loop {
                match pool.next(&mut activity, || ()) {
                    Next::Serve(request) => {
                        took.send(request).unwrap();
                        let _ = finished.recv();
                    }
                    Next::Lead(_) => {
                        pool.poller.wait();
                        pool.finish_leading([]);
                    }
                    Next::End => return,
                }
            }
        });
        finish
    }

    fn pool_of_two(wake_delay_ns: u64) -> (Arc<Numbers>, [Sender<()>; 2], Receiver<u32>) {
        let pool = Arc::new(Pool::new(2, wake_delay_ns, FakePoller::default()));
        let (took, taken) = channel();
        let threads = [start(&pool, &took), start(&pool, &took)];
        while pool.lock().idle < threads.len() {
            thread::yield_now();
        }
        (pool, threads, taken)
    }

    #[test]
    fn one_thread_serves_all_requests_of_a_batch() {
        let (pool, threads, taken) = pool_of_two(u64::MAX);
        pool.push_and_wake_one([1, 2]);
        assert_eq!(taken.recv_timeout(LONG), Ok(1));
        assert!(pool.needs_overdue_check(), "no thread was woken for the second request");
        assert!(!pool.has_room(), "the second thread is needed for the second request");
        pool.wake_if_overdue();
        assert_eq!(pool.lock().idle, 1, "the other thread stays parked");
        for thread in &threads {
            thread.send(()).unwrap();
        }
        assert_eq!(taken.recv_timeout(LONG), Ok(2));
    }

    #[test]
    fn an_overdue_request_wakes_another_thread() {
        let (pool, _threads, taken) = pool_of_two(0);
        pool.push_and_wake_one([1, 2]);
        // Two threads serve them, in any order.
        let mut both = [taken.recv_timeout(LONG).unwrap(), taken.recv_timeout(LONG).unwrap()];
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        assert!(!pool.needs_overdue_check());
    }

    #[test]
    fn push_wakes_a_thread_for_each_request() {
        let (pool, _threads, taken) = pool_of_two(u64::MAX);
        pool.push([1, 2]);
        let mut both = [taken.recv_timeout(LONG).unwrap(), taken.recv_timeout(LONG).unwrap()];
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    }

    #[test]
    fn a_blocked_thread_is_replaced_within_the_limit() {
        let (pool, threads, taken) = pool_of_two(u64::MAX);
        pool.push([1, 2, 3]);
        taken.recv_timeout(LONG).unwrap();
        taken.recv_timeout(LONG).unwrap();
        assert!(!pool.has_room());
        assert!(pool.begin_blocking(), "no parked thread can serve in its place");
        let (took, third) = channel();
        let _replacement = start(&pool, &took);
        assert_eq!(third.recv_timeout(LONG), Ok(3));
        pool.end_blocking();
        assert_eq!(pool.lock().serving, 3, "a thread that was blocked continues at once");
        pool.push([4]);
        threads[0].send(()).unwrap();
        while pool.lock().idle < 1 {
            thread::yield_now();
        }
        assert_eq!(pool.lock().waiting.len(), 1, "two threads serve already");
    }

    #[test]
    fn a_closed_pool_serves_its_queue_first() {
        let pool = Pool::new(2, 0, FakePoller::default());
        pool.push([1]);
        pool.close();
        let mut activity = ThreadActivity::default();
        assert_eq!(pool.next(&mut activity, || ()), Next::Serve(1));
        assert_eq!(pool.next(&mut activity, || ()), Next::End);
    }

    #[test]
    fn a_thread_with_short_requests_becomes_the_leader() {
        let pool = Pool::<u32, _>::new(4, 0, FakePoller::default());
        let mut activities = [ThreadActivity::default(), ThreadActivity::default()];
        let [activity, other] = &mut activities;
        pool.push([0]);
        assert_eq!(pool.next(other, || ()), Next::Serve(0));
        pool.lock().idle = 2;
        assert_eq!(pool.next(activity, || ()), Next::Lead(2), "one thread stays free");
        assert!(!pool.main_is_leader());
        let after = pool.finish_leading([1, 2]);
        assert!(after.set_timer && !after.is_full);
        assert_eq!(pool.next(activity, || ()), Next::Serve(1));
        assert_eq!(pool.next(activity, || ()), Next::Serve(2));
        assert_eq!(pool.next(activity, || ()), Next::Lead(2));
        assert!(!pool.finish_leading([3]).set_timer, "it has not expired");
    }

    #[test]
    fn the_main_thread_takes_over_a_leadership_that_was_vacant_for_long() {
        let pool = Pool::<u32, _>::new(4, 0, FakePoller::default());
        pool.lock().idle = 3;
        let mut activity = ThreadActivity::default();
        assert_eq!(pool.next(&mut activity, || ()), Next::Lead(3));
        assert_eq!(pool.take_over_if_vacant(), None, "a follower leads");
        assert!(pool.finish_leading([1]).set_timer);
        assert_eq!(pool.next(&mut activity, || ()), Next::Serve(1));
        pool.lock().leader = Leader::Vacant { since_ns: now_ns() - VACANT_MAX_NS };
        assert_eq!(pool.take_over_if_vacant(), None);
        assert!(pool.main_is_leader() && pool.poller.main_is_leader.load(Ordering::Relaxed));
        assert_eq!(
            pool.next(&mut activity, || ()),
            Next::Lead(3),
            "the request was short after all"
        );
        assert!(!pool.poller.main_is_leader.load(Ordering::Relaxed));
    }

    #[test]
    fn the_leader_is_woken_if_no_thread_is_parked() {
        let pool = Pool::<u32, _>::new(4, 0, FakePoller::default());
        pool.lock().idle = 1;
        let mut activity = ThreadActivity::default();
        assert_eq!(pool.next(&mut activity, || ()), Next::Lead(1));
        pool.lock().idle = 1;
        pool.push_and_wake_one([1]);
        pool.poller.wait();
        pool.finish_leading([]);
        assert_eq!(pool.next(&mut activity, || ()), Next::Serve(1));
    }

    const LONG: Duration = Duration::from_secs(20);
}
