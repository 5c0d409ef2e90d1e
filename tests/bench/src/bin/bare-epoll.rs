//! The floor: an epoll loop without parsing that sends the same bytes for whatever it reads. Not a server,
//! because it assumes that each read is one complete request; the difference to it is the cost of a server.
//!
//! `bare-epoll ADDRESS [--close]`

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:8000".into());
    let close = words.next().is_some_and(|word| word == "--close");
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut request = [0; 16 * 1024];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            if event.data() == LISTENER {
                accept(&listener, &epoll, &mut streams)?;
                continue;
            }
            let slot = &mut streams[event.data() as usize];
            let keep = slot.as_mut().is_some_and(|stream| answer(stream, &mut request) && !close);
            if !keep {
                *slot = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    epoll: &Epoll,
    streams: &mut Vec<Option<TcpStream>>,
) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let free = streams.iter().position(Option::is_none).unwrap_or(streams.len());
        epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, free as u64))?;
        match streams.get_mut(free) {
            Some(slot) => *slot = Some(stream),
            None => streams.push(Some(stream)),
        }
    }
    Ok(())
}

/// Reads once and responds once. Returns whether the connection is still usable.
fn answer(stream: &mut TcpStream, request: &mut [u8]) -> bool {
    match stream.read(request) {
        Ok(0) => false,
        Ok(_) => stream.write_all(ANSWER).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

const LISTENER: u64 = u64::MAX;
/// As long as the response of a server with Server and Date headers.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: bare\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
Content-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, world!\n";
