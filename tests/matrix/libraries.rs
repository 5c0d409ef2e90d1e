//! Private libraries, which a plugin brings along and finds by `$ORIGIN`.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command, time::Duration};

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    compiler::compile,
    load::{Load, Plan},
    runner::Behaviour,
    seccomp,
    server::Setup,
};
use tempfile::TempDir;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(private_libraries_are_replaced_under_load)
            .of_host()
            .busy()
            .within(120)
            .only_if(can_compile, NO_COMPILER),
        behaviour!(a_class_and_an_application_bring_versions_of_one_library)
            .of_host()
            .within(120)
            .only_if(can_compile, NO_COMPILER),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn private_libraries_are_replaced_under_load(cell: &Cell) {
    let releases = Releases::new();
    releases.make("first");
    releases.make("second");
    let current = releases.choose("first");
    let server = Setup::new(cell).app(&current).flags("--workers 2").start();
    assert_eq!(server.get("/").text(), "first");
    let load = Load::start(
        server.address(),
        Plan { ask: |_| jimu_tests::load::get("/"), ..Plan::default() },
    );
    for greeting in ["second", "first", "second"] {
        releases.choose(greeting);
        server.ctl(&["reload"]).done();
        load.flows(20, SOON);
        assert_eq!(server.get("/").text(), greeting);
    }
    let library = releases.path("second/lib/libgreet.so.1.0");
    fs::write(&library, [0; 100]).unwrap();
    load.flows(20, SOON);
    assert_eq!(server.get("/").text(), "second", "the copy that is loaded stays as it was");
    let reason = server.ctl(&["reload"]).refused();
    assert!(reason.contains("libgreet.so.1 is not an ELF file"), "{reason}");
    fs::remove_file(&library).unwrap();
    let reason = server.ctl(&["reload"]).refused();
    let directory = current.with_file_name("lib").display().to_string();
    assert!(reason.contains(&format!("no readable libgreet.so.1 in {directory}")), "{reason}");
    load.flows(20, SOON);
    load.finish().assert_nothing_lost();
    server.stop();
    let ended = Setup::new(cell).app(&current).refused();
    assert_eq!(ended.status(), 78, "{}", ended.log);
    let lines: Vec<_> = ended.log.lines().filter(|line| line.contains("libgreet.so.1")).collect();
    assert_eq!(lines.len(), 1, "{}", ended.log);
}

fn a_class_and_an_application_bring_versions_of_one_library(cell: &Cell) {
    let releases = Releases::new();
    releases.make("of the class");
    let app = releases.make("of the application");
    let lib = releases.path("of the class/lib");
    fs::copy(&cell.class.path, lib.join("libsync_worker.so")).unwrap();
    let class = releases.path("of the class/libgreeter_worker.so");
    // The root module is that of the library which it needs.
    compile(
        "#include <stdio.h>\nconst char *greet(void);\n\
         __attribute__((constructor)) static void begin(void) { fprintf(stderr, \"%s\\n\", greet()); }",
        &class,
        &[
            &format!("-L{}", lib.display()),
            "-l:libgreet.so.1",
            "-l:libsync_worker.so",
            "-Wl,-rpath,$ORIGIN/lib",
        ],
    );
    // Copies are memfds, or else files.
    let refuse =
        |command: &mut Command| seccomp::refuse(command, &[libc::SYS_memfd_create], libc::EPERM);
    for setup in [Setup::new(cell), Setup::new(cell).with(refuse)] {
        let server = setup.class(&class).app(&app).start();
        server.log.line(&["of the class"], SOON);
        assert_eq!(server.get("/").text(), "of the application");
        assert_eq!(server.log.count("private copy"), 0);
        server.stop();
    }
}

/// Directories with an application and its library, named after the greeting of that library.
struct Releases(TempDir);

impl Releases {
    fn new() -> Self {
        Self(TempDir::with_prefix("jimu-private-").unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn make(&self, greeting: &str) -> PathBuf {
        let lib = self.path(greeting).join("lib");
        fs::create_dir_all(&lib).unwrap();
        compile(
            &format!("const char *greet(void) {{ return \"{greeting}\"; }}"),
            &lib.join("libgreet.so.1.0"),
            &["-Wl,-soname,libgreet.so.1"],
        );
        symlink("libgreet.so.1.0", lib.join("libgreet.so.1")).unwrap();
        let app = self.path(greeting).join("libgreeter_app.so");
        let source = self.path(greeting).join("greeter.rs");
        fs::write(&source, GREETER).unwrap();
        let built = artifacts::directory();
        let mut command = Command::new("rustc");
        command
            .args(["--edition", "2024", "--crate-type", "cdylib", "-C", "debuginfo=0", "-o"])
            .arg(&app);
        command.arg(format!("-Ldependency={}", built.join("deps").display()));
        command.arg(format!("--extern=worker_api={}", built.join("libworker_api.rlib").display()));
        command.arg(format!("-Clink-arg={}", lib.join("libgreet.so.1").display()));
        command.arg("-Clink-arg=-Wl,-rpath,$ORIGIN/lib").arg(&source);
        assert!(command.status().unwrap().success(), "{command:?}");
        app
    }

    /// Switches the link `current`, and returns the application behind it.
    fn choose(&self, greeting: &str) -> PathBuf {
        let (next, current) = (self.path("next"), self.path("current"));
        symlink(greeting, &next).unwrap();
        fs::rename(next, &current).unwrap();
        current.join("libgreeter_app.so")
    }
}

fn can_compile() -> bool {
    let works = |tool: &str| {
        Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    works("cc") && works("rustc") && artifacts::directory().join("libworker_api.rlib").exists()
}

const NO_COMPILER: &str = "no compilers here, or no worker-api to compile against";

const GREETER: &str = r#"
use std::ffi::{CStr, c_char};
use worker_api::{App, AppContext, AppFactory, Exchange, Header, Result};

worker_api::export_app!(Greeter);

pub struct Greeter;

impl AppFactory for Greeter {
    const NAME: &'static str = "greeter";
    const VERSION: &'static str = "1";

    fn new(_: AppContext) -> Result<Self> {
        Ok(Self)
    }
}

impl App for Greeter {
    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        let words = unsafe { CStr::from_ptr(greet()) };
        exchange.respond(200, &[Header::new("Content-Type", "text/plain")], words.to_bytes())
    }
}

unsafe extern "C" {
    fn greet() -> *const c_char;
}
"#;
