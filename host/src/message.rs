//! All messages between arbiter, molds and workers: one enum a direction, and the channel that
//! carries them. A message is one packet of JSON on a `SOCK_SEQPACKET` pair, so it arrives whole or
//! not at all. The kernel says who sent it; what a message says of other processes is a claim.
//!
//! ```text
//!     arbiter ── ToMold ────▶ mold        one pair a mold ("command")
//!     arbiter ◀─ FromMold ─── mold
//!     arbiter ◀─ FromWorker ─ workers     one pair a generation ("report"), shared by its workers
//!     watcher ◀─ ToWatcher ── workers     with `reload`: one pair a generation, shared by its workers
//!     arbiter ◀─ FromWatcher  watcher     with `reload`: one pair a generation
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::SystemTime;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    recvmsg, sendmsg, setsockopt, shutdown, socketpair, sockopt,
};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::worker::BOOT_ERROR;

/// What the arbiter asks a mold to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToMold {
    /// Fork a worker into a slot of the scoreboard that is reserved for it. The memory of the slot
    /// comes as a descriptor.
    Fork {
        /// Number of the slot.
        slot: u32,
        /// The worker's place in the sequence of all workers.
        age: u64,
    },
    /// Open the log files again.
    Reopen,
    /// Run the hooks of one of the arbiter's events.
    Hook {
        /// gunicorn's name of it.
        event: String,
        /// Numbers that describe it.
        facts: Vec<i64>,
    },
    /// Give up the listeners: the workers end, and only their hooks are still to come.
    ReleaseListeners,
    /// End; the workers stay.
    Quit,
}

/// What a mold tells the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromMold {
    /// It is about to run code that is not the server's, "FILE: opening the worker class" for
    /// example: what it died of, if it dies now.
    Loading(String),
    /// Worker class and application are loaded and checked.
    Loaded(Loaded),
    /// They could not be loaded; the mold ends.
    Refused(Refusal),
    /// The worker that was asked for exists. The arbiter waits for the worker's own
    /// [`FromWorker::Started`] before it believes this; it needs the number where a worker dies
    /// before it can send that.
    Forked {
        /// Its place in the sequence of all workers.
        age: u64,
        /// Its process id.
        pid: i32,
    },
    /// The worker that was asked for could not be forked.
    ForkFailed {
        /// The place in the sequence that was meant for it.
        age: u64,
        /// What the system said.
        reason: String,
    },
    /// It has read that this process exited, and calls the hook `child_exit` now.
    ExitRead {
        /// The process id.
        pid: i32,
    },
}

/// What a worker tells the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// It exists: the first message of every worker, by which the arbiter learns its process id.
    Started {
        /// Its place in the sequence of all workers.
        age: u64,
    },
    /// It can serve.
    Ready {
        /// Number of its slot.
        slot: u32,
    },
    /// It cannot serve; it ends.
    BootFailed {
        /// Number of its slot.
        slot: u32,
        /// Why, and the exit status that goes with it.
        refusal: Refusal,
    },
    /// It would like to be replaced (`max_requests`), and serves until it is told to end.
    Retiring {
        /// Number of its slot.
        slot: u32,
        /// Why.
        reason: String,
    },
}

/// What the arbiter tells the process that shows figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToStatus {
    /// A slot of the scoreboard was created, whose memory comes as a descriptor.
    Slot {
        /// Number of the slot.
        index: u32,
        /// Number of its memory.
        serial: u64,
    },
}

/// What a worker tells the process that watches the files of its generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWatcher {
    /// A change of these means another application, or another worker class.
    Files {
        /// Their absolute paths.
        files: Vec<PathBuf>,
        /// When they were named: what was changed later is news, also before anybody watched.
        named: SystemTime,
        /// Whether the application is loaded; otherwise it could not be, and any Python file may be the reason.
        loaded: bool,
    },
}

/// What the process that watches the files of a generation tells the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWatcher {
    /// Files have changed.
    Changed {
        /// One of them.
        file: PathBuf,
        /// How many besides it.
        others: usize,
    },
}

/// What a mold has loaded, for the log and for `hostctl status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Name of the worker class, as it says itself.
    pub class: String,
    /// Its version.
    pub class_version: String,
    /// Name of the application.
    pub app: String,
    /// The version of worker-api that the class was built against.
    pub worker_api: String,
    /// The libraries that were loaded from a private copy.
    pub libraries: Vec<LoadedLibrary>,
}

