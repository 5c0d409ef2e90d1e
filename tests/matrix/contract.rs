//! The contract between host and worker class, as `host --check-worker` checks it.

use std::process::Command;

use jimu_tests::{artifacts, behaviour, cell::Cell, runner::Behaviour};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![behaviour!(a_class_keeps_its_contract).of_class()]
}

fn a_class_keeps_its_contract(cell: &Cell) {
    let mut check = Command::new(artifacts::executable("host"));
    let output = check.arg("--check-worker").arg(&cell.class.path).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
}
