//! `hostctl new` from the outside: what it writes and what it refuses. That the projects build and pass their tests is
//! a behavior of `tests/matrix`.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::executable;
use tempfile::TempDir;

const KINDS: [&str; 3] = ["app", "class", "hooks"];
const LANGUAGES: [&str; 4] = ["rust", "c", "cpp", "go"];

fn hostctl(directory: &TempDir, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostctl"));
    command.current_dir(directory).arg("new").args(words).output().unwrap()
}

/// Returns the reason of a refusal: one line, and no directory is created.
fn refused(words: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let output = hostctl(&directory, words);
    let reason = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), reason.lines().count()), (Some(1), 1), "{reason}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{words:?}");
    reason
}

/// Writes a project, and returns its directory.
fn written(words: &[&str], name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let output = hostctl(&directory, &[words, &[name]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let project = directory.path().join(name);
    (directory, project)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Returns the files of a project with their texts.
fn files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), read(path)));
        }
    }
    found
}

#[test]
fn what_cannot_be_written_is_refused_in_one_line() {
    for (kind, words) in [("class", "a worker class"), ("hooks", "hooks")] {
        let reason = refused(&[kind, "--lang", "go", "x"]);
        assert_eq!(
            reason,
            format!("error: {words} cannot be written in Go; use --lang rust, c or cpp\n")
        );
    }
    let long = "x".repeat(41);
    for name in ["", "Shop", "1st", "-x", "x-", "a b", "../x", "größe", "x.y", &long] {
        let reason = refused(&["app", "--", name]);
        assert!(
            reason.starts_with(&format!("error: invalid name {name:?}: use lower-case ")),
            "{reason}"
        );
    }
    let reason = refused(&["app", "--path", "/nonexistent", "x"]);
    assert!(
        reason.starts_with("error: /nonexistent is not a clone of Jimu's source: "),
        "{reason}"
    );
}

#[test]
fn what_exists_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop/file");
    fs::create_dir(directory.path().join("shop")).unwrap();
    fs::write(&file, "mine").unwrap();
    for name in ["shop", "shop/file"] {
        let output = hostctl(&directory, &["app", "shop", "--directory", name]);
        let reason = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), reason.lines().count()), (Some(1), 1), "{reason}");
        assert!(reason.contains(name), "{reason}");
    }
    assert_eq!(files(&directory.path().join("shop")), [(file.clone(), "mine".to_owned())]);

    // An empty directory is used.
    fs::remove_file(file).unwrap();
    let output = hostctl(&directory, &["app", "shop"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(directory.path().join("shop/Cargo.toml").exists());
    let next = String::from_utf8(output.stdout).unwrap();
    assert!(
        next.starts_with("Created shop. ") && next.contains("\n    cd shop && cargo test\n"),
        "{next}"
    );
    let output = hostctl(&directory, &["app", "shop", "--directory", "my 'shop'"]);
    let next = String::from_utf8(output.stdout).unwrap();
    assert!(next.contains("\n    cd 'my '\\''shop'\\''' && cargo test\n"), "{next}");
}

#[test]
fn every_project_is_complete() {
    let mut projects = 0;
    for kind in KINDS {
        for language in LANGUAGES.into_iter().filter(|language| kind == "app" || *language != "go")
        {
            let (_directory, project) = written(&[kind, "--lang", language], "simple");
            for file in ["README.md", ".gitignore"] {
                assert!(project.join(file).exists(), "{kind} in {language}: {file}");
            }
            for (path, text) in files(&project) {
                assert_eq!(placeholder(&text), None, "{}", path.display());
                let mode = path.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o100 != 0, text.starts_with("#!"), "{}", path.display());
            }
            projects += 1;
        }
    }
    assert_eq!(projects, 10);
}

