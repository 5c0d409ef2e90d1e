//! As many requests as possible: CPU time per request, responses per second, response times.

use super::scrape::Scraper;
use super::{Kind, Outcome, Runner, Stage};
use crate::contender::{Contender, metrics_of};
use crate::load::{Load, Message, Plan, handshake, run};
use crate::proc;
use crate::result::Metric;

/// Runs all contenders in rounds. The order rotates, so that none always follows the same one.
pub(super) fn measure(stage: &Stage<'_>) -> Outcome {
    let (runners, mut absent) = stage.start_all();
    let mut ready = Vec::new();
    for mut runner in runners {
        match runner.awake(|runner| warm(stage, runner)) {
            Ok(requests) => ready.push((runner, requests)),
            Err(error) => absent.push(stage.absence(runner.entry, &error.to_string())),
        }
    }
    for round in 0..stage.effort.rounds {
        for turn in 0..ready.len() {
            let at = (round + turn) % ready.len();
            let (runner, requests) = &mut ready[at];
            let name = runner.entry.name();
            match runner.awake(|runner| take_turn(stage, runner, *requests)) {
                Ok(()) => eprintln!("{}: round {}: {name}", stage.scenario.name, round + 1),
                Err(error) => eprintln!("{}: {name}: {error}", stage.scenario.name),
            }
        }
    }
    (ready.into_iter().map(|(runner, _)| runner.row).collect(), absent)
}

/// Warms a server up, and determines how many requests fill a round.
fn warm(stage: &Stage<'_>, runner: &Runner) -> std::io::Result<u64> {
    let Plan { connections, pipeline, .. } = plan(stage, runner, 0);
    // With fewer requests not every connection would have one.
    let least = (connections * pipeline) as u64 * 2;
    let mut requests = least;
    loop {
        let outcome = run(&plan(stage, runner, requests))?;
        if outcome.failed > requests / 20 {
            return Err(std::io::Error::other(format!(
                "{} of {requests} requests failed",
                outcome.failed
            )));
        }
        let wanted = (outcome.rate() * stage.effort.seconds * periods(stage)) as u64;
        if outcome.took.as_secs_f64() > stage.effort.seconds / 8.0 {
            return Ok(wanted.max(requests / 8).max(least));
        }
        requests = (requests * 4).min(wanted.max(requests * 2));
    }
}

/// How many times as long as others a round takes: requests that wait start all at once, and spread over the pause only
/// after some pauses.
fn periods(stage: &Stage<'_>) -> f64 {
    if matches!(stage.scenario.kind, Kind::Pauses { .. }) { 4.0 } else { 1.0 }
}

fn take_turn(stage: &Stage<'_>, runner: &mut Runner, requests: u64) -> std::io::Result<()> {
    let plan = plan(stage, runner, requests);
    let pids = runner.server.pids();
    let mut open = match stage.scenario.kind {
        Kind::Connections { .. } => Some(Load::open(&plan)?),
        _ => None,
    };
    let before = proc::cpu(&pids);
    let scraper = matches!(runner.entry.contender, Contender::Metered(_))
        .then(|| Scraper::start(metrics_of(stage.directory, plan.address)));
    let outcome = match &mut open {
        Some(load) => load.run(requests)?,
        None => run(&plan)?,
    };
    scraper.map_or(Ok(()), Scraper::stop)?;
    let spent = proc::cpu(&pids).saturating_sub(before);
    let row = &mut runner.row;
    row.push(Metric::Cpu, spent.as_secs_f64() * 1e6 / outcome.requests() as f64);
    row.push(Metric::Rate, outcome.rate());
    row.push(Metric::P50, outcome.quantile_us(0.5) / 1e3);
    row.push(Metric::P99, outcome.quantile_us(0.99) / 1e3);
    row.push(Metric::Memory, proc::pss_kib(&pids) as f64 / 1024.0);
    if let Kind::Pauses { connections, pause_ms } = stage.scenario.kind {
        let ideal = connections as f64 * 1e3 / pause_ms as f64;
        row.push(Metric::OfIdeal, outcome.steady_rate / ideal);
    }
    row.failed += outcome.failed;
    Ok(())
}

fn plan(stage: &Stage<'_>, runner: &Runner, requests: u64) -> Plan {
    let address = runner.server.address;
    let plan = Plan { requests, ..Plan::new(address, runner.request.clone()) };
    match stage.scenario.kind {
        Kind::Load { connections, keep_alive } => Plan { connections, keep_alive, ..plan },
        Kind::Connections { .. } => {
            Plan { connections: runner.entry.connections.unwrap_or(1), ..plan }
        }
        Kind::Pauses { connections, .. } => Plan { connections, ..plan },
        Kind::WebSocket { connections } => {
            let message = Some(Message::of_length(MESSAGE));
            Plan { connections, request: handshake(address), message, ..plan }
        }
        _ => plan,
    }
}

/// A short line of a chat, or of a protocol like it.
const MESSAGE: u8 = 64;
