//! Results as numbers, and how they are stored between runs: measuring one scenario must not lose the others.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::contender::Role;

/// A quantity. The order is that of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    /// CPU time of all processes of a server, in microseconds per request.
    Cpu,
    /// Responses per second.
    Rate,
    /// Median response time, in milliseconds.
    P50,
    /// 99th percentile of the response time, in milliseconds.
    P99,
    /// Responses per second, as a share of what the application's pauses allow.
    OfIdeal,
    /// Proportional set size of all processes of a server, in MiB.
    Memory,
    /// Proportional set size of all processes of a server after their first requests, in MiB.
    YoungMemory,
    /// Memory that a process does not share, in MiB: the median of all but the first, which is that of a worker.
    PrivateMemory,
    /// Proportional set size of the server's first process, in MiB.
    LeaderMemory,
    /// Wake-ups per second of the server's first process while idle.
    Wakes,
    /// From the start to the first response, in milliseconds.
    Start,
    /// What an idle connection adds to the proportional set size, in bytes.
    PerIdle,
    /// Responses per second with idle connections, as a share of those without.
    RateKept,
    /// CPU time per request with idle connections, as a multiple of that without.
    CpuBesideIdle,
    /// CPU time of a function, in nanoseconds.
    Nanoseconds,
}

impl Metric {
    /// Returns the heading of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU µs/request",
            Self::Rate => "requests/s",
            Self::P50 => "p50 ms",
            Self::P99 => "p99 ms",
            Self::OfIdeal => "of the ideal rate",
            Self::Memory => "PSS MiB",
            Self::YoungMemory => "PSS MiB after 200 requests per worker",
            Self::PrivateMemory => "private MiB of a worker",
            Self::LeaderMemory => "PSS MiB, first process",
            Self::Wakes => "wake-ups/s, first process",
            Self::Start => "ms to first response",
            Self::PerIdle => "bytes/idle connection",
            Self::RateKept => "rate kept",
            Self::CpuBesideIdle => "CPU/request, × that without",
            Self::Nanoseconds => "ns",
        }
    }

    /// The quantity that ranks the contenders of a scenario where it was measured; less is better.
    pub const RANKING: [Self; 5] =
        [Self::Cpu, Self::PerIdle, Self::Memory, Self::Start, Self::Nanoseconds];
}

/// A server's figures in one scenario: for each quantity one value a round. In the same place of each
/// list is the same round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The contender's name.
    pub name: String,
    /// What it is to Jimu.
    pub role: Role,
    /// The figures.
    pub figures: BTreeMap<Metric, Vec<f64>>,
    /// Requests that were not answered as they should have been, in all rounds.
    pub failed: u64,
}

/// A scenario that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The scenario's name.
    pub scenario: String,
    /// When, in days since 1970.
    pub day: u64,
    /// How many threads wanted a processor, on average, in the minute before the end: the noise.
    pub load: f64,
    /// One row for each contender that could be measured.
    pub rows: Vec<Row>,
    /// One line for each that could not.
    pub absent: Vec<String>,
}

/// Median, least and largest of the values of all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The value in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Row {
    /// A contender without figures.
    pub fn new(name: String, role: Role) -> Self {
        Self { name, role, figures: BTreeMap::new(), failed: 0 }
    }

    /// Adds a round's value.
    pub fn push(&mut self, metric: Metric, value: f64) {
        self.figures.entry(metric).or_default().push(value);
    }

    /// The values of all rounds, in short.
    pub fn spread(&self, metric: Metric) -> Option<Spread> {
        Spread::of(self.figures.get(&metric)?.clone())
    }

    /// The differences of its values from another's, round by round.
    pub fn difference(&self, other: &Self, metric: Metric) -> Option<Spread> {
        let pairs = self.figures.get(&metric)?.iter().zip(other.figures.get(&metric)?);
        Spread::of(pairs.map(|(value, of)| value - of).collect())
    }

    /// The ratios of its values to another's, round by round: what the machine does to both drops out.
    pub fn ratio(&self, other: &Self, metric: Metric) -> Option<Spread> {
        let pairs = self.figures.get(&metric)?.iter().zip(other.figures.get(&metric)?);
        Spread::of(pairs.filter(|(_, of)| **of > 0.0).map(|(value, of)| value / of).collect())
    }
}

impl Measured {
    /// The row of a contender.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Keeps it in a directory, in the place of an older one.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(path_of(directory, &self.scenario), serde_json::to_string_pretty(self)?)
    }

    /// What was kept of a scenario, if anything was.
    pub fn load(directory: &Path, scenario: &str) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path_of(directory, scenario)).ok()?).ok()
    }
}

impl Spread {
    /// Returns that of these values, if there are any.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), least, most })
    }
}

fn path_of(directory: &Path, scenario: &str) -> PathBuf {
    directory.join(format!("{scenario}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut ours = Row::new("ours".into(), Role::Ours);
        let mut peer = Row::new("peer".into(), Role::Peer);
        for (a, b) in [(1.0, 2.0), (30.0, 40.0), (4.0, 16.0)] {
            ours.push(Metric::Cpu, a);
            peer.push(Metric::Cpu, b);
        }
        let ratio = ours.ratio(&peer, Metric::Cpu).unwrap();
        assert_eq!(ratio, Spread { median: 0.5, least: 0.25, most: 0.75 });
        assert_eq!(ours.ratio(&peer, Metric::Rate), None);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!(spread, Spread { median: 3.0, least: 1.0, most: 10.0 });
    }
}
