//! The threads that call the application, and the queue of whole requests before them.
//!
//! To wake a thread costs more than a short request, and several awake ones cost an application with one lock for all
//! (Python's) more than one does. So the requests of a turn wake one thread, which takes one after the other; another is
//! woken only when a request has waited for some time, since the first is then busy for long, or asleep in its
//! application.
//!
//! A thread that has found its requests short looks for the next ones itself when there are none left: then nobody is
//! woken for them at all. While it is busy with what it found, nobody looks; when that takes long after all, the main
//! thread does ([`Queue::take_over`]).
//!
//! A thread whose client keeps it waiting is away: it is not one of the threads that serve, and another takes its place
//! meanwhile. So clients that send or take an byte now and then hold up nobody, however many they are.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kit::clock::now_ns;

/// The poller of the connections, from which the requests come. Its methods are called while the queue is locked.
pub(crate) trait Poller {
    /// From now on the main thread is the one who looks, or no longer.
    fn set_main_is_leader(&self, leader: bool);
    /// Wakes the thread of the pool that waits at the poller.
    fn wake_leader(&self);
}

/// The queue before the threads. A thread that finds it empty sleeps.
pub(crate) struct Queue<T, P> {
    state: Mutex<State<T>>,
    filled: Condvar,
    pub(crate) poller: P,
    patience_ns: u64,
    /// How many threads serve at once.
    threads: usize,
}

/// What a thread is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// To serve this.
    Serve(T),
    /// To look for requests, of which it gives at most so many to [`Queue::found`].
    Look(usize),
    /// To end: the pool is closed and the queue is empty, or so many threads sleep that this one is not needed.
    End,
}

/// What is to be done when a thread has looked.
pub(crate) struct Found {
    /// To set the main thread's timer to [`UNSEEN_MAX_NS`].
    pub(crate) set_timer: bool,
    /// To tell the main thread that no more connections may be accepted.
    pub(crate) is_full: bool,
}

/// What a thread has done since it last had nothing to do.
#[derive(Default)]
pub(crate) struct ThreadActivity {
    last: Last,
    since_ns: u64,
    served: u64,
}

/// What a thread did last.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Last {
    /// Nothing: it has just come.
    #[default]
    Came,
    Served,
    Looked,
}

struct State<T> {
    waiting: VecDeque<Waiting<T>>,
    /// How many threads have a request and do not wait for its client. More than `threads` only where some have come
    /// back to theirs.
    serving: usize,
    /// How many threads have been started and have not asked for a request yet.
    coming: usize,
    /// How many threads have nothing to do: they sleep, or are about to, or look.
    idle: usize,
    /// How many of them sleep.
    asleep: usize,
    /// How many of those have been woken and have not taken anything yet.
    woken: usize,
    /// Whether the thread that looks has been woken, and has not come back yet.
    leader_woken: bool,
    leader: Leader,
    /// Whether the main thread's timer is set, after which it calls [`Queue::take_over`].
    timed: bool,
    closed: bool,
}

/// Who looks for requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leader {
    Main,
    /// A thread of the pool that is idle.
    Idle,
    /// Nobody since then: who looked last is busy with what it found.
    Nobody {
        since_ns: u64,
    },
}

/// A request before the threads.
struct Waiting<T> {
    request: T,
    since_ns: u64,
}

