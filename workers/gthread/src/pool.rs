//! The threads that call the application, and the queue of whole requests before them.
//!
//! To wake a thread costs more than a short request, and several awake ones cost an application with one lock for all
//! (Python's) more than one does. So the requests of a turn wake one thread, which takes one after the other; another is
//! woken only when a request has waited for some time, since the first is then busy for long, or asleep in its
//! application.
//!
//! A thread whose client keeps it waiting is away: it is not one of the threads that serve, and another takes its place
//! meanwhile. So clients that send or take an octet now and then hold up nobody, however many they are.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kit::clock::now_ns;

/// The queue before the threads. A thread that finds it empty sleeps.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    patience_ns: u64,
    /// How many threads serve at once.
    threads: usize,
}

struct State<T> {
    waiting: VecDeque<Waiting<T>>,
    /// How many threads have a request and do not wait for its client. More than `threads` only where some have come
    /// back to theirs.
    serving: usize,
    /// How many threads have been started and have not asked for a request yet.
    coming: usize,
    /// How many threads sleep, or are about to.
    idle: usize,
    /// How many of them have been woken and have not taken anything yet.
    woken: usize,
    closed: bool,
}

/// A request before the threads.
struct Waiting<T> {
    request: T,
    since_ns: u64,
}

impl<T> Queue<T> {
    /// An empty queue before so many threads, which are about to come, in which a request waits so long for a thread that
    /// is awake before another one is woken.
    pub(crate) fn new(threads: usize, patience_ns: u64) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            serving: 0,
            coming: threads,
            idle: 0,
            woken: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), filled: Condvar::new(), patience_ns, threads }
    }

    /// Puts requests before the threads, and wakes as many threads as there is work for.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.extend(requests);
        let wake = self.spare(&state).min(state.unmet());
        state.woken += wake;
        drop(state);
        for _ in 0..wake {
            self.filled.notify_one();
        }
    }

    /// Puts requests before the threads and wakes one thread at most. The caller looks at the queue again
    /// ([`Queue::nudge`]) when its patience is over, where [`Queue::is_to_be_watched`] says so.
    pub(crate) fn push_watched(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        let was_empty = state.waiting.is_empty();
        state.extend(requests);
        if was_empty && !state.waiting.is_empty() && state.woken == 0 && self.spare(&state) > 0 {
            state.woken += 1;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Whether requests wait for which no thread is on its way, although one sleeps.
    pub(crate) fn is_to_be_watched(&self) -> bool {
        let state = self.lock();
        state.unmet() > 0 && self.spare(&state) > 0
    }

    /// Wakes a thread if a request has waited for too long.
    pub(crate) fn nudge(&self) {
        self.nudge_with(self.lock());
    }

    /// The next request, slept for; nothing when the pool is closed and the queue is empty, or when so many threads sleep
    /// that this one is not needed. `served` says that the thread had one before, which is over; else it has just come.
    /// `idle` is called when it has nothing to do, before it sleeps.
    pub(crate) fn next(&self, served: bool, idle: impl Fn()) -> Option<T> {
        let mut state = self.lock();
        if served {
            state.serving -= 1;
        } else {
            state.coming -= 1;
        }
        if !self.is_my_turn(&state) {
            let is_needed = state.idle < self.threads;
            state.idle += usize::from(is_needed);
            drop(state);
            idle();
            if !is_needed {
                return None;
            }
            state = self.lock();
            while !self.is_my_turn(&state) {
                state.woken = state.woken.saturating_sub(1);
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.idle -= 1;
            state.woken = state.woken.saturating_sub(1);
        }
        let next = state.waiting.pop_front();
        state.serving += usize::from(next.is_some());
        self.nudge_with(state);
        next.map(|waiting| waiting.request)
    }

    /// The thread's client keeps it waiting: another may serve in its place. Answers whether there are too few for that,
    /// so that the caller is to start one, or to say that it could not ([`Queue::miss`]).
    pub(crate) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.serving -= 1;
        if state.unmet() > 0 && self.spare(&state) > 0 {
            state.woken += 1;
            self.filled.notify_one();
        }
        let too_few = state.idle + state.serving + state.coming < self.threads;
        state.coming += usize::from(too_few);
        too_few
    }

    /// A thread that was to be started does not come.
    pub(crate) fn miss(&self) {
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
    }

    fn nudge_with(&self, mut state: MutexGuard<'_, State<T>>) {
        if self.spare(&state) == 0 || state.unmet() == 0 {
            return;
        }
        let since_ns = state.waiting.front().map_or(u64::MAX, |waiting| waiting.since_ns);
        if now_ns().saturating_sub(since_ns) >= self.patience_ns {
            state.woken += 1;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// How many threads sleep that may serve.
    fn free(&self, state: &State<T>) -> usize {
        state.idle.min(self.threads.saturating_sub(state.serving))
    }

    /// How many threads could be woken.
    fn spare(&self, state: &State<T>) -> usize {
        self.free(state).saturating_sub(state.woken)
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
    fn extend(&mut self, requests: impl IntoIterator<Item = T>) {
        let since_ns = now_ns();
        let requests = requests.into_iter();
        self.waiting.extend(requests.map(|request| Waiting { request, since_ns }));
    }

    /// How many requests wait for which no thread has been woken.
    fn unmet(&self) -> usize {
        self.waiting.len().saturating_sub(self.woken)
    }
}

/// The usual patience: the time of some ten short requests.
pub(crate) const PATIENCE_NS: u64 = 200_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Duration;

    /// A thread of the pool that says what it took, and is busy with it until it is told to go on.
    fn start(queue: &Arc<Queue<u32>>, took: &Sender<u32>) -> Sender<()> {
        let (queue, took) = (Arc::clone(queue), took.clone());
        let (go_on, told) = channel();
        thread::spawn(move || {
            let mut served = false;
            while let Some(request) = queue.next(served, || ()) {
                took.send(request).unwrap();
                let _ = told.recv();
                served = true;
            }
        });
        go_on
    }

    fn pool(patience_ns: u64) -> (Arc<Queue<u32>>, [Sender<()>; 2], Receiver<u32>) {
        let queue = Arc::new(Queue::new(2, patience_ns));
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
        queue.nudge();
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
        assert!(queue.leave(), "nobody sleeps who could serve instead");
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
        let queue = Queue::new(2, 0);
        queue.push([1]);
        queue.close();
        assert_eq!(queue.next(false, || ()), Some(1));
        assert_eq!(queue.next(false, || ()), None);
    }

    const LONG: Duration = Duration::from_secs(20);
}
