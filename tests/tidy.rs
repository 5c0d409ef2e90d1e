//! Conventions of the source that can be checked automatically (docs/ARCHITECTURE.md has the reasons). Each
//! message says what to do instead.

// Everything here is a test or supports one.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use jimu_tests::{artifacts, imports};

#[test]
fn every_file_says_what_it_is_for() {
    check(&["rs"], "start with `//!`: what the file is for, and what it is not", |_, text| {
        (!text.starts_with("//!")).then_some(1).into_iter().collect()
    });
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "TODO", "XXX"];
    check(&["rs", "py"], "do it now, or file an issue", |path, text| {
        let own = path.ends_with("tests/tidy.rs");
        lines(text, |line| !own && words.iter().any(|word| line.contains(word)))
    });
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    check(&["rs"], "return an error, or `expect` a proof", |path, text| {
        if is_test(path) {
            return Vec::new();
        }
        lines(without_tests(text), |line| {
            line.contains(".unwrap()") && !line.trim_start().starts_with("//")
        })
    });
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    let words = ["/work/", "/root/"];
    check(&["rs", "md", "toml", "py", "sh"], "use a path that others have too", |path, text| {
        let own = path.ends_with("tests/tidy.rs");
        lines(text, |line| !own && words.iter().any(|word| line.contains(word)))
    });
}

#[test]
fn lines_end_where_their_text_ends() {
    check(&["rs", "md", "toml", "py"], "remove the space at the end", |_, text| {
        lines(text, |line| line.ends_with([' ', '\t']))
    });
}

/// Plain technical English: a component returns, reads or waits; it is not told and does not hear.
#[test]
fn prose_is_plain() {
    let words = [
        "anew",
        "octet",
        "octets",
        "is told",
        "are told",
        "was told",
        "hears of",
        "hear of",
        "tells of",
        "tell of",
        "nobody",
        "whoever",
        "somebody",
        "how-manieth",
        "so many",
        "shall be",
        "had its turn",
        "gives back",
        "stands in",
        "goes on",
        "as a rule",
        "folder",
        "folders",
        "meanwhile",
        "of its own",
        "of their own",
    ];
    // A method of the standard library, a media type, a body of Go, and a user of most systems.
    let exceptions = [
        "ip().octets()",
        "application/octet-stream",
        "http.nobody",
        "--user nobody",
        "\"nobody\"",
        "nobody()",
        "nobody.",
        "user nobody",
        "`nobody`",
    ];
    let kinds =
        ["rs", "md", "toml", "py", "sh", "html", "yml", "txt", "h", "c", "hpp", "cpp", "go", "zig"];
    check(&kinds, "use a plain word: see CONTRIBUTING.md, Code", |path, text| {
        if path.ends_with("tests/tidy.rs") || path.starts_with("tests/abi/worker-api-1.0.0") {
            return Vec::new();
        }
        lines(text, |line| {
            let mut line = line.to_lowercase();
            for exception in exceptions {
                line = line.replace(exception, "");
            }
            words.iter().any(|word| contains_word(&line, word))
        })
    });
}

/// The arbiter has one thread and loads nothing: a process that forks must have no other threads, and no fault of
/// a plugin may reach it.
#[test]
fn the_arbiter_has_no_threads_and_loads_nothing() {
    let words = ["thread::spawn", "thread::Builder", "thread::scope", "libloading", "dlopen"];
    check(&["rs"], "let the mold do it, or a process of its own", |path, text| {
        let ours = path.starts_with("host/src/arbiter") || path.starts_with("host/src/listener");
        lines(text, |line| ours && words.iter().any(|word| line.contains(word)))
    });
}

#[test]
fn a_file_fits_in_a_head() {
    check(&["rs"], "split it: no file needs more than 800 lines", |_, text| {
        let count = text.lines().count();
        (count > 800).then_some(count).into_iter().collect()
    });
}

/// Each file builds on those that it imports, and none of them builds on it.
#[test]
fn files_import_each_other_in_one_direction() {
    let is_root = |path: &PathBuf| path.ends_with("lib.rs") || path.ends_with("main.rs");
    let read = |path: &Path| fs::read_to_string(artifacts::root().join(path)).ok();
    let mut cycles = Vec::new();
    for root in files(&["rs"]).into_iter().filter(is_root) {
        if !WITH_CYCLES.iter().any(|directory| root.starts_with(directory)) {
            cycles.extend(imports::find_cycles(&root, read).iter().map(ToString::to_string));
        }
    }
    let advice = "move what both need into a third file, or let the caller pass it";
    assert!(cycles.is_empty(), "{advice}: {cycles:#?}");
}

/// Crates with cycles among their files, and a frozen copy of one.
const WITH_CYCLES: [&str; 3] = ["tests/abi", "worker-api", "workers/green"];

/// Every long flag in a command of the documents exists.
#[test]
fn documented_flags_exist() {
    let known: Vec<(&str, BTreeSet<String>)> = ["host", "hostctl"]
        .map(|program| {
            let page = help(program, &[]);
            let mut flags = long_flags(&page);
            let listed = page.lines().skip_while(|line| *line != "Commands:").skip(1);
            let listed = listed.take_while(|line| !line.is_empty());
            for command in listed.filter_map(|line| line.split_whitespace().next()) {
                flags.extend(long_flags(&help(program, &[command])));
            }
            (program, flags)
        })
        .into();
    let mut unknown = Vec::new();
    for path in files(&["md"]) {
        let text = fs::read_to_string(artifacts::root().join(&path)).unwrap();
        for command in commands(&text) {
            let program = command.split_whitespace().next().unwrap_or_default();
            let name = program.rsplit('/').next().unwrap_or_default();
            let Some((_, flags)) = known.iter().find(|(known, _)| *known == name) else { continue };
            let strange = long_flags(&command).into_iter().filter(|flag| !flags.contains(flag));
            unknown.extend(strange.map(|flag| format!("{}: {flag} in {command}", path.display())));
        }
    }
    assert!(unknown.is_empty(), "flags that --help does not know: {unknown:#?}");
}

