//! The targets, and whether they are met.

use crate::result::{Measured, Metric, Spread};

/// One target.
#[derive(Debug)]
pub struct Target {
    /// Scenario in which it is measured.
    pub scenario: &'static str,
    /// Contender.
    pub ours: &'static str,
    /// Quantity.
    pub metric: Metric,
    /// What it is compared with.
    pub against: Against,
    /// Bound.
    pub bound: Bound,
    /// Least number of rounds that decide it.
    pub rounds: usize,
}

/// What a figure is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Against {
    /// Nothing: the absolute value.
    Nothing,
    /// Divided by this contender's figure.
    Ratio(&'static str),
    /// Minus this contender's figure.
    Difference(&'static str),
}

/// Bound of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// At most this.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// At least this.
    AtLeast(f64),
}

/// Result of a target.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Value.
    pub found: Spread,
    /// What follows from its median.
    pub decision: Decision,
}

/// Whether a target is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is within the bound.
    Met,
    /// It is not.
    Missed,
    /// Open: only this number of rounds was measured.
    TooFewRounds(usize),
}

impl Target {
    /// Compares with the results. `None` if one of the two could not be measured.
    pub fn verdict(&self, measured: &Measured) -> Option<Verdict> {
        let ours = measured.row(self.ours)?;
        let found = match self.against {
            Against::Nothing => ours.spread(self.metric)?,
            Against::Ratio(peer) => ours.ratio(measured.row(peer)?, self.metric)?,
            Against::Difference(peer) => ours.difference(measured.row(peer)?, self.metric)?,
        };
        let met = match self.bound {
            Bound::AtMost(limit) => found.median <= limit,
            Bound::Below(limit) => found.median < limit,
            Bound::AtLeast(limit) => found.median >= limit,
        };
        let decision = match ours.figures.get(&self.metric).map_or(0, Vec::len) {
            rounds if rounds < self.rounds => Decision::TooFewRounds(rounds),
            _ if met => Decision::Met,
            _ => Decision::Missed,
        };
        Some(Verdict { found, decision })
    }
}

/// Returns all targets.
pub fn targets() -> Vec<Target> {
    let mut targets = vec![
        at_most(
            "block-close",
            "Jimu sync, native",
            Metric::Cpu,
            Against::Ratio("Jimu sync, linked in"),
            1.02,
        ),
        at_most(
            "block-kept",
            "Jimu gthread, native",
            Metric::Cpu,
            Against::Ratio("Jimu gthread, linked in"),
            1.02,
        ),
        at_most(
            "start",
            "Jimu sync, native",
            Metric::Start,
            Against::Difference("bare epoll loop"),
            50.0,
        ),
        at_most("memory", "Jimu sync, native", Metric::LeaderMemory, Against::Nothing, 4.0),
        at_most("memory", "Jimu sync, native", Metric::Wakes, Against::Nothing, 1.0),
        at_most("memory", "Jimu sync", Metric::Memory, Against::Ratio("gunicorn sync"), 0.7),
        at_most("memory", "Jimu sync", Metric::PrivateMemory, Against::Ratio("gunicorn sync"), 0.6),
        at_most("start", "Jimu sync", Metric::Start, Against::Ratio("gunicorn sync"), 1.3),
        at_most(
            "parse",
            "scan and parse_head",
            Metric::Nanoseconds,
            Against::Ratio("httparse alone, room for 32 fields"),
            1.3,
        ),
        cpu("close-wsgi", "Jimu sync", "gunicorn sync", 0.17),
        cpu("hello-wsgi", "Jimu gthread", "granian", 0.6),
        cpu("hello-wsgi", "Jimu gthread", "bjoern", 1.1),
    ];
    for (metered, plain) in [
        ("Jimu gthread, with metrics, native", "Jimu gthread, native"),
        ("Jimu gevent, with metrics, native", "Jimu gevent, native"),
    ] {
        targets.push(cpu("metrics", metered, plain, 1.01));
    }
    for native in ["Jimu eventlet, native", "Jimu gevent, native"] {
        targets.push(cpu("hello-native", native, "nginx", 1.0));
        targets.push(cpu("hello-native", native, "bare epoll loop", 1.2));
    }
    for class in COOPERATIVE {
        for (peer, limit) in [
            ("granian", 0.65),
            ("bjoern", 1.15),
            ("gunicorn gevent", 0.12),
            ("gevent pywsgi", 0.12),
        ] {
            targets.push(cpu("hello-wsgi", class, peer, limit));
        }
    }
    for class in COOPERATIVE.into_iter().chain(COOPERATIVE_NATIVE) {
        targets.push(at_least("sleep", class, Metric::OfIdeal, 0.9));
        targets.push(at_most("idle", class, Metric::PerIdle, Against::Nothing, 2048.0));
        targets.push(at_least("idle", class, Metric::RateKept, 0.9));
    }
    for class in CONCURRENT.into_iter().chain(CONCURRENT_NATIVE) {
        targets.push(at_most("idle", class, Metric::CpuBesideIdle, Against::Nothing, 1.1));
    }
    for (c, rust) in [
        ("Jimu gevent, native, in C", "Jimu gevent, native"),
        ("Jimu gthread, native, in C", "Jimu gthread, native"),
    ] {
        targets.push(Target { rounds: ROUNDS, ..cpu("door", c, rust, 1.02) });
        targets.push(cpu("door-calls", c, rust, 1.3));
    }
    targets.extend(shapes());
    targets.extend(django());
    targets.extend(asgi());
    targets
}

