//! The table of one scenario. Rows of servers that Debian's interpreter runs too have their figure in a column.

use std::fmt::Write as _;

use super::{count, metrics, number, spread};
use crate::contender::Role;
use crate::result::{Measured, Metric, Row};
use crate::scenario::ON_DEBIAN;

/// A server with each interpreter.
struct Line<'a> {
    name: &'a str,
    usual: Option<&'a Row>,
    debian: Option<&'a Row>,
}

/// Returns the table, sorted by a quantity, which is also shown as a ratio.
pub(super) fn text(measured: &Measured, ranking: Metric) -> String {
    let lines = lines(measured, ranking);
    let metrics = metrics(measured);
    let on_debian = lines.iter().any(|line| line.debian.is_some());
    let is_ours = |row: Option<&Row>| row.is_some_and(|row| row.role == Role::Ours);
    let ours = lines.iter().filter(|line| is_ours(line.usual) || is_ours(line.debian));
    let reference = ours.min_by(|a, b| figure(a, ranking).total_cmp(&figure(b, ranking)));
    let name = reference.map_or("", |line| line.name);

    let mut text = String::from("| server |");
    for metric in &metrics {
        let title = metric.title();
        let _ = write!(text, " {title} |");
        if *metric == ranking {
            let _ = write!(text, " × {name} |");
            if on_debian {
                let _ = write!(text, " {title}{ON_DEBIAN} | × {name}{ON_DEBIAN} |");
            }
        }
    }
    let columns = metrics.len() + if on_debian { 3 } else { 1 };
    let _ = writeln!(text, "\n| --- |{}", " ---: |".repeat(columns));
    for line in &lines {
        let _ = write!(text, "| {} |", line.name);
        for metric in &metrics {
            let _ = write!(text, " {} |", median(line.usual, *metric));
            if *metric == ranking {
                let of = reference.and_then(|line| line.usual);
                let _ = write!(text, " {} |", ratio(line.usual, of, ranking));
                if on_debian {
                    let of = reference.and_then(|line| line.debian);
                    let _ = write!(text, " {} |", median(line.debian, ranking));
                    let _ = write!(text, " {} |", ratio(line.debian, of, ranking));
                }
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

/// Returns the servers, that with the least figure first among those with as many connections or workers.
fn lines(measured: &Measured, ranking: Metric) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for row in &measured.rows {
        let name = row.name.strip_suffix(ON_DEBIAN).unwrap_or(&row.name);
        let at = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
            lines.push(Line { name, usual: None, debian: None });
            lines.len() - 1
        });
        let place = if name == row.name { &mut lines[at].usual } else { &mut lines[at].debian };
        *place = Some(row);
    }
    lines.sort_by(|a, b| {
        let by_figure = || figure(a, ranking).total_cmp(&figure(b, ranking));
        count(a.name).cmp(&count(b.name)).then_with(by_figure)
    });
    lines
}

/// Returns the figure by which a server is ranked.
fn figure(line: &Line<'_>, ranking: Metric) -> f64 {
    let row = line.usual.or(line.debian);
    row.and_then(|row| row.spread(ranking)).map_or(f64::MAX, |spread| spread.median)
}

fn median(row: Option<&Row>, metric: Metric) -> String {
    let spread = row.and_then(|row| row.spread(metric));
    spread.map_or(String::new(), |spread| number(spread.median))
}

fn ratio(row: Option<&Row>, of: Option<&Row>, metric: Metric) -> String {
    let ratio = row.zip(of).and_then(|(row, of)| row.ratio(of, metric));
    ratio.map_or(String::new(), spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, role: Role, value: f64) -> Row {
        let mut row = Row::new(name.into(), role);
        row.push(Metric::Cpu, value);
        row
    }

    #[test]
    fn rows_with_as_many_connections_are_together() {
        let rows = vec![
            row("ours, 1 connection", Role::Ours, 9.0),
            row("ours, 2,048 connections", Role::Ours, 2.0),
            row("peer, 1 connection", Role::Peer, 8.0),
            row("peer, 32 connections", Role::Peer, 1.0),
        ];
        let scenario = "connections".into();
        let measured = Measured { scenario, day: 0, load: 0.0, rows, absent: Vec::new() };
        let table = text(&measured, Metric::Cpu);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].contains("× ours, 2,048 connections"), "the cheapest: {}", lines[0]);
        let names: Vec<&str> =
            lines[2..].iter().filter_map(|line| line.split('|').nth(1)).collect();
        let wanted = [
            " peer, 1 connection ",
            " ours, 1 connection ",
            " peer, 32 connections ",
            " ours, 2,048 connections ",
        ];
        assert_eq!(names, wanted);
    }

    #[test]
    fn the_second_interpreter_is_a_column() {
        let rows = vec![
            row("ours", Role::Ours, 2.0),
            row("peer", Role::Peer, 1.0),
            row("ours, Debian's python3", Role::Ours, 4.0),
            row("peer, Debian's python3", Role::Peer, 8.0),
        ];
        let scenario = "django".into();
        let measured = Measured { scenario, day: 0, load: 0.0, rows, absent: Vec::new() };
        let table = text(&measured, Metric::Cpu);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[0],
            "| server | CPU µs/request | × ours | CPU µs/request, Debian's python3 \
             | × ours, Debian's python3 |"
        );
        assert_eq!(lines[2], "| peer | 1.00 | 0.500 (0.500–0.500) | 8.00 | 2.00 (2.00–2.00) |");
        assert_eq!(lines[3], "| ours | 2.00 | 1.00 (1.00–1.00) | 4.00 | 1.00 (1.00–1.00) |");
    }
}
