//! One connection of the load generator: sends a request, reads the response, repeats.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use super::answer::{Answer, Step};
use super::websocket::{Echo, Upgrade};
use super::{Plan, invalid};

/// A connection with at most one batch of requests in progress: one request, or several that are pipelined.
pub(super) struct Connection<'plan> {
    stream: TcpStream,
    plan: &'plan Plan,
    sent: usize,
    /// Number of requests in progress.
    outstanding: usize,
    reply: Reply,
    begun: Instant,
    /// Time-out for the server to close after the response has been received.
    latency_us: Option<u32>,
    usable: bool,
}

/// What is being received.
enum Reply {
    /// Response to a request.
    Answer(Answer),
    /// Response to the handshake of a WebSocket.
    Upgrade(Upgrade),
    /// Message on a WebSocket.
    Echo(Echo),
}

/// Result of the batch in progress.
pub(super) enum Progress {
    /// None yet: an event will follow.
    Waiting,
    /// Last response received after this number of microseconds.
    Answered(u32),
    /// A response is missing or invalid. The connection is no longer usable.
    Failed,
}

impl<'plan> Connection<'plan> {
    /// Starts to connect and watches the descriptor under the number `at`.
    pub(super) fn open(plan: &'plan Plan, epoll: &Epoll, at: usize) -> io::Result<Self> {
        let begun = Instant::now();
        let stream = begin_connect(plan.address)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(stream.as_fd(), EpollEvent::new(flags, at as u64))?;
        let reply = match plan.message {
            Some(_) => Reply::Upgrade(Upgrade::default()),
            None => Reply::Answer(Answer::default()),
        };
        Ok(Self {
            stream,
            plan,
            sent: 0,
            outstanding: 0,
            reply,
            begun,
            latency_us: None,
            usable: true,
        })
    }

    /// Starts the next batch. On a new connection its time has started with the connection.
    pub(super) fn begin(&mut self) {
        if self.sent > 0 {
            self.begun = Instant::now();
        }
        self.sent = 0;
        self.outstanding = self.plan.pipeline;
        match &mut self.reply {
            Reply::Answer(answer) => *answer = Answer::default(),
            Reply::Echo(echo) => *echo = Echo::default(),
            Reply::Upgrade(_) => {}
        }
        self.latency_us = None;
    }

    /// Returns whether another request may follow.
    pub(super) fn is_reusable(&self) -> bool {
        self.usable && self.plan.keep_alive
    }

    /// Sends and reads as far as possible without blocking. What is read goes only into `part`.
    pub(super) fn proceed(&mut self, part: &mut [u8]) -> Progress {
        if self.outstanding == 0 && self.latency_us.is_none() {
            return Progress::Waiting;
        }
        match self.try_proceed(part) {
            Ok(Some(latency_us)) => Progress::Answered(latency_us),
            Ok(None) => Progress::Waiting,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Waiting,
            Err(_) => {
                self.usable = false;
                Progress::Failed
            }
        }
    }

    fn try_proceed(&mut self, part: &mut [u8]) -> io::Result<Option<u32>> {
        if !self.send()? {
            return Ok(None);
        }
        loop {
            let bytes = self.stream.read(part)?;
            if let Some(latency_us) = self.latency_us {
                return if bytes == 0 {
                    Ok(Some(latency_us))
                } else {
                    Err(invalid("more came than was announced"))
                };
            }
            if self.receive(&part[..bytes])? == Step::Complete {
                self.outstanding = 0;
                let latency_us =
                    u32::try_from(self.begun.elapsed().as_micros()).unwrap_or(u32::MAX);
                if self.plan.keep_alive || bytes == 0 {
                    return Ok(Some(latency_us));
                }
                self.latency_us = Some(latency_us);
            }
        }
    }

    /// Sends as much as possible. Returns whether the connection is established.
    fn send(&mut self) -> io::Result<bool> {
        let output = match (&self.reply, &self.plan.message) {
            (Reply::Echo(_), Some(message)) => &message.frame,
            _ => &self.plan.request,
        };
        while self.sent < output.len() {
            match self.stream.write(&output[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                // An early response may have arrived although the request cannot be sent
                // completely.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Processes what was read. A WebSocket that is open sends its first message.
    fn receive(&mut self, part: &[u8]) -> io::Result<Step> {
        match (&mut self.reply, &self.plan.message) {
            (Reply::Answer(answer), _) => {
                self.usable = take_answers(answer, &mut self.outstanding, part)?;
                Ok(if self.outstanding == 0 { Step::Complete } else { Step::More })
            }
            (Reply::Echo(echo), Some(message)) => echo.take(part, message),
            (Reply::Upgrade(upgrade), _) => {
                if upgrade.take(part)? == Step::Complete {
                    self.reply = Reply::Echo(Echo::default());
                    self.sent = 0;
                    self.send()?;
                }
                Ok(Step::More)
            }
            (Reply::Echo(_), None) => Err(invalid("more came than was announced")),
        }
    }
}

/// Processes a part of the outstanding responses. Returns whether the connection is usable.
fn take_answers(answer: &mut Answer, outstanding: &mut usize, mut part: &[u8]) -> io::Result<bool> {
    let closed = part.is_empty();
    loop {
        let (step, taken) = answer.take(part)?;
        if step == Step::More {
            return Ok(!closed);
        }
        part = &part[taken..];
        *outstanding -= 1;
        let usable = !closed && !answer.closes();
        match (*outstanding, part.is_empty()) {
            (0, true) => return Ok(usable),
            (0, false) => return Err(invalid("more came than was announced")),
            _ if !usable => return Err(invalid("closed before the last response")),
            (_, is_empty) => {
                *answer = Answer::default();
                if is_empty {
                    return Ok(true);
                }
            }
        }
    }
}

/// Sends a request over a new blocking connection and reads the response.
pub(super) fn ask_once(address: SocketAddr, request: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(super::STALL))?;
    stream.write_all(request)?;
    let mut answer = Answer::default();
    let mut part = [0; 4096];
    loop {
        let bytes = stream.read(&mut part)?;
        match answer.take(&part[..bytes])? {
            (Step::More, _) => {}
            (Step::Complete, taken) if taken == bytes => return Ok(stream),
            (Step::Complete, _) => return Err(invalid("more came than was announced")),
        }
    }
}

/// A non-blocking connect, which std does not have.
fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    let address = SockaddrStorage::from(address);
    match connect(socket.as_raw_fd(), &address) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

    /// Returns how many responses are missing after these bytes, of two.
    fn missing(part: &[u8]) -> io::Result<usize> {
        let mut outstanding = 2;
        take_answers(&mut Answer::default(), &mut outstanding, part).map(|_| outstanding)
    }

    #[test]
    fn as_many_responses_come_as_requests_were_sent() {
        for (part, left) in [(ANSWER.to_vec(), 1), (ANSWER.repeat(2), 0)] {
            assert_eq!(missing(&part).unwrap(), left);
        }
        assert!(missing(&ANSWER.repeat(3)).is_err(), "more came than was announced");
        let last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert!(missing(last).is_err(), "closed before the second");
        assert!(missing(b"").is_err());
    }
}
