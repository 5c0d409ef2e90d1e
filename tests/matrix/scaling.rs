//! `max_workers`: the number of workers follows the load.

use std::{fmt::Write as _, time::Duration};

use jimu_tests::{
    behaviour,
    cell::Cell,
    load::{Load, Plan, get},
    runner::Behaviour,
    server::Setup,
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(workers_follow_the_load).of_host().within(120),
        behaviour!(a_tenfold_load_is_met_without_flapping).of_host().heavy().within(120),
        behaviour!(numbers_of_workers_that_exclude_each_other_are_refused).of_host(),
    ]
}

const SOON: Duration = Duration::from_secs(20);
/// A worker is kept for half a minute after it was needed.
const LATER: Duration = Duration::from_secs(60);

fn workers_follow_the_load(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 1 --max-workers 2").start();
    let light = Plan { clients: 1, think: Duration::from_millis(100), ..Plan::default() };
    let light = Load::start(server.address(), light);
    let heavy =
        Plan { clients: 8, think: Duration::ZERO, ask: |_| get("/sleep?ms=10"), ..Plan::default() };
    let heavy = Load::start(server.address(), heavy);
    server.log.line(&["Scaling from 1 to 2 workers"], SOON);
    server.until_ready_workers(2);
    server.ctl(&["reload"]).done();
    server.until_ready_workers(2);
    heavy.finish().assert_nothing_lost();
    server.log.line(&["Scaling from 2 to 1 workers"], LATER);
    server.until_ready_workers(1);
    light.flows(5, SOON);
    light.finish().assert_nothing_lost();
    assert_eq!(server.log.count("Scaling from"), 2);
    server.stop();
}

/// A client occupies half a worker of class sync: it is served for 20 ms, and thinks for as long. With one worker, eleven of
/// them wait for 200 ms each time.
fn a_tenfold_load_is_met_without_flapping(cell: &Cell) {
    let clients = |clients| Plan {
        clients,
        think: Duration::from_millis(20),
        ask: |_| get("/sleep?ms=20"),
        ..Plan::default()
    };
    let server = Setup::new(cell).flags("--workers 1 --max-workers 10").start();
    let one = Load::start(server.address(), clients(1));
    one.flows(100, SOON);
    assert_eq!(server.log.count("Scaling from"), 0, "one worker is enough");

    let step = Load::start(server.address(), clients(10));
    // 5.5 workers are busy: fewer than seven are too busy.
    server.log.until(LATER, |log| scalings(log).last().filter(|(_, to)| *to >= 7).copied());
    let before = scalings(&server.log.text());
    server.until_ready_workers(before.last().map_or(0, |(_, to)| *to));
    let step = step.finish();
    step.assert_nothing_lost();
    assert!(step.p99() < Duration::from_secs(1), "{:?}, with too few workers", step.p99());

    let met = Load::start(server.address(), clients(10));
    met.flows(2500, LATER);
    let met = met.finish();
    met.assert_nothing_lost();
    assert!(met.p99() < Duration::from_millis(100), "{:?}, with enough workers", met.p99());
    let after = scalings(&server.log.text());
    assert!(
        after.iter().all(|(from, to)| to > from) && after.len() <= before.len() + 1,
        "{after:?}"
    );
    one.finish().assert_nothing_lost();
    server.stop();
}

/// Returns the numbers of workers before and after each change.
fn scalings(log: &str) -> Vec<(usize, usize)> {
    let numbers = |line: &str| {
        let (from, rest) = line.split_once("Scaling from ")?.1.split_once(" to ")?;
        Some((from.parse().ok()?, rest.split_once(' ')?.0.parse().ok()?))
    };
    log.lines().filter_map(numbers).collect()
}

fn numbers_of_workers_that_exclude_each_other_are_refused(cell: &Cell) {
    for (numbers, line) in [
        ([4, 0, 2], "max_workers: is 2, but workers is 4"),
        ([1, 3, 2], "max_workers: is 2, but min_workers is 3"),
        ([4, 2, 3], "max_workers: is 3, but workers is 4"),
        ([1, 2, 0], "min_workers: has no effect without max_workers"),
    ] {
        let mut file = String::new();
        for (name, number) in ["workers", "min_workers", "max_workers"].iter().zip(numbers) {
            if number > 0 {
                writeln!(file, "{name} = {number}").unwrap();
            }
        }
        let ended = Setup::new(cell).file("host.toml", file).refused();
        assert_eq!(ended.status(), 78, "{}", ended.log);
        assert!(ended.log.contains(line), "no {line:?}: {}", ended.log);
    }
}
