//! Connections that the application opens: the part that the runtimes of all classes share. How they wait and resolve names
//! is theirs.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr,
    connect as connect_to, getsockopt, socket, sockopt::SocketError,
};
use worker_api::raw::{Interest, RawRuntime};
use worker_api::{Failure, FailureKind, Result};

use crate::clock::now_ns;
use crate::deadline::Deadline;

/// Connects as [`worker_api::Runtime::connect`] documents, with the waits of `runtime`. Returns a non-blocking socket.
pub fn connect(runtime: &impl RawRuntime, address: &str, timeout_ns: u64) -> Result<OwnedFd> {
    let deadline = Deadline::at_ns(now_ns()).later_by(timeout_ns);
    let connecting = Connecting { runtime, deadline, address };
    match address.strip_prefix("unix:") {
        Some("") => Err(connecting.malformed()),
        Some(path) => {
            let path = UnixAddr::new(path).map_err(|errno| connecting.failed(errno))?;
            connecting.to(AddressFamily::Unix, &path)
        }
        None => connecting.to_first(&connecting.addresses()?),
    }
}

/// An address of TCP: a literal one, or a name to resolve.
enum Target<'a> {
    Address(SocketAddr),
    Name(&'a str, u16),
}

struct Connecting<'a, R> {
    runtime: &'a R,
    deadline: Deadline,
    /// For messages.
    address: &'a str,
}

impl<R: RawRuntime> Connecting<'_, R> {
    fn addresses(&self) -> Result<Vec<SocketAddr>> {
        match parse(self.address).ok_or_else(|| self.malformed())? {
            Target::Address(address) => Ok(vec![address]),
            Target::Name(name, port) => {
                let found =
                    self.runtime.resolve(name.into(), port, self.left_ns()).into_result()?;
                Ok(found.iter().filter_map(|address| address.parse().ok()).collect())
            }
        }
    }

    fn to_first(&self, addresses: &[SocketAddr]) -> Result<OwnedFd> {
        let mut last = None;
        for &address in addresses {
            let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            match self.to(family, &SockaddrStorage::from(address)) {
                // Another address does not help if the time has passed, or the request has ended.
                Err(failure) if failure.kind == FailureKind::IO => last = Some(failure),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| self.failed(Errno::EADDRNOTAVAIL)))
    }

    fn to(&self, family: AddressFamily, address: &dyn SockaddrLike) -> Result<OwnedFd> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd =
            socket(family, SockType::Stream, flags, None).map_err(|errno| self.failed(errno))?;
        loop {
            match connect_to(fd.as_raw_fd(), address) {
                Ok(()) => return Ok(fd),
                Err(Errno::EINPROGRESS) => break,
                // The kernel does not report when the full backlog of a unix socket has room again.
                Err(Errno::EAGAIN) if family == AddressFamily::Unix => self.pause()?,
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        let ready = self.runtime.wait_fd(fd.as_raw_fd(), Interest::WRITE, self.left_ns());
        if !ready.into_result()? {
            return Err(self.late());
        }
        match getsockopt(&fd, SocketError).map_err(|errno| self.failed(errno))? {
            0 => Ok(fd),
            number => Err(self.failed(Errno::from_raw(number))),
        }
    }

    fn pause(&self) -> Result<()> {
        match self.left_ns().min(BACKLOG_RETRY_NS) {
            0 => Err(self.late()),
            ns => self.runtime.sleep(ns).into_result(),
        }
    }

    fn left_ns(&self) -> u64 {
        self.deadline.left_ns_at(now_ns())
    }

    fn late(&self) -> Failure {
        let words = format!("cannot connect to {}: the time has passed", self.address);
        Failure::new(FailureKind::TIMEOUT, words)
    }

    fn failed(&self, errno: Errno) -> Failure {
        let error = io::Error::from(errno);
        Failure::io(format!("cannot connect to {}", self.address), &error)
    }

    fn malformed(&self) -> Failure {
        Failure::application(format!(
            "cannot connect to `{}`: write HOST:PORT, [IPV6]:PORT or unix:PATH",
            self.address
        ))
    }
}

fn parse(text: &str) -> Option<Target<'_>> {
    if let Ok(address) = text.parse() {
        return Some(Target::Address(address));
    }
    let (name, port) = text.rsplit_once(':')?;
    let is_name = !name.is_empty() && !name.contains([':', '[', ']', '\0']);
    is_name.then_some(Target::Name(name, port.parse().ok()?))
}

const BACKLOG_RETRY_NS: u64 = 5_000_000;

#[cfg(test)]
mod tests {
    use worker_api::testing::TestRuntime;

    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let address = |text| match parse(text) {
            Some(Target::Address(address)) => Some(address.to_string()),
            Some(Target::Name(name, port)) => Some(format!("{name} {port}")),
            None => None,
        };
        assert_eq!(address("127.0.0.1:80").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(address("[::1]:80").as_deref(), Some("[::1]:80"));
        assert_eq!(address("example.org:80").as_deref(), Some("example.org 80"));
        for wrong in ["", "example.org", ":80", "::1:80", "a:b:80", "example.org:99999", "[::1]"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    /// What an application's own tests see is what it gets under a worker class.
    #[test]
    fn the_double_of_the_runtime_fails_as_those_of_the_classes() {
        let too_long = format!("unix:/{}", "x".repeat(200));
        for address in [
            "",
            "unix:",
            "unix:/nowhere/socket",
            "unix:/a\0b",
            &too_long,
            "no port",
            ":80",
            "::1:80",
            "[::1]",
            "a:b:80",
            "a\0b:80",
            "127.0.0.1:99999",
            "127.0.0.1:1",
        ] {
            let ours = connect(&TestRuntime, address, 10_000_000_000).map(drop).unwrap_err();
            let double = TestRuntime.connect(address.into(), 10_000_000_000).into_result();
            let double = double.unwrap_err();
            assert_eq!(double.kind, ours.kind, "{address:?}: {double} and {ours}");
            assert_eq!(double.message, ours.message, "{address:?}");
        }
    }
}
