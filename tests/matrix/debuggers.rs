//! Debuggers and profilers: they find the files of loaded libraries, and a worker that is being traced is not
//! killed.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, python},
    debugger::Stopped,
    process,
    runner::Behaviour,
    server::{Server, Setup},
    tools::{has, works},
    wait,
};
use nix::{
    sys::signal::Signal,
    unistd::{Pid, gettid},
};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_traced_worker_is_not_killed).of_class(),
        behaviour!(a_stop_ends_a_traced_worker).of_host(),
        behaviour!(the_status_names_libraries_and_builds).of_host(),
        behaviour!(gdb_finds_plugins).of_host().busy().within(180).only_if(has_gdb, "no gdb here"),
        behaviour!(gdb_reads_a_core).of_host().busy().within(180).only_if(has_gdb, "no gdb here"),
        behaviour!(gdb_finds_the_server_in_an_interpreter)
            .of_python()
            .busy()
            .within(120)
            .only_if(has_gdb, "no gdb here"),
        behaviour!(perf_finds_plugins_by_build_id)
            .of_host()
            .busy()
            .within(120)
            .only_if(has_perf, "no perf here, or it may not record"),
        behaviour!(py_spy_shows_python_functions)
            .of_python()
            .only_if(has_py_spy, "no py-spy in the Python environment"),
        behaviour!(backtraces_name_functions_in_unprivileged_workers)
            .of_host()
            .only_if(process::may_change_user, "it takes root, and a user nobody"),
    ]
}

const SOON: Duration = Duration::from_secs(10);
/// Names of functions are found by another process, on a machine that may be busy.
const LONG: Duration = Duration::from_secs(40);

fn a_traced_worker_is_not_killed(cell: &Cell) {
    let server = Setup::new(cell).flags("--timeout 1").start();
    let worker = server.serving_pid();
    let stopped = Stopped::attach(worker);
    let own = gettid().to_string();
    server.log.line(&[&worker.to_string(), "is traced by process", &own], SOON);
    wait::until("a worker that was silent for three timeouts", SOON, || {
        let silent = silence_ms(&server, worker);
        if silent > 3000 { Ok(()) } else { Err(silent) }
    });
    drop(stopped);
    server.log.line(&[&worker.to_string(), "is no longer traced"], SOON);
    assert_eq!(server.serving_pid(), worker);
    assert_eq!(server.log.count("is traced by"), 1, "one line for one debugger");
    process::stop(worker);
    server.log.line(&[&worker.to_string(), "no heartbeat"], SOON);
    assert!(process::gone(worker, SOON), "the timeout does not count again");
}

fn a_stop_ends_a_traced_worker(cell: &Cell) {
    let mut server = Setup::new(cell).flags("--graceful-timeout 1").start();
    let stopped = Stopped::attach(server.serving_pid());
    server.signal(Signal::SIGTERM);
    stopped.ended();
    assert_eq!(server.ended(SOON).status(), 0);
}

fn the_status_names_libraries_and_builds(cell: &Cell) {
    let plugins = Plugins::new(cell);
    let server = plugins.setup(cell).start();
    let libraries = libraries(&server);
    assert_eq!(libraries.len(), 2);
    let text = server.ctl(&["status"]).done();
    for (path, (kind, named, build_id)) in
        [(&plugins.class, &libraries[0]), (&plugins.app, &libraries[1])]
    {
        assert_eq!(Path::new(named), path.canonicalize().unwrap(), "{kind}");
        assert!(build_id.len() >= 16, "{build_id}");
        assert!(text.contains(named.as_str()) && text.contains(build_id.as_str()), "{text}");
    }
}

