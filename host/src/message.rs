//! All messages between arbiter, molds and workers: one enum for each direction, and the channel that carries
//! them. A message is one packet of JSON on a `SOCK_SEQPACKET` pair, so it arrives whole or not at all. The
//! kernel reports the sender; what a message says about other processes is a claim.
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

use crate::exit_status::BOOT_ERROR;
use crate::stack::StackReport;

/// Messages from the arbiter to a mold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToMold {
    /// Fork a worker for a reserved slot of the scoreboard. The memory of the slot comes as a descriptor.
    Fork {
        /// Number of the slot.
        slot: u32,
        /// Position of the worker in the sequence of all workers.
        age: u64,
    },
    /// Reopen the log files.
    Reopen,
    /// Run the hooks of an event of the arbiter.
    Hook {
        /// gunicorn's name of the event.
        event: String,
        /// Numbers that describe the event.
        facts: Vec<i64>,
    },
    /// Log the stack of a worker, with the names of its functions.
    Stack {
        /// Process ID of the worker.
        pid: u32,
        /// The stack.
        report: Box<StackReport>,
    },
    /// Close the listeners: the workers are stopping, and only their hooks are still to run.
    ReleaseListeners,
    /// Exit. The workers stay.
    Quit,
}

/// Messages from a mold to the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromMold {
    /// The mold is about to run code that is not the server's, for example "FILE: opening the worker class".
    /// If the mold dies now, this is the cause.
    Loading(String),
    /// Worker class and application are loaded and checked.
    Loaded(Loaded),
    /// They could not be loaded. The mold exits.
    Refused(Refusal),
    /// The requested worker exists. The arbiter believes this only after the worker's own
    /// [`FromWorker::Started`]; the process ID is needed for a worker that dies before it can send that.
    Forked {
        /// Position of the worker in the sequence of all workers.
        age: u64,
        /// Process ID of the worker.
        pid: i32,
    },
    /// The requested worker could not be forked.
    ForkFailed {
        /// Position that the worker was to have in the sequence of all workers.
        age: u64,
        /// The system's error.
        reason: String,
    },
    /// Confirms a [`ToMold::Stack`].
    StackTaken,
    /// The mold has read that this process exited, and runs the hook `child_exit` now.
    ExitRead {
        /// Process ID.
        pid: i32,
    },
}

/// Messages from a worker to the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// The worker exists: the first message of every worker, from which the arbiter learns its process ID.
    Started {
        /// Position of the worker in the sequence of all workers.
        age: u64,
    },
    /// The worker can serve.
    Ready {
        /// Number of its slot.
        slot: u32,
    },
    /// The worker cannot serve, and exits.
    BootFailed {
        /// Number of its slot.
        slot: u32,
        /// The reason, and the exit status for it.
        refusal: Refusal,
    },
    /// The worker asks to be replaced (`max_requests`), and serves until the arbiter stops it.
    Retiring {
        /// Number of its slot.
        slot: u32,
        /// The reason.
        reason: String,
    },
    /// The stack of a panic, or of a request that hangs. Sent only if that does not block.
    Stack(Box<StackReport>),
}

/// Messages from the arbiter to the process that serves metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToStatus {
    /// A slot of the scoreboard was created. Its memory comes as a descriptor.
    Slot {
        /// Number of the slot.
        index: u32,
        /// Number of its memory.
        serial: u64,
    },
}

/// Messages from a worker to the process that watches the files of its generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWatcher {
    /// Files whose change means another application or another worker class.
    Files {
        /// Absolute paths.
        files: Vec<PathBuf>,
        /// Time of the report: a later change counts, even if the file was not watched yet.
        named: SystemTime,
        /// Whether the application is loaded. If it could not be, any Python file may be the cause.
        loaded: bool,
    },
}

/// Messages from the process that watches the files of a generation to the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWatcher {
    /// Files have changed.
    Changed {
        /// One of them.
        file: PathBuf,
        /// Number of other changed files.
        others: usize,
    },
}

/// What a mold has loaded, for the log and `hostctl status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Name of the worker class.
    pub class: String,
    /// Version of the worker class.
    pub class_version: String,
    /// Name of the application.
    pub app: String,
    /// Version of worker-api that the class was built against, or `jimu.h` and its version.
    pub worker_api: String,
    /// Libraries that were loaded from a private copy.
    pub libraries: Vec<LoadedLibrary>,
}

impl Loaded {
    /// Returns the interface of the class with its version: `worker-api 1.0.0`, `jimu.h 1.0`.
    pub fn interface(&self) -> String {
        let name = if self.worker_api.starts_with("jimu.h ") { "" } else { "worker-api " };
        format!("{name}{}", self.worker_api)
    }
}

