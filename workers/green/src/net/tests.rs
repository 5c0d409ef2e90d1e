//! Sockets against each other, and connections parked on the hub.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;
use crate::sync::Event;
use crate::{Hub, Interrupt, Timeout, Trigger, expire_idle, sleep, spawn, yield_now};

const BRIEF: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn more_than_the_buffers_hold_goes_through() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sender = spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            assert!(peer.ip().is_loopback());
            assert_eq!(stream.get_ref().peer_addr().unwrap(), peer);
            let data: Vec<u8> = (0..20_000_000_u32).map(|i| i as u8).collect();
            stream.write_all(&data).unwrap();
        })
        .unwrap();
        let mut stream = TcpStream::connect(("localhost", address.port())).unwrap();
        sleep(BRIEF).unwrap();
        let mut data = Vec::new();
        stream.read_to_end(&mut data).unwrap();
        assert_eq!(data.len(), 20_000_000);
        assert!(data.iter().zip(0_u32..).all(|(byte, i)| *byte == i as u8));
        sender.join().unwrap();
    })
    .unwrap();
}

#[test]
fn connecting_to_a_closed_port_is_an_error() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = TcpStream::connect_to(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    })
    .unwrap();
}

#[test]
fn a_read_ends_by_its_own_timeout_or_by_a_scope() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let (left, mut right) = UnixStream::pair().unwrap();
        right.set_read_timeout(Some(BRIEF));
        let error = right.read(&mut [0]).unwrap_err();
        assert_eq!((error.kind(), Interrupt::of(&error)), (io::ErrorKind::TimedOut, None));
        right.set_read_timeout(None);
        let timeout = Timeout::new(BRIEF).unwrap();
        let error = right.read(&mut [0]).unwrap_err();
        assert!(timeout.caused(&error), "{error}");
        drop(left);
        assert_eq!(right.read(&mut [0]).unwrap(), 0);
    })
    .unwrap();
}

#[test]
fn an_end_that_came_with_the_data_is_seen_after_it() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let reader = spawn(move || {
            let mut buffer = [0; 64];
            let first = right.read(&mut buffer).unwrap();
            (first, right.read(&mut buffer).unwrap())
        })
        .unwrap();
        yield_now().unwrap();
        left.write_all(b"last words").unwrap();
        drop(left);
        assert_eq!(reader.join().unwrap(), (10, 0));
    })
    .unwrap();
}

#[test]
fn an_idle_connection_holds_no_greenlet_and_comes_back_for_each_reason() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let reasons = Rc::new(RefCell::new(Vec::new()));
        let again = Rc::new(Event::new());
        let leave = |stream: UnixStream, timeout: Option<Duration>| {
            let (reasons, again) = (Rc::clone(&reasons), Rc::clone(&again));
            stream.idle(timeout, move |stream, ready| {
                let kind = (ready.is_readable(), ready.is_timed_out(), ready.is_expired());
                reasons.borrow_mut().push((stream, kind));
                again.set();
            });
        };
        let take = || {
            assert_eq!(again.wait(Some(LONG)), Ok(true));
            again.clear();
            reasons.borrow_mut().pop().unwrap()
        };
        let (mut left, right) = UnixStream::pair().unwrap();
        // Registered optimistically: the first read finds nothing.
        assert_eq!(right.try_receive(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        leave(right, Some(BRIEF));
        let (right, why) = take();
        assert_eq!(why, (false, true, false));

        leave(right, Some(LONG));
        left.write_all(b"abc").unwrap();
        let (right, why) = take();
        assert_eq!(why, (true, false, false));
        let mut one = [0];
        right.receive(&mut one).unwrap();

        // Unread data is a reason at once.
        leave(right, Some(LONG));
        let (right, why) = take();
        assert_eq!(why, (true, false, false));
        assert_eq!(right.receive(&mut [0; 16]).unwrap(), 2);

        leave(right, None);
        assert_eq!(expire_idle(), 1);
        let (right, why) = take();
        assert_eq!(why, (false, false, true));

        leave(right, None);
        drop(left);
        let (right, why) = take();
        assert!(why.0);
        assert_eq!(right.receive(&mut [0]).unwrap(), 0);
    })
    .unwrap();
}

#[test]
fn an_exclusive_listener_accepts_in_greenlets_and_by_watch() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Rc::new(TcpListener::from_std(socket, Trigger::Exclusive).unwrap());
        let acceptor = Rc::clone(&listener);
        let greenlet = spawn(move || acceptor.accept().map(drop)).unwrap();
        yield_now().unwrap();
        let _first = TcpStream::connect_to(address).unwrap();
        greenlet.join().unwrap().unwrap();

        let accepted = Rc::new(Cell::new(0));
        let (source, count) = (Rc::downgrade(&listener), Rc::clone(&accepted));
        listener.source().watch(crate::Interest::Read, move |_| {
            let listener = source.upgrade().unwrap();
            while listener.try_accept().is_ok() {
                count.set(count.get() + 1);
            }
            // As a worker that yields to others.
            listener.source().stop().unwrap();
            listener.source().start().unwrap();
        });
        listener.source().start().unwrap();
        let _more: Vec<_> = (0..5).map(|_| TcpStream::connect_to(address).unwrap()).collect();
        sleep(BRIEF).unwrap();
        assert_eq!(accepted.get(), 5);
    })
    .unwrap();
}

#[test]
fn unix_sockets_have_paths() {
    let hub = Hub::new().unwrap();
    let directory = std::env::temp_dir().join(format!("green-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let text = hub.block_on(move || {
        let listener = UnixListener::bind(&path).unwrap();
        spawn(move || listener.accept().unwrap().0.write_all(b"hi").unwrap()).unwrap();
        let mut text = String::new();
        UnixStream::connect(&path).unwrap().read_to_string(&mut text).unwrap();
        text
    });
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(text.unwrap(), "hi");
}

#[test]
fn a_million_timeouts_set_and_ended_leave_nothing_behind() {
    let hub = Hub::new().unwrap();
    hub.block_on(|| {
        let began = Instant::now();
        for _ in 0..1_000_000 {
            drop(Timeout::new(LONG).unwrap());
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    })
    .unwrap();
}