/// Also if the file has been replaced by another build since: then the loaded one is found.
fn gdb_finds_plugins(cell: &Cell) {
    let plugins = Plugins::new(cell);
    let server = plugins.setup(cell).start();
    let worker = server.serving_pid().to_string();
    let look = || gdb(&["-p", &worker, "-ex", "info sharedlibrary", "-ex", "bt"]);
    assert_has_symbols(&look(), &[&plugins.class, &plugins.app]);
    fs::rename(copy(&artifacts::library("welcome_app"), plugins.dir.path()), &plugins.app).unwrap();
    wait::until("the application's own copy in gdb's list", Duration::from_secs(60), || {
        let shown = look();
        let line = shown.lines().find(|line| line.contains(&format!("/proc/{worker}/fd/")));
        line.filter(|line| line.contains("Yes")).map(drop).ok_or(shown)
    });
    let shown = look();
    assert!(!shown.contains(plugins.app.to_str().unwrap()), "{shown}");
    assert_eq!(server.serving_pid().to_string(), worker);
}

fn gdb_reads_a_core(cell: &Cell) {
    let plugins = Plugins::new(cell);
    let server = plugins.setup(cell).start();
    let worker = server.serving_pid().to_string();
    let core = plugins.dir.path().join(format!("core.{worker}"));
    gdb(&["-p", &worker, "-ex", &format!("generate-core-file {}", core.display())]);
    assert_eq!(server.serving_pid().to_string(), worker);
    server.stop();
    let host = artifacts::executable("host");
    let (host, core) = (host.to_str().unwrap(), core.to_str().unwrap());
    let shown = gdb(&[host, core, "-ex", "info sharedlibrary", "-ex", "bt"]);
    assert_has_symbols(&shown, &[&plugins.class, &plugins.app]);
    assert!(shown.contains("host::worker::entry::run"), "{shown}");
}

/// By the path of the runtime that the interpreter has loaded.
fn gdb_finds_the_server_in_an_interpreter(cell: &Cell) {
    let server = Setup::new(cell).start();
    let worker = server.serving_pid().to_string();
    let shown = gdb(&["-p", &worker, "-ex", "info sharedlibrary", "-ex", "bt"]);
    assert_has_symbols(&shown, &[&artifacts::directory().join("libjimu_runtime.so")]);
    assert!(shown.contains("host::worker::entry::run"), "{shown}");
    server.stop();
}

