//! Plugins in C with faults, and applications whose library is opened in each worker: at start and at a reload.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command, time::Duration};

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    compiler::compile,
    load::{Load, Plan, get},
    process,
    runner::Behaviour,
    server::{Server, Setup},
    wait,
};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(faults_of_plugins_in_c_leave_the_service).of_host().busy(),
        behaviour!(late_libraries_are_opened_in_workers_only).of_host(),
        behaviour!(late_libraries_that_fail_end_the_start).of_host().within(120),
        behaviour!(late_libraries_that_fail_leave_the_service).of_host().busy(),
        behaviour!(late_libraries_have_names_and_builds).of_host(),
        behaviour!(a_library_that_starts_threads_is_opened_in_workers).of_host().busy(),
        behaviour!(a_late_library_in_rust_is_checked_in_both_places).of_host(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn faults_of_plugins_in_c_leave_the_service(cell: &Cell) {
    let place = Place::new(NO_FLAG);
    let server = Setup::new(cell).app(&place.app).flags("--workers 2 --boot-timeout 5").start();
    assert_refuses_under_load(
        &server,
        &place,
        &[
            ("/* create */", "*(volatile int *)8 = 1;", &["creating the application", "SIGSEGV"]),
            (
                "/* create */",
                "return jimu_fail(failure, JIMU_FAILURE_CONFIG, \"no database\");",
                &["the application refuses to start: no database"],
            ),
            ("/* begin */", "_exit(3);", &["opening the application", "status 3"]),
            (
                "JIMU_TABLE(jimu_app_table)",
                "{ 16, 1, 0 }",
                &["jimu_app_table has 16 bytes, in jimu.h 1.0 it has 120"],
            ),
        ],
    );
    server.stop();
    place.write(&edited("JIMU_TABLE(jimu_app_table)", "{ sizeof(jimu_app_table), 3, 0 }"), NO_FLAG);
    let ended = Setup::new(cell).app(&place.app).refused();
    assert_eq!(ended.status(), 78, "{}", ended.log);
    let path = place.app.display().to_string();
    let lines: Vec<_> = ended.log.lines().filter(|line| line.contains(&path)).collect();
    assert_eq!(lines.len(), 1, "{}", ended.log);
    assert!(
        lines[0].contains("jimu_app_table is of jimu.h 3.0, this host has 1.0"),
        "{}",
        lines[0]
    );
}

fn late_libraries_are_opened_in_workers_only(cell: &Cell) {
    for flags in ["--workers 2", "--workers 2 --preload"] {
        let place = Place::new(LATE);
        let server = Setup::new(cell).app(&place.app).flags(flags).start();
        let workers = set(&server.until_ready_workers(2));
        assert_eq!(place.opened(), workers, "{flags}");
        assert_eq!(server.get("/").text(), "good");
        let ended = *workers.first().unwrap();
        process::signal(Pid::from_raw(ended), Signal::SIGKILL);
        server.until_workers("another worker", |workers| {
            workers.len() == 2 && workers.iter().all(|worker| worker.pid.as_raw() != ended)
        });
        let all = &workers | &set(&server.until_ready_workers(2));
        assert_eq!(place.opened(), all, "{flags}");
        assert_eq!(all.len(), 3);
        server.stop();
    }
}

fn late_libraries_that_fail_end_the_start(cell: &Cell) {
    let cases: [(&str, &str, i32, &str); 5] = [
        (
            "/* create */",
            "return jimu_fail(failure, JIMU_FAILURE_CONFIG, \"no database\");",
            78,
            "the application cannot boot: no database",
        ),
        (
            "/* create */",
            "return jimu_fail(failure, JIMU_FAILURE_LOAD, \"no database\");",
            4,
            "the application cannot boot: no database",
        ),
        (
            "JIMU_TABLE(jimu_app_table)",
            "{ sizeof(jimu_app_table), 3, 0 }",
            78,
            "the application cannot boot: jimu_app_table is of jimu.h 3.0, this host has 1.0",
        ),
        (
            "/* create */",
            "extern void nowhere(void); nowhere();",
            78,
            "undefined symbol: nowhere; link it with the library that has this symbol",
        ),
        // Before the fork.
        (
            "JIMU_APPLICATION(\"good\", \"1.0\", 0, FLAGS)",
            "{ { sizeof(jimu_application), 2, 0 }, JIMU_MAGIC, JIMU_KIND_APPLICATION, FLAGS, 0, \"x\", \"1\" }",
            78,
            "jimu_module is of jimu.h 2.0, this host has 1.0",
        ),
    ];
    for (from, to, status, words) in cases {
        for flags in ["--workers 1", "--workers 1 --preload"] {
            let place = Place::new(LATE);
            place.write(&edited(from, to), LATE);
            let ended = Setup::new(cell).app(&place.app).flags(flags).refused();
            assert_eq!(ended.status(), status, "{to} {flags}: {}", ended.log);
            let path = place.app.display().to_string();
            let is_reason = |line: &&str| line.contains(&path) && line.contains(words);
            assert_eq!(ended.log.lines().filter(is_reason).count(), 1, "{words}: {}", ended.log);
        }
    }
    let place = Place::new(LATE);
    place.write(&edited("/* begin */", "abort();"), LATE);
    let ended = Setup::new(cell).app(&place.app).flags("--boot-failures-max 1").refused();
    assert_eq!(ended.status(), 3, "{}", ended.log);
    assert!(ended.log.contains("SIGABRT"), "{}", ended.log);
}

fn late_libraries_that_fail_leave_the_service(cell: &Cell) {
    for flags in ["--workers 2", "--workers 2 --preload"] {
        let place = Place::new(LATE);
        let server = Setup::new(cell).app(&place.app).flags(flags).start();
        assert_refuses_under_load(
            &server,
            &place,
            &[
                ("/* create */", "*(volatile int *)8 = 1;", &["SIGSEGV"]),
                ("/* begin */", "_exit(3);", &["status 3"]),
                (
                    "/* create */",
                    "return jimu_fail(failure, JIMU_FAILURE_OTHER, \"no database\");",
                    &["the application cannot boot: no database"],
                ),
                (
                    ".call = call",
                    ".call = (0 ? call : NULL)",
                    &["jimu_app_table: `call` is missing"],
                ),
            ],
        );
        server.stop();
    }
}

fn late_libraries_have_names_and_builds(cell: &Cell) {
    let place = Place::new(LATE);
    let server = Setup::new(cell).app(&place.app).start();
    let path = place.app.canonicalize().unwrap().display().to_string();
    let status: Value = serde_json::from_str(&server.ctl(&["status", "--json"]).done()).unwrap();
    let libraries = status["status"]["generations"][0]["libraries"].as_array().unwrap();
    let kinds: Vec<_> = libraries.iter().map(|library| library["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["worker class", "application"]);
    assert_eq!(libraries[1]["path"].as_str().unwrap(), path);
    assert!(libraries[1]["build_id"].as_str().is_some_and(|id| id.len() >= 16), "{libraries:?}");
    assert_eq!(server.get("/name").text(), path);
    // Another build at this path is not the one that runs.
    place.write(&edited("/* create */", "(void)getppid();"), LATE);
    wait::until("the name of the copy", SOON, || {
        let name = server.get("/name").text();
        if name.contains("/fd/") { Ok(()) } else { Err(name) }
    });
}

/// The log names the setting, by which the library works: each worker then has the thread.
fn a_library_that_starts_threads_is_opened_in_workers(cell: &Cell) {
    let place = Place::new(NO_FLAG);
    place.write(WITH_THREAD, NO_FLAG);
    let path = place.app.display().to_string();
    let server = Setup::new(cell).app(&place.app).flags("--workers 1").start();
    assert_eq!(server.get("/").text(), "no thread");
    let words = "starts threads when it is opened; load = \"worker\" opens it in each worker";
    server
        .log
        .line(&["loading has started 1 thread, which workers do not inherit", &path, words], SOON);
    server.stop();

    let flags = "--workers 2 --preload --load worker";
    let mut server = Setup::new(cell).app(&place.app).flags(flags).start();
    server.until_ready_workers(2);
    assert_eq!(server.get("/").text(), "good");
    let load = Load::start(server.address(), Plan { ask: |_| get("/"), ..Plan::default() });
    place.write(&edited("/* begin */", "_exit(3);"), NO_FLAG);
    assert!(server.ctl(&["reload"]).refused().contains("status 3"));
    place.write(&edited(".call = call", ".call = (0 ? call : NULL)"), NO_FLAG);
    let reason = server.ctl(&["reload"]).refused();
    assert!(reason.contains("jimu_app_table: `call` is missing"), "{reason}");
    place.write(WITH_THREAD, NO_FLAG);
    server.ctl(&["reload"]).done();
    load.flows(20, SOON);
    load.finish().assert_nothing_lost();
    server.signal(Signal::SIGTERM);
    let ended = server.ended(SOON);
    assert!(!ended.log.contains("loading has started"), "{}", ended.log);
}

/// The mold finds no symbol, and the worker a module that does not fit.
fn a_late_library_in_rust_is_checked_in_both_places(cell: &Cell) {
    let late = || Setup::new(cell).flags("--load worker --preload");
    let server = late().app(artifacts::library("hello_app")).start();
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    server.ctl(&["reload"]).done();
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    server.stop();

    let refused = |setup: Setup, words: &str| {
        let ended = setup.refused();
        assert_eq!(ended.status(), 78, "{}", ended.log);
        assert!(ended.log.contains(words), "{words}: {}", ended.log);
    };
    let place = TempDir::with_prefix("jimu-c-").unwrap();
    let plain = place.path().join("libplain_app.so");
    compile("int nothing;", &plain, &[]);
    refused(late().app(&plain), "is a shared library, but not an application");
    let class = artifacts::class("sync");
    refused(late().app(&class), "the application cannot boot: is a worker class, expected an");
    let faulty = || late().app(artifacts::library("faulty_app"));
    refused(faulty().env("FAULTY_APP", "new=config"), "the application cannot boot: ");
    refused(faulty().env("FAULTY_APP", "needs=loop"), "runs its own event loop");
    let mut check = Command::new(artifacts::executable("host"));
    check.args(["--check-config", "--load", "worker", "--worker-class"]).arg(&class);
    let output =
        check.arg(artifacts::library("faulty_app")).env("FAULTY_APP", "new=config").output();
    let output = output.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{words}");
    assert!(words.contains("the application cannot boot: "), "{words}");
}

/// Reloads with each fault in turn, while clients are served, and at last with none.
fn assert_refuses_under_load(server: &Server, place: &Place, faults: &[(&str, &str, &[&str])]) {
    assert_eq!(server.get("/").text(), "good");
    let load = Load::start(server.address(), Plan { ask: |_| get("/"), ..Plan::default() });
    for (from, to, words) in faults {
        place.write(&edited(from, to), place.flags);
        let reason = server.ctl(&["reload"]).refused();
        assert!(words.iter().all(|words| reason.contains(words)), "{words:?} in {reason}");
        load.flows(20, SOON);
    }
    place.write(SOURCE, place.flags);
    server.ctl(&["reload"]).done();
    load.flows(20, SOON);
    load.finish().assert_nothing_lost();
}

/// A directory with an application, and the list of processes that have opened it.
struct Place {
    directory: TempDir,
    app: PathBuf,
    flags: &'static str,
}

impl Place {
    fn new(flags: &'static str) -> Self {
        let directory = TempDir::with_prefix("jimu-c-").unwrap();
        let app = directory.path().join("libgood_app.so");
        let place = Self { directory, app, flags };
        place.write(SOURCE, flags);
        place
    }

    /// Replaces the library.
    fn write(&self, source: &str, flags: &str) {
        let next = self.directory.path().join("next.so");
        let opened = self.directory.path().join("opened");
        let include = artifacts::root().join("worker-api/include");
        let arguments = [
            "-D_GNU_SOURCE",
            "-Wl,--build-id",
            &format!("-I{}", include.display()),
            &format!("-DFLAGS={flags}"),
            &format!("-DOPENED=\"{}\"", opened.display()),
        ];
        compile(source, &next, &arguments);
        fs::rename(next, &self.app).unwrap();
    }

    fn opened(&self) -> BTreeSet<i32> {
        let lines = fs::read_to_string(self.directory.path().join("opened")).unwrap();
        lines.lines().map(|line| line.parse().unwrap()).collect()
    }
}

fn set(pids: &[Pid]) -> BTreeSet<i32> {
    pids.iter().map(|pid| pid.as_raw()).collect()
}

fn edited(from: &str, to: &str) -> String {
    assert_eq!(SOURCE.matches(from).count(), 1, "{from}");
    SOURCE.replace(from, to)
}

const NO_FLAG: &str = "0";
const LATE: &str = "JIMU_LOAD_IN_WORKER";

const SOURCE: &str = r#"
#include "jimu.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void begin(void) {
    FILE *opened = fopen(OPENED, "a");
    fprintf(opened, "%ld\n", (long)getpid());
    fclose(opened);
    /* begin */
}

static jimu_result create(const jimu_host *host, const jimu_app_context *context, void **self, jimu_failure *failure) {
    (void)host, (void)context, (void)self, (void)failure;
    /* create */
    return JIMU_OK;
}

static jimu_result call(void *self, jimu_exchange *exchange, jimu_failure *failure) {
    Dl_info info = { 0 };
    const char *words = "good";
    (void)self;
    if (jimu_bytes_are(exchange->functions->head(exchange->self)->path, "/name")) {
        dladdr((void *)call, &info);
        words = info.dli_fname;
    }
    return jimu_respond(exchange, 200, "text/plain", words, strlen(words), failure);
}

static const jimu_app_table functions = {
    .table = JIMU_TABLE(jimu_app_table),
    .call = call,
};

JIMU_EXPORT_APPLICATION = { JIMU_APPLICATION("good", "1.0", 0, FLAGS), create, &functions };
"#;

/// The same with a thread, and a response by whether it exists.
const WITH_THREAD: &str = r#"
#include "jimu.h"
#include <pthread.h>
#include <unistd.h>

static volatile pid_t owner;

static void *wait_forever(void *argument) {
    owner = getpid();
    for (;;) {
        pause();
    }
    return argument;
}

__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, wait_forever, NULL);
    while (owner == 0) {
        usleep(1000);
    }
}

static jimu_result create(const jimu_host *host, const jimu_app_context *context, void **self, jimu_failure *failure) {
    (void)host, (void)context, (void)self, (void)failure;
    return JIMU_OK;
}

static jimu_result call(void *self, jimu_exchange *exchange, jimu_failure *failure) {
    const char *words = owner == getpid() ? "good" : "no thread";
    (void)self;
    return jimu_respond(exchange, 200, "text/plain", words, strlen(words), failure);
}

static const jimu_app_table functions = {
    .table = JIMU_TABLE(jimu_app_table),
    .call = call,
};

JIMU_EXPORT_APPLICATION = { JIMU_APPLICATION("threads", "1.0", 0, FLAGS), create, &functions };
"#;
