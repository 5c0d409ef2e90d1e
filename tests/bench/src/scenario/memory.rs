//! Servers of several workers: their memory, that of the first process alone, and how often it wakes
//! up when there is nothing to do.

use std::thread;
use std::time::Duration;

use super::{Outcome, Runner, Stage};
use crate::load::{Plan, run};
use crate::proc;
use crate::result::Metric;

/// All servers are up at the same time, as pages that two of them share would be in an installation.
pub(super) fn measure(stage: &Stage<'_>) -> Outcome {
    let (mut runners, absent) = stage.start_all();
    for runner in &mut runners {
        let plan = Plan {
            address: runner.server.address,
            request: runner.request.clone(),
            requests: REQUESTS,
            connections: CONNECTIONS,
            keep_alive: true,
        };
        match run(&plan) {
            Ok(outcome) => runner.row.failed = outcome.failed,
            Err(error) => eprintln!("{}: {}: {error}", stage.scenario.name, runner.entry.name()),
        }
    }
    let before: Vec<u64> = runners.iter().map(wakes).collect();
    thread::sleep(IDLE);
    for (runner, before) in runners.iter_mut().zip(before) {
        let woken = wakes(runner) - before;
        let leader = [runner.server.leader()];
        let all = proc::pss_kib(&runner.server.pids());
        runner.row.push(Metric::Wakes, woken as f64 / IDLE.as_secs_f64());
        runner.row.push(Metric::Memory, all as f64 / 1024.0);
        runner.row.push(Metric::LeaderMemory, proc::pss_kib(&leader) as f64 / 1024.0);
    }
    (runners.into_iter().map(|runner| runner.row).collect(), absent)
}

fn wakes(runner: &Runner) -> u64 {
    proc::sleeps(runner.server.leader())
}

/// Enough that every worker has answered some.
const REQUESTS: u64 = 400;
const CONNECTIONS: usize = 16;
/// How long the servers are left alone.
const IDLE: Duration = Duration::from_secs(10);