/// As described in docs/debugging.md.
fn perf_finds_plugins_by_build_id(cell: &Cell) {
    let plugins = Plugins::new(cell);
    let server = plugins.setup(cell).start();
    let worker = server.serving_pid().to_string();
    let (kind, _, build_id) = libraries(&server).remove(0);
    assert_eq!(kind, "worker class");
    let file = plugins.class.file_name().unwrap().to_str().unwrap();
    let known = format!("{build_id} /memfd:{file} (deleted)");
    // perf ignores a relative path here.
    let ids = plugins.dir.path().join("ids");
    let perf = |arguments: &[&str]| {
        let all = [&["--buildid-dir", ids.to_str().unwrap()], arguments].concat();
        run("perf", &all, plugins.dir.path())
    };
    let mut record = Command::new("perf")
        .args(["record", "-F", "500", "-o", "data", "-p", &worker, "sleep", "2"])
        .current_dir(plugins.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while record.try_wait().unwrap().is_none() {
        assert_eq!(server.get("/").status, 200);
    }
    perf(&["buildid-cache", "--add", plugins.class.to_str().unwrap()]);
    perf(&["inject", "-b", "--known-build-ids", &known, "-i", "data", "-o", "named"]);
    let report = perf(&["report", "-i", "named", "--stdio", "-s", "dso,sym"]);
    let of_class: Vec<&str> = report.lines().filter(|line| line.contains(file)).collect();
    assert!(!of_class.is_empty() && !of_class.iter().all(|line| line.contains(" 0x")), "{report}");
}

fn py_spy_shows_python_functions(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut slow = server.connect();
    slow.send_get("/sleep?ms=3000").unwrap();
    server.until_held("/sleep");
    let worker = server.workers()[0].pid.to_string();
    let spy = py_spy().expect("the behavior's condition");
    let shown = run(spy, &["dump", "--pid", &worker], server.dir());
    // A greenlet that waits has left the thread: its hub is there then.
    assert!(shown.contains("routes.py") || shown.contains("hub.py"), "{shown}");
    assert_eq!(slow.answer("GET").unwrap().status, 200);
}

/// Also if such a worker can no longer read the file that the application was loaded from.
fn backtraces_name_functions_in_unprivileged_workers(cell: &Cell) {
    let plugins = Plugins::new(cell);
    let allow = |dir: &Path, mode| {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    };
    let setup = plugins.setup(cell).env("RUST_BACKTRACE", "1");
    allow(setup.dir(), 0o755);
    allow(plugins.dir.path(), 0o755);
    let server = setup.flags("--user nobody").start();
    for mode in [0o755, 0o700] {
        allow(plugins.dir.path(), mode);
        let seen = server.log.count("<worker_api::app::Guarded<");
        let worker = server.serving_pid();
        let _ = server.try_get("/panic");
        wait::until("a stack with names", LONG, || {
            let now = server.log.count("<worker_api::app::Guarded<");
            if now > seen { Ok(()) } else { Err(now) }
        });
        // Another worker, since each logs a stack once.
        process::signal(worker, Signal::SIGKILL);
        server.until_workers("a successor", |workers| {
            workers.iter().any(|w| w.state == "ready" && w.pid != worker)
        });
    }
    server.stop();
}

/// Class and application in a directory of the test, so that they can be replaced.
struct Plugins {
    dir: TempDir,
    class: PathBuf,
    app: PathBuf,
}

impl Plugins {
    fn new(cell: &Cell) -> Self {
        let dir = TempDir::with_prefix("jimu-plugins-").unwrap();
        let class = copy(&cell.class.path, dir.path());
        let app = copy(&artifacts::library("hello_app"), dir.path());
        Self { dir, class, app }
    }

    fn setup(&self, cell: &Cell) -> Setup {
        Setup::new(cell).class(&self.class).app(&self.app)
    }
}

fn copy(file: &Path, dir: &Path) -> PathBuf {
    let copy = dir.join(file.file_name().unwrap());
    fs::copy(file, &copy).unwrap();
    copy
}

/// Returns what the status says of the loaded libraries: kind, path, build-id.
fn libraries(server: &Server) -> Vec<(String, String, String)> {
    let status: Value = serde_json::from_str(&server.ctl(&["status", "--json"]).done()).unwrap();
    let libraries = status["status"]["generations"][0]["libraries"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    libraries
        .iter()
        .map(|library| (text(&library["kind"]), text(&library["path"]), text(&library["build_id"])))
        .collect()
}

fn silence_ms(server: &Server, worker: Pid) -> u64 {
    let status: Value = serde_json::from_str(&server.ctl(&["status", "--json"]).done()).unwrap();
    let workers = status["status"]["generations"][0]["workers"].as_array().unwrap();
    let found = workers.iter().find(|found| found["pid"] == worker.as_raw());
    found.expect("the worker lives")["silent_ms"].as_u64().unwrap()
}

fn assert_has_symbols(shown: &str, libraries: &[&PathBuf]) {
    for library in libraries {
        let library = library.to_str().unwrap();
        let line = shown.lines().find(|line| line.ends_with(library) && line.contains("Yes"));
        assert!(line.is_some(), "no symbols of {library} in\n{shown}");
    }
}

fn gdb(arguments: &[&str]) -> String {
    let all = [&["-nx", "-batch", "-iex", "set debuginfod enabled off"], arguments].concat();
    run("gdb", &all, Path::new("/"))
}

/// Runs a tool, and kills it if it hangs: gdb ignores TERM while it waits for a file.
fn run(tool: impl AsRef<OsStr>, arguments: &[&str], dir: &Path) -> String {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60"]).arg(tool.as_ref()).args(arguments).current_dir(dir);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (shown, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{shown}\n{errors}", output.status);
    shown
}

fn has_gdb() -> bool {
    has("gdb")
}

fn has_perf() -> bool {
    works("perf", &["record", "-o", "/dev/null", "true"])
}

fn py_spy() -> Option<PathBuf> {
    python().map(|python| python.with_file_name("py-spy")).filter(|spy| spy.exists())
}

fn has_py_spy() -> bool {
    py_spy().is_some()
}