/// Returns the first placeholder that was not filled in.
fn placeholder(text: &str) -> Option<&str> {
    let mut words = text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
    words.find(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
}

#[test]
fn a_project_carries_the_headers_of_this_version() {
    for (language, copies) in [
        ("c", &[("include/jimu.h", "worker-api/include/jimu.h")][..]),
        ("cpp", &[("include/jimu.hpp", "worker-api/include/jimu.hpp")]),
        ("go", &[("jimu/jimu.h", "worker-api/include/jimu.h")]),
    ] {
        let (_directory, project) = written(&["app", "--lang", language], "simple");
        for (copy, original) in copies {
            assert!(
                read(project.join(copy)) == read(source().join(original)),
                "{language}: {copy}"
            );
        }
    }
    let (_directory, project) = written(&["app", "--lang", "go"], "simple");
    assert!(read(project.join("jimu/bridge.c")).contains("#define JIMU_GO_NAME \"simple\"\n"));
    assert!(read(project.join("jimu/jimu.go")).contains("// #cgo CFLAGS: -I${SRCDIR}\n"));
}

#[test]
fn crates_are_named_by_version_or_by_path() {
    let (_directory, project) = written(&["class"], "simple");
    let manifest: toml::Table = read(project.join("Cargo.toml")).parse().unwrap();
    assert!(manifest["dependencies"]["worker-api"].as_str().unwrap().starts_with("1."));
    assert_eq!(manifest["package"]["name"].as_str(), Some("simple-worker"));

    let (_directory, project) = written(&["class", "--path", source().to_str().unwrap()], "simple");
    let manifest: toml::Table = read(project.join("Cargo.toml")).parse().unwrap();
    for (name, directory) in [("worker-api", "worker-api"), ("jimu-kit", "workers/kit")] {
        let path = manifest["dependencies"][name]["path"].as_str().unwrap();
        assert_eq!(Path::new(path), source().canonicalize().unwrap().join(directory));
    }
}

/// Writes a class in C with a copy of hostctl in `bin` of a directory that has `files`. Returns the Makefile and the
/// output.
fn class_beside(files: &[&str]) -> (TempDir, String, String) {
    let prefix = tempfile::tempdir().unwrap();
    for file in files {
        fs::create_dir_all(prefix.path().join(file).parent().unwrap()).unwrap();
        fs::write(prefix.path().join(file), "").unwrap();
    }
    let hostctl = prefix.path().join("bin/hostctl");
    fs::create_dir(prefix.path().join("bin")).unwrap();
    executable::copy(env!("CARGO_BIN_EXE_hostctl"), &hostctl);
    let words = ["new", "class", "--lang", "c", "simple"];
    let output = Command::new(hostctl).args(words).current_dir(&prefix).output().unwrap();
    let makefile = read(prefix.path().join("simple/Makefile"));
    (prefix, makefile, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_class_in_c_uses_the_kit_of_the_archive() {
    let (prefix, makefile, output) = class_beside(&["lib/libjimu_kit.a", "include/jimu_kit.h"]);
    let prefix = prefix.path().canonicalize().unwrap();
    assert!(makefile.contains(&format!("\nJIMU ?= {}\n", prefix.display())), "{makefile}");
    assert!(makefile.contains("\nKIT ?= $(JIMU)/lib/libjimu_kit.a\n"), "{makefile}");
    assert!(!output.contains("--path"), "{output}");

    let (_prefix, makefile, output) = class_beside(&["include/jimu_kit.h"]);
    assert!(makefile.contains("\nJIMU ?= \n"), "{makefile}");
    assert!(output.contains("see --path"), "{output}");
}

/// The guides explain the code that a project begins with.
#[test]
fn the_guides_have_the_code_of_the_projects() {
    for (words, name, file, page, fence) in [
        (&["class"][..], "simple", "src/lib.rs", "docs/worker-classes.md", "```rust"),
        (&["app"], "greeting", "src/lib.rs", "docs/applications.md", "```rust"),
        (&["app", "--lang", "c"], "greeting", "greeting.c", "docs/c.md", "```c"),
    ] {
        let (_directory, project) = written(words, name);
        let code = read(project.join(file));
        let code: Vec<&str> = code.lines().filter(|line| !line.is_empty()).collect();
        let page_text = read(source().join(page));
        let explained = blocks(&page_text, fence);
        // A page may have more code.
        let (same, _) = explained.split_at(code.len().min(explained.len()));
        assert_eq!(same, code, "{page} and the template differ");
    }
}

/// Returns the lines of a page's code blocks that begin with this fence, without empty ones.
fn blocks<'a>(page: &'a str, fence: &str) -> Vec<&'a str> {
    let mut lines = page.lines();
    let mut found = Vec::new();
    while lines.any(|line| line == fence) {
        found.extend(
            lines.by_ref().take_while(|line| *line != "```").filter(|line| !line.is_empty()),
        );
    }
    found
}
