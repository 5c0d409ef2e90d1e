//! The turn: guest mode, other threads, fairness, callbacks.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ready::{Interest, Trigger};
use super::source::Source;
use super::turn::READY_PER_TURN_MAX;
use super::*;
use crate::interrupt::Interrupt;
use crate::net::UnixStream;
use crate::{spawn, wait_fd};

const LONG: Duration = Duration::from_secs(30);

/// A loop that knows nothing of the hub but its descriptor.
fn drive(hub: &Hub, until: impl Fn() -> bool) {
    let give_up = Instant::now() + LONG;
    while !until() {
        assert!(Instant::now() < give_up, "the descriptor was not readable in time");
        let descriptor = hub.descriptor().unwrap();
        let mut fds = [PollFd::new(descriptor, PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(1000_u16)).unwrap() > 0 {
            hub.turn().unwrap();
        }
    }
}

#[test]
fn a_bare_poll_loop_drives_the_hub() {
    let hub = Hub::new().unwrap();
    let done = Rc::new(Cell::new(0));
    // Made ready before the loop begins, by a timer, by a descriptor, by a thread.
    let count = Rc::clone(&done);
    spawn(move || {
        sleep(Duration::from_millis(20)).unwrap();
        count.set(count.get() + 1);
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let reader = spawn(move || {
            let mut text = String::new();
            right.read_to_string(&mut text).unwrap();
            text
        })
        .unwrap();
        left.write_all(b"there").unwrap();
        drop(left);
        assert_eq!(reader.join().unwrap(), "there");
        count.set(count.get() + 1);
        assert_eq!(crate::offload(|| 5).unwrap(), 5);
        count.set(count.get() + 1);
    })
    .unwrap();
    drive(&hub, || done.get() == 3);
    // Spawned and timed from outside a turn, by the guest itself.
    let count = Rc::clone(&done);
    let timer = Timer::new(move || count.set(count.get() + 1)).unwrap();
    timer.set(Duration::from_millis(10));
    drive(&hub, || done.get() == 4);
    let count = Rc::clone(&done);
    spawn(move || count.set(count.get() + 1)).unwrap();
    drive(&hub, || done.get() == 5);
    // More than one turn's worth.
    for _ in 0..2 * READY_PER_TURN_MAX {
        let count = Rc::clone(&done);
        spawn(move || count.set(count.get() + 1)).unwrap();
    }
    drive(&hub, || done.get() == 5 + 2 * READY_PER_TURN_MAX);
}

#[test]
fn an_idle_guest_is_not_readable() {
    let hub = Hub::new().unwrap();
    spawn(|| sleep(LONG)).unwrap();
    hub.turn().unwrap();
    let descriptor = hub.descriptor().unwrap();
    hub.turn().unwrap();
    let mut fds = [PollFd::new(descriptor, PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(30_u16)).unwrap(), 0);
}

#[test]
fn other_threads_run_things_on_the_hub() {
    let hub = Hub::new().unwrap();
    let handle = hub.handle();
    let thread = std::thread::spawn(move || {
        handle.call(|| {
            spawn(Hub::stop).unwrap();
        });
    });
    hub.run().unwrap();
    thread.join().unwrap();
}

#[test]
fn a_greedy_greenlet_starves_neither_timers_nor_others() {
    let hub = Hub::new().unwrap();
    let rounds = hub.block_on(|| {
        let (left, right) = UnixStream::pair().unwrap();
        let greedy = spawn(move || {
            let mut rounds = 0_u64;
            let mut buffer = [0; 8];
            // Each send makes the receive ready: nothing here ever waits.
            while left.send(b"12345678").is_ok() && right.receive(&mut buffer).is_ok() {
                rounds += 1;
            }
            rounds
        })
        .unwrap();
        let began = Instant::now();
        sleep(Duration::from_millis(20)).unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        greedy.kill();
        greedy.join().unwrap()
    });
    assert!(rounds.unwrap() > 0);
}

#[test]
fn a_watch_can_be_paused_and_loses_nothing() {
    for trigger in [Trigger::Edge, Trigger::Level] {
        let hub = Hub::new().unwrap();
        hub.block_on(move || {
            let (left, right) = StdUnixStream::pair().unwrap();
            right.set_nonblocking(true).unwrap();
            let source = Rc::new(Source::new(right, trigger).unwrap());
            let got = Rc::new(Cell::new(0));
            let (watched, count) = (Rc::downgrade(&source), Rc::clone(&got));
            source.watch(Interest::Read, move |_| {
                let source = watched.upgrade().unwrap();
                let mut buffer = [0; 1];
                if source.try_io(Interest::Read, |mut s| s.read(&mut buffer)).is_ok() {
                    count.set(count.get() + 1);
                }
            });
            source.start().unwrap();
            (&left).write_all(b"abc").unwrap();
            sleep(Duration::from_millis(5)).unwrap();
            assert_eq!(got.get(), 3, "one byte a call, {trigger:?}");
            source.stop().unwrap();
            (&left).write_all(b"de").unwrap();
            sleep(Duration::from_millis(5)).unwrap();
            assert_eq!(got.get(), 3, "paused, {trigger:?}");
            source.start().unwrap();
            sleep(Duration::from_millis(5)).unwrap();
            assert_eq!(got.get(), 5, "resumed, {trigger:?}");
        })
        .unwrap();
    }
}

#[test]
fn a_deferred_source_reports_what_arrived_before_it_was_registered() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let (left, mut right) = StdUnixStream::pair().unwrap();
        let source = Source::of_raw_deferred(right.as_raw_fd()).unwrap();
        assert!(source.take_ready(Interest::Write).unwrap(), "unknown counts as ready");
        (&left).write_all(b"a").unwrap();
        assert!(!source.take_ready(Interest::Read).unwrap(), "its owner has read");
        assert!(source.wait(Interest::Read, Some(LONG)).unwrap(), "the registration reports it");
        assert!(source.take_ready(Interest::Read).unwrap());
        right.read_exact(&mut [0]).unwrap();

        let waiting = Source::of_raw_deferred(left.as_raw_fd()).unwrap();
        right.write_all(b"b").unwrap();
        assert!(waiting.wait(Interest::Read, Some(LONG)).unwrap(), "a wait registers, too");
    })
    .unwrap();
}

