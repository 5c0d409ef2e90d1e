//! System calls about processes that std and nix do not wrap safely enough: fork, exit, prctl. The
//! only place where this crate forks.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, sigaction, sigprocmask,
};
use nix::unistd::{ForkResult, Pid, getppid};

/// The process of that number, as std and shared memory count them; nothing for what is no process's number.
pub fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().filter(|number| *number > 0).map(Pid::from_raw)
}

/// A process's number, as std and shared memory count them. No process has a negative one.
pub fn number(pid: Pid) -> u32 {
    pid.as_raw().unsigned_abs()
}

/// Forks with all signals blocked, so that no handler of the parent ever runs in the child. The
/// parent's mask is put back here; the child calls [`unblock_signals`] once its own handlers are in
/// place.
pub fn fork_with_signals_blocked() -> nix::Result<ForkResult> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the arbiter has one thread, so its child may use all that a lock could guard. In a
    // mold a plugin may have started threads; the C library keeps its own heap usable in the child
    // even then, and what a plugin's locks guard is up to the plugin's hooks around the fork.
    let result = unsafe { nix::unistd::fork() };
    if !matches!(result, Ok(ForkResult::Child)) {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    }
    result
}

/// Lets all signals in.
pub fn unblock_signals() {
    // Setting a whole mask from a valid set cannot fail.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Ends the process at once: no destructor, no atexit handler, no copy of the parent's buffers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// All signals that can be handled back to what the system does by default, as exec leaves them,
/// but for [`WRITE_ERRORS`], which stay ignored.
pub fn reset_signal_handlers() {
    for signal in Signal::iterator() {
        let ignored = WRITE_ERRORS.contains(&signal);
        let action = if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
        // SAFETY: neither SIG_DFL nor SIG_IGN runs code of ours. SIGKILL and SIGSTOP answer with an
        // error, which is of no interest.
        let _ = unsafe { nix::sys::signal::signal(signal, action) };
    }
}

/// Makes failed writes errors (EPIPE, EFBIG) and not the end of the process, from before the first log is opened.
pub fn ignore_write_errors() {
    set_write_errors(SigHandler::SigIgn);
}

/// Restores the default for the signals of [`WRITE_ERRORS`], which other programs expect: exec keeps ignored ones
/// ignored.
fn restore_write_errors() {
    set_write_errors(SigHandler::SigDfl);
}

fn set_write_errors(action: SigHandler) {
    for signal in WRITE_ERRORS {
        // SAFETY: neither SIG_DFL nor SIG_IGN runs code of ours.
        let _ = unsafe { nix::sys::signal::signal(signal, action) };
    }
}

/// Begins the life of a process that the arbiter has forked beside itself, where all signals are still blocked: it does
/// without the descriptors of `close`, and what is meant for the arbiter alone does not end it.
pub fn begin_forked(close: &[RawFd]) {
    close_inherited(close);
    reset_signal_handlers();
    ignore_until_exec(&ARBITERS_SIGNALS);
    unblock_signals();
}

/// Makes `signals` do nothing, until exec gives them their default back (which it does not do for
/// signals that are ignored).
fn ignore_until_exec(signals: &[Signal]) {
    extern "C" fn nothing(_: i32) {}
    for &signal in signals {
        let handler = SigHandler::Handler(nothing);
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: a handler that does nothing is async-signal-safe.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// Puts variables into the environment of this process and its children.
pub fn set_environment(variables: &[(String, String)]) {
    for (name, value) in variables {
        // SAFETY: called in a new process before it starts a thread or runs a plugin's code.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Takes variables out of the environment.
pub fn clear_environment(names: &[&str]) {
    for name in names {
        // SAFETY: called while this process has one thread: at the start of the arbiter.
        unsafe { std::env::remove_var(name) };
    }
}

/// Asks the kernel to send `signal` when the parent dies, and tells whether `parent` still is the
/// parent: if it is not, it died before the kernel was asked.
pub fn tie_to_parent(parent: Pid, signal: Signal) -> bool {
    prctl::set_pdeathsig(signal).is_ok() && getppid() == parent
}

/// Asks the kernel for `signal` when the parent dies, in a process that looks at its parent when it
/// comes.
pub fn signal_at_parents_end(signal: Signal) {
    if let Err(error) = prctl::set_pdeathsig(signal) {
        tracing::error!("prctl(PR_SET_PDEATHSIG) refused: {error}");
    }
}

/// Waits until `parent` has become this process's parent. It does when the process in between has
/// ended; false when somebody else inherited us, because `parent` is gone.
pub fn wait_for_parent(parent: Pid, between: Pid) -> bool {
    let mut pause = Duration::from_micros(20);
    loop {
        match getppid() {
            pid if pid == parent => return true,
            pid if pid != between => return false,
            _ => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(2));
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with a status.
    Status(i32),
    /// By a signal; real-time signals too, which nix has no names for.
    Signal(i32),
}

impl End {
    /// Whether it was killed by `signal`.
    pub fn is_by(self, signal: Signal) -> bool {
        self == Self::Signal(signal as i32)
    }

    /// "exited with status 1", "was killed by SIGSEGV".
    pub fn describe(self) -> String {
        match self {
            Self::Status(status) => format!("exited with status {status}"),
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => format!("was killed by {signal}"),
                Err(_) => format!("was killed by signal {number}"),
            },
        }
    }
}

/// Takes note of one child that has ended, any (`None`) or a certain one; nothing when none has.
/// Waits for it when it is to.
pub fn reap(child: Option<Pid>, wait: bool) -> nix::Result<Option<(Pid, End)>> {
    let which = child.map_or(-1, Pid::as_raw);
    let options = if wait { 0 } else { libc::WNOHANG };
    let mut status = 0;
    // SAFETY: the pointer is to a local int, which the kernel fills.
    let result = unsafe { libc::waitpid(which, &raw mut status, options) };
    let pid = match Errno::result(result) {
        Ok(0) => return Ok(None),
        Ok(pid) => Pid::from_raw(pid),
        Err(Errno::EINTR) => return reap(child, wait),
        Err(error) => return Err(error),
    };
    let end = if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Status(libc::WEXITSTATUS(status))
    };
    Ok(Some((pid, end)))
}

/// A child that has ended and was not reaped yet, if there is one.
pub fn ended_child() -> nix::Result<Option<Pid>> {
    wait_peek(libc::P_ALL, 0)
}

/// Whether a process is a child of this one that was not reaped yet. Its number is its own until then.
pub fn is_child(pid: Pid) -> bool {
    let Ok(number) = libc::id_t::try_from(pid.as_raw()) else { return false };
    if number == 0 {
        return false;
    }
    match wait_peek(libc::P_PID, number) {
        Ok(_) => true,
        Err(Errno::ECHILD) => false,
        Err(_) => parent_of(pid) == Some(nix::unistd::getpid()),
    }
}

/// The child among those that match which has ended, without reaping it.
fn wait_peek(kind: libc::idtype_t, id: libc::id_t) -> nix::Result<Option<Pid>> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: a zeroed siginfo is valid, and the kernel fills the local one.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a local value.
        match Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, flags) }) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                // SAFETY: waitid has filled in the fields of SIGCHLD, or left zeros.
                let pid = unsafe { info.si_pid() };
                return Ok((pid != 0).then(|| Pid::from_raw(pid)));
            }
        }
    }
}

