//! `hostctl top`: the server's state in the terminal, updated continuously. It requests the status and overwrites
//! the previous output; it does not need the width of the terminal.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::control::client::{ClientError, ask};
use crate::control::{Request, Response, Status, WorkerStatus};

use super::show;

/// Runs until the server or the terminal is closed, or `count` updates are done.
pub(super) fn run(
    path: &Path,
    limit: Option<Duration>,
    interval: f64,
    count: Option<u32>,
) -> Result<Response, ClientError> {
    let mut before = Sample::default();
    let mut updates = 0;
    loop {
        let response = ask(path, &Request::Status, limit)?;
        let Some(status) = &response.status else { return Ok(response) };
        let now = Sample::at(status);
        let text = paint(status, &now, &before);
        let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
        if write!(std::io::stdout(), "{clear}{text}").is_err() {
            return Ok(response);
        }
        updates += 1;
        if count == Some(updates) {
            return Ok(response);
        }
        before = now;
        sleep(Duration::from_secs_f64(interval));
    }
}

/// What each worker had counted at a time.
#[derive(Default)]
struct Sample {
    at: Option<Instant>,
    counts: HashMap<u64, Counts>,
}

/// Counts of one worker: requests served, and WebSocket messages in both directions.
#[derive(Clone, Copy, Default)]
struct Counts {
    requests: u64,
    messages: u64,
}

impl Sample {
    fn at(status: &Status) -> Self {
        let workers = status.generations.iter().flat_map(|generation| &generation.workers);
        let counts = workers.map(|worker| (worker.age, Counts::of(worker))).collect();
        Self { at: Some(Instant::now()), counts }
    }

    /// Requests per second of one worker since the previous update; the total for a new worker.
    fn rate(&self, before: &Self, age: u64) -> Option<f64> {
        self.rate_of(before, age, |counts| counts.requests)
    }

    #[expect(clippy::cast_precision_loss, reason = "for the eye")]
    fn rate_of(&self, before: &Self, age: u64, count: fn(Counts) -> u64) -> Option<f64> {
        let seconds = self.at?.duration_since(before.at?).as_secs_f64();
        let known = count(before.counts.get(&age).copied().unwrap_or_default());
        let increase = count(*self.counts.get(&age)?).saturating_sub(known);
        (seconds > 0.0).then(|| increase as f64 / seconds)
    }
}

impl Counts {
    fn of(worker: &WorkerStatus) -> Self {
        let messages = worker.messages_received.saturating_add(worker.messages_sent);
        Self { requests: worker.requests, messages }
    }
}

fn paint(status: &Status, now: &Sample, before: &Sample) -> String {
    let mut lines = vec![show::headline(status)];
    let workers = || status.generations.iter().flat_map(|generation| &generation.workers);
    let sum = |count| {
        let rates = workers().filter_map(|worker| now.rate_of(before, worker.age, count));
        // The sum of nothing is a signed zero.
        rates.fold(0.0, |sum, rate| sum + rate)
    };
    let (requests, messages) = (sum(|counts| counts.requests), sum(|counts| counts.messages));
    let busy: u32 = workers().map(|worker| worker.busy).sum();
    let upgraded: u64 = workers().map(|worker| worker.upgraded).sum();
    let ready = workers().filter(|worker| worker.state == "ready").count();
    let mut totals = format!("{requests:.0} requests/s, {busy} in flight, {ready} workers ready");
    if now.counts.values().any(|counts| counts.messages > 0) || upgraded > 0 {
        // Writing to a string cannot fail.
        let _ = write!(totals, ", {upgraded} upgraded, {messages:.0} messages/s");
    }
    lines.push(totals);
    for generation in &status.generations {
        lines.push(String::new());
        lines.push(show::generation_line(generation));
        let of = generation.workers.iter();
        lines.extend(of.map(|worker| show::worker_line(worker, now.rate(before, worker.age))));
    }
    show::join(&lines)
}

/// Moves the cursor to the corner and clears everything after it.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_samples() {
        let start = Instant::now();
        let counts = |requests, messages| Counts { requests, messages };
        let before = Sample { at: Some(start), counts: [(1, counts(10, 0))].into() };
        let at = Some(start + Duration::from_secs(2));
        let now = Sample { at, counts: [(1, counts(30, 50)), (2, counts(4, 0))].into() };
        assert_eq!(now.rate_of(&before, 1, |counts| counts.messages), Some(25.0));
        assert_eq!(now.rate(&before, 1), Some(10.0));
        assert_eq!(now.rate(&before, 2), Some(2.0), "a new worker");
        assert_eq!(now.rate(&Sample::default(), 1), None);
        assert_eq!(now.rate(&before, 3), None);
    }
}
