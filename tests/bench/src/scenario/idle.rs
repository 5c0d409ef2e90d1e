//! Idle kept-alive connections: what each costs in memory, and what all of them cost the busy ones.

use std::io;

use super::{Entry, Outcome, Stage};
use crate::load::{Idle, Plan, run};
use crate::proc;
use crate::result::{Metric, Row};

/// Each round has a new server: the memory of earlier idle connections would stay with it.
pub(super) fn measure(stage: &Stage<'_>, connections: usize) -> Outcome {
    let new_row = |entry: Entry| (entry, Row::new(entry.name(), entry.contender.role()));
    let mut rows: Vec<_> = stage.entries().map(new_row).collect();
    let mut absent = Vec::new();
    for round in 0..stage.effort.rounds {
        rows.retain_mut(|(entry, row)| match take_turn(stage, *entry, row, connections) {
            Ok(()) => {
                eprintln!("{}: round {}: {}", stage.scenario.name, round + 1, row.name);
                true
            }
            Err(why) => {
                absent.push(stage.absence(*entry, &why));
                false
            }
        });
    }
    (rows.into_iter().map(|(_, row)| row).collect(), absent)
}

fn take_turn(
    stage: &Stage<'_>,
    entry: Entry,
    row: &mut Row,
    connections: usize,
) -> Result<(), String> {
    let server = stage.start(entry)?;
    let address = server.address;
    let request = stage.request(entry, address);
    let plan =
        |requests| Plan { requests, connections: BUSY, ..Plan::new(address, request.clone()) };
    let words = |error: io::Error| error.to_string();
    let warm = run(&plan(2000)).map_err(words)?;
    let requests = ((warm.rate() * stage.effort.seconds) as u64).max(1000);
    let pids = server.pids();
    let cpu = |plan: &Plan| {
        let before = proc::cpu(&pids);
        let outcome = run(plan)?;
        Ok((proc::cpu(&pids).saturating_sub(before).as_secs_f64(), outcome))
    };
    let (cpu_alone, alone) = cpu(&plan(requests)).map_err(words)?;
    let before = proc::pss_kib(&pids);
    let idle = Idle::open(address, &request, connections).map_err(words)?;
    let after = proc::pss_kib(&pids);
    let (cpu_beside, beside) = cpu(&plan(requests)).map_err(words)?;
    let alive = idle.alive();
    if alive * 100 < connections * 99 {
        return Err(format!("it closed {} idle connections", connections - alive));
    }
    let added = after.saturating_sub(before) * 1024;
    row.push(Metric::PerIdle, added as f64 / connections as f64);
    row.push(Metric::RateKept, beside.rate() / alone.rate());
    row.push(Metric::CpuBesideIdle, cpu_beside / cpu_alone);
    row.failed += alone.failed + beside.failed;
    Ok(())
}

/// Number of busy connections.
pub(super) const BUSY: usize = 32;
