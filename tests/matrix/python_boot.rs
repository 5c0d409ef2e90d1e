//! How a Python application is loaded, refused and aborted: what the operator reads about it.

use std::{fs, os::unix::fs::symlink, time::Duration};

use jimu_tests::{behaviour, cell::Cell, process::End, runner::Behaviour, server::Setup};
use nix::sys::signal::Signal;

use crate::python::saying;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(an_asgi_application_is_refused_at_boot).of_python(),
        behaviour!(a_check_of_the_settings_loads_the_application).of_python(),
        behaviour!(a_mold_that_hangs_at_import_leaves_a_traceback).of_python(),
        behaviour!(a_start_with_a_broken_file_waits_for_its_change).of_python().within(60),
        behaviour!(extra_files_may_be_patterns_directories_and_behind_links).of_python().within(60),
        behaviour!(a_request_that_outlasts_the_drain_leaves_a_traceback).of_python(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn an_asgi_application_is_refused_at_boot(cell: &Cell) {
    let module = "async def application(scope, receive, send):\n    pass\n";
    let ended = Setup::new(cell).file("new.py", module).app("new:application").refused();
    assert_eq!(ended.status(), 4, "{}", ended.log);
    assert!(ended.log.contains("new:application is an ASGI application"), "{}", ended.log);
    assert!(!ended.log.contains("Traceback"), "{}", ended.log);
}

fn a_check_of_the_settings_loads_the_application(cell: &Cell) {
    let check = |file: &str, app: &str| {
        Setup::new(cell).file("checked.py", file).app(app).flags("--check-config").refused()
    };
    let good = "def application(environ, start_response):\n    return []\n";
    assert_eq!(check(good, "checked:application").status(), 0);
    for (file, app, word) in [
        (good, "checked:nosuch", "nosuch"),
        (good, "nosuch:application", "nosuch"),
        ("def application(:\n", "checked", "SyntaxError"),
        ("raise ValueError('at import')\n", "checked", "Traceback"),
    ] {
        let ended = check(file, app);
        assert_ne!(ended.status(), 0, "{app}, {file:?}: {}", ended.log);
        assert!(ended.log.contains(word), "no {word:?} for {app}, {file:?}: {}", ended.log);
    }
    let setup = Setup::new(cell).file("checked.py", good).app("checked:application");
    let ended = setup.flags("--check-config --load worker").refused();
    assert_eq!(ended.status(), 78, "{}", ended.log);
    assert!(ended.log.contains("load = \"worker\" is for native applications"), "{}", ended.log);
}

fn a_mold_that_hangs_at_import_leaves_a_traceback(cell: &Cell) {
    let module = "def hangs_here():\n    while True:\n        pass\nhangs_here()\n";
    let setup = Setup::new(cell).file("hanging.py", module).app("hanging");
    let ended = setup.flags("--preload --boot-timeout 4").refused();
    assert!(ended.log.contains("in hangs_here"), "{}", ended.log);
    assert!(ended.log.contains("(the setting boot_timeout)"), "{}", ended.log);
}

fn a_start_with_a_broken_file_waits_for_its_change(cell: &Cell) {
    for flags in ["--reload", "--reload --preload"] {
        let setup = Setup::new(cell).file("waiting.py", "def application(:\n").app("waiting");
        let server = setup.flags(flags).launch();
        server.log.line(&["SyntaxError"], SOON);
        server.log.line(&["waiting for a file to change"], SOON);
        server.write("waiting.py", "import missing_so_far\n".to_owned() + &saying("mended"));
        server.log.line(&["file changed: ", "waiting.py"], SOON);
        server.log.line(&["No module named 'missing_so_far'"], SOON);
        server.log.line(&["waiting for a file to change"], SOON);
        server.write("missing_so_far.py", "");
        server.log.line(&["Server is ready"], SOON);
        assert_eq!(server.get("/").text(), "mended", "{flags}");
    }
}

fn extra_files_may_be_patterns_directories_and_behind_links(cell: &Cell) {
    let setup = Setup::new(cell).file("extra.py", saying("here")).app("extra");
    let top = setup.dir().to_owned();
    for directory in ["conf", "templates/deep", "releases/1", "releases/2"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    symlink("releases/1", top.join("current")).unwrap();
    let extras = ["conf/*.toml", "templates", "current/release.txt"];
    let setup = extras
        .iter()
        .fold(setup.flags("--reload"), |setup, extra| setup.flag("--reload-extra-file", *extra));
    let server = setup.start();
    let mut generation = 1;
    let mut reloads = |what: &str| {
        generation += 1;
        server.log.line(&["file changed: ", what], SOON);
        server.log.line(&[&format!("generation {generation} serves")], SOON);
    };
    server.write("conf/not-named.yaml", "");
    server.write("conf/named.toml", "");
    reloads("named.toml");
    server.write("templates/deep/page.html", "");
    reloads("page.html");
    symlink("releases/2", top.join("next")).unwrap();
    fs::rename(top.join("next"), top.join("current")).unwrap();
    reloads("current");
    server.write("releases/2/release.txt", "");
    reloads("release.txt");
    assert_eq!(server.log.count("file changed: "), 4);
    server.stop();
}

/// A worker whose request never yields does not exit by itself, unless a thread serves it.
fn a_request_that_outlasts_the_drain_leaves_a_traceback(cell: &Cell) {
    let setup = Setup::new(cell).app("faulty:application");
    let mut server = setup.flags("--graceful-timeout 1 --timeout 0").start();
    let mut client = server.connect();
    client.send_get("/spins").unwrap();
    server.until_held("/spins");
    server.signal(Signal::SIGTERM);
    let ended = server.ended(SOON);
    assert_eq!(ended.end, End::Status(0));
    assert!(ended.log.contains("graceful_timeout"), "{}", ended.log);
    assert!(ended.log.contains("in spins"), "{}", ended.log);
}
