//! Number of connections in the backlogs of listening sockets, from the kernel's socket diagnosis
//! (`sock_diag(7)`). This process does not hold the sockets themselves: a listener exists while a process holds
//! it, and only the arbiter and workers decide about that. Sockets are identified by their inodes.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

/// Backlog of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) waiting: u32,
    pub(super) max: u32,
}

/// Returns all listening sockets of this network namespace by their inodes; empty if the kernel does not report
/// them.
pub(super) fn read() -> HashMap<u64, Backlog> {
    let mut found = HashMap::new();
    for request in [inet_request(AF_INET), inet_request(AF_INET6), unix_request()] {
        if let Err(error) = ask(&request, &mut found) {
            tracing::debug!("the kernel does not report backlogs: {error}");
        }
    }
    found
}

fn ask(request: &[u8], found: &mut HashMap<u64, Backlog>) -> nix::Result<()> {
    let socket: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // The kernel responds at once; if it does not, this process continues.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER_SIZE];
    for _ in 0..PACKETS_MAX {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if length == 0 || read_messages(&buffer[..length], found) {
            break;
        }
    }
    Ok(())
}

/// Processes the messages of one packet; returns true after the last one.
fn read_messages(mut packet: &[u8], found: &mut HashMap<u64, Backlog>) -> bool {
    while let (Some(length), Some(kind)) = (word(packet, 0), half(packet, 4)) {
        let length = length as usize;
        if kind != SOCK_DIAG_BY_FAMILY || length < HEADER || length > packet.len() {
            return true;
        }
        let body = &packet[HEADER..length];
        let listener = match body.first().copied().map(u16::from) {
            Some(AF_UNIX) => read_unix(body),
            _ => read_inet(body),
        };
        found.extend(listener);
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// `struct inet_diag_msg`: for a listener, `rqueue` is the length of the backlog and `wqueue` its limit.
fn read_inet(body: &[u8]) -> Option<(u64, Backlog)> {
    let backlog = Backlog { waiting: word(body, 56)?, max: word(body, 60)? };
    Some((u64::from(word(body, 68)?), backlog))
}

/// `struct unix_diag_msg` followed by the attribute `UNIX_DIAG_RQLEN`.
fn read_unix(body: &[u8]) -> Option<(u64, Backlog)> {
    let inode = u64::from(word(body, 4)?);
    let mut attributes = body.get(16..)?;
    loop {
        let (length, kind) = (half(attributes, 0)? as usize, half(attributes, 2)?);
        if kind == UNIX_DIAG_RQLEN {
            let backlog = Backlog { waiting: word(attributes, 4)?, max: word(attributes, 8)? };
            return Some((inode, backlog));
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// `struct inet_diag_req_v2` for listening TCP sockets.
fn inet_request(family: u16) -> Vec<u8> {
    let mut body = vec![family as u8, IPPROTO_TCP, 0, 0];
    body.extend_from_slice(&(1u32 << TCP_LISTEN).to_ne_bytes());
    body.resize(56, 0);
    request(body)
}

/// `struct unix_diag_req` for listening sockets, with their queues.
fn unix_request() -> Vec<u8> {
    let mut body = vec![AF_UNIX as u8, 0, 0, 0];
    body.extend_from_slice(&(1u32 << TCP_LISTEN).to_ne_bytes());
    body.extend_from_slice(&0u32.to_ne_bytes());
    body.extend_from_slice(&UDIAG_SHOW_RQLEN.to_ne_bytes());
    body.resize(24, 0);
    request(body)
}

/// `struct nlmsghdr` before a request for all sockets.
fn request(body: Vec<u8>) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend(body);
    message
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

// <linux/netlink.h>, <linux/sock_diag.h>, <linux/unix_diag.h>
const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
const TCP_LISTEN: u32 = 10;
const IPPROTO_TCP: u8 = 6;
const AF_UNIX: u16 = libc::AF_UNIX as u16;
const AF_INET: u16 = libc::AF_INET as u16;
const AF_INET6: u16 = libc::AF_INET6 as u16;
/// Maximum that the kernel fills at a time.
const BUFFER_SIZE: usize = 32 * 1024;
/// Machines have few listening sockets: this is room for tens of thousands.
const PACKETS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn inode(socket: impl AsFd) -> u64 {
        nix::sys::stat::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn backlogs_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let _tcp_clients: Vec<_> =
            (0..3).map(|_| TcpStream::connect(tcp.local_addr().unwrap()).unwrap()).collect();
        let _unix_client = UnixStream::connect(&path).unwrap();
        let found = read();
        if found.is_empty() {
            eprintln!("this kernel does not report backlogs");
            return;
        }
        assert_eq!(found[&inode(&tcp)].waiting, 3);
        assert!(found[&inode(&tcp)].max >= 3);
        assert_eq!(found[&inode(&unix)].waiting, 1);
    }

    #[test]
    fn invalid_messages_end_it() {
        let mut found = HashMap::new();
        let mut packet = request(vec![2; 20]);
        read_messages(&packet, &mut found);
        packet[0] = 0xff;
        assert!(read_messages(&packet, &mut found));
        assert!(!read_messages(&[1, 2, 3], &mut found));
        assert!(found.is_empty());
    }
}
