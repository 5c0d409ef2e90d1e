//! The picture: for each scenario one bar per contender with its CPU time per request, shortest first.

use std::fmt::Write as _;

use super::number;
use crate::contender::Role;
use crate::result::{Measured, Metric, Row};
use crate::scenario::Scenario;

/// Draws the whole picture. Scenarios without CPU times are left out.
pub(super) fn svg(all: &[(&Scenario, Measured)]) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for (scenario, measured) in all {
        let cost = |row: &Row| row.spread(Metric::Cpu).map(|spread| spread.median);
        let mut bars: Vec<(&Row, f64)> =
            measured.rows.iter().filter_map(|row| Some((row, cost(row)?))).collect();
        bars.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let Some(&(_, longest)) = bars.last() else { continue };
        let middle = y + BAR / 2;
        let title = escaped(scenario.title);
        let _ = writeln!(
            body,
            "<text x='{MARGIN}' y='{middle}' class='title'>{title}: CPU µs/request</text>"
        );
        y += BAR + GAP;
        for (row, value) in bars {
            body.push_str(&bar(row, value, value / longest, y));
            y += BAR + GAP;
        }
        y += BAR;
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {y}' width='{WIDTH}' \
         height='{y}' font-family='sans-serif' font-size='13' dominant-baseline='middle'>\n\
         <style>.title{{font-weight:bold}}</style>\n\
         <rect width='{WIDTH}' height='{y}' fill='#ffffff'/>\n{body}</svg>\n"
    )
}

fn bar(row: &Row, value: f64, share: f64, y: u32) -> String {
    let colour = match row.role {
        Role::Ours => "#b5482f",
        Role::OtherBuild => "#d9a08f",
        Role::Peer => "#8c9aa5",
        Role::Floor => "#cdd5db",
    };
    let width = (f64::from(WIDTH - LEFT - RIGHT) * share).max(1.0);
    let (label, middle) = (LEFT - GAP, y + BAR / 2);
    let end = f64::from(LEFT + GAP) + width;
    format!(
        "<text x='{label}' y='{middle}' text-anchor='end'>{}</text>\
         <rect x='{LEFT}' y='{y}' width='{width:.1}' height='{BAR}' fill='{colour}'/>\
         <text x='{end:.1}' y='{middle}'>{}</text>\n",
        escaped(&row.name),
        number(value)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const WIDTH: u32 = 900;
const MARGIN: u32 = 16;
/// Where bars start: after the names.
const LEFT: u32 = 250;
/// Room for the number after the longest bar.
const RIGHT: u32 = 70;
const BAR: u32 = 18;
const GAP: u32 = 6;
