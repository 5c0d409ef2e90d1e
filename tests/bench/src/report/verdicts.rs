//! The targets and whether they are met; and the cases in which a peer is ahead.

use std::fmt::Write as _;

use super::{notes, number, ranking, spread};
use crate::contender::Role;
use crate::result::{Measured, Metric, Row};
use crate::scenario::Scenario;
use crate::target::{Against, Bound, targets};

/// Returns the table of targets.
pub(super) fn asked_for(all: &[(&Scenario, Measured)]) -> String {
    let mut text = String::from(
        "## Targets\n\n\
         | scenario | metric | target | measured | |\n| --- | --- | --- | --- | --- |\n",
    );
    for target in targets() {
        let verdict = all
            .iter()
            .find(|(scenario, _)| scenario.name == target.scenario)
            .and_then(|(_, measured)| target.verdict(measured));
        let title = target.metric.title();
        let figure = match target.against {
            Against::Nothing => format!("{}: {title}", target.ours),
            Against::Ratio(peer) => format!("{} / {peer}: {title}", target.ours),
            Against::Difference(peer) => format!("{} − {peer}: {title}", target.ours),
        };
        let asked = match target.bound {
            Bound::AtMost(limit) => format!("≤ {}", number(limit)),
            Bound::AtLeast(limit) => format!("≥ {}", number(limit)),
        };
        let (found, met) = match verdict {
            Some(verdict) if verdict.met => (spread(verdict.found), "met".to_owned()),
            Some(verdict) => (spread(verdict.found), not_met(target.scenario)),
            None => (String::new(), "not measured".to_owned()),
        };
        let _ = writeln!(text, "| {} | {figure} | {asked} | {found} | {met} |", target.scenario);
    }
    text.push('\n');
    text
}

/// Says that a target is missed, with a link to the explanation.
fn not_met(scenario: &str) -> String {
    let why = notes::anchor(scenario).map(|place| format!(": [why]({place})"));
    format!("**not met**{}", why.unwrap_or_default())
}

/// Returns the cases in which a peer is ahead of a Jimu class that does the same work.
pub(super) fn peers_ahead(all: &[(&Scenario, Measured)]) -> String {
    let mut text = String::from(
        "## Where another server is ahead\n\nEach ratio is the other server's figure divided by Jimu's.\n\n",
    );
    let mut cases = 0;
    for (scenario, measured) in all {
        let Some(metric) = ranking(measured) else { continue };
        for ours in measured.rows.iter().filter(|row| row.role == Role::Ours) {
            let ahead = ahead_of(ours, measured, metric).join(", ");
            if !ahead.is_empty() {
                cases += 1;
                let (name, title) = (scenario.name, metric.title());
                let _ = writeln!(text, "- {name}, {title}, {}: {ahead}", ours.name);
            }
        }
    }
    if cases == 0 {
        text.push_str("Nowhere in what was measured.\n");
    }
    text.push('\n');
    text
}

/// Returns the peers that need less than this class, with their share of its figure.
fn ahead_of(ours: &Row, measured: &Measured, metric: Metric) -> Vec<String> {
    let peers = measured.rows.iter().filter(|row| row.role == Role::Peer);
    peers
        .filter(|peer| serves_the_same(ours, peer))
        .filter_map(|peer| Some((peer, peer.ratio(ours, metric)?)))
        .filter(|(_, ratio)| ratio.median < 1.0)
        .map(|(peer, ratio)| format!("{} {}", peer.name, spread(ratio)))
        .collect()
}

/// nginx runs no Python, and the Python servers nothing else.
fn serves_the_same(ours: &Row, peer: &Row) -> bool {
    ours.name.contains("native") == (peer.name == "nginx")
}
