//! The matrix as a program: what `cargo xtask matrix` lays out runs without the source tree.

use std::{
    env, fs,
    process::{Command, Output},
};

use jimu_tests::{artifacts, behaviour, cell::Cell, executable, runner::Behaviour};
use tempfile::TempDir;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![behaviour!(the_matrix_runs_outside_of_a_checkout).of_host()]
}

fn the_matrix_runs_outside_of_a_checkout(cell: &Cell) {
    let prefix = tempfile::tempdir().unwrap();
    let (bin, fixtures) = (prefix.path().join("bin"), prefix.path().join("lib/jimu-matrix"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&fixtures).unwrap();
    executable::copy(env::current_exe().unwrap(), bin.join("jimu-matrix"));
    let app = artifacts::library("hello_app");
    fs::copy(&app, fixtures.join(app.file_name().unwrap())).unwrap();
    let class = prefix.path().join("libtheirs_worker.so");
    fs::copy(&cell.class.path, &class).unwrap();

    let name = "theirs::native::answers_have_date_server_and_length";
    let ran = program(&prefix, &["libtheirs_worker.so", "--exact", name]);
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && text.contains(" 1 passed; 0 failed;"), "{ran:?}");

    let listed = program(&prefix, &["libtheirs_worker.so", "--list"]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.lines().count() > 100, "{listed}");
    assert!(listed.lines().all(|line| line.starts_with("theirs::")), "{listed}");

    for (words, status, reason) in [
        (&[][..], 2, "Usage: jimu-matrix CLASS"),
        (&["--help"], 0, "Usage: jimu-matrix CLASS"),
        (&["libother.so"], 2, "jimu-matrix: libother.so: No such file"),
    ] {
        let output = program(&prefix, words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {errors}");
        assert!(errors.starts_with(reason), "{words:?}: {errors}");
    }
}

/// Runs the program in its prefix.
fn program(prefix: &TempDir, words: &[&str]) -> Output {
    let mut command = Command::new(prefix.path().join("bin/jimu-matrix"));
    command.args(words).current_dir(prefix).env("HOST", artifacts::executable("host"));
    for variable in ["WORKER_CLASS", "JIMU_BUILT", "JIMU_TEST_THREADS", "NATIVE_APP"] {
        command.env_remove(variable);
    }
    command.output().unwrap()
}
