//! Guest loops: requests in greenlets of gevent and eventlet themselves, with an engine in memory. Each loop runs
//! in a separate process, because it patches Python's standard library.
//!
//! The tests run if there is an interpreter with both packages: the one in `TEST_PYTHON`, or the one in the
//! virtual environment that `cargo xtask test` creates under the target directory.

mod interpreter;

use std::path::{Path, PathBuf};
use std::process::Command;

use doubles::app_of;
use interpreter::{become_python, has_library};
use libtest_mimic::{Arguments, Failed, Trial};
use worker_api::testing::{Recorded, Request, Response, TestEngine, TestHost};
use worker_api::{AppHandle, FailureKind, Requirements};

fn main() {
    let arguments = Arguments::from_args();
    let python = python();
    let trials = match (std::env::var(CHOSEN), &python) {
        (Ok(name), Some(python)) => cases(&name, python),
        _ => ["gevent", "eventlet"].map(|name| in_a_process(name, python.is_some())).into(),
    };
    libtest_mimic::run(&arguments, trials).exit();
}

fn in_a_process(name: &'static str, possible: bool) -> Trial {
    let trial = Trial::test(format!("all cases under {name}"), move || {
        let this = std::env::current_exe()?;
        let output = Command::new(this).arg("--test-threads=1").env(CHOSEN, name).output()?;
        if output.status.success() {
            return Ok(());
        }
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        Err(Failed::from(format!("{}\n{out}\n{err}", output.status)))
    });
    trial.with_ignored_flag(!possible)
}

fn python() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("venv/bin/python");
    let path = std::env::var_os("TEST_PYTHON").map_or(made, PathBuf::from);
    let asked = Command::new(&path).args(["-c", "import gevent, eventlet"]).output();
    let has_both = asked.is_ok_and(|output| output.status.success());
    (has_both && has_library(&path)).then_some(path)
}

fn cases(name: &str, python: &Path) -> Vec<Trial> {
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps");
    become_python(python);
    let host = TestHost::default().set("pythonpath", [&*apps.to_string_lossy()]);
    let app = app_of(&host, wsgi_app::root_module(), "green:application", name, name)
        .unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(app.requirements(), Requirements::LOOP | Requirements::DEFERRED);
    app.load().unwrap_or_else(|f| panic!("{f}"));
    app.before_fork();
    app.after_fork(true);
    let world: &'static World = Box::leak(Box::new(World { host, app }));
    CASES
        .iter()
        .map(|(name, case)| {
            Trial::test(*name, move || {
                world.host.take_error_log();
                case(world);
                Ok(())
            })
        })
        .collect()
}

struct World {
    host: TestHost,
    app: AppHandle,
}

impl World {
    /// Serves these requests concurrently.
    fn serve(&self, requests: impl IntoIterator<Item = Request>) -> Vec<Response> {
        let engine = TestEngine::default();
        let parts = requests.into_iter().map(|request| request.part(7));
        let seen: Vec<Recorded> = parts.map(|request| engine.add(request)).collect();
        engine.run(&self.app).unwrap_or_else(|f| panic!("{f}"));
        seen.iter().map(Recorded::response).collect()
    }

    fn get(&self, path: &str) -> Response {
        self.serve([Request::get(path)]).remove(0)
    }
}

