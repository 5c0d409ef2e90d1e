//! Black-box tests of the process model: a whole server with a double of worker class and application. The server
//! is this same program, which the tests start with a variable set: so it is always the same build as the tests,
//! and has one thread, as a server must.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::process::ExitCode;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use libtest_mimic::{Arguments, Completion, Trial};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

/// Ends the running test, which counts as skipped for this reason.
pub(crate) fn skip(reason: &'static str) -> ! {
    resume_unwind(Box::new(Skipped(reason)))
}

struct Skipped(&'static str);

macro_rules! tests {
    ($($name:ident),* $(,)?) => { [$((concat!(module_path!(), "::", stringify!($name)), $name)),*] };
}

mod descriptors;
mod double;
mod faults;
mod forgers;
mod hooks;
mod life;
mod metrics;
mod refusing;
mod reloads;
mod rights;
mod server;
mod trials;
mod upgrades;

fn main() -> ExitCode {
    if std::env::var_os(server::SERVE).is_some() {
        std::process::exit(host::serve::main::<double::Double>());
    }
    let tests = [
        life::TESTS,
        descriptors::TESTS,
        faults::TESTS,
        metrics::TESTS,
        forgers::TESTS,
        hooks::TESTS,
        refusing::TESTS,
        reloads::TESTS,
        rights::TESTS,
        trials::TESTS,
        upgrades::TESTS,
    ];
    let trials = tests.into_iter().flatten().map(|&(name, test)| {
        Trial::ignorable_test(name, move || match catch_unwind(AssertUnwindSafe(test)) {
            Ok(()) => Ok(Completion::Completed),
            Err(payload) => match payload.downcast::<Skipped>() {
                Ok(skipped) => Ok(Completion::ignored_with(skipped.0)),
                Err(payload) => resume_unwind(payload),
            },
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