/// Everything that continuous integration runs exists, and it runs everything that exists.
#[test]
fn no_part_of_ci_is_lost() {
    let read = |path: &str| fs::read_to_string(artifacts::root().join(path)).unwrap();
    let (workflow, run) = (read(".github/workflows/ci.yml"), read(".ci/run"));
    let directory = fs::read_dir(artifacts::root().join(".ci/parts")).unwrap();
    let parts = directory.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let parts: BTreeSet<String> = parts.filter(|name| name != "common.sh").collect();
    let named = |text: &str| -> BTreeSet<String> {
        let words = text.split_whitespace().filter_map(|word| word.strip_prefix(".ci/parts/"));
        words.map(str::to_owned).collect()
    };
    assert_eq!(named(&workflow), parts, "ci.yml is to run every file of .ci/parts");
    assert!(named(&run).is_subset(&parts), "{:?} of {parts:?}", named(&run));

    let classes = workflow.lines().find_map(|line| line.trim().strip_prefix("class: ["));
    let classes = classes.and_then(|rest| rest.strip_suffix(']')).expect("the matrix has classes");
    let classes: BTreeSet<String> = classes.split(", ").map(str::to_owned).collect();
    let built: BTreeSet<String> = artifacts::classes().into_iter().collect();
    assert_eq!(classes, built, "ci.yml is to run the matrix over every class");
}

/// `cargo test` does not build a target with `test = false`.
#[test]
fn no_test_is_left_out() {
    let mut skipped = Vec::new();
    for manifest in files(&["toml"]).iter().filter(|path| path.ends_with("Cargo.toml")) {
        let directory = manifest.parent().unwrap();
        let text = fs::read_to_string(artifacts::root().join(manifest)).unwrap();
        let targets = text.split("\n[").filter(|section| {
            let is_target = section.starts_with("lib]") || section.starts_with("[bin]]");
            is_target && section.lines().any(|line| line == "test = false")
        });
        skipped.extend(targets.map(|target| {
            let path = target.lines().find_map(|line| line.strip_prefix("path = "));
            directory.join(path.map_or("src", |path| path.trim_matches('"')))
        }));
    }
    assert!(!skipped.is_empty(), "the manifests are not as they were");
    check(&["rs"], "remove `test = false` from its manifest", |path, text| {
        let is_skipped = skipped.iter().any(|source| path.starts_with(source));
        lines(text, |line| is_skipped && line.contains("#[test]"))
    });
}

fn help(program: &str, command: &[&str]) -> String {
    let mut asked = Command::new(artifacts::executable(program));
    let output = asked.args(command).arg("--help").output().expect("--help can be asked for");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The commands in a document: lines of its code blocks, with continuations joined.
fn commands(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced || line.starts_with("    ") {
            let line = line.trim().trim_start_matches("$ ");
            match found.last_mut().filter(|last| last.ends_with('\\')) {
                Some(last) => {
                    last.pop();
                    last.push_str(line);
                }
                None => found.push(line.to_owned()),
            }
        }
    }
    found
}

fn long_flags(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .filter(|word| word.len() > 3 && word.starts_with("--") && !word.starts_with("---"))
        .map(str::to_owned)
        .collect()
}

/// Returns the text before the module of tests.
fn without_tests(text: &str) -> &str {
    let mut starts = text.match_indices("\n#[cfg(test)]\n").filter(|(at, _)| {
        let mut rest = text[*at..].lines().skip(2);
        rest.find(|line| !line.starts_with("#[")).is_some_and(|line| line.contains("mod "))
    });
    starts.next().map_or(text, |(at, _)| &text[..at])
}

/// Returns whether a file is only compiled for tests: `tests.rs`, or below a directory `tests`.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

/// Whether `line` contains `word` between characters that are neither letters nor digits.
fn contains_word(line: &str, word: &str) -> bool {
    let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| {
        is_edge(line[..at].chars().next_back()) && is_edge(line[at + word.len()..].chars().next())
    })
}

/// Panics with all locations for which `find` returns line numbers.
fn check(kinds: &[&str], advice: &str, find: impl Fn(&Path, &str) -> Vec<usize>) {
    let mut places = Vec::new();
    for path in files(kinds) {
        let text = fs::read_to_string(artifacts::root().join(&path)).unwrap();
        places.extend(find(&path, &text).iter().map(|line| format!("{}:{line}", path.display())));
    }
    assert!(places.is_empty(), "{advice}: {places:#?}");
}

fn lines(text: &str, wrong: impl Fn(&str) -> bool) -> Vec<usize> {
    text.lines().zip(1..).filter(|(line, _)| wrong(line)).map(|(_, number)| number).collect()
}

/// Returns the files of the tree with one of these extensions, except those that git ignores.
fn files(kinds: &[&str]) -> Vec<PathBuf> {
    let mut directories = vec![artifacts::root().to_owned()];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                let ours = !name.starts_with('.') && name != "target" && name != "node_modules";
                directories.extend(ours.then_some(path));
            } else if kinds.contains(&name.rsplit('.').next().unwrap_or_default()) {
                found.push(path.strip_prefix(artifacts::root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "the source tree is not where it was");
    found
}