type Case = (&'static str, fn(&World));

const CASES: &[Case] = &[
    ("a request is answered", |w| {
        let seen = w.get("/hello");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!((seen.text().as_str(), seen.header("content-length")), ("hello", Some("5")));
    }),
    ("requests that sleep let others run", |w| {
        let seen = w.serve((0..3).map(|_| Request::get("/sleeps")));
        assert!(seen.iter().all(|seen| seen.text() == "slept"), "{seen:?}");
        assert_eq!(w.get("/in-order").text(), "in in in out out out");
    }),
    ("requests without a connection share no context and no locals", |w| {
        for round in 0..3 {
            let paths = (0..4).map(|n| Request::get(format!("/fresh?{round}-{n}")));
            for seen in w.serve(paths) {
                assert_eq!(seen.text(), "((None, None), True)");
            }
        }
    }),
    ("bodies are read and sent in parts", |w| {
        let body = b"abcdef\nghij\nkl\nmno\np";
        let seen = w.serve([
            Request::post("/echo", body),
            Request::post("/echo", body).chunked(),
            Request::post("/pieces", body),
            Request::get("/generator"),
            Request::get("/sleeping-parts"),
            Request::get("/write"),
            Request::get("/file"),
            Request::get("/file-like"),
        ]);
        assert!(seen.iter().all(Response::is_complete), "{seen:?}");
        let texts: Vec<String> = seen.iter().map(Response::text).collect();
        let pieces = "[b'abc', b'def\\n', b'gh', b'', [b'ij\\n'], [b'kl\\n', b'mno\\n', b'p'], b'', b'', b'']";
        let echoed = String::from_utf8_lossy(body);
        assert_eq!(texts[..3], [&*echoed, &*echoed, pieces]);
        assert_eq!(texts[3..5], ["one two three", "part 0 part 1 part 2 "]);
        assert_eq!(texts[5..], ["written returned", "3456789", "0123456789"]);
        assert_eq!(seen[6].files, 1);
    }),
    ("an application that fails ends its request alone", |w| {
        let seen = w.serve(["/fails", "/hello", "/too-short", "/exits"].map(Request::get));
        let kinds: Vec<_> = seen.iter().map(|s| s.failed.as_ref().map(|f| f.kind)).collect();
        let fault = Some(FailureKind::APPLICATION);
        assert_eq!(kinds, [fault, None, fault, fault]);
        let failure = seen[0].failed.as_ref().expect("it failed");
        let detail: Vec<&str> = failure.chain.iter().map(|cause| &**cause).collect();
        let detail = detail.join("\n");
        assert!(detail.contains("LookupError: nothing here"), "{failure} {detail}");
        assert!(!detail.contains("_jimu_driver"), "{detail}");
    }),
    ("a body is cut at its Content-Length", |w| {
        w.get("/close-count");
        let paths = [
            "/too-long",
            "/too-long-parts",
            "/too-long-closing",
            "/too-long-list",
            "/too-long-write",
            "/too-long-file",
            "/too-long-file-like",
            "/list_",
        ];
        let seen = w.serve(paths.map(Request::get));
        assert!(seen.iter().all(Response::is_complete), "{seen:?}");
        let texts: Vec<String> = seen.iter().map(Response::text).collect();
        let expected = ["ab", "abcd", "too_long_", "abcd", "abcd", "0123", "0123", "one two"];
        assert_eq!(texts, expected);
        assert_eq!(seen[7].header("content-length"), Some("7"));
        assert_eq!(w.get("/close-count").text(), "[b'too_long']");
    }),
    ("a body that is too short is reported once", |w| {
        let failure = w.get("/too-short-parts").failed.expect("it failed");
        let text = format!("{} {:?}", failure.message, failure.chain);
        assert_eq!(text.matches("shorter than its Content-Length").count(), 1, "{text}");
    }),
    ("close is called once", |w| {
        w.get("/close-count");
        w.serve([Request::get("/closing")]);
        w.serve([Request::get("/closing-fault")]);
        assert_eq!(w.get("/close-count").text(), "[b'closing', b'closing_fault']");
    }),
    ("wsgiref.validate reports nothing", |w| {
        let seen = w.serve([Request::post("/validated?a=b", b"the body")]).remove(0);
        assert!(seen.is_complete(), "{seen:?}\n{}", w.host.take_error_log());
        assert_eq!(seen.text(), "<the body>");
    }),
    ("a reentrant lock behaves as the one in threading.py", |w| {
        let seen = w.get("/locks");
        assert!(seen.is_complete(), "{seen:?}");
        let turns = "['a', 'a', 'b', 'b', 'c', 'c'], False";
        assert_eq!(seen.text(), format!("[((1, 200), ({turns})), 'jimu', 9]"));
    }),
    ("objects that an application keeps are refused after the request", |w| {
        assert_eq!(w.get("/keeps").text(), "kept");
        assert_eq!(w.get("/hello").text(), "hello");
        assert_eq!(w.get("/use-kept").text(), "refused refused");
    }),
];

/// Environment variable that names the loop in the process that runs the cases.
const CHOSEN: &str = "WSGI_TEST_LOOP";
