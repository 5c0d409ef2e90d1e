//! Host names: the system's resolver, which blocks, on another thread.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use worker_api::abi::std_types::{RString, RVec};
use worker_api::{Failure, FailureKind, Result};

use crate::deadline::Deadline;

/// Resolves names for threads that may block.
#[derive(Debug, Default)]
pub struct Resolver {
    /// Each lookup holds another reference.
    lookups: Arc<()>,
}

type Found = io::Result<Vec<SocketAddr>>;

impl Resolver {
    /// Looks up the addresses of `host`, and waits until the deadline. A lookup that takes longer continues; at most
    /// [`LOOKUPS_MAX`] run at a time. Calls `awake` at least once a second.
    pub fn resolve(
        &self,
        host: &str,
        port: u16,
        deadline: Deadline,
        awake: impl Fn(),
    ) -> Result<Vec<SocketAddr>> {
        if let Some(address) = literal(host, port) {
            return Ok(vec![address]);
        }
        let name = host.to_owned();
        let found = self.run(host, deadline, awake, move || look_up(&name, port))?;
        found.map_err(|error| unknown(host, &error))
    }

    fn run(
        &self,
        host: &str,
        deadline: Deadline,
        awake: impl Fn(),
        work: impl FnOnce() -> Found + Send + 'static,
    ) -> Result<Found> {
        let lookup = Arc::clone(&self.lookups);
        if Arc::strong_count(&lookup) > 1 + LOOKUPS_MAX {
            let words = format!("cannot resolve {host}: {LOOKUPS_MAX} lookups are running");
            return Err(Failure::new(FailureKind::OTHER, words));
        }
        let (result, arrival) = sync_channel(1);
        start(work, result, lookup)
            .map_err(|error| Failure::io("cannot start a thread for a lookup", &error))?;
        loop {
            let left = deadline.left().unwrap_or(SLICE).min(SLICE);
            match arrival.recv_timeout(left) {
                Ok(found) => return Ok(found),
                Err(RecvTimeoutError::Timeout) if deadline.is_past() => return Err(late(host)),
                Err(RecvTimeoutError::Timeout) => awake(),
                Err(RecvTimeoutError::Disconnected) => {
                    let words = format!("cannot resolve {host}: the lookup panicked");
                    return Err(Failure::new(FailureKind::PANIC, words));
                }
            }
        }
    }
}

fn start(
    work: impl FnOnce() -> Found + Send + 'static,
    result: SyncSender<Found>,
    lookup: Arc<()>,
) -> io::Result<()> {
    let thread = thread::Builder::new().name("resolver".to_owned());
    let run = move || {
        // Signals are handled by the worker's own threads. This cannot fail: the set is valid.
        let _ = SigSet::all().thread_block();
        let found = work();
        drop(lookup);
        // The caller may not wait any more.
        let _ = result.send(found);
    };
    thread.spawn(run).map(drop)
}

/// Returns the address if `host` is one, which needs no lookup.
pub fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}

/// Looks up the addresses of a host, blocking the thread.
fn look_up(host: &str, port: u16) -> Found {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

/// Addresses as they cross the boundary.
pub fn texts(found: &[SocketAddr]) -> RVec<RString> {
    found.iter().map(|address| RString::from(address.to_string())).collect()
}

/// The failure of a lookup that ended with this error.
pub fn unknown(host: &str, error: &io::Error) -> Failure {
    Failure::io(format!("cannot resolve {host}"), error)
}

/// The failure of a lookup that has not ended at the deadline.
pub fn late(host: &str) -> Failure {
    Failure::new(FailureKind::TIMEOUT, format!("cannot resolve {host}: the time has passed"))
}

/// Unresponsive name servers occupy a thread for seconds.
const LOOKUPS_MAX: usize = 64;
/// The longest wait between two calls of `awake`.
const SLICE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::channel;

    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    #[test]
    fn an_address_needs_no_lookup() {
        let resolver = Resolver::default();
        let found = resolver.resolve("::1", 80, Deadline::PAST, || ()).unwrap();
        assert_eq!(found, ["[::1]:80".parse::<SocketAddr>().unwrap()]);
    }

    #[test]
    fn a_lookup_ends_with_its_result_or_at_the_deadline() {
        let resolver = Resolver::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let found = resolver.run("name", Deadline::NEVER, || (), move || Ok(vec![address]));
        assert_eq!(found.unwrap().unwrap(), [address]);
        let (_keep, gone) = channel::<()>();
        let stuck = move || {
            let _ = gone.recv();
            Ok(Vec::new())
        };
        let failure = resolver.run("name", Deadline::from_now(SOON), || (), stuck).unwrap_err();
        assert_eq!(failure.kind, FailureKind::TIMEOUT);
    }

    #[test]
    fn the_heartbeat_continues_and_lookups_are_bounded() {
        let resolver = Resolver::default();
        let beats = Cell::new(0);
        let (end, ended) = channel::<()>();
        let work = move || {
            let _ = ended.recv();
            Ok(Vec::new())
        };
        let end = Cell::new(Some(end));
        let awake = || {
            beats.set(beats.get() + 1);
            end.take();
        };
        assert!(resolver.run("name", Deadline::NEVER, awake, work).unwrap().unwrap().is_empty());
        assert_eq!(beats.get(), 1);
        let _running: Vec<_> = (0..LOOKUPS_MAX).map(|_| Arc::clone(&resolver.lookups)).collect();
        let failure = resolver.run("name", Deadline::NEVER, || (), || Ok(Vec::new())).unwrap_err();
        assert!(failure.message.contains("64 lookups are running"), "{failure}");
    }
}
