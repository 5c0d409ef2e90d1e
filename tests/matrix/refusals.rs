//! What must not be loaded: refused at start with one line and a status, and at a reload without a gap in the
//! service.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    load::{Load, Plan, get},
    runner::Behaviour,
    server::{Ended, Setup},
};
use nix::sys::signal::Signal;

use crate::c_plugins::{NO_CC, has_cc};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(files_that_are_no_class_are_refused).of_host(),
        behaviour!(files_that_are_no_application_are_refused).of_host(),
        behaviour!(a_class_that_fails_to_load_is_refused).of_host().within(120),
        behaviour!(an_application_that_fails_to_load_is_refused).of_host().within(120),
        behaviour!(a_worker_that_cannot_boot_ends_the_start).of_host().within(90),
        behaviour!(refused_reloads_leave_one_worker_serving).busy().of_class().within(180),
        behaviour!(refused_reloads_leave_four_workers_serving).busy().of_class().within(180),
        behaviour!(a_refused_class_leaves_the_service)
            .of_class()
            .busy()
            .within(120)
            .only_if(has_cc, NO_CC),
    ]
}

/// Actions of a faulty plugin on request: the fault, and words that the reason contains.
const LOADING_FAULTS: [(&str, &[&str]); 9] = [
    ("panic", &["panic"]),
    ("abort", &["SIGABRT"]),
    ("segfault", &["SIGSEGV"]),
    ("overflow", &["SIG"]),
    ("exit0", &["status 0"]),
    ("exit1", &["status 1"]),
    ("exit3", &["status 3"]),
    ("exit4", &["status 4"]),
    ("hang", &["boot_timeout"]),
];

fn files_that_are_no_class_are_refused(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let app = artifacts::library("hello_app");
    for (path, word) in wrong_files(place.path(), &cell.class.path, &app) {
        let ended = Setup::new(cell).class(&path).refused();
        assert_refused(&ended, &path, word);
    }
    let ended = Setup::new(cell).class("nosuch").refused();
    assert_refused(&ended, Path::new("nosuch"), "");
}

fn files_that_are_no_application_are_refused(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let app = artifacts::library("hello_app");
    for (path, word) in wrong_files(place.path(), &app, &cell.class.path) {
        // What is not a file is a name for the wsgi plugin, whose refusals are tested with it.
        if path.is_file() {
            let ended = Setup::new(cell).app(&path).refused();
            assert_refused(&ended, &path, word);
        }
    }
}

fn a_class_that_fails_to_load_is_refused(cell: &Cell) {
    let class = artifacts::library("faulty_worker");
    for place in ["constructor", "root", "setup"] {
        for (fault, words) in LOADING_FAULTS {
            // A panic in a constructor cannot unwind through the dynamic linker: it aborts.
            let words =
                if (place, fault) == ("constructor", "panic") { &["SIGABRT"] } else { words };
            let faults = format!("{place}={fault}");
            let setup = Setup::new(cell).class(&class).env("FAULTY_CLASS", &faults);
            assert_faulty(setup, &faults, words);
        }
    }
    for fault in ["error", "config"] {
        let faults = format!("setup={fault}");
        let setup = Setup::new(cell).class(&class).env("FAULTY_CLASS", &faults);
        assert_faulty(setup, &faults, &["the fault asked for in setup"]);
    }
}

fn an_application_that_fails_to_load_is_refused(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    for place in ["constructor", "new", "load"] {
        for (fault, words) in LOADING_FAULTS {
            let words =
                if (place, fault) == ("constructor", "panic") { &["SIGABRT"] } else { words };
            let faults = format!("{place}={fault}");
            let setup = Setup::new(cell).app(&app).env("FAULTY_APP", &faults).flags("--preload");
            assert_faulty(setup, &faults, words);
        }
    }
    for fault in ["error", "config"] {
        let faults = format!("new={fault}");
        let setup = Setup::new(cell).app(&app).env("FAULTY_APP", &faults);
        assert_faulty(setup, &faults, &["the fault asked for in new"]);
    }
    // gunicorn's status for an application that cannot be loaded; the plugin adds details below the line.
    let ended = Setup::new(cell).app(&app).env("FAULTY_APP", "new=load").refused();
    assert_eq!(ended.status(), 4, "{}", ended.log);
    assert!(ended.log.contains("of two lines"), "{}", ended.log);
}