/// A loaded library, for tools that look up its symbols.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedLibrary {
    /// `worker class`, `application` or `hook plugin`.
    pub kind: String,
    /// Path of the file that it was loaded from.
    pub path: String,
    /// Build ID, in hexadecimal digits.
    pub build_id: Option<String>,
}

/// Why something could not be loaded or booted, in one line, and the exit status of `host` if this happens at
/// start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One line: what failed, where, and what to do about it.
    pub reason: String,
    /// Exit status.
    pub status: i32,
    /// Whether the application speaks another interface than the worker class calls. The bootstrap, and a runtime of an
    /// older build, do not send it.
    #[serde(default)]
    pub is_other_interface: bool,
}

impl Refusal {
    /// Creates a refusal that makes a starting `host` exit with `status`.
    pub fn new(reason: impl Into<String>, status: i32) -> Self {
        Self { reason: reason.into(), status, is_other_interface: false }
    }

    /// Returns whether another attempt would fail in the same way: the application cannot be loaded, or a
    /// setting is wrong.
    pub fn is_lasting(&self) -> bool {
        self.status != BOOT_ERROR
    }
}

/// One end of a pair. On the arbiter's end sending never blocks.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// Result of reading from a channel.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<M> {
    /// A message, and the process that sent it.
    Message(M, Pid),
    /// A packet that is not a message, and the process that sent it.
    Garbled(Pid),
    /// Nothing to read at the moment.
    Nothing,
    /// The other end is closed.
    Closed,
}

impl Channel {
    /// Creates a connected pair: the arbiter's end, which does not block and reports each sender's process
    /// ID, and the other end, which blocks.
    pub fn pair() -> nix::Result<(Self, Self)> {
        let kind = SockType::SeqPacket;
        let (near, far) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&near, sockopt::PassCred, &true)?;
        crate::process::set_nonblocking(near.as_fd(), true)?;
        Ok((Self { socket: near }, Self { socket: far }))
    }

    /// Creates one end from its descriptor, which the program before this one has named.
    pub fn restore(number: RawFd) -> std::io::Result<Self> {
        Ok(Self { socket: crate::process::take_descriptor(number)? })
    }

    /// Returns a second handle to the same end.
    pub fn duplicate(&self) -> std::io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// Sends one message.
    pub fn send<M: Serialize>(&self, message: &M) -> nix::Result<()> {
        self.send_with(message, None)
    }

    /// Sends one message, or fails with `EAGAIN` where that would block.
    pub fn try_send<M: Serialize>(&self, message: &M) -> nix::Result<()> {
        self.send_packet(message, None, MsgFlags::MSG_DONTWAIT)
    }

    /// Sends one message with a descriptor.
    pub fn send_with<M: Serialize>(
        &self,
        message: &M,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> nix::Result<()> {
        self.send_packet(message, descriptor, MsgFlags::empty())
    }

    fn send_packet<M: Serialize>(
        &self,
        message: &M,
        descriptor: Option<BorrowedFd<'_>>,
        flags: MsgFlags,
    ) -> nix::Result<()> {
        let packet = serde_json::to_vec(message).map_err(|_| Errno::EINVAL)?;
        let flags = flags | MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(&packet)];
        let descriptors = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
        let rights = descriptors.as_ref().map(|of| ControlMessage::ScmRights(of));
        loop {
            let socket = self.socket.as_raw_fd();
            match sendmsg::<()>(socket, &parts, rights.as_slice(), flags, None) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Reads one packet and its sender. The sender is known only on the arbiter's end; it is 0 on the other.
    /// A descriptor that comes with the packet is dropped by the kernel.
    pub fn receive<M: DeserializeOwned>(&self) -> nix::Result<Received<M>> {
        self.receive_into(&mut cmsg_space!(libc::ucred)).map(|(received, _)| received)
    }

    /// Like [`Channel::receive`], and also returns the descriptor that came with the packet.
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
        // Without room for it, an unexpected descriptor makes the kernel truncate the other control
        // messages too; the sender is then unknown, and the message is attributed to no process.
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

    /// Refuses further messages to this end. Messages that were sent before can still be received.
    pub fn refuse_more(&self) {
        // Fails only if the other end is closed, which has the same effect.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }

    /// Sends bytes that are not a message, for tests of receivers.
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

/// Upper bound of a packet in bytes. The longest messages are stacks, which are cut to fit, and reasons, which are one
/// line each. The kernel truncates a longer packet, which is then garbled.
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
    fn garbage_is_detected_and_the_next_message_still_arrives() {
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
        // The end of the pipe is reached: no copy of the writing end is left.
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
    fn a_closed_channel_is_reported() {
        let (arbiter, mold) = Channel::pair().unwrap();
        drop(arbiter);
        assert_eq!(mold.receive::<ToMold>().unwrap(), Received::Closed);
        assert_eq!(
            mold.send(&FromMold::ForkFailed { age: 0, reason: String::new() }),
            Err(Errno::EPIPE)
        );
    }
}
