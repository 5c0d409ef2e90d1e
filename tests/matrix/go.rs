//! Applications in Go: an `http.Handler` under every class, and swapped for other languages under load.

use std::{env, path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, apps, python},
    load::{Load, Plan},
    runner::Behaviour,
    server::Setup,
    tools::works,
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(go_handlers_serve_requests).of_class().within(300).only_if(has_go, NO_GO),
        behaviour!(a_go_handler_that_is_not_created_ends_the_start)
            .of_host()
            .within(300)
            .only_if(has_go, NO_GO),
        behaviour!(fifty_swaps_of_go_cpp_python_and_c_lose_nothing)
            .of_host()
            .heavy()
            .within(300)
            .only_if(has_go_and_python, "no go compiler on PATH, or no Python environment"),
    ]
}

const NO_GO: &str = "no go compiler on PATH";
const SOON: Duration = Duration::from_secs(20);

fn go_handlers_serve_requests(cell: &Cell) {
    let server = Setup::new(cell).app(library()).flags("--threads 4").start();
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    assert_eq!(server.get("/none").status, 404);
    assert_eq!(server.get("/stream?n=5&size=1000").body.len(), 5000);
    assert_eq!(server.get("/whole?size=1000000").body.len(), 1_000_000);
    let headers = server.get("/headers").text();
    assert!(headers.starts_with("GET /headers HTTP/1.1 from 127."), "{headers}");
    for (path, reason) in [("/panic", "a client asked for a panic"), ("/nil", "nil pointer")] {
        assert_eq!(server.get(path).status, 500);
        server.log.line(&["the handler panicked", reason], SOON);
    }
    let load = Load::start(server.address(), Plan::default());
    load.flows(200, SOON);
    load.finish().assert_nothing_lost();
    server.until_ready_workers(1);
    server.stop();
}

fn a_go_handler_that_is_not_created_ends_the_start(cell: &Cell) {
    let setup = Setup::new(cell).app(library()).env("HELLO_GO_REFUSES", "no database");
    let ended = setup.refused();
    assert_eq!(ended.status(), 4, "{}", ended.log);
    assert!(ended.log.contains("the application cannot boot: no database"), "{}", ended.log);
}

fn fifty_swaps_of_go_cpp_python_and_c_lose_nothing(cell: &Cell) {
    let (c, cpp) = (artifacts::c_application(), artifacts::cpp_application());
    let languages = [library(), cpp, PathBuf::from("routes:application"), c];
    let settings = |app: &PathBuf| {
        format!("wsgi_app = \"{}\"\npythonpath = \"{}\"\n", app.display(), apps().display())
    };
    let mut setup = Setup::bare().class(&cell.class.path).flags("--workers 2 --config jimu.toml");
    setup = setup.file("jimu.toml", settings(&languages[3]));
    let server = setup.python(python().unwrap()).start();
    let load = Load::start(server.address(), Plan { clients: 8, ..Plan::default() });
    for round in 0..50 {
        server.write("jimu.toml", settings(&languages[round % 4]));
        server.ctl(&["reload"]).done();
        load.flows(10, SOON);
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

/// Builds the example once.
fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let library = artifacts::compiled().join("libhello_go_app.so");
            let mut command = Command::new("go");
            command.args(["build", "-buildmode=c-shared", "-o"]).arg(&library).arg(".");
            command.current_dir(artifacts::root().join("plugins/examples/hello-go"));
            if env::var_os("GOCACHE").is_none() && !artifacts::is_program() {
                command.env("GOCACHE", artifacts::directory().with_file_name("go-cache"));
            }
            assert!(command.status().unwrap().success(), "{command:?}");
            library
        })
        .clone()
}

pub(crate) fn has_go() -> bool {
    works("go", &["version"])
}

fn has_go_and_python() -> bool {
    has_go() && python().is_some()
}