impl<T, P: Poller> Queue<T, P> {
    /// An empty queue before so many threads, which are about to come, in which a request waits so long for a thread that
    /// is awake before another one is woken.
    pub(crate) fn new(threads: usize, patience_ns: u64, poller: P) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            serving: 0,
            coming: threads,
            idle: 0,
            asleep: 0,
            woken: 0,
            leader_woken: false,
            leader: Leader::Main,
            timed: false,
            closed: false,
        };
        Self { state: Mutex::new(state), filled: Condvar::new(), poller, patience_ns, threads }
    }

    /// Puts requests before the threads, and wakes as many threads as there is work for.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.extend(requests);
        for _ in 0..self.spare(&state).min(state.unmet()) {
            self.wake_one(&mut state);
        }
    }

    /// Puts requests before the threads and wakes one thread at most. The caller looks at the queue again
    /// ([`Queue::wake_if_overdue`]) when its patience is over, where [`Queue::is_to_be_watched`] says so.
    pub(crate) fn push_watched(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        let was_empty = state.waiting.is_empty();
        state.extend(requests);
        if was_empty && !state.waiting.is_empty() && state.on_the_way() == 0 {
            self.wake_one(&mut state);
        }
    }

    /// Whether requests wait for which no thread is on its way, although one is idle.
    pub(crate) fn is_to_be_watched(&self) -> bool {
        let state = self.lock();
        state.unmet() > 0 && self.spare(&state) > 0
    }

    /// Whether a request waits for a thread.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Wakes a thread if a request has waited for too long.
    pub(crate) fn wake_if_overdue(&self) {
        self.wake_if_overdue_locked(&mut self.lock());
    }

    /// What a thread is to do next, slept for. `idle` is called when it has nothing to do.
    pub(crate) fn next(&self, activity: &mut ThreadActivity, idle: impl Fn()) -> Next<T> {
        let mut state = self.lock();
        match std::mem::replace(&mut activity.last, Last::Served) {
            Last::Came => state.coming -= 1,
            Last::Served => state.serving -= 1,
            Last::Looked => {}
        }
        if !self.is_my_turn(&state) {
            let is_needed = state.idle < self.threads;
            let may_look = if is_needed { self.may_look(&state, activity) } else { 0 };
            activity.served = 0;
            state.idle += usize::from(is_needed);
            if may_look > 0 {
                activity.last = Last::Looked;
                self.hand_over(&mut state, Leader::Idle);
            } else if state.leader != Leader::Idle {
                self.hand_over(&mut state, Leader::Main);
            }
            drop(state);
            idle();
            if !is_needed {
                return Next::End;
            }
            if may_look > 0 {
                return Next::Look(may_look);
            }
            state = self.sleep();
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

    /// What a thread that was to look has found.
    pub(crate) fn found(&self, requests: impl IntoIterator<Item = T>) -> Found {
        let mut state = self.lock();
        state.leader_woken = false;
        let since_ns = state.extend(requests);
        state.leader = Leader::Nobody { since_ns };
        let is_full = self.free(&state) <= state.waiting.len();
        state.idle -= 1;
        Found { set_timer: !std::mem::replace(&mut state.timed, true), is_full }
    }

    /// The main thread's timer has run down: where nobody has looked for long, the main thread does from now on.
    /// Answers after how many nanoseconds the timer is to run down again.
    pub(crate) fn take_over(&self) -> Option<u64> {
        let mut state = self.lock();
        state.timed = false;
        let Leader::Nobody { since_ns } = state.leader else { return None };
        let passed_ns = now_ns().saturating_sub(since_ns);
        state.timed = passed_ns < UNSEEN_MAX_NS;
        if !state.timed {
            self.hand_over(&mut state, Leader::Main);
        }
        state.timed.then(|| UNSEEN_MAX_NS - passed_ns)
    }

    /// Whether it is the main thread who looks.
    pub(crate) fn is_mains(&self) -> bool {
        self.lock().leader == Leader::Main
    }

    /// The thread's client keeps it waiting: another may serve in its place. Answers whether there are too few for that,
    /// so that the caller is to start one, or to say that it could not ([`Queue::miss`]).
    pub(crate) fn begin_blocking(&self) -> bool {
        let mut state = self.lock();
        state.serving -= 1;
        if state.unmet() > 0 {
            self.wake_one(&mut state);
        }
        let too_few = state.idle + state.serving + state.coming < self.threads;
        state.coming += usize::from(too_few);
        too_few
    }

    /// A thread that was to be started does not come.
    pub(crate) fn spawn_failed(&self) {
        self.lock().coming -= 1;
    }

    /// The thread goes on with its request.
    pub(crate) fn come_back(&self) {
        self.lock().serving += 1;
    }

    /// Whether a thread is free that no waiting request is meant for.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        self.free(&state) > state.waiting.len()
    }

    /// Has the threads end when there is nothing left to do.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.poller.wake_leader();
    }

    /// Sleeps until there is something to do, and is not idle then.
    fn sleep(&self) -> MutexGuard<'_, State<T>> {
        let mut state = self.lock();
        while !self.is_my_turn(&state) {
            state.asleep += 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep -= 1;
            state.woken = state.woken.saturating_sub(1);
        }
        state.idle -= 1;
        state
    }

    /// Wakes a thread where one may serve and is idle.
    fn wake_one(&self, state: &mut State<T>) {
        if self.spare(state) == 0 {
            return;
        }
        if state.asleep > state.woken {
            state.woken += 1;
            self.filled.notify_one();
        } else if state.leader == Leader::Idle && !state.leader_woken {
            state.leader_woken = true;
            self.poller.wake_leader();
        }
    }

    fn wake_if_overdue_locked(&self, state: &mut State<T>) {
        if self.spare(state) == 0 || state.unmet() == 0 {
            return;
        }
        let since_ns = state.waiting.front().map_or(u64::MAX, |waiting| waiting.since_ns);
        if now_ns().saturating_sub(since_ns) >= self.patience_ns {
            self.wake_one(state);
        }
    }

    /// How many requests a thread may look for that has nothing to do: none, so that it sleeps, where another looks, or
    /// its requests were not short. One thread stays free whatever it finds: whether a connection may be accepted is the
    /// main thread's to know, which does not hear of these requests.
    fn may_look(&self, state: &State<T>, activity: &ThreadActivity) -> usize {
        let looked = activity.served == 0;
        let is_short = || now_ns().saturating_sub(activity.since_ns) / activity.served <= SHORT_NS;
        if state.closed || state.leader == Leader::Idle || !(looked || is_short()) {
            return 0;
        }
        (state.idle + 1).min(self.threads.saturating_sub(state.serving)).saturating_sub(1)
    }

    fn hand_over(&self, state: &mut State<T>, to: Leader) {
        let mains = |leader| leader == Leader::Main;
        if mains(to) != mains(state.leader) {
            self.poller.set_main_is_leader(mains(to));
        }
        state.leader = to;
    }

    /// How many threads are idle that may serve.
    fn free(&self, state: &State<T>) -> usize {
        state.idle.min(self.threads.saturating_sub(state.serving))
    }

    /// How many threads could be woken.
    fn spare(&self, state: &State<T>) -> usize {
        self.free(state).saturating_sub(state.on_the_way())
    }

    /// Whether a thread that has nothing to do need not sleep.
    fn is_my_turn(&self, state: &State<T>) -> bool {
        state.closed || !state.waiting.is_empty() && state.serving < self.threads
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Puts requests at the end. Answers what time it is.
    fn extend(&mut self, requests: impl IntoIterator<Item = T>) -> u64 {
        let since_ns = now_ns();
        let requests = requests.into_iter();
        self.waiting.extend(requests.map(|request| Waiting { request, since_ns }));
        since_ns
    }

    /// How many threads have been woken and have not taken anything yet.
    fn on_the_way(&self) -> usize {
        self.woken + usize::from(self.leader_woken)
    }

    /// How many requests wait for which no thread has been woken.
    fn unmet(&self) -> usize {
        self.waiting.len().saturating_sub(self.on_the_way())
    }
}

