//! Projects of `hostctl new`: they build without a warning, pass their tests, and fail them when the library is broken.

use std::{env, fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use jimu_tests::{
    artifacts, behaviour,
    cell::{App, Cell, Class},
    runner::Behaviour,
    tools::has,
};
use tempfile::TempDir;

use crate::{clients, go::has_go};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(projects_in_rust_pass_their_tests).of_host().within(300),
        behaviour!(projects_in_c_pass_their_tests)
            .of_host()
            .within(120)
            .only_if(|| has("cc") && has("curl"), "no C compiler or no curl on PATH"),
        behaviour!(projects_in_cpp_pass_their_tests)
            .of_host()
            .within(120)
            .only_if(|| has("c++") && has("curl"), "no C++ compiler or no curl on PATH"),
        behaviour!(paths_of_a_class_may_have_spaces)
            .of_host()
            .only_if(|| has("cc") && has("c++"), "no C or C++ compiler on PATH"),
        behaviour!(projects_in_go_pass_their_tests)
            .of_host()
            .within(300)
            .only_if(|| has_go() && has("curl"), "no go compiler or no curl on PATH"),
    ]
}

fn projects_in_rust_pass_their_tests(_: &Cell) {
    let source = "src/lib.rs";
    let app = Project::new("app", "rust");
    app.passes();
    app.fails_with(source, "You asked for", "You got");
    let hooks = Project::new("hooks", "rust");
    hooks.passes();
    hooks.fails_with(source, " in ", " for ");
    let class = Project::new("class", "rust");
    class.passes();
    // `cargo test` builds the library beside the tests only.
    lets_connections_give_way(artifacts::directory().join("deps/libmade_worker.so"));
}

fn projects_in_c_pass_their_tests(_: &Cell) {
    with_headers("c");
}

fn projects_in_cpp_pass_their_tests(_: &Cell) {
    with_headers("cpp");
}

fn with_headers(language: &str) {
    let source = format!("made.{language}");
    let app = Project::new("app", language);
    app.passes();
    app.fails_with(&source, "You asked for", "You got");
    let hooks = Project::new("hooks", language);
    hooks.passes();
    hooks.fails_with(&source, " in ", " for ");
    let class = Project::new("class", language);
    assert!(class.passes().contains(" passed, 0 failed, "), "the test is that of --check-worker");
    lets_connections_give_way(class.directory.path().join("libmade_worker.so"));
}

/// The behavior of a class that no check of `--check-worker` covers, and that each kind of class implements itself.
fn lets_connections_give_way(path: PathBuf) {
    let class = Class { name: "made".to_owned(), path };
    clients::slow_heads_in_every_place_give_way(&Cell { class, app: App::Native });
}

fn projects_in_go_pass_their_tests(_: &Cell) {
    let app = Project::new("app", "go");
    app.passes();
    app.fails_with("made.go", "You asked for", "You got");
}

fn paths_of_a_class_may_have_spaces(_: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let clone = place.path().join("clone #1 of the $ource");
    for file in ["worker-api/Cargo.toml", "workers/kit-c/include/jimu_kit.h"] {
        fs::create_dir_all(clone.join(file).parent().unwrap()).unwrap();
        fs::copy(artifacts::root().join(file), clone.join(file)).unwrap();
    }
    let kit = clone.join("target/release/libjimu_kit.a");
    fs::create_dir_all(kit.parent().unwrap()).unwrap();
    symlink(artifacts::directory().join("libjimu_kit.a"), &kit).unwrap();
    for language in ["c", "cpp"] {
        let directory = place.path().join(format!("my class in {language}"));
        let mut new = Command::new(artifacts::executable("hostctl"));
        new.args(["new", "class", "made", "--lang", language]);
        new.arg("--directory").arg(&directory).arg("--path").arg(&clone);
        assert!(new.output().unwrap().status.success(), "{new:?}");
        let make = || Command::new("make").current_dir(&directory).output().unwrap();
        let output = make();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        let again = String::from_utf8(make().stdout).unwrap();
        assert!(again.contains("up to date"), "{again}");
    }
}

/// A project out of the tree, built with what has been built in the tree.
struct Project {
    directory: TempDir,
    language: String,
}

impl Project {
    fn new(kind: &str, language: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(artifacts::executable("hostctl"));
        command.args(["new", kind, "made", "--lang", language]);
        command.arg("--directory").arg(directory.path()).arg("--path").arg(artifacts::root());
        assert!(command.output().unwrap().status.success(), "{command:?}");
        if language == "rust" {
            // The versions that the tree has downloaded and built.
            let lock = "Cargo.lock";
            fs::copy(artifacts::root().join(lock), directory.path().join(lock)).unwrap();
        }
        Self { directory, language: language.to_owned() }
    }

    /// Runs the project's test; returns its output.
    fn passes(&self) -> String {
        let (passed, output) = self.test();
        assert!(passed, "{output}");
        assert!(!output.contains("warning"), "{output}");
        output
    }

    /// Replaces text of a source file: the test then fails.
    fn fails_with(&self, file: &str, from: &str, to: &str) {
        let path = self.directory.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let (passed, output) = self.test();
        assert!(!passed, "{output}");
    }

    fn test(&self) -> (bool, String) {
        let mut command = if self.language == "rust" { cargo_test() } else { make_test() };
        command.current_dir(self.directory.path()).env("HOST", artifacts::executable("host"));
        let output = command.output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    }
}

fn cargo_test() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("test").env("CARGO_NET_OFFLINE", "true");
    // The profile of the workspace, so that the dependencies are those of the tree.
    command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    command.env("CARGO_TARGET_DIR", artifacts::directory().parent().unwrap());
    command
}

fn make_test() -> Command {
    let mut command = Command::new("make");
    let kit = artifacts::directory().join("libjimu_kit.a");
    command.args(["test", &format!("KIT={}", kit.display())]);
    if env::var_os("GOCACHE").is_none() {
        command.env("GOCACHE", artifacts::directory().with_file_name("go-cache"));
    }
    command
}
