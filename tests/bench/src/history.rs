//! The figures of earlier commits, one line for each server of a scenario in `docs/performance-history.tsv`, so that a
//! regression shows as a ratio between two commits. The page has the newest figures only.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::machine;
use crate::result::{Measured, Metric};

/// One line of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Day of the measurement.
    pub date: String,
    /// Abbreviated hash, with `-dirty` if the sources differed from it.
    pub commit: String,
    /// Processor that was measured on: others have other figures.
    pub machine: String,
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the contender.
    pub server: String,
    /// The quantity that ranks the contenders of the scenario.
    pub metric: String,
    /// Its median.
    pub median: f64,
    /// Median of the responses per second, if they were measured.
    pub rate: Option<f64>,
    /// Number of rounds.
    pub rounds: usize,
}

/// Adds a scenario's figures to the file. Those of an earlier run at the same commit are replaced.
pub fn append(docs: &Path, measured: &Measured, metric: Metric, commit: &str) -> io::Result<()> {
    let path = path_of(docs);
    let machine = machine::processors();
    let mut lines = read(&path)?;
    lines.retain(|line| {
        line.commit != commit || line.scenario != measured.scenario || line.machine != machine
    });
    lines.extend(lines_of(measured, metric, commit, &machine));
    fs::write(path, text(&lines))
}

fn lines_of<'a>(
    measured: &'a Measured,
    metric: Metric,
    commit: &'a str,
    machine: &'a str,
) -> impl Iterator<Item = Line> + 'a {
    measured.rows.iter().filter_map(move |row| {
        Some(Line {
            date: machine::date(measured.day),
            commit: commit.into(),
            machine: machine.into(),
            scenario: measured.scenario.clone(),
            server: row.name.clone(),
            metric: metric.title().into(),
            median: row.spread(metric)?.median,
            rate: row.spread(Metric::Rate).map(|spread| spread.median),
            rounds: row.figures.get(&metric).map_or(0, Vec::len),
        })
    })
}

/// Returns the figures of a scenario at each commit, server by server, with the ratio to the commit before. What the
/// machine does to a commit shows in the ratios of the servers that are not ours.
pub fn ratios(docs: &Path, scenario: &str) -> io::Result<String> {
    let mut lines = read(&path_of(docs))?;
    lines.retain(|line| line.scenario == scenario);
    let mut servers: Vec<&str> = Vec::new();
    for line in &lines {
        if !servers.contains(&line.server.as_str()) {
            servers.push(&line.server);
        }
    }
    let mut text =
        String::from("| server | commit | date | metric | median | × before | rounds |\n");
    text.push_str("| --- | --- | --- | --- | ---: | ---: | ---: |\n");
    for server in servers {
        let of_server: Vec<&Line> = lines.iter().filter(|line| line.server == server).collect();
        for (at, line) in of_server.iter().enumerate() {
            let ratio = before(&of_server[..at], line).map(|before| line.median / before.median);
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.3}"));
            let Line { commit, date, metric, median, rounds, .. } = line;
            let _ = writeln!(
                text,
                "| {server} | {commit} | {date} | {metric} | {median:.3} | {ratio} | {rounds} |"
            );
        }
    }
    Ok(text)
}

/// Returns the last of the earlier lines that can be compared with this one.
fn before<'a>(earlier: &[&'a Line], line: &Line) -> Option<&'a Line> {
    let comparable = |other: &&&Line| {
        other.machine == line.machine && other.metric == line.metric && other.median > 0.0
    };
    earlier.iter().rev().find(comparable).copied()
}

/// Returns the commit of the sources, with `-dirty` if files that are not written by this command differ.
pub fn commit(root: &Path) -> Option<String> {
    let head = git(root, &["rev-parse", "--short=10", "HEAD"])?;
    let mut words = vec!["status", "--porcelain", "--", "."];
    words.extend(WRITTEN);
    let differs = !git(root, &words)?.is_empty();
    Some(format!("{head}{}", if differs { "-dirty" } else { "" }))
}

fn git(root: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(words).stdin(Stdio::null()).output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the lines of a file. A file that does not exist has none.
fn read(path: &Path) -> io::Result<Vec<Line>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let numbered = text.lines().zip(1..).skip(1);
    let lines = numbered.map(|(line, number)| {
        parse(line).ok_or_else(|| {
            let words = format!("{}: line {number} is not one of ours", path.display());
            io::Error::new(io::ErrorKind::InvalidData, words)
        })
    });
    lines.collect()
}