/// Returns the least number of rounds that decide all targets of a scenario.
pub fn rounds_of(scenario: &str) -> usize {
    let of_scenario = targets().into_iter().filter(|target| target.scenario == scenario);
    of_scenario.map(|target| target.rounds).max().unwrap_or(1)
}

/// What a short request costs must not hide behind the headers of a longer one.
fn shapes() -> Vec<Target> {
    let mut targets = Vec::new();
    for class in CONCURRENT {
        targets.push(cpu("minimal-wsgi", class, "bjoern", 0.9));
        targets.push(cpu("wrk-minimal", class, "bjoern", 0.9));
        targets.push(cpu("upload", class, "uWSGI", 0.8));
        targets.push(cpu("upload-whole", class, "uWSGI", 0.8));
    }
    for class in CONCURRENT.into_iter().chain(["Jimu sync"]) {
        targets.push(cpu("close-wsgi", class, "bjoern", 1.0));
    }
    for class in CONCURRENT_NATIVE.into_iter().chain(["Jimu sync, native"]) {
        targets.push(cpu("close-native", class, "nginx", 1.0));
    }
    for class in CONCURRENT_NATIVE {
        let rate = at_least("pipelined-native", class, Metric::Rate, 3.0);
        targets.push(Target { against: Against::Ratio("nginx"), ..rate });
    }
    for scenario in ["threads-wsgi", "threads-minimal"] {
        for few in ["Jimu gthread, 1 thread", "Jimu gthread, 2 threads"] {
            targets.push(cpu(scenario, few, "Jimu gthread, 8 threads", 1.1));
        }
    }
    for (scenario, many, few) in MANY_CONNECTIONS {
        targets.push(cpu(scenario, many, few, 1.1));
    }
    for (scenario, four, one) in FOUR_WORKERS {
        targets.push(cpu(scenario, four, one, 1.05));
    }
    in_rounds(targets)
}

/// Debian's interpreter, to which no library is linked, against servers that link their own or use it too.
fn django() -> Vec<Target> {
    let mut targets =
        vec![cpu("django", "Jimu sync, Debian's python3", "gunicorn sync, Debian's python3", 1.0)];
    for class in [
        "Jimu gthread, Debian's python3",
        "Jimu gthread, 1 thread, Debian's python3",
        "Jimu gevent, Debian's python3",
    ] {
        for peer in ["bjoern, Debian's python3", "uWSGI, Debian's python3"] {
            targets.push(cpu("django", class, peer, 1.0));
        }
    }
    in_rounds(targets)
}

fn asgi() -> Vec<Target> {
    let mut targets = vec![
        cpu("asgi-hello", ASGI, "uvicorn", 0.5),
        cpu("asgi-hello", ASGI, "granian", 0.8),
        cpu("asgi-hello", ASGI, "gunicorn asgi", 0.4),
        cpu("asgi-hello", ASGI, "fastpysgi", 1.0),
        cpu("asgi-websocket", ASGI, "uvicorn", 0.5),
    ];
    for peer in ["uvicorn", "granian", "gunicorn asgi", "hypercorn", "fastpysgi"] {
        let target = cpu("asgi-fastapi", ASGI, peer, 1.0);
        targets.push(Target { bound: Bound::Below(1.0), ..target });
    }
    let mut targets = in_rounds(targets);
    targets.push(at_least("asgi-sleepers", ASGI, Metric::OfIdeal, 0.95));
    targets.push(at_most("asgi-memory", ASGI, Metric::Memory, Against::Ratio("uvicorn"), 0.6));
    targets
}

fn in_rounds(targets: Vec<Target>) -> Vec<Target> {
    targets.into_iter().map(|target| Target { rounds: ROUNDS, ..target }).collect()
}

fn cpu(scenario: &'static str, ours: &'static str, peer: &'static str, limit: f64) -> Target {
    at_most(scenario, ours, Metric::Cpu, Against::Ratio(peer), limit)
}

fn at_most(
    scenario: &'static str,
    ours: &'static str,
    metric: Metric,
    against: Against,
    limit: f64,
) -> Target {
    Target { scenario, ours, metric, against, bound: Bound::AtMost(limit), rounds: 1 }
}

