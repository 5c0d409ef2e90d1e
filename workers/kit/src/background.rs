//! What an application does beside requests, and a worker that ends waits for: connections that it has taken over, and
//! tasks that it has spawned.

use std::collections::HashSet;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::stat::fstat;

use crate::socket::borrow;

/// The connections and tasks of one worker.
#[derive(Debug, Default)]
pub struct Background {
    tasks: AtomicUsize,
    taken_over: Mutex<TakenOver>,
}

/// A task that runs, until it is dropped.
#[derive(Debug)]
pub struct Task(Arc<Background>);

/// Connections that were taken over, by the number that the kernel gives each socket: the application may hold them by
/// whatever descriptors it likes.
#[derive(Debug, Default)]
struct TakenOver {
    sockets: Vec<u64>,
    /// From how many on those that are closed are forgotten.
    crowded: usize,
}

impl Background {
    /// A task begins.
    pub fn begin_task(self: &Arc<Self>) -> Task {
        self.tasks.fetch_add(1, Ordering::AcqRel);
        Task(Arc::clone(self))
    }

    /// Whether no task runs, and every connection that was taken over is closed. Looks through the process's
    /// descriptors where there are any: for a worker that ends.
    pub fn is_idle(&self) -> bool {
        self.tasks.load(Ordering::Acquire) == 0 && self.open_connections() == 0
    }

    /// The application takes over the connection with this descriptor.
    pub(crate) fn take_over(&self, fd: RawFd) {
        let Ok(facts) = fstat(borrow(fd)) else { return };
        let mut taken_over = self.lock();
        if taken_over.sockets.len() >= taken_over.crowded {
            taken_over.forget_closed();
            taken_over.crowded = (taken_over.sockets.len() * 2).max(CROWDED_MIN);
        }
        taken_over.sockets.push(facts.st_ino);
    }

    fn open_connections(&self) -> usize {
        let mut taken_over = self.lock();
        taken_over.forget_closed();
        taken_over.sockets.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TakenOver> {
        self.taken_over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::AcqRel);
    }
}

impl TakenOver {
    fn forget_closed(&mut self) {
        if !self.sockets.is_empty() {
            let open = open_sockets();
            self.sockets.retain(|socket| open.contains(socket));
        }
    }
}

/// The numbers of the sockets that this process has open; none where it may not look.
fn open_sockets() -> HashSet<u64> {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return HashSet::new() };
    let number = |path: std::path::PathBuf| {
        path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(number)
        .collect()
}

/// From how many connections on those that are closed are looked for before the end.
const CROWDED_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_connection_counts_until_its_last_descriptor_is_closed() {
        let background = Background::default();
        let (taken, _peer) = UnixStream::pair().unwrap();
        background.take_over(taken.as_raw_fd());
        let duplicate = taken.try_clone().unwrap();
        drop(taken);
        assert!(!background.is_idle());
        drop(duplicate);
        assert!(background.is_idle());
    }

    #[test]
    fn a_task_counts_until_its_end() {
        let background = Arc::new(Background::default());
        let task = background.begin_task();
        assert!(!background.is_idle());
        drop(task);
        assert!(background.is_idle());
    }
}
