//! Greenlets from outside: all ways to finish, many at a time, backtraces.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;
use crate::sync::{Event, Queue, Semaphore};
use crate::{Hub, NoSuspend, StackConfig, park, sleep, waker, yield_now};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn results_come_back_and_order_is_that_of_spawning() {
    let hub = Hub::new().unwrap();
    let order = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&order);
    let sum = hub.block_on(move || {
        let handles: Vec<_> = (0..5)
            .map(|i| {
                let order = Rc::clone(&order);
                spawn(move || {
                    order.borrow_mut().push(i);
                    i
                })
                .unwrap()
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).sum::<i32>()
    });
    assert_eq!(sum.unwrap(), 10);
    assert_eq!(*seen.borrow(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_panic_stays_in_its_greenlet_and_is_reported() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let bystander = spawn(|| yield_now().map(|()| "well")).unwrap();
        let error = spawn(|| panic!("number {}", 5)).unwrap().join().unwrap_err();
        let JoinError::Panicked(report) = error else { panic!("{error}") };
        assert_eq!(report.message(), "number 5");
        assert!(report.location().contains("tests.rs:"), "{}", report.location());
        assert!(report.backtrace().to_string().contains("a_panic_stays"), "{}", report.backtrace());
        assert_eq!(bystander.join().unwrap(), Ok("well"));
    })
    .unwrap();
    assert_eq!(hub.greenlets(), 0);
}

#[test]
fn kill_wakes_the_innermost_call_and_unwinds_nothing() {
    struct Mark(Rc<Cell<u32>>);
    impl Drop for Mark {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    fn nested(depth: u32, drops: &Rc<Cell<u32>>) -> Result<(), Interrupt> {
        let _mark = Mark(Rc::clone(drops));
        if depth == 0 { sleep(LONG) } else { nested(depth - 1, drops) }
    }
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let drops = Rc::new(Cell::new(0));
        let seen = Rc::clone(&drops);
        let handle = spawn(move || {
            let first = nested(9, &drops);
            // Delivered once: the next call does block.
            (first, sleep(Duration::from_millis(1)))
        })
        .unwrap();
        yield_now().unwrap();
        handle.kill();
        assert_eq!(handle.join().unwrap(), (Err(Interrupt::Exit), Ok(())));
        assert_eq!(seen.get(), 10);
    })
    .unwrap();
}

#[test]
fn killed_before_it_began_it_never_runs_but_drops_what_it_owns() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let owned = Rc::new(());
        let weak = Rc::downgrade(&owned);
        let handle = spawn(move || drop(owned)).unwrap();
        handle.kill();
        assert!(matches!(handle.join(), Err(JoinError::Killed)));
        assert!(weak.upgrade().is_none());
    })
    .unwrap();
}

#[test]
fn ten_thousand_sleep_together() {
    let hub = Hub::new().unwrap();
    let began = Instant::now();
    hub.block_on(|| {
        let sleepers: Vec<_> =
            (0..10_000).map(|_| spawn(|| sleep(Duration::from_millis(100))).unwrap()).collect();
        for sleeper in sleepers {
            sleeper.join().unwrap().unwrap();
        }
    })
    .unwrap();
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_dropped_hub_leaks_the_suspended_and_makes_room_for_another() {
    struct Loud;
    impl Drop for Loud {
        fn drop(&mut self) {
            panic!("unwound from outside");
        }
    }
    let hub = Hub::new().unwrap();
    assert!(matches!(Hub::new(), Err(crate::HubError::Second)));
    hub.block_on(|| {
        spawn(|| {
            let _loud = Loud;
            let _ = sleep(LONG);
        })
        .unwrap();
        yield_now().unwrap();
    })
    .unwrap();
    assert_eq!(hub.greenlets(), 1);
    drop(hub);
    Hub::new().unwrap().block_on(|| ()).unwrap();
}

#[test]
fn running_out_of_stacks_is_an_error_of_spawn() {
    let stacks = StackConfig { stacks_max: 2, ..StackConfig::default() };
    let hub = Hub::with_stacks(stacks).unwrap();
    hub.block_on(|| {
        let second = spawn(|| ()).unwrap();
        assert!(matches!(spawn(|| ()), Err(SpawnError::Stack(StackError::Exhausted(2)))));
        second.join().unwrap();
        spawn(|| ()).unwrap().join().unwrap();
    })
    .unwrap();
}

#[inline(never)]
fn a_distinctive_place() -> Result<(), Interrupt> {
    let slept = sleep(LONG);
    std::hint::black_box(&slept);
    slept
}

#[test]
fn a_suspended_greenlet_tells_where_it_stands_and_stays_there() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let handle = spawn(a_distinctive_place).unwrap();
        assert!(handle.greenlet().trace().is_none(), "it has not begun");
        yield_now().unwrap();
        for _ in 0..2 {
            let trace = handle.greenlet().trace().unwrap().to_string();
            assert!(trace.contains("a_distinctive_place"), "{trace}");
        }
        assert!(!handle.is_finished());
        handle.kill();
        assert_eq!(handle.join().unwrap(), Err(Interrupt::Exit));
    })
    .unwrap();
}

