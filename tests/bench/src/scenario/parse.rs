//! The parser compared to the library it is built on: the benchmark of http1, run here so that its ratio is on
//! the same page.

use std::process::{Command, Stdio};

use super::{Outcome, Stage};
use crate::contender::Role;
use crate::result::{Metric, Row};
use crate::setup::root;

/// Runs the benchmark once per round and takes over its medians.
pub(super) fn measure(stage: &Stage<'_>) -> Outcome {
    let mut rows = [Row::new(OURS.into(), Role::Ours), Row::new(ALONE.into(), Role::Floor)];
    for round in 0..stage.effort.rounds {
        for row in &mut rows {
            match run(stage, &row.name) {
                Ok(nanoseconds) => row.push(Metric::Nanoseconds, nanoseconds),
                Err(why) => return (Vec::new(), vec![why]),
            }
        }
        eprintln!("{}: round {}", stage.scenario.name, round + 1);
    }
    (rows.into(), Vec::new())
}

fn run(stage: &Stage<'_>, name: &str) -> Result<f64, String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args([
        "bench",
        "--quiet",
        "--package",
        "jimu-http1",
        "--bench",
        "parse",
    ]);
    let seconds = stage.effort.seconds.max(0.5).to_string();
    command.args(["--", "--noplot", "--warm-up-time", "0.5", "--measurement-time", &seconds]);
    command.arg(format!("^{GROUP}/{name}$")).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let ended = command.status().map_err(|error| format!("cargo bench: {error}"))?;
    if !ended.success() {
        return Err(format!("cargo bench --package jimu-http1 --bench parse: {ended}"));
    }
    median(stage, name).ok_or_else(|| format!("the benchmark {GROUP}/{name} left no figure"))
}

/// Output of the benchmark beside the executables.
fn median(stage: &Stage<'_>, name: &str) -> Option<f64> {
    let directory = stage.setup.target().join("criterion").join(GROUP).join(name);
    let text = std::fs::read_to_string(directory.join("new/estimates.json")).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

/// Group of the benchmarks.
const GROUP: &str = "head";
/// What a connection does with a head: checks whether it is complete, then parses it.
pub(super) const OURS: &str = "scan and parse_head";
/// What it is compared with.
pub(super) const ALONE: &str = "httparse alone, room for 32 fields";
