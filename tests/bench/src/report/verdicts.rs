//! The targets and whether they are met; and the cases in which a peer is ahead.

use std::fmt::Write as _;

use super::{count, notes, number, ranking, spread};
use crate::contender::{OTHER_BUILD, Role};
use crate::result::{Measured, Metric, Row};
use crate::scenario::{ON_DEBIAN, Scenario};
use crate::target::{Against, Bound, Decision, Target, targets};

/// Returns the table of targets.
pub(super) fn asked_for(all: &[(&Scenario, Measured)]) -> String {
    let mut text = String::from(
        "## Targets\n\n\
         | scenario | metric | target | measured | |\n| --- | --- | --- | --- | --- |\n",
    );
    for target in targets() {
        let measured = all.iter().find(|(scenario, _)| scenario.name == target.scenario);
        let [figure, asked, found, decision] =
            cells(&target, measured.map(|(_, measured)| measured));
        let _ =
            writeln!(text, "| {} | {figure} | {asked} | {found} | {decision} |", target.scenario);
    }
    text.push('\n');
    text
}

/// Returns one line for each target of a scenario.
pub(super) fn of_scenario(scenario: &Scenario, measured: &Measured) -> String {
    let mut text = String::new();
    for target in targets().iter().filter(|target| target.scenario == scenario.name) {
        let [figure, asked, found, decision] = cells(target, Some(measured));
        let result = if found.is_empty() { decision } else { format!("{found}, {decision}") };
        let _ = writeln!(text, "{figure} {asked}: {result}");
    }
    text
}

/// Returns what is compared, the bound, the figure and the decision.
fn cells(target: &Target, measured: Option<&Measured>) -> [String; 4] {
    let title = target.metric.title();
    let figure = match target.against {
        Against::Nothing => format!("{}: {title}", target.ours),
        Against::Ratio(peer) => format!("{} / {peer}: {title}", target.ours),
        Against::Difference(peer) => format!("{} − {peer}: {title}", target.ours),
    };
    let asked = match target.bound {
        Bound::AtMost(limit) => format!("≤ {}", number(limit)),
        Bound::Below(limit) => format!("< {}", number(limit)),
        Bound::AtLeast(limit) => format!("≥ {}", number(limit)),
    };
    let Some(verdict) = measured.and_then(|measured| target.verdict(measured)) else {
        return [figure, asked, String::new(), "not measured".into()];
    };
    let decision = match verdict.decision {
        Decision::Met => "met".into(),
        Decision::Missed => not_met(target.scenario),
        Decision::TooFewRounds(rounds) => format!("open: {rounds} of {} rounds", target.rounds),
    };
    [figure, asked, spread(verdict.found), decision]
}

/// Returns, for each class of the other build, the figure of this build divided by that one's.
pub(super) fn against_other_build(measured: &Measured) -> String {
    let mut text = String::new();
    let Some(metric) = ranking(measured) else { return text };
    for other in measured.rows.iter().filter(|row| row.role == Role::OtherBuild) {
        let ours = measured.row(&other.name.replace(OTHER_BUILD, ""));
        if let Some(ratio) = ours.and_then(|ours| ours.ratio(other, metric)) {
            let (name, title) = (&other.name, metric.title());
            let _ = writeln!(text, "this build / {name}: {title}: {}", spread(ratio));
        }
    }
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

/// nginx runs no Python, and the Python servers nothing else, with one of two interpreters. Both serve the same number
/// of connections, with the same number of workers.
fn serves_the_same(ours: &Row, peer: &Row) -> bool {
    ours.name.contains("native") == peer.name.starts_with("nginx")
        && ours.name.ends_with(ON_DEBIAN) == peer.name.ends_with(ON_DEBIAN)
        && count(&ours.name) == count(&peer.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_compared_with_classes_that_do_the_same_work() {
        let row = |name: &str| Row::new(name.into(), Role::Peer);
        let same = |ours: &str, peer: &str| serves_the_same(&row(ours), &row(peer));
        assert!(same("Jimu gevent, native", "nginx"));
        assert!(same("Jimu gevent, native, 2,048 connections", "nginx, 2,048 connections"));
        assert!(same("Jimu gthread, 1 thread", "bjoern"));
        assert!(!same("Jimu gevent", "nginx"));
        assert!(!same("Jimu gevent, 32 connections", "bjoern, 1 connection"));
        assert!(same("Jimu gevent, 4 workers", "granian, 4 workers"));
        assert!(!same("Jimu gevent, 4 workers", "granian, 1 worker"));
    }
}