/// At start, after a configurable number of failures in a row, with a growing pause.
fn a_worker_that_cannot_boot_ends_the_start(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    let class = artifacts::library("faulty_worker");
    for fault in ["error", "panic", "exit3", "exit4", "abort"] {
        let setup = || Setup::new(cell).flags("--boot-failures-max 2");
        let faults = format!("init_worker={fault}");
        let ended = setup().app(&app).env("FAULTY_APP", &faults).refused();
        assert_ne!(ended.status(), 0, "{faults}: {}", ended.log);
        assert!(ended.took < Duration::from_secs(10), "{faults} took {:?}", ended.took);
        for place in ["new", "init_process"] {
            let faults = format!("{place}={fault}");
            let ended = setup().class(&class).env("FAULTY_CLASS", &faults).refused();
            assert_ne!(ended.status(), 0, "{faults}: {}", ended.log);
        }
    }
}

fn refused_reloads_leave_one_worker_serving(cell: &Cell) {
    refused_reloads(cell, 1);
}

fn refused_reloads_leave_four_workers_serving(cell: &Cell) {
    refused_reloads(cell, 4);
}

fn refused_reloads(cell: &Cell, workers: usize) {
    let app = artifacts::library("faulty_app");
    let head = format!(
        "workers = {workers}\nboot_failures_max = 2\nworker_class = \"{}\"\n",
        cell.class.path.display()
    );
    let file = |more: &str, fault: &str| {
        let mut text = format!("{head}wsgi_app = \"{}\"\n{more}\n", app.display());
        let _ = write!(text, "[application]\nfault = \"{fault}\"\n");
        text
    };
    let server = Setup::bare().file("host.toml", file("", "")).start();
    let mut before = server.until_ready_workers(workers);
    let load =
        Load::start(server.address(), Plan { clients: 8, ask: |_| get("/"), ..Plan::default() });
    let cases = [
        (file("", "new=error"), "the fault asked for in new"),
        (file("", "new=panic"), "panic"),
        (file("", "new=exit0"), "status 0"),
        (file("", "new=exit3"), "status 3"),
        (file("", "new=exit4"), "status 4"),
        (file("", "new=abort"), "SIGABRT"),
        (file("", "new=segfault"), "SIGSEGV"),
        (file("boot_timeout = 3", "new=hang"), "boot_timeout"),
        (file("", "init_worker=exit3"), "3"),
        (file("", "init_worker=error"), "the fault asked for in init_worker"),
        (file("boot_timeout = 3", "init_worker=hang"), "boot_timeout"),
        (file("", "needs=nothing").replace("faulty_app", "nosuch_app"), "nosuch_app"),
        (file("worker = 3", ""), "worker"),
        (file("timeout = \"soon\"", ""), "timeout"),
        ("no toml at all".to_owned(), "host.toml"),
    ];
    // With several workers what counts is that none of them boots halfway; the reasons are the same.
    let step = if workers == 1 { 1 } else { 3 };
    for (file, word) in cases.into_iter().step_by(step) {
        server.write("host.toml", &file);
        let reason = server.ctl(&["reload"]).refused();
        assert!(reason.contains(word), "no {word:?} in {reason:?} for\n{file}");
        load.flows(20, Duration::from_secs(20));
        let mut now = server.until_ready_workers(workers);
        now.sort();
        before.sort();
        assert_eq!(now, before, "the workers changed after\n{file}");
    }
    // The same by signal, when no client waits for a response: the reason is in the log.
    server.write("host.toml", file("", "new=exit3"));
    let mark = server.log.mark();
    server.signal(Signal::SIGHUP);
    server.log.line_after(mark, &["refused"], Duration::from_secs(20));
    server.write("host.toml", file("", ""));
    server.ctl(&["reload"]).done();
    let after = server.until_ready_workers(workers);
    assert!(after.iter().all(|pid| !before.contains(pid)));
    load.finish().assert_nothing_lost();
    server.stop();
}

