//! System calls about processes that std and nix do not wrap safely enough: fork, exit, prctl. No other module of
//! this crate forks.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, sigaction, sigprocmask,
};
use nix::unistd::{ForkResult, Pid, getppid};

use crate::descriptors::close_all_but;

/// Converts a process ID from the type of std and of shared memory. Returns `None` for a number that no process
/// can have.
pub fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().filter(|number| *number > 0).map(Pid::from_raw)
}

/// Converts a process ID to the type of std and of shared memory. No process ID is negative.
pub fn number(pid: Pid) -> u32 {
    pid.as_raw().unsigned_abs()
}

/// Forks with all signals blocked, so that no handler of the parent ever runs in the child. The parent's mask is
/// restored here; the child calls [`unblock_signals`] after it has installed its own handlers.
pub fn fork_with_signals_blocked() -> nix::Result<ForkResult> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the arbiter has one thread, so its child may use everything that a lock could guard. In a mold a
    // plugin may have started threads; the C library keeps its own heap usable in the child even then, and
    // what a plugin's locks guard is the responsibility of the plugin's fork hooks.
    let result = unsafe { nix::unistd::fork() };
    if !matches!(result, Ok(ForkResult::Child)) {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    }
    result
}

/// The two processes in which [`fork_twice`] returns.
pub enum Twice {
    /// The caller, with the intermediate process, which is to be reaped by [`wait_for_intermediate`].
    Caller(Pid),
    /// The grandchild, with the intermediate process, which may still be its parent.
    Grandchild(Pid),
}

/// Forks a grandchild as [`fork_with_signals_blocked`] forks a child. The intermediate process calls `report` with the
/// grandchild's process ID, and exits: the grandchild is reaped by the process that adopts orphans.
pub fn fork_twice(report: impl FnOnce(Pid)) -> nix::Result<Twice> {
    if let ForkResult::Parent { child } = fork_with_signals_blocked()? {
        return Ok(Twice::Caller(child));
    }
    let intermediate = nix::unistd::getpid();
    match fork_with_signals_blocked() {
        Ok(ForkResult::Parent { child }) => {
            report(child);
            exit_now(0)
        }
        Ok(ForkResult::Child) => Ok(Twice::Grandchild(intermediate)),
        Err(error) => exit_now(error as i32),
    }
}

/// Waits for an intermediate process, whose exit status is the error of what it started.
pub fn wait_for_intermediate(intermediate: Pid) -> nix::Result<()> {
    match reap(Some(intermediate), true) {
        // A plugin that reaps all children of a mold has taken the status; the new process reports its own errors.
        Ok(Some((_, End::Status(0))) | None) | Err(Errno::ECHILD) => Ok(()),
        Ok(Some((_, End::Status(error)))) => Err(Errno::from_raw(error)),
        Ok(Some((_, End::Signal(_)))) => Err(Errno::EINTR),
        Err(error) => Err(error),
    }
}

