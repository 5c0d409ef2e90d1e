//! The page: results as tables and as a picture, with the targets met and missed, and where a peer is ahead. Its
//! text follows from the figures, except for the explanations of `notes`.

mod notes;
mod plot;
mod verdicts;

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::contender::Role;
use crate::machine;
use crate::result::{Measured, Metric, Row, Spread};
use crate::scenario::{SCENARIOS, Scenario};
use crate::setup::Setup;

/// Writes `performance.md` and `performance.svg` into a directory, from results stored in another.
pub fn write(kept: &Path, docs: &Path, setup: &Setup) -> io::Result<()> {
    let all: Vec<(&Scenario, Measured)> = SCENARIOS
        .iter()
        .filter_map(|scenario| Some((scenario, Measured::load(kept, scenario.name)?)))
        .collect();
    fs::write(docs.join("performance.svg"), plot::svg(&all))?;
    fs::write(docs.join("performance.md"), page(&all, setup))
}

fn page(all: &[(&Scenario, Measured)], setup: &Setup) -> String {
    let mut page = String::from(HEAD);
    let versions = setup.versions().join(", ");
    let _ = writeln!(page, "Machine: {}.\n", machine::description());
    let _ = writeln!(page, "Versions: Jimu {}, {versions}.\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(page, "![CPU time per request](performance.svg)\n");
    page.push_str(&verdicts::asked_for(all));
    page.push_str(&notes::section());
    page.push_str(&verdicts::peers_ahead(all));
    for (scenario, measured) in all {
        page.push_str(&section(scenario, measured));
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// Returns the table of one scenario, the cheapest first.
fn section(scenario: &Scenario, measured: &Measured) -> String {
    let mut text = format!("## {}\n\n", scenario.title);
    let date = machine::date(measured.day);
    let rounds = measured.rows.iter().flat_map(|row| row.figures.values().map(Vec::len)).max();
    let rounds = rounds.unwrap_or_default();
    let (name, load) = (scenario.name, number(measured.load));
    let _ = writeln!(text, "`cargo xtask bench {name}`, {date}, rounds: {rounds}, load: {load}.\n");
    if let Some(ranking) = ranking(measured) {
        text.push_str(&table(measured, ranking));
    }
    for row in measured.rows.iter().filter(|row| row.failed > 0) {
        let _ = writeln!(text, "{}: {} requests failed.\n", row.name, row.failed);
    }
    for line in &measured.absent {
        let _ = writeln!(text, "Not measured: {line}.\n");
    }
    text
}

fn table(measured: &Measured, ranking: Metric) -> String {
    let mut rows: Vec<&Row> = measured.rows.iter().collect();
    let rank = |row: &Row| row.spread(ranking).map_or(f64::MAX, |spread| spread.median);
    rows.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let metrics = metrics(measured);
    let reference = rows.iter().copied().find(|row| row.role == Role::Ours);

    let mut text = String::from("| server |");
    for metric in &metrics {
        let _ = write!(text, " {} |", metric.title());
        if *metric == ranking {
            let name = reference.map_or("", |row| row.name.as_str());
            let _ = write!(text, " × {name} |");
        }
    }
    let _ = writeln!(text, "\n| --- |{}", " ---: |".repeat(metrics.len() + 1));
    for row in rows {
        let _ = write!(text, "| {} |", row.name);
        for metric in &metrics {
            let value = row.spread(*metric).map_or(String::new(), |spread| number(spread.median));
            let _ = write!(text, " {value} |");
            if *metric == ranking {
                let ratio = reference.and_then(|reference| row.ratio(reference, ranking));
                let _ = write!(text, " {} |", ratio.map_or(String::new(), spread));
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

/// Returns the quantity by which the contenders of a scenario are ranked.
fn ranking(measured: &Measured) -> Option<Metric> {
    let known = metrics(measured);
    Metric::RANKING.into_iter().find(|metric| known.contains(metric))
}

fn metrics(measured: &Measured) -> Vec<Metric> {
    let mut metrics: Vec<Metric> =
        measured.rows.iter().flat_map(|row| row.figures.keys().copied()).collect();
    metrics.sort_unstable();
    metrics.dedup();
    metrics
}

/// Formats with about three digits, never with an exponent.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    let places = match magnitude {
        _ if magnitude >= 100.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 || magnitude == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

fn spread(spread: Spread) -> String {
    let Spread { median, least, most } = spread;
    format!("{} ({}–{})", number(median), number(least), number(most))
}

const HEAD: &str = "\
# Performance

`cargo xtask bench` writes this page. Only the section on profiles is written by hand, in `tests/bench/notes.md`. The
command creates a virtual environment with the other servers under `target/`, skips what it cannot find, and lists what
it skipped.

Method: one worker process each unless stated otherwise, on one processor; on another processor the load generator, our
own program, which sends a fixed number of requests over 32 connections and checks every response. All servers of a
scenario are up at the same time and take turns. Figures are medians over the rounds. Ratios are calculated for each
round, then reported as their median with minimum and maximum in parentheses, because other activity of the machine in a
round affects both sides. The load average shows how much activity there was; above about 2.5 on two processors, rates,
latencies and shares of an ideal rate mean little. CPU time is the user and system time of all processes of a server.
Threaded classes have 8 threads. The bare epoll loop parses nothing and responds with a constant; it stands for
the lowest possible cost.

";
