//! The pool with a poller that has no descriptors.

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
        let mut thread = PoolThread::default();
        loop {
            match pool.next(&mut thread, || (), || true) {
                Next::Serve(request) => {
                    took.send(request).unwrap();
                    let _ = finished.recv();
                }
                Next::Lead(_) => {
                    pool.poller.wait();
                    pool.finish_leading(&mut thread, []);
                }
                Next::End => return,
            }
        }
    });
    finish
}

/// Counts `count` more threads as followers.
fn add_followers(pool: &Numbers, count: usize) {
    (0..count).for_each(|_| pool.lock().enter(ThreadState::Following));
}

fn pool_of_two(wake_delay_ns: u64) -> (Arc<Numbers>, [Sender<()>; 2], Receiver<u32>) {
    let pool = Arc::new(Pool::new(2, wake_delay_ns, FakePoller::default()));
    let (took, taken) = channel();
    let threads = [start(&pool, &took), start(&pool, &took)];
    while pool.lock().idle() < threads.len() {
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
    assert!(!pool.has_room(0), "the second thread is needed for the second request");
    pool.wake_if_overdue();
    assert_eq!(pool.lock().idle(), 1, "the other thread stays parked");
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
    assert!(!pool.has_room(0));
    assert!(pool.begin_blocking(), "no parked thread can serve in its place");
    let (took, third) = channel();
    let _replacement = start(&pool, &took);
    assert_eq!(third.recv_timeout(LONG), Ok(3));
    pool.end_blocking();
    assert_eq!(
        pool.lock().count(ThreadState::Serving),
        3,
        "a thread that was blocked continues at once"
    );
    pool.push([4]);
    threads[0].send(()).unwrap();
    while pool.lock().idle() < 1 {
        thread::yield_now();
    }
    assert_eq!(pool.lock().queued(), 1, "two threads serve already");
}

#[test]
fn a_closed_pool_serves_its_queue_first() {
    let pool = Pool::new(2, 0, FakePoller::default());
    pool.push([1]);
    pool.close();
    let mut thread = PoolThread::default();
    assert_eq!(pool.next(&mut thread, || (), || true), Next::Serve(1));
    assert_eq!(pool.next(&mut thread, || (), || true), Next::End);
}

#[test]
fn a_thread_with_short_requests_becomes_the_leader() {
    let pool = Pool::<u32, _>::new(4, 0, FakePoller::default());
    let [thread, other] = &mut [PoolThread::default(), PoolThread::default()];
    pool.push([0]);
    assert_eq!(pool.next(other, || (), || true), Next::Serve(0));
    add_followers(&pool, 2);
    assert_eq!(pool.next(thread, || (), || true), Next::Lead(3));
    assert!(!pool.main_is_leader());
    let after = pool.finish_leading(thread, [1, 2]);
    assert!(after.set_timer && !after.is_full);
    assert_eq!(pool.next(thread, || (), || true), Next::Serve(1));
    assert_eq!(pool.next(thread, || (), || true), Next::Serve(2));
    assert_eq!(pool.next(thread, || (), || true), Next::Lead(3));
    assert!(!pool.finish_leading(thread, [3]).set_timer, "it expires earlier");
}

#[test]
fn the_main_thread_takes_over_a_leadership_that_was_vacant_for_long() {
    let pool = Pool::<u32, _>::new(4, 0, FakePoller::default());
    add_followers(&pool, 3);
    let mut thread = PoolThread::default();
    assert_eq!(pool.next(&mut thread, || (), || true), Next::Lead(4));
    assert_eq!(pool.take_over_if_vacant(), None, "a follower leads");
    assert!(pool.finish_leading(&mut thread, [1]).set_timer);
    assert_eq!(pool.next(&mut thread, || (), || true), Next::Serve(1));
    pool.lock().set_leader(Leader::Vacant { until_ns: now_ns() });
    assert_eq!(pool.take_over_if_vacant(), None);
    assert!(pool.main_is_leader() && pool.poller.main_is_leader.load(Ordering::Relaxed));
    assert_eq!(
        pool.next(&mut thread, || (), || true),
        Next::Lead(4),
        "the request was short after all"
    );
    assert!(!pool.poller.main_is_leader.load(Ordering::Relaxed));
}

#[test]
fn the_main_thread_leads_if_no_connection_can_be_accepted() {
    let pool = Pool::<u32, _>::new(1, 0, FakePoller::default());
    let next = thread::scope(|scope| {
        let next = scope.spawn(|| pool.next(&mut PoolThread::default(), || (), || false));
        while pool.lock().parked == 0 {
            thread::yield_now();
        }
        assert!(pool.main_is_leader());
        pool.close();
        next.join().unwrap()
    });
    assert_eq!(next, Next::End);
}

#[test]
fn the_main_thread_rests_while_all_threads_serve() {
    let pool = Pool::<u32, _>::new(1, 0, FakePoller::default());
    let mut thread = PoolThread::default();
    pool.push([1]);
    assert_eq!(pool.next(&mut thread, || (), || true), Next::Serve(1));
    assert_eq!(pool.rest_if_saturated(), None, "no request waits");
    pool.push_and_wake_one([2]);
    assert_eq!(pool.rest_if_saturated(), Some(REST_NS));
    assert!(!pool.poller.main_is_leader.load(Ordering::Relaxed));
    assert!(pool.take_over_if_vacant().is_some_and(|left_ns| left_ns <= REST_NS), "too early");
    assert_eq!(pool.rest_if_saturated(), None, "it rests already");
    assert_eq!(pool.next(&mut thread, || (), || true), Next::Serve(2));
    assert!(!pool.main_is_leader());
    assert!(pool.begin_blocking(), "another thread may serve");
    assert!(pool.main_is_leader() && pool.poller.main_is_leader.load(Ordering::Relaxed));
}

#[test]
fn the_leader_is_woken_if_no_thread_is_parked() {
    let pool = Pool::<u32, _>::new(4, 0, FakePoller::default());
    add_followers(&pool, 1);
    let mut thread = PoolThread::default();
    assert_eq!(pool.next(&mut thread, || (), || true), Next::Lead(2));
    pool.lock().leave(ThreadState::Following);
    pool.push_and_wake_one([1]);
    pool.poller.wait();
    pool.finish_leading(&mut thread, []);
    assert_eq!(pool.next(&mut thread, || (), || true), Next::Serve(1));
}

const LONG: Duration = Duration::from_secs(20);