/// Unblocks all signals.
pub fn unblock_signals() {
    // Setting a whole mask from a valid set cannot fail.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Exits at once: without destructors and atexit handlers, and without flushing buffers inherited from the
/// parent.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// Restores the default action of all signals, as exec does, except for [`WRITE_ERRORS`], which stay ignored.
pub fn reset_signal_handlers() {
    for signal in Signal::iterator() {
        let ignored = WRITE_ERRORS.contains(&signal);
        let action = if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
        // SAFETY: neither SIG_DFL nor SIG_IGN runs code of ours. SIGKILL and SIGSTOP return an error,
        // which is ignored.
        let _ = unsafe { nix::sys::signal::signal(signal, action) };
    }
}

/// Makes failed writes return errors (EPIPE, EFBIG) instead of ending the process. Called before the first log is
/// opened.
pub fn ignore_write_errors() {
    set_write_errors(SigHandler::SigIgn);
}

/// Restores the default action of the signals in [`WRITE_ERRORS`], which other programs expect: exec keeps
/// ignored signals ignored.
fn restore_write_errors() {
    set_write_errors(SigHandler::SigDfl);
}

fn set_write_errors(action: SigHandler) {
    for signal in WRITE_ERRORS {
        // SAFETY: neither SIG_DFL nor SIG_IGN runs code of ours.
        let _ = unsafe { nix::sys::signal::signal(signal, action) };
    }
}

/// Initializes a process that the arbiter has forked, while all signals are still blocked: closes all descriptors but
/// the standard streams and `kept` (see [`close_all_but`]), and makes signals that are meant for the arbiter alone do
/// nothing.
pub fn begin_forked(kept: impl IntoIterator<Item = RawFd>) {
    close_all_but(kept);
    settle_signals();
}

/// Blocks the arbiter's signals, so that they do not end the program that this process executes before it calls
/// [`settle_signals`].
pub fn block_arbiters_signals() {
    // Blocking signals that exist cannot fail.
    let _ = SigSet::from_iter(ARBITERS_SIGNALS).thread_block();
}

/// Makes signals that are meant for the arbiter alone do nothing, restores the default action of all others, and unblocks
/// all: in a process that is about to execute a program, and in an executed program that completes
/// [`block_arbiters_signals`].
pub fn settle_signals() {
    reset_signal_handlers();
    ignore_until_exec(&ARBITERS_SIGNALS);
    unblock_signals();
}

/// Makes `signals` do nothing until exec, which restores their default action (it does not do so for ignored
/// signals).
fn ignore_until_exec(signals: &[Signal]) {
    extern "C" fn nothing(_: i32) {}
    for &signal in signals {
        let handler = SigHandler::Handler(nothing);
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: a handler that does nothing is async-signal-safe.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// Sets environment variables of this process and its children.
pub fn set_environment(variables: &[(String, String)]) {
    for (name, value) in variables {
        // SAFETY: called in a new process before it starts a thread or runs a plugin's code.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Removes environment variables.
pub fn clear_environment(names: &[&str]) {
    for name in names {
        // SAFETY: called while this process has one thread: at the start of the arbiter.
        unsafe { std::env::remove_var(name) };
    }
}

/// Asks the kernel to send `signal` when the parent dies. Returns whether `parent` is still the parent; if not,
/// it died before the kernel was asked.
pub fn tie_to_parent(parent: Pid, signal: Signal) -> bool {
    prctl::set_pdeathsig(signal).is_ok() && getppid() == parent
}

/// Asks the kernel to send `signal` when the parent dies, in a process that checks its parent when the signal
/// arrives.
pub fn signal_at_parents_end(signal: Signal) {
    if let Err(error) = prctl::set_pdeathsig(signal) {
        tracing::error!("prctl(PR_SET_PDEATHSIG) refused: {error}");
    }
}

/// Waits until `parent` is this process's parent, which happens when the intermediate process has exited. Returns
/// false if another process became the parent because `parent` has died.
pub fn wait_for_parent(parent: Pid, intermediate: Pid) -> bool {
    let mut pause = Duration::from_micros(20);
    loop {
        match getppid() {
            pid if pid == parent => return true,
            pid if pid != intermediate => return false,
            _ => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(2));
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Exited with a status.
    Status(i32),
    /// Killed by a signal, possibly a real-time signal, which nix has no name for.
    Signal(i32),
}

impl End {
    /// Returns whether it was killed by `signal`.
    pub fn is_by(self, signal: Signal) -> bool {
        self == Self::Signal(signal as i32)
    }

    /// Returns "exited with status 1" or "was killed by SIGSEGV".
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

/// Waits until a child has ended, for at most `limit` and until SIGTERM arrives; then it is killed. For a process in
/// which both SIGCHLD and SIGTERM are blocked.
pub fn end_within(child: Pid, limit: Duration) -> Option<End> {
    let deadline = Instant::now() + limit;
    loop {
        if let Ok(Some((_, end))) = reap(Some(child), false) {
            return Some(end);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || wait_for_signal(left) == Some(Signal::SIGTERM) {
            let _ = kill(child, Signal::SIGKILL);
            let _ = reap(Some(child), true);
            return None;
        }
    }
}

/// Takes SIGCHLD or SIGTERM, both of which are blocked, if one arrives in time.
fn wait_for_signal(limit: Duration) -> Option<Signal> {
    let signals: SigSet = [Signal::SIGCHLD, Signal::SIGTERM].into_iter().collect();
    let limit = nix::sys::time::TimeSpec::from_duration(limit);
    // SAFETY: both pointers are to local values, and no description of the signal is asked for.
    let number =
        unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), limit.as_ref()) };
    Signal::try_from(number).ok()
}

/// Reaps one child that has exited, any (`None`) or a certain one. If none has exited, waits if `wait` is set,
/// and otherwise returns `None`.
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

/// Returns a child that has exited and is not reaped yet.
pub fn ended_child() -> nix::Result<Option<Pid>> {
    wait_peek(libc::P_ALL, 0)
}

/// Returns whether a process is an unreaped child of this one. Its process ID is not reused until then.
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

/// Returns a matching child that has exited, without reaping it.
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

/// Returns the parent of a process, if `/proc` is readable.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = read_small(&format!("/proc/{pid}/stat"))?;
    // After the name, which may contain spaces and parentheses: state, parent.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

/// A child, verified because its process ID came from another process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Signals are sent through this pidfd. `None` if the system provides none: a child's process ID is not
    /// reused before the child is reaped, so the number is sufficient.
    handle: Option<OwnedFd>,
}

impl Child {
    /// Returns the child with this process ID, or `None` if it is not a child of this process.
    pub fn verify(pid: Pid) -> Option<Self> {
        is_child(pid).then(|| Self { pid, handle: open_pidfd(pid).ok().filter(leaves_room) })
    }

    /// Returns the process ID.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal. Ignores that the child has exited, which is noticed elsewhere.
    pub fn signal(&self, signal: Signal) {
        let sent = self.handle.as_ref().map(|handle| send_through(handle, signal));
        if !matches!(sent, Some(Ok(()) | Err(Errno::ESRCH))) {
            let _ = kill(self.pid, signal);
        }
    }
}

/// Opens a descriptor that is readable once the process has exited.
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

/// Returns whether a descriptor leaves enough others below the limit for more important uses.
fn leaves_room(descriptor: &OwnedFd) -> bool {
    getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(limit, _)| {
        u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number + SPARE_DESCRIPTORS < limit)
    })
}

/// Starts a program as a grandchild, so that this process need not wait for it: the process that adopts orphans
/// reaps it.
pub fn start_detached(command: &mut std::process::Command) -> std::io::Result<()> {
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
        ForkResult::Parent { child } => Ok(wait_for_intermediate(child)?),
    }
}

/// Makes orphaned descendants children of this process.
pub fn adopt_descendants() -> nix::Result<()> {
    prctl::set_child_subreaper(true)
}

/// Returns the file of `program`, a path relative to `directory`; a name without a slash is looked up on `PATH`.
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

/// Lets a program that this process executes inherit the descriptor.
pub fn keep_over_exec(descriptor: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// Takes a descriptor that the program before this one kept with [`keep_over_exec`] and named by its number: a number
/// can be taken once.
pub fn take_descriptor(number: RawFd) -> std::io::Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: the number was named for this use alone; if nothing is open there, the next call fails and the value is
    // forgotten.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        Ok(_) => Ok(descriptor),
        Err(error) => {
            std::mem::forget(descriptor);
            Err(error.into())
        }
    }
}