fn parse(line: &str) -> Option<Line> {
    let columns: Vec<&str> = line.split('\t').collect();
    let &[date, commit, machine, scenario, server, metric, median, rate, rounds] =
        columns.as_slice()
    else {
        return None;
    };
    Some(Line {
        date: date.into(),
        commit: commit.into(),
        machine: machine.into(),
        scenario: scenario.into(),
        server: server.into(),
        metric: metric.into(),
        median: median.parse().ok()?,
        rate: if rate.is_empty() { None } else { Some(rate.parse().ok()?) },
        rounds: rounds.parse().ok()?,
    })
}

fn text(lines: &[Line]) -> String {
    let mut text = String::from(HEAD);
    for line in lines {
        let Line { date, commit, machine, scenario, server, metric, median, rounds, .. } = line;
        let rate = line.rate.map_or(String::new(), |rate| format!("{rate:.0}"));
        let _ = writeln!(
            text,
            "{date}\t{commit}\t{machine}\t{scenario}\t{server}\t{metric}\t{median:.3}\t{rate}\t{rounds}"
        );
    }
    text
}

fn path_of(docs: &Path) -> PathBuf {
    docs.join("performance-history.tsv")
}

const HEAD: &str = "date\tcommit\tmachine\tscenario\tserver\tmetric\tmedian\trequests/s\trounds\n";
/// What this command writes makes no other build.
const WRITTEN: [&str; 4] = [
    ":!docs/performance.md",
    ":!docs/performance.svg",
    ":!docs/performance-history.tsv",
    ":!docs/profiles",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Role;
    use crate::result::Row;

    fn measured(scenario: &str, figures: &[(&str, f64)]) -> Measured {
        let rows = figures.iter().map(|&(name, value)| {
            let mut row = Row::new(name.into(), Role::Ours);
            row.push(Metric::Cpu, value);
            row.push(Metric::Rate, 1e6 / value);
            row
        });
        let (rows, absent) = (rows.collect(), Vec::new());
        Measured { scenario: scenario.into(), day: 20_786, load: 0.0, rows, absent }
    }

    #[test]
    fn a_second_run_of_a_commit_replaces_its_lines() {
        let docs = tempfile::tempdir().unwrap();
        let add = |commit: &str, scenario: &str, figures: &[(&str, f64)]| {
            append(docs.path(), &measured(scenario, figures), Metric::Cpu, commit).unwrap();
        };
        add("a", "s", &[("ours", 8.0), ("peer", 16.0)]);
        add("a", "t", &[("ours", 3.0)]);
        add("b", "s", &[("ours", 10.0)]);
        add("b", "s", &[("ours", 12.0)]);
        let lines = read(&path_of(docs.path())).unwrap();
        let kept: Vec<(&str, &str, &str, f64)> = lines
            .iter()
            .map(|line| {
                (line.commit.as_str(), line.scenario.as_str(), line.server.as_str(), line.median)
            })
            .collect();
        let wanted = [
            ("a", "s", "ours", 8.0),
            ("a", "s", "peer", 16.0),
            ("a", "t", "ours", 3.0),
            ("b", "s", "ours", 12.0),
        ];
        assert_eq!(kept, wanted);
        assert_eq!(lines[0].rate, Some(125_000.0));
        assert_eq!(lines[0].date, "2026-11-29");
    }

    #[test]
    fn a_regression_is_a_ratio_between_commits() {
        let docs = tempfile::tempdir().unwrap();
        for (commit, value) in [("a", 8.0), ("b", 10.0), ("c", 5.0)] {
            let measured = measured("s", &[("ours", value)]);
            append(docs.path(), &measured, Metric::Cpu, commit).unwrap();
        }
        let text = ratios(docs.path(), "s").unwrap();
        let ratios: Vec<&str> =
            text.lines().skip(2).filter_map(|line| line.split(" | ").nth(5)).collect();
        assert_eq!(ratios, ["", "1.250", "0.500"]);
    }

    #[test]
    fn other_machines_and_metrics_are_not_compared() {
        let line = |machine: &str, metric: &str| Line {
            machine: machine.into(),
            metric: metric.into(),
            ..parse("2026-11-29\ta\tm\ts\tours\tcpu\t2.000\t\t7").unwrap()
        };
        let (ours, elsewhere, other) = (line("m", "cpu"), line("n", "cpu"), line("m", "ms"));
        assert_eq!(before(&[&ours, &elsewhere, &other], &ours), Some(&ours));
        assert_eq!(before(&[&elsewhere, &other], &ours), None);
    }

    #[test]
    fn a_line_that_was_edited_is_an_error() {
        let docs = tempfile::tempdir().unwrap();
        fs::write(path_of(docs.path()), format!("{HEAD}2026-11-29\ta\n")).unwrap();
        assert!(ratios(docs.path(), "s").unwrap_err().to_string().contains("line 2"));
    }
}
