//! The time from the start of a server to its first response.

use super::{Outcome, Stage};
use crate::result::{Metric, Row};

/// Starts each contender once per round.
pub(super) fn measure(stage: &Stage<'_>) -> Outcome {
    let mut rows = Vec::new();
    let mut absent = Vec::new();
    for entry in stage.entries() {
        match stage.start(entry) {
            Ok(_) => rows.push((entry, Row::new(entry.name(), entry.contender.role()))),
            Err(why) => absent.push(stage.absence(entry, &why)),
        }
    }
    for _ in 0..stage.effort.rounds {
        for (entry, row) in &mut rows {
            match stage.start(*entry) {
                Ok(server) => row.push(Metric::Start, server.start.as_secs_f64() * 1e3),
                Err(why) => eprintln!("{}: {}: {why}", stage.scenario.name, row.name),
            }
        }
    }
    (rows.into_iter().map(|(_, row)| row).collect(), absent)
}