/// A library that was loaded, for those who look for its symbols.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedLibrary {
    /// What it is: `worker class`, `application` or `hook plugin`.
    pub kind: String,
    /// Path of the file that it was loaded from.
    pub path: String,
    /// Its build-id, in hexadecimal digits.
    pub build_id: Option<String>,
}

/// Why something could not be loaded or booted, in one line, and the status that `host` ends with
/// when this happens at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One line: what, where, and what to do about it.
    pub reason: String,
    /// Exit status.
    pub status: i32,
}

impl Refusal {
    /// A refusal that ends a starting `host` with `status`.
    pub fn new(reason: impl Into<String>, status: i32) -> Self {
        Self { reason: reason.into(), status }
    }

    /// Whether another try would fare no better: the application cannot be loaded, or something was set wrongly.
    pub fn is_lasting(&self) -> bool {
        self.status != BOOT_ERROR
    }
}

/// One end of a pair. Sending never blocks on the arbiter's end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// What came out of a channel.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<M> {
    /// A message, and the process that sent it.
    Message(M, Pid),
    /// A packet that is no message, and the process that sent it.
    Garbled(Pid),
    /// Nothing more for now.
    Nothing,
    /// The other end is gone.
    Closed,
}

impl Channel {
    /// A connected pair: the arbiter's end, which does not block and learns each sender's process
    /// id, and the other one, which blocks.
    pub fn pair() -> nix::Result<(Self, Self)> {
        let kind = SockType::SeqPacket;
        let (near, far) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&near, sockopt::PassCred, &true)?;
        crate::process::set_nonblocking(near.as_fd(), true)?;
        Ok((Self { socket: near }, Self { socket: far }))
    }

    /// A second handle to the same end.
    pub fn duplicate(&self) -> std::io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// Sends one message.
    pub fn send<M: Serialize>(&self, message: &M) -> nix::Result<()> {
        self.send_with(message, None)
    }

    /// Sends one message, and a descriptor with it.
    pub fn send_with<M: Serialize>(
        &self,
        message: &M,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> nix::Result<()> {
        let packet = serde_json::to_vec(message).map_err(|_| Errno::EINVAL)?;
        let parts = [IoSlice::new(&packet)];
        let descriptors = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
        let rights = descriptors.as_ref().map(|of| ControlMessage::ScmRights(of));
        loop {
            let socket = self.socket.as_raw_fd();
            match sendmsg::<()>(socket, &parts, rights.as_slice(), MsgFlags::MSG_NOSIGNAL, None) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Takes one packet with its sender. Only on the arbiter's end is the sender known; it is 0 on
    /// the other. A descriptor that comes with it is dropped by the kernel.
    pub fn receive<M: DeserializeOwned>(&self) -> nix::Result<Received<M>> {
        self.receive_into(&mut cmsg_space!(libc::ucred)).map(|(received, _)| received)
    }

    /// As [`Channel::receive`], with the descriptor that came with the packet.
    pub fn receive_with<M: DeserializeOwned>(&self) -> nix::Result<(Received<M>, Option<OwnedFd>)> {
        self.receive_into(&mut cmsg_space!(libc::ucred, RawFd))
    }

    fn receive_into<M: DeserializeOwned>(
        &self,
        ancillary: &mut [u8],
    ) -> nix::Result<(Received<M>, Option<OwnedFd>)> {
        let mut packet = [0; PACKET_MAX];
        let mut parts = [IoSliceMut::new(&mut packet)];
        let descriptor = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = match recvmsg::<()>(descriptor, &mut parts, Some(ancillary), flags) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok((Received::Nothing, None)),
            Err(Errno::ECONNRESET) => return Ok((Received::Closed, None)),
            Err(error) => return Err(error),
        };
        let mut sender = Pid::from_raw(0);
        let mut file = None;
        // Without room for it, a descriptor that no one asked for makes the kernel cut the rest too;
        // then the sender is not known, and the message counts as no one's.
        for control in received.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::ScmCredentials(credentials) => {
                    sender = Pid::from_raw(credentials.pid());
                }
                ControlMessageOwned::ScmRights(descriptors) => {
                    for number in descriptors {
                        // SAFETY: the kernel has just made this descriptor for us.
                        file = Some(unsafe { OwnedFd::from_raw_fd(number) });
                    }
                }
                _ => {}
            }
        }
        let length = received.bytes;
        if length == 0 {
            return Ok((Received::Closed, None));
        }
        Ok(match serde_json::from_slice(&packet[..length]) {
            Ok(message) => (Received::Message(message, sender), file),
            Err(_) => (Received::Garbled(sender), None),
        })
    }

    /// Lets no one send to this end any more. What was sent before can still be received.
    pub fn refuse_more(&self) {
        // An end whose other one is gone needs no refusal.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }

    /// Sends bytes that are no message: for the tests of those who receive.
    #[cfg(test)]
    pub(crate) fn send_bytes(&self, packet: &[u8]) -> nix::Result<()> {
        let socket = self.socket.as_raw_fd();
        nix::sys::socket::send(socket, packet, MsgFlags::MSG_NOSIGNAL).map(drop)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Longest packet in bytes. The longest texts are reasons, which are one line each; a longer packet
/// is cut by the kernel, and so is garbled.
const PACKET_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_the_pid_of_its_sender() {
        let (arbiter, worker) = Channel::pair().unwrap();
        worker.send(&FromWorker::Ready { slot: 4 }).unwrap();
        let received = arbiter.receive::<FromWorker>().unwrap();
        assert_eq!(received, Received::Message(FromWorker::Ready { slot: 4 }, Pid::this()));
        assert_eq!(arbiter.receive::<FromWorker>().unwrap(), Received::Nothing);
    }

    #[test]
    fn garbage_is_told_from_a_message_and_the_next_one_still_arrives() {
        let (arbiter, worker) = Channel::pair().unwrap();
        worker.send_bytes(b"{\"ready\":").unwrap();
        worker.send_bytes(&vec![b'x'; 4 * PACKET_MAX]).unwrap();
        worker.send(&FromWorker::Ready { slot: 1 }).unwrap();
        let sender = Pid::this();
        assert_eq!(arbiter.receive::<FromWorker>().unwrap(), Received::Garbled(sender));
        assert_eq!(arbiter.receive::<FromWorker>().unwrap(), Received::Garbled(sender));
        assert!(matches!(arbiter.receive::<FromWorker>().unwrap(), Received::Message(..)));
    }

    #[test]
    fn a_descriptor_comes_with_its_message_where_one_is_expected() {
        let (arbiter, mold) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        arbiter.send_with(&ToMold::Fork { slot: 1, age: 2 }, Some(file.as_fd())).unwrap();
        let (received, descriptor) = mold.receive_with::<ToMold>().unwrap();
        assert!(matches!(received, Received::Message(ToMold::Fork { slot: 1, age: 2 }, _)));
        let inode = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).unwrap().st_ino;
        assert_eq!(inode(descriptor.unwrap().as_fd()), inode(file.as_fd()));
    }

    #[test]
    fn a_descriptor_that_no_one_expects_is_not_kept() {
        let (arbiter, worker) = Channel::pair().unwrap();
        let (pipe, writer) = nix::unistd::pipe().unwrap();
        worker.send_with(&FromWorker::Ready { slot: 1 }, Some(writer.as_fd())).unwrap();
        drop(writer);
        assert!(arbiter.receive::<FromWorker>().is_ok());
        // The end of the pipe is seen: no copy of the writing end is left.
        assert_eq!(nix::unistd::read(&pipe, &mut [0]), Ok(0));
        worker.send(&FromWorker::Ready { slot: 2 }).unwrap();
        let received = arbiter.receive::<FromWorker>().unwrap();
        assert_eq!(received, Received::Message(FromWorker::Ready { slot: 2 }, Pid::this()));
    }

    #[test]
    fn what_was_sent_before_a_refusal_is_received_and_nothing_later() {
        let (arbiter, worker) = Channel::pair().unwrap();
        worker.send(&FromWorker::Started { age: 1 }).unwrap();
        arbiter.refuse_more();
        assert_eq!(worker.send(&FromWorker::Started { age: 2 }), Err(Errno::EPIPE));
        let received = arbiter.receive::<FromWorker>().unwrap();
        assert_eq!(received, Received::Message(FromWorker::Started { age: 1 }, Pid::this()));
        assert_eq!(arbiter.receive::<FromWorker>().unwrap(), Received::Closed);
    }

    #[test]
    fn a_closed_channel_says_so() {
        let (arbiter, mold) = Channel::pair().unwrap();
        drop(arbiter);
        assert_eq!(mold.receive::<ToMold>().unwrap(), Received::Closed);
        assert_eq!(
            mold.send(&FromMold::ForkFailed { age: 0, reason: String::new() }),
            Err(Errno::EPIPE)
        );
    }
}