fn a_refused_class_leaves_the_service(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let app = artifacts::library("hello_app");
    let server = Setup::new(cell).start();
    let before = server.serving_pid();
    let load = Load::start(server.address(), Plan { clients: 8, ..Plan::default() });
    for (path, word) in wrong_files(place.path(), &cell.class.path, &app) {
        let reason = server.ctl(&["reload", "--worker-class", path.to_str().unwrap()]).refused();
        assert!(reason.contains(word), "no {word:?} in {reason:?}");
        assert!(reason.contains(path.to_str().unwrap()), "{reason:?} does not name the file");
    }
    load.flows(20, Duration::from_secs(20));
    assert_eq!(server.serving_pid(), before);
    load.finish().assert_nothing_lost();
    server.stop();
}

/// Files that cannot be what `right` is, each with a word of the reason. `other` is a library of the other kind.
fn wrong_files(place: &Path, right: &Path, other: &Path) -> Vec<(PathBuf, &'static str)> {
    let make = |name: &str, content: &[u8]| {
        let path = place.join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let bytes = fs::read(right).unwrap();
    // Most of a small library with debug information is nothing that is loaded.
    let part = bytes.len().min(16 << 10) / 3;
    let mut foreign = bytes.clone();
    // e_machine (offset 18) of an IBM S/390.
    foreign[18..20].copy_from_slice(&22_u16.to_le_bytes());
    vec![
        of_another_interface(bytes.clone())
            .map(|(bytes, word)| (make("libother_worker.so", &bytes), word))
            .expect("the library describes its interface"),
        (place.join("libnosuch_worker.so"), ""),
        (place.to_owned(), "director"),
        (make("libtext_worker.so", b"I am a poem.\n"), "ELF"),
        (make("libempty_worker.so", b""), ""),
        (make("libhalf_worker.so", &bytes[..part]), ""),
        (make("libforeign_worker.so", &foreign), ""),
        (other.to_owned(), ""),
        (compiled(place, "libplain_worker.so", "int answer(void) { return 42; }"), ""),
        (
            compiled(
                place,
                "libloose_worker.so",
                "int nowhere(void); int f(void) { return nowhere(); }",
            ),
            "nowhere",
        ),
    ]
}

/// The library built against a worker-api with a field of another name, or with a later `jimu.h`; with a word of the
/// reason.
fn of_another_interface(mut library: Vec<u8>) -> Option<(Vec<u8>, &'static str)> {
    // The name of the symbol that a library by `jimu.h` exports. The kit that it contains may describe worker-api, too.
    let symbol = b"\0jimu_module\0";
    if library.windows(symbol.len()).any(|bytes| bytes == symbol) {
        // The versions are before the magic number: 1.0.
        let table = library.windows(8).position(|bytes| bytes == b"\x01\0\0\0jimu")?;
        library[table] = 9;
        return Some((library, "jimu.h 9.0"));
    }
    let (from, to) = (b"content_length", b"content_lenght");
    let places: Vec<usize> =
        (0..library.len() - from.len()).filter(|&at| library[at..].starts_with(from)).collect();
    if places.is_empty() {
        return None;
    }
    for at in places {
        library[at..at + to.len()].copy_from_slice(to);
    }
    Some((library, "worker-api"))
}

/// A shared library from C: the linker that Rust needs can create it.
fn compiled(place: &Path, name: &str, source: &str) -> PathBuf {
    let (path, code) = (place.join(name), place.join("code.c"));
    fs::write(&code, source).unwrap();
    let arguments: [OsString; 5] =
        ["-shared".into(), "-fPIC".into(), "-o".into(), (&path).into(), code.into()];
    let status = Command::new("cc").args(arguments).status().expect("cc can be started");
    assert!(status.success(), "cc {source}");
    path
}

fn assert_faulty(setup: Setup, faults: &str, words: &[&str]) {
    let begun = Instant::now();
    let ended = setup.flags("--boot-timeout 3").refused();
    assert_eq!(ended.status(), 78, "{faults}: {}", ended.log);
    for word in words {
        assert!(ended.log.contains(word), "{faults}: no {word:?} in {}", ended.log);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{faults} took {:?}", begun.elapsed());
}

/// Status 78, and one line that names the file.
fn assert_refused(ended: &Ended, path: &Path, word: &str) {
    let name = path.to_str().unwrap();
    assert_eq!(ended.status(), 78, "{name}: {}", ended.log);
    let lines: Vec<&str> = ended.log.lines().filter(|line| line.contains(name)).collect();
    assert_eq!(lines.len(), 1, "{name} is named in {lines:#?} of\n{}", ended.log);
    assert!(lines[0].contains(word), "no {word:?} in {}", lines[0]);
}
