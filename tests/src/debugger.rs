//! A debugger's hold on a process, by ptrace(2): for tests that need no debugger to be installed.

use std::{fs, ptr};

use nix::{errno::Errno, unistd::Pid};

/// A process whose threads are all stopped by this thread, until it is dropped.
#[derive(Debug)]
pub struct Stopped {
    threads: Vec<i32>,
}

impl Stopped {
    /// Attaches to a process and stops it, as `gdb -p` does.
    pub fn attach(process: Pid) -> Self {
        let threads: Vec<i32> = fs::read_dir(format!("/proc/{process}/task"))
            .unwrap_or_else(|error| panic!("{process}: {error}"))
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        // A thread that has ended since is none to stop.
        let threads = threads.into_iter().filter(|thread| {
            let seized = trace(libc::PTRACE_SEIZE, *thread);
            assert!(matches!(seized, Ok(()) | Err(Errno::ESRCH)), "seize: {seized:?}");
            seized.is_ok()
        });
        let threads: Vec<i32> = threads.collect();
        let this = Self { threads };
        for thread in &this.threads {
            trace(libc::PTRACE_INTERRUPT, *thread)
                .unwrap_or_else(|error| panic!("interrupt: {error}"));
            wait(*thread);
        }
        this
    }

    /// Waits until the process, which someone kills, has ended. Its parent learns of the end only now.
    pub fn ended(mut self) {
        let mut threads = std::mem::take(&mut self.threads);
        // The end of the first thread is reported last.
        threads.reverse();
        for thread in threads {
            while wait(thread).is_some_and(|status| !has_ended(status)) {
                let _ = trace(libc::PTRACE_CONT, thread);
            }
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for thread in &self.threads {
            let _ = trace(libc::PTRACE_DETACH, *thread);
        }
    }
}

fn trace(request: libc::c_uint, thread: i32) -> Result<(), Errno> {
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take no pointer into memory of ours.
    let result = unsafe { libc::ptrace(request, thread, none, none) };
    Errno::result(result).map(drop)
}

/// The next status of a traced thread; nothing when there is no such thread any more.
fn wait(thread: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: waitpid writes one number, which outlives the call.
    let result = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    Errno::result(result).ok().map(|_| status)
}

fn has_ended(status: i32) -> bool {
    libc::WIFEXITED(status) || libc::WIFSIGNALED(status)
}
