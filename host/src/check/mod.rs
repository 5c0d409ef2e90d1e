//! `host --check-worker`: tests a worker class against the contract of `worker-api`, in private scratch servers,
//! and reports each violation.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`report`] | the list of checks and the table of results |
//! | `loading` | checks before anything serves |
//! | `serving` | checks of one worker that serves |
//! | `living` | checks of heartbeat, signals, replacement and shutdown, each with its own server |
//! | `server`, `client`, `facts` | a scratch server, a strict client, the kernel's data about processes |
//!
//! No invariant of the server holds here: this process has threads and starts others. It loads no plugin itself;
//! the scratch servers do, which run this same program.

mod client;
mod facts;
mod living;
mod loading;
pub mod report;
mod server;
mod serving;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::exit_status::EX_CONFIG;
use crate::plugin::search::SearchPath;
use report::Report;
use server::Bench;

/// Checks a class, prints the table, and returns the exit status: 0 if the class fulfils the contract, 1 if it
/// does not, 78 if that cannot be determined.
pub fn main(class: &str, config: Option<&Path>) -> i32 {
    let bench = match prepare(class, config) {
        Ok(bench) => bench,
        Err(reason) => {
            eprintln!("error: {reason}");
            return EX_CONFIG;
        }
    };
    println!("{}\n", bench.class.display());
    let report = run(&bench);
    print!("{}", report.table());
    i32::from(report.has_failed())
}

fn prepare(class: &str, config: Option<&Path>) -> Result<Bench, String> {
    let search = SearchPath::of_process();
    let class = search.class(class).map_err(|error| error.to_string())?;
    let app = search.checking_app().map_err(|error| error.to_string())?;
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let config: Option<PathBuf> = config.map(absolute).transpose()?;
    Bench::new(absolute(&class)?, absolute(&app)?, config)
        .map_err(|error| format!("cannot create a directory for scratch servers: {error}"))
}

/// Runs the checks in order; those that cannot succeed any more are skipped.
fn run(bench: &Bench) -> Report {
    let mut report = Report::default();
    if !loading::check(bench, &mut report) || !serving::check(bench, &mut report) {
        return report;
    }
    // They mostly wait: in parallel they take little longer than the longest.
    let next = AtomicUsize::new(0);
    let take = || living::CHECKS.get(next.fetch_add(1, Ordering::Relaxed));
    let lane = || {
        let mut part = Report::default();
        while let Some(check) = take() {
            check(bench, &mut part);
        }
        part
    };
    let lanes = 2 * thread::available_parallelism().map_or(1, NonZero::get);
    let parts: Vec<Report> = thread::scope(|scope| {
        let running: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        running.into_iter().filter_map(|part| part.join().ok()).collect()
    });
    for part in parts {
        report.extend(part);
    }
    report
}
