//! Filters that refuse system calls, for a command to be started and all its descendants.

use std::{io, os::unix::process::CommandExt, process::Command};

/// Makes these system calls fail with `errno` in the command's process and in all its descendants.
pub fn refuse(command: &mut Command, calls: &[libc::c_long], errno: i32) {
    let filter = program(calls, errno);
    // SAFETY: the closure makes two system calls on memory that it owns, and does not allocate.
    unsafe { command.pre_exec(move || install(&filter)) };
}

fn program(calls: &[libc::c_long], errno: i32) -> Vec<libc::sock_filter> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    // `seccomp_data` starts with the number of the call.
    let mut steps = vec![step(load, 0, 0)];
    for (n, call) in calls.iter().enumerate() {
        let to_refusal = calls.len() - n;
        steps.push(step(equal, to_refusal as u8, *call as u32));
    }
    steps.push(step(answer, 0, libc::SECCOMP_RET_ALLOW));
    steps.push(step(answer, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    steps
}

fn install(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program and its filter outlive the calls, which only read them.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
                0,
                0,
            ) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
