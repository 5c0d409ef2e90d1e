//! Properties of a process from the kernel: descriptors, memory, signals, listening sockets.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use nix::sys::signal::Signal;

/// Returns the number of open descriptors of the process.
pub(super) fn descriptors(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Returns the resident memory of the process in KiB.
pub(super) fn memory_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns whether no thread of the process accepts this signal.
pub(super) fn blocks(pid: u32, signal: Signal) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut masks = tasks.filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    let bit = 1 << (signal as u32 - 1);
    masks.all(|mask| mask & bit != 0)
}

/// Returns whether the process exists and is not a zombie.
pub(super) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(|state| state != 'Z'))
        && !stat.is_empty()
}

/// Returns the process's descriptors that listen on this address, and whether each is non-blocking.
pub(super) fn listeners(pid: u32, address: SocketAddr) -> Vec<bool> {
    let inodes = listening_inodes(address);
    let directory = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        inodes.contains(&inode).then(|| entry.file_name().to_string_lossy().into_owned())
    };
    entries.filter_map(number).map(|number| is_nonblocking(pid, &number)).collect()
}

fn is_nonblocking(pid: u32, number: &str) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_NONBLOCK != 0)
}

/// Returns the inodes of the sockets that listen on this address (IPv4).
fn listening_inodes(address: SocketAddr) -> BTreeSet<String> {
    let SocketAddr::V4(address) = address else { return BTreeSet::new() };
    let bytes = u32::from_ne_bytes(address.ip().octets());
    let local = format!("{bytes:08X}:{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&LISTENING);
        fields.get(9).filter(|_| listens).map(|&inode| inode.to_owned())
    };
    table.lines().filter_map(inode).collect()
}

/// State of a listening socket in the kernel's table.
const LISTENING: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_process_and_its_listener_are_found() {
        let own = std::process::id();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listeners(own, address), [false]);
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listeners(own, address), [true]);
        drop(listener);
        assert!(listeners(own, address).is_empty());
        assert!(lives(own) && descriptors(own).unwrap() > 2 && memory_kib(own).unwrap() > 100);
        assert!(crate::process::processor_time(own).is_some());
        assert!(!lives(u32::MAX));
    }
}
