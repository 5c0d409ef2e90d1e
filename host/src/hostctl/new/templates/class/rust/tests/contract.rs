//! The checks of `host --check-worker`. The variable HOST names another executable.

use std::process::Command;

#[test]
fn the_class_fulfills_its_contract() {
    let library = std::env::current_exe().unwrap().with_file_name("{{library}}");
    let host = std::env::var("HOST").unwrap_or("host".to_owned());
    let output = Command::new(&host).arg("--check-worker").arg(library).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {host}: {error}"));
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
}