#[test]
fn wakers_wake_from_other_threads_and_beforehand() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let elsewhere = waker().unwrap();
        let thread = std::thread::spawn(move || elsewhere.wake());
        assert_eq!(park(Some(LONG)), Ok(true));
        thread.join().unwrap();
        waker().unwrap().wake();
        yield_now().unwrap();
        assert_eq!(park(Some(LONG)), Ok(true), "woken before it parked");
        assert_eq!(park(Some(Duration::from_millis(1))), Ok(false));
    })
    .unwrap();
}

#[test]
fn a_permit_given_to_a_killed_waiter_is_not_lost() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let waiter = Rc::clone(&semaphore);
        let handle = spawn(move || {
            let got = waiter.acquire(None);
            waiter.release();
            got
        })
        .unwrap();
        yield_now().unwrap();
        semaphore.release();
        handle.kill();
        assert_eq!(handle.join().unwrap(), Ok(true));
        assert_eq!(semaphore.permits(), 1);
    })
    .unwrap();
}

#[test]
fn a_killed_waiter_leaves_the_line() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let spawn_waiter = || {
            let semaphore = Rc::clone(&semaphore);
            spawn(move || semaphore.acquire(Some(LONG))).unwrap()
        };
        let (first, second) = (spawn_waiter(), spawn_waiter());
        yield_now().unwrap();
        assert_eq!(semaphore.waiting(), 2);
        first.kill();
        assert_eq!(first.join().unwrap(), Err(Interrupt::Exit));
        semaphore.release();
        assert_eq!(second.join().unwrap(), Ok(true));
        assert_eq!(semaphore.acquire(Some(Duration::from_millis(1))), Ok(false));
    })
    .unwrap();
}

#[test]
fn a_queue_is_bounded_and_in_order() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let queue = Rc::new(Queue::new(2));
        let sink = Rc::clone(&queue);
        let producer = spawn(move || {
            for i in 0..10 {
                sink.put(i, None).unwrap().unwrap();
                assert!(sink.len() <= 2);
            }
        })
        .unwrap();
        let got: Vec<i32> = (0..10).map(|_| queue.get(None).unwrap().unwrap()).collect();
        assert_eq!(got, (0..10).collect::<Vec<_>>());
        producer.join().unwrap();
        assert_eq!(queue.get(Some(Duration::from_millis(1))), Ok(None));
        assert!(queue.try_put(1).is_ok() && queue.try_put(2).is_ok());
        assert_eq!(queue.try_put(3), Err(crate::sync::Full(3)));
    })
    .unwrap();
}

#[test]
fn an_event_wakes_all_and_stays_set() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let event = Rc::new(Event::new());
        assert_eq!(event.wait(Some(Duration::from_millis(1))), Ok(false));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let event = Rc::clone(&event);
                spawn(move || event.wait(None)).unwrap()
            })
            .collect();
        yield_now().unwrap();
        event.set();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(true));
        }
        assert_eq!(event.wait(None), Ok(true));
    })
    .unwrap();
}

#[test]
fn blocking_calls_elsewhere_are_refused() {
    assert_eq!(sleep(LONG), Err(Interrupt::Outside));
    assert!(matches!(spawn(|| ()), Err(SpawnError::NoHub)));
    let hub = Hub::new().unwrap();
    assert_eq!(sleep(LONG), Err(Interrupt::Outside));
    hub.block_on(|| {
        struct Sleeper(Rc<Cell<Option<Result<(), Interrupt>>>>);
        impl Drop for Sleeper {
            fn drop(&mut self) {
                self.0.set(Some(sleep(LONG)));
            }
        }
        let seen = Rc::new(Cell::new(None));
        let sleeper = Sleeper(Rc::clone(&seen));
        let handle = spawn(move || {
            let _sleeper = sleeper;
            panic!("on purpose");
        })
        .unwrap();
        handle.join().map(|(): ()| ()).unwrap_err();
        assert_eq!(seen.get(), Some(Err(Interrupt::Unwinding)));
    })
    .unwrap();
}

#[test]
#[cfg(debug_assertions)]
fn a_broken_claim_not_to_suspend_is_caught() {
    let hub = Hub::new().unwrap();
    let error = hub
        .block_on(|| {
            let _claim = NoSuspend::new();
            let _ = sleep(Duration::from_millis(1));
        })
        .unwrap_err();
    assert!(error.to_string().contains("claimed not to"), "{error}");
}
