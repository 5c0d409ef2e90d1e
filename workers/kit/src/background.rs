//! Work of the application outside of requests, for which a draining worker waits: connections it has taken over,
//! and tasks it has spawned.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::stat::fstat;

/// The connections that the application took over and the tasks it spawned in one worker.
#[derive(Debug, Default)]
pub struct Background {
    tasks: AtomicUsize,
    taken_over: Mutex<TakenOver>,
}

/// A running task; it ends when this is dropped.
#[derive(Debug)]
pub struct Task(Arc<Background>);

/// Connections that were taken over, identified by the inode of the socket, since the application may hold them
/// through any descriptor.
#[derive(Debug, Default)]
struct TakenOver {
    sockets: Vec<u64>,
    /// The number of sockets at which closed ones are pruned.
    prune_at: usize,
}

impl Background {
    /// Registers a new task.
    pub fn begin_task(self: &Arc<Self>) -> Task {
        self.tasks.fetch_add(1, Ordering::AcqRel);
        Task(Arc::clone(self))
    }

    /// Returns whether no task is running and every connection that was taken over is closed. Scans the
    /// process's descriptors if there are any such connections, so call it only while draining.
    pub fn is_idle(&self) -> bool {
        self.tasks.load(Ordering::Acquire) == 0 && self.open_connections() == 0
    }

    /// Records that the application takes over the connection with this socket.
    pub(crate) fn take_over(&self, socket: BorrowedFd<'_>) {
        let Ok(status) = fstat(socket) else { return };
        let mut taken_over = self.lock();
        if taken_over.sockets.len() >= taken_over.prune_at {
            taken_over.prune_closed();
            taken_over.prune_at = (taken_over.sockets.len() * 2).max(PRUNE_MIN);
        }
        taken_over.sockets.push(status.st_ino);
    }

    fn open_connections(&self) -> usize {
        let mut taken_over = self.lock();
        taken_over.prune_closed();
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
    fn prune_closed(&mut self) {
        if !self.sockets.is_empty() {
            let open = open_sockets();
            self.sockets.retain(|socket| open.contains(socket));
        }
    }
}

/// Returns the inodes of the process's open sockets; empty if `/proc` is not accessible.
fn open_sockets() -> HashSet<u64> {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return HashSet::new() };
    let inode = |path: std::path::PathBuf| {
        path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(inode)
        .collect()
}

/// The minimum number of sockets before closed ones are pruned.
const PRUNE_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_connection_counts_until_its_last_descriptor_is_closed() {
        let background = Background::default();
        let (taken, _peer) = UnixStream::pair().unwrap();
        background.take_over(taken.as_fd());
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