/// Reads a small file in /proc or /sys.
pub fn read_small(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(SMALL_FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Returns the process that traces another one, for example a debugger.
pub fn tracer_of(pid: u32) -> Option<u32> {
    let text = read_small(&format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|tracer| *tracer != 0)
}

/// Returns the number of threads of this process.
pub fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Returns the resident memory of a process in KiB, if readable.
pub fn memory_kib(pid: u32) -> Option<u64> {
    let text = read_small(&format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_KIB)
}

/// Returns the CPU time that a process has used, if readable.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let stat = read_small(&format!("/proc/{pid}/stat"))?;
    // Fields are counted after the name, which may contain spaces: utime and stime are the 14th and 15th of
    // all.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * MILLISECONDS_A_TICK))
}

/// Returns the memory of a process in KiB with its share of the memory that it shares with others (`Pss`). `None`
/// if only root or the same user may read it.
pub fn shared_memory_kib(pid: u32) -> Option<u64> {
    let text = read_small(&format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the name of a process's program, for the log.
pub fn name_of(pid: u32) -> Option<String> {
    read_small(&format!("/proc/{pid}/comm")).map(|name| name.trim().to_owned())
}

/// Signals that are meant for the arbiter and also reach its children when they are sent to a process group or
/// typed at a terminal. The children are stopped by a message or a closed channel, or killed.
const ARBITERS_SIGNALS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];
/// A reader that is gone, a file at its size limit (`RLIMIT_FSIZE`): errors of the write, as under CPython, which
/// ignores both signals when it starts.
const WRITE_ERRORS: [Signal; 2] = [Signal::SIGPIPE, Signal::SIGXFSZ];
/// Descriptors to leave free when opening pidfds, which are optional.
const SPARE_DESCRIPTORS: u64 = 128;
const SMALL_FILE_MAX: u64 = 64 * 1024;
const PAGE_KIB: u64 = 4;
/// `USER_HZ` of Linux: the unit of times in /proc/PID/stat.
const MILLISECONDS_A_TICK: u64 = 10;

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
