//! gunicorn.conf.py as the settings file of a running server, and applications that are found without a name.

use std::fs;
use std::time::Duration;

use jimu_tests::cell::Cell;
use jimu_tests::runner::Behaviour;
use jimu_tests::server::Setup;
use jimu_tests::{behaviour, process};
use nix::sys::signal::Signal;

use crate::python::saying;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(functions_of_the_configuration_are_hooks).of_python(),
        behaviour!(a_reload_evaluates_the_configuration_again).of_python(),
        behaviour!(a_changed_configuration_is_reloaded).of_python(),
        behaviour!(an_upgrade_checks_the_configuration).of_python(),
        behaviour!(a_broken_configuration_refuses_the_start).of_python(),
        behaviour!(a_configuration_that_hangs_holds_up_no_one).of_python(),
        behaviour!(flags_of_gunicorns_variable_count).of_python(),
        behaviour!(the_application_is_found_by_its_usual_names).of_python().within(60),
    ]
}

const SOON: Duration = Duration::from_secs(10);
const FILE: &str = "gunicorn.conf.py";

fn functions_of_the_configuration_are_hooks(cell: &Cell) {
    let config = "import os\nworkers = 2\nwsgi_app = 'served'\nproc_name = 'of the file'\n\n\
                  def when_ready(server):\n    server.log.info('ready with %d', server.num_workers)\n\n\
                  def post_fork(server, worker):\n    server.log.info('forked %s', server.cfg.proc_name)\n";
    let setup = Setup::new(cell).file("served.py", saying("served")).file(FILE, config);
    let server = setup.app("served").start();
    assert_eq!(server.get("/").text(), "served");
    server.log.line(&["[info]", "ready with 2"], SOON);
    server.log.line(&["[info]", "forked of the file"], SOON);
    server.until_ready_workers(2);
    server.stop();
}

fn a_reload_evaluates_the_configuration_again(cell: &Cell) {
    let setup = Setup::new(cell).file("served.py", saying("served")).file(FILE, "workers = 1\n");
    let server = setup.app("served").start();
    server.until_ready_workers(1);
    server.write(FILE, "from own import workers\n");
    server.write("own.py", "workers = 2\n");
    server.ctl(&["reload"]).done();
    let workers = server.until_ready_workers(2);
    for (config, words) in [
        ("workers = 3\nx = None.x\n", ":2: AttributeError: "),
        ("workers = (\n", ":1: SyntaxError: "),
        ("\nworkers = 'x'\n", ":2: workers: expected a whole number"),
    ] {
        server.write(FILE, config);
        let refusal = server.ctl(&["reload"]).refused();
        assert!(refusal.contains(FILE) && refusal.contains(words), "{refusal}");
        server.log.line(&["reload refused", FILE, words], SOON);
    }
    assert_eq!(server.until_ready_workers(2), workers);
    assert_eq!(server.get("/").text(), "served");
    let ended = server.stop();
    assert!(!ended.log.contains("Traceback"), "{}", ended.log);
}

/// With `--reload`: of the file, and of what it imports.
fn a_changed_configuration_is_reloaded(cell: &Cell) {
    let setup = Setup::new(cell).file("served.py", saying("served")).app("served");
    fs::create_dir(setup.dir().join("conf")).unwrap();
    let config = "import sys\nsys.path.append('conf')\nfrom own import workers\n";
    let setup = setup.file("conf/own.py", "workers = 1\n").file("settings.py", config);
    let server = setup.flags("--reload -c settings.py").start();
    server.until_ready_workers(1);
    server.write("conf/own.py", "workers = 2\n");
    server.log.line(&["file changed: ", "conf/own.py"], SOON);
    server.log.line(&["generation 2 serves"], SOON);
    server.until_ready_workers(2);
    server.write("settings.py", "workers = nothing\n");
    server.log.line(&["reload refused", "settings.py:1: NameError"], SOON);
    server.write("settings.py", "workers = 3\n");
    server.log.line(&["generation 3 serves"], SOON);
    server.until_ready_workers(3);
    server.write("conf/own.py", "");
    server.write("settings.py", "workers = 1\n");
    server.log.line(&["generation 4 serves"], SOON);
    server.until_ready_workers(1);
    server.stop();
}

