//! A forked child has no other threads: offloaded work and name resolution must still work in it. This is a separate
//! binary, so that nothing else runs while it forks.

use jimu_green::{Hub, offload};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

#[test]
fn offloaded_work_gets_new_threads_after_a_fork() {
    let hub = Hub::new().unwrap();
    let before = hub.block_on(|| offload(std::process::id).unwrap()).unwrap();
    assert_eq!(before, std::process::id());
    // SAFETY: the only other threads are those of the pool, idle, and the test harness's, which waits;
    // the child uses nothing of these threads and ends with `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // Ends the child if there is no result.
            nix::unistd::alarm::set(20);
            let answer = hub.block_on(|| {
                let addresses = jimu_green::net::resolve("localhost:80").map(|list| list.len());
                (offload(std::process::id).ok(), addresses.ok())
            });
            let right = answer.is_ok_and(|(pid, addresses)| {
                pid == Some(std::process::id()) && addresses.is_some_and(|count| count > 0)
            });
            // SAFETY: ends the process without running the harness's code.
            unsafe { libc::_exit(i32::from(!right)) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
}