fn at_least(scenario: &'static str, ours: &'static str, metric: Metric, limit: f64) -> Target {
    let (against, bound) = (Against::Nothing, Bound::AtLeast(limit));
    Target { scenario, ours, metric, against, bound, rounds: 1 }
}

/// Ratios near their bounds need as many.
const ROUNDS: usize = 15;
const ASGI: &str = "Jimu asgi";
const COOPERATIVE: [&str; 3] = ["Jimu eventlet", "Jimu gevent", "Jimu pywsgi"];
const COOPERATIVE_NATIVE: [&str; 3] =
    ["Jimu eventlet, native", "Jimu gevent, native", "Jimu pywsgi, native"];

/// Classes that serve several requests at a time.
const CONCURRENT: [&str; 4] = ["Jimu eventlet", "Jimu gevent", "Jimu pywsgi", "Jimu gthread"];
const CONCURRENT_NATIVE: [&str; 4] =
    ["Jimu eventlet, native", "Jimu gevent, native", "Jimu pywsgi, native", "Jimu gthread, native"];

const MANY_CONNECTIONS: [(&str, &str, &str); 8] = [
    (
        "connections-native",
        "Jimu gthread, native, 2,048 connections",
        "Jimu gthread, native, 32 connections",
    ),
    (
        "connections-native",
        "Jimu eventlet, native, 2,048 connections",
        "Jimu eventlet, native, 32 connections",
    ),
    (
        "connections-native",
        "Jimu gevent, native, 2,048 connections",
        "Jimu gevent, native, 32 connections",
    ),
    (
        "connections-native",
        "Jimu pywsgi, native, 2,048 connections",
        "Jimu pywsgi, native, 32 connections",
    ),
    ("connections-wsgi", "Jimu gthread, 2,048 connections", "Jimu gthread, 32 connections"),
    ("connections-wsgi", "Jimu eventlet, 2,048 connections", "Jimu eventlet, 32 connections"),
    ("connections-wsgi", "Jimu gevent, 2,048 connections", "Jimu gevent, 32 connections"),
    ("connections-wsgi", "Jimu pywsgi, 2,048 connections", "Jimu pywsgi, 32 connections"),
];

const FOUR_WORKERS: [(&str, &str, &str); 8] = [
    ("workers-native", "Jimu gthread, native, 4 workers", "Jimu gthread, native, 1 worker"),
    ("workers-native", "Jimu eventlet, native, 4 workers", "Jimu eventlet, native, 1 worker"),
    ("workers-native", "Jimu gevent, native, 4 workers", "Jimu gevent, native, 1 worker"),
    ("workers-native", "Jimu pywsgi, native, 4 workers", "Jimu pywsgi, native, 1 worker"),
    ("workers-wsgi", "Jimu gthread, 4 workers", "Jimu gthread, 1 worker"),
    ("workers-wsgi", "Jimu eventlet, 4 workers", "Jimu eventlet, 1 worker"),
    ("workers-wsgi", "Jimu gevent, 4 workers", "Jimu gevent, 1 worker"),
    ("workers-wsgi", "Jimu pywsgi, 4 workers", "Jimu pywsgi, 1 worker"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Role;
    use crate::result::Row;
    use crate::scenario::{Entry, SCENARIOS};

    #[test]
    fn each_target_names_contenders_of_its_scenario() {
        for target in targets().into_iter().filter(|target| target.scenario != "parse") {
            let scenario =
                SCENARIOS.iter().find(|scenario| scenario.name == target.scenario).unwrap();
            let names: Vec<String> = scenario.entries().map(Entry::name).collect();
            let peer = match target.against {
                Against::Nothing => None,
                Against::Ratio(peer) | Against::Difference(peer) => Some(peer),
            };
            for name in [target.ours].into_iter().chain(peer) {
                assert!(names.iter().any(|known| known == name), "{name} in {target:?}");
            }
        }
    }

    #[test]
    fn too_few_rounds_decide_nothing() {
        let target =
            Target { bound: Bound::Below(1.0), rounds: 2, ..cpu("s", "ours", "peer", 1.0) };
        let mut rows = ["ours", "peer"].map(|name| Row::new(name.into(), Role::Ours));
        let mut decisions = Vec::new();
        for (ours, peer) in [(1.0, 2.0), (1.0, 3.0), (8.0, 8.0), (8.0, 8.0), (8.0, 8.0)] {
            rows[0].push(Metric::Cpu, ours);
            rows[1].push(Metric::Cpu, peer);
            let (scenario, absent) = ("s".into(), Vec::new());
            let measured = Measured { scenario, day: 0, load: 0.0, rows: rows.to_vec(), absent };
            decisions.push(target.verdict(&measured).unwrap().decision);
        }
        assert_eq!(decisions[..2], [Decision::TooFewRounds(1), Decision::Met]);
        assert_eq!(decisions[4], Decision::Missed, "1.0 is not below 1.0");
    }
}
