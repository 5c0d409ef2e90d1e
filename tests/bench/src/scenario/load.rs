//! As many requests as possible: CPU time per request, responses per second, response times.

use super::scrape::Scraper;
use super::{Kind, Outcome, Request, Runner, Stage};
use crate::contender::{App, Contender, Role, metrics_of};
use crate::load::wrk::Wrk;
use crate::load::{Figures, Load, Message, Plan, handshake, run};
use crate::proc;
use crate::profile::Recording;
use crate::result::Metric;

/// Runs all contenders in rounds. The order rotates, so that none always follows the same one.
pub(super) fn measure(stage: &Stage<'_>) -> Outcome {
    if let (Kind::Wrk { .. }, Err(why)) = (stage.scenario.kind, stage.setup.wrk()) {
        eprintln!("{}: left out: {why}", stage.scenario.name);
        return (Vec::new(), vec![why]);
    }
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
    if stage.effort.profile {
        profile(stage, &mut ready);
    }
    (ready.into_iter().map(|(runner, _)| runner.row).collect(), absent)
}

/// Records a profile of each of Jimu's classes in a round whose figures are dropped: perf slows it down.
fn profile(stage: &Stage<'_>, ready: &mut [(Runner, u64)]) {
    let perf = match stage.setup.perf() {
        Ok(perf) => perf,
        Err(why) => return eprintln!("{}: no profile: {why}", stage.scenario.name),
    };
    for (runner, requests) in ready.iter_mut() {
        if runner.row.role != Role::Ours {
            continue;
        }
        let row = runner.row.clone();
        let recorded = Recording::start(perf, &runner.server.pids(), stage.directory);
        let recorded = recorded.and_then(|recording| {
            let turn = take_turn(stage, runner, *requests);
            recording.stop(stage.setup.directory()).and_then(|text| turn.map(|()| text))
        });
        runner.row = row;
        match recorded {
            Ok(text) => stage.profiles.borrow_mut().push((runner.row.name.clone(), text)),
            Err(error) => {
                eprintln!("{}: no profile of {}: {error}", stage.scenario.name, runner.row.name);
            }
        }
    }
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
    let figures = match &mut open {
        _ if matches!(stage.scenario.kind, Kind::Wrk { .. }) => with_wrk(stage, &plan, runner)?,
        Some(load) => load.run(requests)?.figures(),
        None => run(&plan)?.figures(),
    };
    scraper.map_or(Ok(()), Scraper::stop)?;
    let spent = proc::cpu(&pids).saturating_sub(before);
    let row = &mut runner.row;
    row.push(Metric::Cpu, spent.as_secs_f64() * 1e6 / figures.requests as f64);
    row.push(Metric::Rate, figures.rate);
    row.push(Metric::P50, figures.p50_us / 1e3);
    row.push(Metric::P99, figures.p99_us / 1e3);
    row.push(Metric::Memory, proc::pss_kib(&pids) as f64 / 1024.0);
    if let Kind::Pauses { connections, pause_ms } = stage.scenario.kind {
        let ideal = connections as f64 * 1e3 / pause_ms as f64;
        row.push(Metric::OfIdeal, figures.steady_rate / ideal);
    }
    row.failed += figures.failed;
    Ok(())
}

fn with_wrk(stage: &Stage<'_>, plan: &Plan, runner: &Runner) -> std::io::Result<Figures> {
    let Request { native, python, head, .. } = stage.scenario.request;
    let target = if runner.entry.app == App::Native { native } else { python };
    let wrk = Wrk {
        program: stage.setup.wrk().map_err(std::io::Error::other)?,
        url: &format!("http://{}{target}", plan.address),
        headers: head.headers(),
        connections: plan.connections,
        seconds: stage.effort.seconds,
    };
    let report = wrk.run()?;
    if report.requests == 0 {
        return Err(std::io::Error::other("wrk got no response"));
    }
    Ok(report)
}

fn plan(stage: &Stage<'_>, runner: &Runner, requests: u64) -> Plan {
    let address = runner.server.address;
    let plan = Plan { requests, ..Plan::new(address, runner.request.clone()) };
    match stage.scenario.kind {
        Kind::Load { connections, keep_alive } => Plan { connections, keep_alive, ..plan },
        Kind::Connections { .. } => {
            Plan { connections: runner.entry.connections.unwrap_or(1), ..plan }
        }
        Kind::Pauses { connections, .. }
        | Kind::Workers { connections, .. }
        | Kind::Wrk { connections } => Plan { connections, ..plan },
        Kind::Pipelined { connections, depth } => Plan { connections, ..plan }.pipelined(depth),
        Kind::WebSocket { connections } => {
            let message = Some(Message::of_length(MESSAGE));
            Plan { connections, request: handshake(address), message, ..plan }
        }
        _ => plan,
    }
}

/// A short line of a chat, or of a protocol like it.
const MESSAGE: u8 = 64;