/// A process's parent, where `/proc` says so.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = read_small(&format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold spaces and parentheses: state, parent.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

/// A child whose number came from another process, verified.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Signals go through it. Nothing where the system has none to give: a child's number is not
    /// given to another process before the child was reaped, so the number will do.
    handle: Option<OwnedFd>,
}

impl Child {
    /// The child of this process with that number; nothing if it is no child.
    pub fn verify(pid: Pid) -> Option<Self> {
        is_child(pid).then(|| Self { pid, handle: open_pidfd(pid).ok().filter(leaves_room) })
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The descriptor that stands for it.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.handle.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Sends a signal. To one that has just ended is no error: that is noticed elsewhere.
    pub fn signal(&self, signal: Signal) {
        let sent = self.handle.as_ref().map(|handle| send_through(handle, signal));
        if !matches!(sent, Some(Ok(()) | Err(Errno::ESRCH))) {
            let _ = kill(self.pid, signal);
        }
    }
}

/// A descriptor that is readable once the process has ended.
pub fn open_pidfd(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes a pid and flags, and returns a new descriptor or an error.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let number = RawFd::try_from(Errno::result(number)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn send_through(handle: &OwnedFd, signal: Signal) -> nix::Result<()> {
    let number = handle.as_raw_fd();
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open, and a null siginfo means that of kill(2).
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, number, signal as i32, none, 0) };
    Errno::result(sent).map(drop)
}

/// Whether a descriptor leaves enough others under the limit for what cannot do without.
fn leaves_room(descriptor: &OwnedFd) -> bool {
    getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(limit, _)| {
        u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number + SPARE_DESCRIPTORS < limit)
    })
}

