//! `host --check-worker`: runs the contract of `worker-api` against a worker class, in scratch servers of its own, and
//! says what of it the class does not keep.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`report`] | what is checked, and the table of what came of it |
//! | `loading` | checks before anything serves |
//! | `serving` | checks of one worker that serves |
//! | `living` | checks of heartbeat, signals, replacement and end, each with a server of its own |
//! | `server`, `client`, `facts` | a scratch server, a strict client, what the kernel says about processes |
//!
//! No invariant of the server holds here: this process has threads and starts others. It loads no plugin itself; the
//! scratch servers do, which are this same program.

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

/// Checks a class, prints the table, and gives the exit status back: 0 where the class keeps the contract, 1 where it
/// does not, 78 where that cannot be found out.
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
        .map_err(|error| format!("no directory for scratch servers: {error}"))
}

/// The checks from the first to the last; those that cannot succeed any more are left out.
fn run(bench: &Bench) -> Report {
    let mut report = Report::default();
    if !loading::check(bench, &mut report) || !serving::check(bench, &mut report) {
        return report;
    }
    // They mostly wait: side by side they take little longer than the longest.
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
