//! A greenlet that overflows its stack: the process dies after writing the reason. The child is this test binary, run
//! again with an environment variable.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use jimu_green::{Hub, StackConfig, report_overflow, spawn};

#[test]
fn an_overflow_is_named_before_the_process_dies() {
    let output = run_again("overflow");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{stderr}");
    let line = "coroutine stack overflow: raise worker.coroutine_stack\n";
    assert!(stderr.contains(line), "{stderr}");
}

#[test]
fn another_fault_is_not_taken_for_one() {
    let output = run_again("fault");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{stderr}");
    assert!(!stderr.contains("coroutine stack overflow"), "{stderr}");
}

/// Not a test by itself: the children run it.
#[test]
fn child() {
    let Ok(what) = std::env::var(ROLE) else { return };
    let no_core = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    no_core.unwrap();
    let config = StackConfig { size: 64 << 10, ..StackConfig::default() };
    let hub = Hub::with_stacks(config).unwrap();
    report_overflow("worker.coroutine_stack").unwrap();
    hub.block_on(move || {
        // Neither the first nor the last stack of the pool.
        let deep = spawn(move || if what == "fault" { fault() } else { recurse(1) }).unwrap();
        spawn(|| ()).unwrap();
        deep.join().unwrap()
    })
    .unwrap();
}

fn run_again(role: &str) -> std::process::Output {
    let myself = std::env::current_exe().unwrap();
    let arguments = ["--exact", "child", "--nocapture", "--test-threads=1"];
    Command::new(myself).args(arguments).env(ROLE, role).output().unwrap()
}

fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 32]);
    if depth == u64::MAX { frame[0] } else { recurse(depth + 1) + frame[31] }
}

fn fault() -> u64 {
    let nowhere = std::hint::black_box(std::ptr::dangling::<u64>());
    // SAFETY: unsound on purpose: the fault that the test is about, in a separate process.
    unsafe { nowhere.read_volatile() }
}

const ROLE: &str = "GREEN_TEST_ROLE";