/// Starts a program that is no child of this process's, so that nobody here need wait for its end:
/// whoever adopts orphans does.
pub fn start_apart(command: &mut std::process::Command) -> std::io::Result<()> {
    // SAFETY: the closure does nothing. It makes std fork: the C library's posix_spawn(3) does without clone3 where
    // that is missing (ENOSYS), but not where it is refused (EPERM).
    unsafe { command.pre_exec(|| Ok(())) };
    match fork_with_signals_blocked()? {
        ForkResult::Child => {
            reset_signal_handlers();
            restore_write_errors();
            unblock_signals();
            let error = command.spawn().err().map(|error| error.raw_os_error());
            exit_now(error.map_or(0, |number| number.unwrap_or(Errno::EIO as i32)))
        }
        ForkResult::Parent { child } => match reap(Some(child), true)? {
            Some((_, End::Status(0))) | None => Ok(()),
            Some((_, End::Status(number))) => Err(std::io::Error::from_raw_os_error(number)),
            Some((_, End::Signal(_))) => Err(Errno::EINTR.into()),
        },
    }
}

/// Makes orphaned descendants children of this process.
pub fn adopt_descendants() -> nix::Result<()> {
    prctl::set_child_subreaper(true)
}

/// The file of `program`, the path that the user gave from `directory`; a name without a slash is looked up on `PATH`.
pub fn program_path(program: &OsStr, directory: &Path) -> PathBuf {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return directory.join(path);
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&directories).map(|base| directory.join(base).join(path));
    files.find(|file| file.is_file()).unwrap_or_else(|| path.to_owned())
}

/// Sets or clears `O_NONBLOCK`.
pub fn set_nonblocking(descriptor: BorrowedFd<'_>, nonblocking: bool) -> nix::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(descriptor, FcntlArg::F_SETFL(flags)).map(drop)
}

/// Closes descriptors that belong to objects which this process, a fork that ends in
/// [`exit_now`], will never touch or drop.
pub fn close_inherited(descriptors: &[RawFd]) {
    for &descriptor in descriptors {
        // SAFETY: the owners live in the stack frames of the parent's main loop, to which this
        // process never returns, so nobody here uses or closes the number again.
        unsafe { libc::close(descriptor) };
    }
}

/// Reads one small counter or line from a file below /proc or /sys.
pub fn read_small(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(SMALL_FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The process that traces another one, a debugger for instance; nothing where there is none.
pub fn tracer_of(pid: u32) -> Option<u32> {
    let text = read_small(&format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|tracer| *tracer != 0)
}

/// How many threads this process has.
pub fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Resident memory of a process in KiB, as far as the kernel tells us.
pub fn memory_kib(pid: u32) -> Option<u64> {
    let text = read_small(&format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_KIB)
}

/// Memory of a process in KiB with its part of what it shares with others (`Pss`); nothing where the
/// kernel lets only root or the same user see that.
pub fn shared_memory_kib(pid: u32) -> Option<u64> {
    let text = read_small(&format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The name of a process's program, for the log.
pub fn name_of(pid: u32) -> Option<String> {
    read_small(&format!("/proc/{pid}/comm")).map(|name| name.trim().to_owned())
}

/// Signals that are meant for the arbiter and reach its children too when they are sent to a process group or typed at a
/// terminal. These are told to end by a message or a closed channel, or killed.
const ARBITERS_SIGNALS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];
/// A reader that is gone, a file at its size limit (`RLIMIT_FSIZE`): errors of the write, as under CPython, which ignores
/// both signals when it starts.
const WRITE_ERRORS: [Signal; 2] = [Signal::SIGPIPE, Signal::SIGXFSZ];
/// Descriptors that pidfds leave free: a pidfd is the one that can be done without.
const SPARE_DESCRIPTORS: u64 = 128;
const SMALL_FILE_MAX: u64 = 64 * 1024;
const PAGE_KIB: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_children_are_verified() {
        assert!(!is_child(Pid::from_raw(1)));
        assert!(!is_child(Pid::this()));
        for number in [0, -1, i32::MIN, i32::MAX] {
            assert!(Child::verify(Pid::from_raw(number)).is_none(), "{number}");
        }
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(sleeper.id()).unwrap());
        assert_eq!(parent_of(pid), Some(Pid::this()));
        let child = Child::verify(pid).unwrap();
        child.signal(Signal::SIGKILL);
        sleeper.wait().unwrap();
        assert!(!is_child(pid), "it was reaped");
        child.signal(Signal::SIGKILL);
    }
}
