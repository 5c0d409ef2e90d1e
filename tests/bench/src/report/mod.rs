//! The page: results as tables and as a picture, with the targets met and missed, and where a peer is ahead. Its
//! text follows from the figures, except for the explanations of `notes`.

mod notes;
mod plot;
mod table;
mod verdicts;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::machine;
use crate::result::{Measured, Metric, Spread};
use crate::scenario::{SCENARIOS, Scenario};
use crate::setup::Setup;

/// Writes `performance.md` and `performance.svg` into a directory, from results stored in another.
pub fn write(kept: &Path, docs: &Path, setup: &Setup) -> io::Result<()> {
    let all: Vec<(&Scenario, Measured)> = SCENARIOS
        .iter()
        .filter_map(|scenario| Some((scenario, Measured::load(kept, scenario.name)?)))
        .collect();
    fs::write(docs.join("performance.svg"), plot::svg(&all))?;
    fs::write(docs.join("performance.md"), page(&all, docs, setup))
}

/// Writes the profiles of a scenario into the directory of the page. None leave those of an earlier run.
pub fn write_profiles(
    docs: &Path,
    scenario: &Scenario,
    measured: &Measured,
    commit: Option<&str>,
    profiles: &[(String, String)],
) -> io::Result<()> {
    if profiles.is_empty() {
        return Ok(());
    }
    let (name, title) = (scenario.name, scenario.title);
    let (date, commit) = (machine::date(measured.day), commit.unwrap_or("an unknown commit"));
    let mut text = format!(
        "{title}\n\n`cargo xtask bench --profile {name}`, {date}, {commit}. Shares of the samples that perf took of \
         all\nprocesses of a server: by library, then the most frequent functions outside and inside the kernel.\n"
    );
    for (server, profile) in profiles {
        let _ = write!(text, "\n{server}\n{}\n\n{profile}", "=".repeat(server.len()));
    }
    let path = profile_of(docs, scenario);
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}

fn profile_of(docs: &Path, scenario: &Scenario) -> PathBuf {
    docs.join("profiles").join(format!("{}.txt", scenario.name))
}

/// Returns the table of one scenario, its targets, and the ratios to the other build, for the terminal.
pub fn summary(scenario: &Scenario, measured: &Measured) -> String {
    let mut text = section(scenario, measured);
    text.push_str(&verdicts::of_scenario(scenario, measured));
    text.push_str(&verdicts::against_other_build(measured));
    text
}

fn page(all: &[(&Scenario, Measured)], docs: &Path, setup: &Setup) -> String {
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
        if profile_of(docs, scenario).is_file() {
            let _ =
                writeln!(page, "Where the time goes: [profile](profiles/{}.txt).\n", scenario.name);
        }
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
        text.push_str(&table::text(measured, ranking));
    }
    for row in measured.rows.iter().filter(|row| row.failed > 0) {
        let _ = writeln!(text, "{}: {} requests failed.\n", row.name, row.failed);
    }
    for line in &measured.absent {
        let _ = writeln!(text, "Not measured: {line}.\n");
    }
    text
}

/// Returns the quantity by which the contenders of a scenario are ranked.
pub fn ranking(measured: &Measured) -> Option<Metric> {
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

/// Returns how many connections or workers a row has, if its name ends with that.
fn count(name: &str) -> Option<usize> {
    let (_, end) = name.rsplit_once(", ")?;
    let (count, unit) = end.split_once(' ')?;
    let is_counted = matches!(unit, "connection" | "connections" | "worker" | "workers");
    count.replace(',', "").parse().ok().filter(|_| is_counted)
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
it skipped. It also adds a line for each server to [performance-history.tsv](performance-history.tsv), from which
`cargo xtask bench history SCENARIO` prints the ratios between commits.

Method: one worker process each unless stated otherwise, on one processor; on another processor the load generator, our
own program, which sends a fixed number of requests over 32 connections and checks every response. All servers of a
scenario are up at the same time and take turns. Figures are medians over the rounds. Ratios are calculated for each
round, then reported as their median with minimum and maximum in parentheses, because other activity of the machine in a
round affects both sides. The load average shows how much activity there was; above about 2.5 on two processors, rates,
latencies and shares of an ideal rate mean little. CPU time is the user and system time of all processes of a server.
Jimu is measured as it is installed: one file is the command `host` and the runtime for Python.

A request has three headers (Host, User-Agent and Accept) unless the title of a table says otherwise; a browser's has
twelve. Threaded classes have 8 threads unless the row says otherwise. In a table with several numbers of connections,
each row is a server with one of the numbers, whose connections are open before it is measured. In a table with several
numbers of workers they use both processors, one of them together with the load generator. Of pipelined requests, each
has the latency of the last of its 16. Tables with wrk in the title repeat others with wrk as the load generator, which
runs for a fixed time, at least one second.

The bare epoll loop parses nothing and responds with a constant; it stands for the lowest possible cost. The Django
project is served by `python3` on PATH, and by Debian's `/usr/bin/python3`, which is linked statically; each has a
virtual environment, in which uWSGI and bjoern are built. ASGI servers run on uvloop. uvicorn takes part with ASGI
applications only: its WSGI mode, an ASGI application around the WSGI one with a pool of threads, is deprecated.

";
