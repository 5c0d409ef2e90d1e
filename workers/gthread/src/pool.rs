//! The threads that call the application, and the queue of whole requests before them.
//!
//! To wake a thread costs more than a short request, and several awake ones cost an application with one lock for all
//! (Python's) more than one does. So the requests of a turn wake one thread, which takes one after the other; another is
//! woken only when a request has waited for some time, since the first is then busy for long, or asleep in its
//! application.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kit::clock::now_ns;

/// The queue before the threads. A thread that finds it empty sleeps.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    patience_ns: u64,
}

struct State<T> {
    waiting: VecDeque<Waiting<T>>,
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
    /// An empty queue, in which a request waits so long for a thread that is awake before another one is woken.
    pub(crate) fn new(patience_ns: u64) -> Self {
        let state = State { waiting: VecDeque::new(), idle: 0, woken: 0, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), patience_ns }
    }

    /// Puts requests before the threads, and wakes as many threads as there is work for.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.extend(requests);
        let wake = state.spare().min(state.unmet());
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
        if was_empty && !state.waiting.is_empty() && state.woken == 0 && state.idle > 0 {
            state.woken += 1;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Whether requests wait for which no thread is on its way, although one sleeps.
    pub(crate) fn is_to_be_watched(&self) -> bool {
        let state = self.lock();
        state.unmet() > 0 && state.spare() > 0
    }

    /// Wakes a thread if a request has waited for too long.
    pub(crate) fn nudge(&self) {
        self.nudge_with(self.lock());
    }

    /// The next request, slept for; nothing when the pool is closed and the queue is empty. `idle` is called when this
    /// thread has nothing to do, before it sleeps.
    pub(crate) fn next(&self, idle: impl Fn()) -> Option<T> {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.closed {
            state.idle += 1;
            drop(state);
            idle();
            state = self.lock();
            while state.waiting.is_empty() && !state.closed {
                state.woken = state.woken.saturating_sub(1);
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.idle -= 1;
            state.woken = state.woken.saturating_sub(1);
        }
        let next = state.waiting.pop_front();
        self.nudge_with(state);
        next.map(|waiting| waiting.request)
    }

    /// Whether a thread is free that no waiting request is meant for.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        state.idle > state.waiting.len()
    }

    /// Has the threads end when there is nothing left to do.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    fn nudge_with(&self, mut state: MutexGuard<'_, State<T>>) {
        if state.spare() == 0 || state.unmet() == 0 {
            return;
        }
        let since_ns = state.waiting.front().map_or(u64::MAX, |waiting| waiting.since_ns);
        if now_ns().saturating_sub(since_ns) >= self.patience_ns {
            state.woken += 1;
            drop(state);
            self.filled.notify_one();
        }
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

    /// How many threads could be woken.
    fn spare(&self) -> usize {
        self.idle.saturating_sub(self.woken)
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
            while let Some(request) = queue.next(|| ()) {
                took.send(request).unwrap();
                let _ = told.recv();
            }
        });
        go_on
    }

    fn pool(patience_ns: u64) -> (Arc<Queue<u32>>, [Sender<()>; 2], Receiver<u32>) {
        let queue = Arc::new(Queue::new(patience_ns));
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
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::new(0);
        queue.push([1]);
        queue.close();
        assert_eq!(queue.next(|| ()), Some(1));
        assert_eq!(queue.next(|| ()), None);
    }

    const LONG: Duration = Duration::from_secs(20);
}