#[test]
fn a_panic_in_a_callback_ends_that_call_only() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let timer = Timer::new(move || {
            count.set(count.get() + 1);
            assert_ne!(count.get(), 1, "the first call panics");
        })
        .unwrap();
        for _ in 0..2 {
            timer.set(Duration::from_millis(1));
            sleep(Duration::from_millis(5)).unwrap();
        }
        assert_eq!(calls.get(), 2);
    })
    .unwrap();
}

#[test]
fn wait_fd_watches_anything() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let (left, right) = StdUnixStream::pair().unwrap();
        let brief = Some(Duration::from_millis(5));
        let fd = right.as_raw_fd();
        assert!(!wait_fd(fd, Interest::Read, brief).unwrap());
        assert!(wait_fd(fd, Interest::Write, brief).unwrap());
        // Two greenlets, one descriptor.
        let waiters: Vec<_> = (0..2)
            .map(|_| spawn(move || wait_fd(fd, Interest::Read, Some(LONG)).unwrap()).unwrap())
            .collect();
        yield_now().unwrap();
        (&left).write_all(b"x").unwrap();
        for waiter in waiters {
            assert!(waiter.join().unwrap());
        }
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(wait_fd(file.as_raw_fd(), Interest::Read, brief).unwrap(), "always ready");
        for number in [-1, RawFd::MAX] {
            let error = wait_fd(number, Interest::Read, brief).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        }
    })
    .unwrap();
}

#[test]
fn a_sources_second_reader_is_refused() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let (_left, right) = UnixStream::pair().unwrap();
        let right = Rc::new(right);
        let first = Rc::clone(&right);
        let waiter = spawn(move || first.receive(&mut [0])).unwrap();
        yield_now().unwrap();
        let error = right.receive(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        waiter.kill();
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(Interrupt::of(&error), Some(Interrupt::Exit));
    })
    .unwrap();
}