/// USR2: for settings that it lacks, as a reload does, and the arbiter does not wait for it.
fn an_upgrade_checks_the_configuration(cell: &Cell) {
    let config = "raw_env = ['OF_TEST=1']\n";
    let setup = Setup::new(cell).file("served.py", saying("served")).file(FILE, config);
    let mut server = setup.app("served").flags("--boot-timeout 4").start();
    let worker = server.until_ready_workers(1)[0];
    server.write(FILE, "workers = 1\n");
    server.signal(Signal::SIGUSR2);
    server.log.line(&["upgrade refused", FILE, "raw_env: not set"], SOON);
    fs::remove_file(server.dir().join(FILE)).unwrap();
    server.signal(Signal::SIGUSR2);
    server.log.line(&["upgrade refused", FILE, "file not found"], SOON);
    server
        .write(FILE, format!("print('hangs', flush=True)\nimport time; time.sleep(60)\n{config}"));
    server.signal(Signal::SIGUSR2);
    server.log.line(&["hangs"], SOON);
    server.signal(Signal::SIGUSR2);
    server.log.line(&["USR2 ignored: the settings for an upgrade are being read"], SOON);
    assert_eq!(server.get("/").text(), "served");
    assert_eq!(server.until_ready_workers(1)[0], worker);
    // The successor evaluates the file as well, and refuses it.
    server.log.line(&["started another arbiter"], SOON);
    server.log.line(&["the new arbiter exited with status 78; this one continues"], SOON);
    server.write(FILE, config);
    server.signal(Signal::SIGUSR2);
    server.notified("READY=1");
    let new = server.successor();
    server.signal(Signal::SIGTERM);
    server.leader_ended(SOON);
    server.log.line(&["upgrade complete"], SOON);
    assert_eq!(server.get("/").text(), "served");
    process::signal(new, Signal::SIGTERM);
    assert!(server.all_gone(SOON), "left: {:?}", server.processes());
}

fn a_broken_configuration_refuses_the_start(cell: &Cell) {
    let ended = Setup::new(cell).file(FILE, "a = 1\nraise ValueError('on purpose')\n").refused();
    assert_eq!(ended.status(), 78, "{}", ended.log);
    assert!(ended.log.contains("gunicorn.conf.py:2: ValueError: on purpose"), "{}", ended.log);
    assert_eq!(ended.log.lines().count(), 1, "{}", ended.log);
}

/// The arbiter does not wait for it: clients, `hostctl` and the workers' replacement do not stop.
fn a_configuration_that_hangs_holds_up_no_one(cell: &Cell) {
    let setup = Setup::new(cell).file("served.py", saying("served")).file(FILE, "workers = 1\n");
    let mut server = setup.app("served").flags("--boot-timeout 4").start();
    let hangs = "import time\nprint('hangs', flush=True)\ntime.sleep(60)\n";
    server.write(FILE, hangs);
    server.signal(Signal::SIGHUP);
    server.log.line(&["hangs"], SOON);
    let worker = server.until_ready_workers(1)[0];
    server.ctl(&["workers", "kill", &worker.to_string()]).done();
    assert!(process::gone(worker, SOON));
    server.until_ready_workers(1);
    assert_eq!(server.get("/").text(), "served");
    server.log.line(&["reload refused", "not evaluated within 4 s (boot_timeout)"], SOON);
    server.write(FILE, "workers = 2\n");
    server.ctl(&["reload"]).done();
    server.until_ready_workers(2);
    // A stop does not wait for it either.
    let mark = server.log.mark();
    server.write(FILE, hangs);
    server.signal(Signal::SIGHUP);
    server.log.line_after(mark, &["hangs"], SOON);
    server.signal(Signal::SIGTERM);
    let ended = server.ended(Duration::from_secs(3));
    assert_eq!(ended.status(), 0, "{}", ended.log);
}

fn flags_of_gunicorns_variable_count(cell: &Cell) {
    let setup = Setup::new(cell).file("served.py", saying("served")).app("served");
    let server = setup.env("GUNICORN_CMD_ARGS", "--workers=2 --worker-tmp-dir /dev/shm").start();
    server.until_ready_workers(2);
    server.log.line(&["[warning]", "$GUNICORN_CMD_ARGS: worker_tmp_dir", "no effect"], SOON);
    server.stop();
}

fn the_application_is_found_by_its_usual_names(cell: &Cell) {
    let function = |name: &str| saying(name).replace("application", name);
    let factory = "def create_app(kind='made'):\n    def made(environ, start_response):\n        \
                   start_response('200 OK', [])\n        return [kind.encode()]\n    return made\n";
    for (module, text) in [
        (function("app"), "app"),
        (factory.to_owned(), "made"),
        (format!("{}{}", function("app"), factory), "app"),
        (format!("{}{}", function("app"), saying("application")), "application"),
    ] {
        let server = Setup::new(cell).file("found.py", &module).app("found").start();
        assert_eq!(server.get("/").text(), text, "{module}");
        server.stop();
    }
    let ended = Setup::new(cell).file("found.py", "other = 1\n").app("found").refused();
    let words = "Failed to find attribute 'application' in 'found'";
    assert!(ended.log.contains(words), "{}", ended.log);
}