/// The usual patience: the time of some ten short requests.
pub(crate) const WAKE_DELAY_NS: u64 = 200_000;
/// For how long nobody need look for requests while others are served.
pub(crate) const UNSEEN_MAX_NS: u64 = 1_000_000;
/// How long a request takes at most after which a thread looks for the next one itself. A longer one is better off with
/// the main thread, who hands the next one to another thread at once.
const SHORT_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Duration;

    type Numbers = Queue<u32, Quiet>;

    /// A poller with nothing in it. Counts its pokes, each of which lets a thread go on that waits here.
    #[derive(Default)]
    struct Quiet {
        pokes: Mutex<usize>,
        leader_woken: Condvar,
        is_mains: AtomicBool,
    }

    impl Quiet {
        fn wait(&self) {
            let pokes = self.pokes.lock().unwrap();
            *self.leader_woken.wait_while(pokes, |pokes| *pokes == 0).unwrap() -= 1;
        }
    }

    impl Poller for Quiet {
        fn set_main_is_leader(&self, leader: bool) {
            self.is_mains.store(leader, Ordering::Relaxed);
        }

        fn wake_leader(&self) {
            *self.pokes.lock().unwrap() += 1;
            self.leader_woken.notify_one();
        }
    }

    /// A thread of the pool that says what it took, and is busy with it until it is told to go on.
    fn start(queue: &Arc<Numbers>, took: &Sender<u32>) -> Sender<()> {
        let (queue, took) = (Arc::clone(queue), took.clone());
        let (go_on, told) = channel();
        thread::spawn(move || {
            let mut activity = ThreadActivity::default();
            loop {
                match queue.next(&mut activity, || ()) {
                    Next::Serve(request) => {
                        took.send(request).unwrap();
                        let _ = told.recv();
                    }
                    Next::Look(_) => {
                        queue.poller.wait();
                        queue.found([]);
                    }
                    Next::End => return,
                }
            }
        });
        go_on
    }

    fn pool(patience_ns: u64) -> (Arc<Numbers>, [Sender<()>; 2], Receiver<u32>) {
        let queue = Arc::new(Queue::new(2, patience_ns, Quiet::default()));
        let (took, taken) = channel();
        let threads = [start(&queue, &took), start(&queue, &took)];
        while queue.lock().idle < threads.len() {
            thread::yield_now();
        }
        (queue, threads, taken)
    }

    #[test]
    fn one_thread_takes_what_came_with_its_request() {
        let (queue, threads, taken) = pool(u64::MAX);
        queue.push_watched([1, 2]);
        assert_eq!(taken.recv_timeout(LONG), Ok(1));
        assert!(queue.is_to_be_watched(), "nobody is on the way to the second");
        assert!(!queue.has_room(), "the second thread is meant for the second request");
        queue.wake_if_overdue();
        assert_eq!(queue.lock().idle, 1, "the other sleeps on");
        for thread in &threads {
            thread.send(()).unwrap();
        }
        assert_eq!(taken.recv_timeout(LONG), Ok(2));
    }

    #[test]
    fn a_request_that_waited_long_gets_a_thread_of_its_own() {
        let (queue, _threads, taken) = pool(0);
        queue.push_watched([1, 2]);
        // Two threads have them: which of these says so first is nobody's business.
        let mut both = [taken.recv_timeout(LONG).unwrap(), taken.recv_timeout(LONG).unwrap()];
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        assert!(!queue.is_to_be_watched());
    }

    #[test]
    fn requests_that_nobody_watches_wake_a_thread_each() {
        let (queue, _threads, taken) = pool(u64::MAX);
        queue.push([1, 2]);
        let mut both = [taken.recv_timeout(LONG).unwrap(), taken.recv_timeout(LONG).unwrap()];
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    }

    #[test]
    fn who_is_away_has_a_stand_in_and_no_more_serve_than_may() {
        let (queue, threads, taken) = pool(u64::MAX);
        queue.push([1, 2, 3]);
        taken.recv_timeout(LONG).unwrap();
        taken.recv_timeout(LONG).unwrap();
        assert!(!queue.has_room());
        assert!(queue.begin_blocking(), "nobody sleeps who could serve instead");
        let (took, third) = channel();
        let _stand_in = start(&queue, &took);
        assert_eq!(third.recv_timeout(LONG), Ok(3));
        queue.come_back();
        assert_eq!(queue.lock().serving, 3, "who comes back goes on at once");
        queue.push([4]);
        threads[0].send(()).unwrap();
        while queue.lock().idle < 1 {
            thread::yield_now();
        }
        assert_eq!(queue.lock().waiting.len(), 1, "two serve already");
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::new(2, 0, Quiet::default());
        queue.push([1]);
        queue.close();
        let mut activity = ThreadActivity::default();
        assert_eq!(queue.next(&mut activity, || ()), Next::Serve(1));
        assert_eq!(queue.next(&mut activity, || ()), Next::End);
    }

    #[test]
    fn who_has_served_short_requests_looks_for_the_next() {
        let queue = Queue::<u32, _>::new(4, 0, Quiet::default());
        let mut activities = [ThreadActivity::default(), ThreadActivity::default()];
        let [activity, other] = &mut activities;
        queue.push([0]);
        assert_eq!(queue.next(other, || ()), Next::Serve(0));
        queue.lock().idle = 2;
        assert_eq!(queue.next(activity, || ()), Next::Look(2), "one thread stays free");
        assert!(!queue.is_mains());
        let found = queue.found([1, 2]);
        assert!(found.set_timer && !found.is_full);
        assert_eq!(queue.next(activity, || ()), Next::Serve(1));
        assert_eq!(queue.next(activity, || ()), Next::Serve(2));
        assert_eq!(queue.next(activity, || ()), Next::Look(2));
        assert!(!queue.found([3]).set_timer, "it has not run down");
    }

    #[test]
    fn the_main_thread_looks_where_nobody_has_for_long() {
        let queue = Queue::<u32, _>::new(4, 0, Quiet::default());
        queue.lock().idle = 3;
        let mut activity = ThreadActivity::default();
        assert_eq!(queue.next(&mut activity, || ()), Next::Look(3));
        assert_eq!(queue.take_over(), None, "somebody looks");
        assert!(queue.found([1]).set_timer);
        assert_eq!(queue.next(&mut activity, || ()), Next::Serve(1));
        queue.lock().leader = Leader::Nobody { since_ns: now_ns() - UNSEEN_MAX_NS };
        assert_eq!(queue.take_over(), None);
        assert!(queue.is_mains() && queue.poller.is_mains.load(Ordering::Relaxed));
        assert_eq!(
            queue.next(&mut activity, || ()),
            Next::Look(3),
            "the request was short after all"
        );
        assert!(!queue.poller.is_mains.load(Ordering::Relaxed));
    }

    #[test]
    fn who_looks_is_woken_where_nobody_sleeps() {
        let queue = Queue::<u32, _>::new(4, 0, Quiet::default());
        queue.lock().idle = 1;
        let mut activity = ThreadActivity::default();
        assert_eq!(queue.next(&mut activity, || ()), Next::Look(1));
        queue.lock().idle = 1;
        queue.push_watched([1]);
        queue.poller.wait();
        queue.found([]);
        assert_eq!(queue.next(&mut activity, || ()), Next::Serve(1));
    }

    const LONG: Duration = Duration::from_secs(20);
}
