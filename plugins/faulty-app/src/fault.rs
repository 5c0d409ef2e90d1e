//! A fault on demand: where it is to happen, and which. Shared by the faulty plugins as source.
//!
//! Faults are written `place=fault,place=fault`, in a variable of the environment or in the plugin's section of the
//! settings file as `fault = "…"`.

use std::time::Duration;

use worker_api::{Failure, FailureKind, Result};

/// The faults that were asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(String);

impl Faults {
    /// From the plugin's variable alone: all there is before a host has handed over anything.
    pub(crate) fn of_environment(variable: &str) -> Self {
        Self(std::env::var(variable).unwrap_or_default())
    }

    /// From the variable and the plugin's section.
    pub(crate) fn of(variable: &str, section: &str) -> Self {
        let table: toml::Table = section.parse().unwrap_or_default();
        let more = table.get("fault").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        Self(format!("{},{more}", Self::of_environment(variable).0))
    }

    /// The word behind `place=`.
    pub(crate) fn at(&self, place: &str) -> Option<&str> {
        self.0
            .split(',')
            .filter_map(|item| item.split_once('='))
            .find(|(at, _)| *at == place)
            .map(|(_, what)| what)
    }

    /// Has the fault happen that was asked for at this place.
    pub(crate) fn happen(&self, place: &str) -> Result<()> {
        self.at(place).map_or(Ok(()), |what| make(place, what))
    }
}

/// Makes one fault. Those that are failures are returned; `sleepN` takes N milliseconds, `growN` N MiB for good, `fork`
/// returns in two processes; what is unknown is a failure.
pub(crate) fn make(place: &str, what: &str) -> Result<()> {
    let words = format!("the fault asked for in {place}");
    let number = |prefix: &str| what.strip_prefix(prefix).and_then(|digits| digits.parse().ok());
    match what {
        "panic" => panic!("{words}"),
        "abort" => std::process::abort(),
        "segfault" => segfault(),
        "overflow" => {
            overflow(1);
            Ok(())
        }
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        "fork" => fork(&words),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "error" => Err(Failure::new(FailureKind::OTHER, words)),
        "config" => Err(Failure::config(words)),
        "load" => {
            Err(Failure::new(FailureKind::LOAD, words).with_detail("its cause\nof two lines"))
        }
        _ => match (number("exit"), number("sleep"), number("grow")) {
            (Some(status), ..) => std::process::exit(status as i32),
            (_, Some(ms), _) => {
                std::thread::sleep(Duration::from_millis(ms));
                Ok(())
            }
            (.., Some(mebibytes)) => {
                std::mem::forget(vec![1u8; (mebibytes as usize) << 20]);
                Ok(())
            }
            _ => Err(Failure::config(format!("{place}: no such fault: {what}"))),
        },
    }
}

fn segfault() -> ! {
    // SAFETY: raising a signal touches no memory; the default disposition is put back first, because Rust's runtime
    // has a handler of its own for this signal.
    unsafe {
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        libc::raise(libc::SIGSEGV);
    }
    std::process::abort()
}

/// Returns in a child, too; in this process a failure where that does not end with status 0.
fn fork(words: &str) -> Result<()> {
    // SAFETY: the child calls functions that need no lock of another thread's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        return Ok(());
    }
    let mut status = -1;
    // SAFETY: the status is a local, which the kernel fills.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    let failed = || Failure::new(FailureKind::OTHER, format!("{words}: status {status}"));
    if status == 0 { Ok(()) } else { Err(failed()) }
}

/// Uses the stack until there is none left.
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 128]);
    if depth == u64::MAX { frame[0] } else { overflow(depth + 1) + frame[1] }
}
