//! PEP 3333 as seen by the application, under every CPython that is found. Each runs in a separate process,
//! because a process has one interpreter.
//!
//! The interpreters are those of pyenv, if there are any, and `python3`, as far as they have a shared library.

mod interpreter;

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use doubles::app_of;
use interpreter::{become_python, has_library};
use libtest_mimic::{Arguments, Failed, Trial};
use worker_api::testing::{Request, Response, TestHost};
use worker_api::{AppHandle, FailureKind};

fn main() {
    let arguments = Arguments::from_args();
    let trials = match std::env::var(CHOSEN) {
        Ok(python) => cases(&python),
        Err(_) => interpreters().into_iter().map(in_a_process).collect(),
    };
    libtest_mimic::run(&arguments, trials).exit();
}

fn in_a_process(python: PathBuf) -> Trial {
    Trial::test(format!("all cases under {}", python.display()), move || {
        let this = std::env::current_exe()?;
        let output = Command::new(this).arg("--test-threads=1").env(CHOSEN, &python).output()?;
        if output.status.success() {
            return Ok(());
        }
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        Err(Failed::from(format!("{}\n{out}\n{err}", output.status)))
    })
}

fn interpreters() -> Vec<PathBuf> {
    let root = std::env::var("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|_| std::env::var("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let versions = root.ok().and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    let mut found: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/python3")))
        .filter(|python| is_new_enough(python))
        .collect();
    found.push(PathBuf::from("/usr/bin/python3"));
    found.retain(|python| has_library(python));
    found
}

fn is_new_enough(python: &Path) -> bool {
    let question = "import sys; sys.exit(sys.version_info < (3, 9))";
    Command::new(python).args(["-c", question]).status().is_ok_and(|status| status.success())
}

struct World {
    host: TestHost,
    app: AppHandle,
}

impl World {
    fn get(&self, path: &str) -> Response {
        Request::get(path).call(&self.app)
    }
}

fn cases(python: &str) -> Vec<Trial> {
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps");
    become_python(Path::new(python));
    let host = TestHost::default().set("pythonpath", [&*apps.to_string_lossy()]).set("workers", 2);
    let app = app_of(&host, wsgi_app::root_module(), "apps:application", "gthread", "")
        .unwrap_or_else(|f| panic!("{f}"));
    app.load().unwrap_or_else(|f| panic!("{f}"));
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

type Case = (&'static str, fn(&'static World));

const CASES: &[Case] = &[
    ("a whole body is written once", |w| {
        let seen = w.get("/hello");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!((seen.status, seen.reason.as_str(), seen.text().as_str()), (200, "OK", "hello"));
        assert_eq!((seen.writes, seen.header("content-length")), (1, Some("5")));
    }),
    ("a body of one item gets its length", |w| {
        assert_eq!(w.get("/no-length").header("content-length"), Some("5"));
        assert_eq!(w.get("/empty").header("content-length"), Some("0"));
        let head = Request::get("/no-length").method("HEAD").call(&w.app);
        assert_eq!((head.header("content-length"), head.text().as_str()), (Some("5"), ""));
        assert_eq!(w.get("/no-content").header("content-length"), None);
    }),
    ("the environ is as in PEP 3333 and gunicorn", environ_is_right),
    ("nothing of an earlier request is in the environ", |w| {
        let long = "x".repeat(2000);
        let queries = ["a", "b", &long, "b"];
        for (query, port) in queries.iter().flat_map(|query| [(query, 40_000), (query, 0)]) {
            let target = format!("/environ_?{query}");
            let environ = Request::get(&target).peer("192.0.2.7", port).call(&w.app).text();
            assert!(environ.contains(&format!(r#""QUERY_STRING": "{query}""#)), "{environ}");
            assert!(environ.contains(&format!(r#""RAW_URI": "{target}""#)), "{environ}");
            assert_eq!(environ.contains("REMOTE_PORT"), port != 0, "{environ}");
            assert!(!environ.contains("null"), "{environ}");
        }
    }),
    ("parts are sent as they come", |w| {
        let seen = w.get("/generator");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!((seen.text().as_str(), seen.writes), ("one two three", 3));
        assert_eq!(seen.header("content-length"), None);
        assert_eq!(w.get("/late-start").status, 201);
    }),
    ("close is called once, whatever happens", |w| {
        w.get("/close-count");
        assert!(w.get("/closing").is_complete());
        let fault = w.get("/closing-fault");
        assert_eq!(fault.text(), "closing_fault");
        let failure = fault.failed.expect("it fails");
        assert_eq!(failure.kind, FailureKind::APPLICATION);
        assert!(failure.to_string().contains("ValueError: in the middle"), "{failure}");
        let gone = Request::get("/closing").received_until(0);
        assert_eq!(gone.call(&w.app).failed.map(|f| f.kind), Some(FailureKind::GONE));
        assert_eq!(w.get("/close-count").text(), "[b'closing', b'closing_fault', b'closing']");
        assert!(!w.host.take_error_log().contains("Traceback"));
    }),
    ("write() sends before what is returned", |w| {
        let seen = w.get("/write");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!(seen.text(), "written returned");
    }),
    ("start_response with exc_info replaces the earlier status", |w| {
        let seen = w.get("/replace");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!((seen.status, seen.reason.as_str()), (503, "Sorry"));
        assert_eq!(seen.headers.len(), 2, "{:?}", seen.headers);
        assert_eq!(
            (seen.header("x-second"), seen.header("content-length")),
            (Some("2"), Some("5"))
        );
    }),
    ("start_response with exc_info raises it after the head was sent", |w| {
        let seen = w.get("/too-late");
        assert_eq!((seen.status, seen.text().as_str()), (200, "on its way"));
        assert!(seen.failed.is_some_and(|f| f.message.contains("KeyError: 'the first'")));
    }),
    ("invalid responses are refused", |w| {
        for path in [
            "/twice",
            "/never-started",
            "/never-started-empty",
            "/text-body",
            "/nothing",
            "/two-lengths",
            "/negative-length",
            "/too-short",
            "/list-short",
            "/splitting",
            "/beyond-latin",
            "/bad-types",
            "/fails",
            "/exits",
            "/recursion",
        ] {
            let seen = w.get(path);
            assert_eq!((seen.status, seen.body.len()), (500, 0), "{path}: {seen:?}");
            assert_eq!(seen.failed.map(|f| f.kind), Some(FailureKind::APPLICATION), "{path}");
        }
        w.host.take_error_log();
        let failure = w.get("/fails").failed.expect("it fails");
        assert_eq!(failure.message, "LookupError: nothing here");
        let [traceback] = &failure.chain[..] else { panic!("{failure:?}") };
        assert!(traceback.starts_with("Traceback") && !traceback.contains("<jimu>"), "{traceback}");
        assert_eq!(w.host.take_error_log(), "", "the worker class logs it, once");
        for path in ["/too-short-parts", "/text-part"] {
            let seen = w.get(path);
            assert!(seen.failed.is_some() && !seen.finished, "{path}: {seen:?}");
        }
    }),
    ("a body is cut at its Content-Length", |w| {
        w.get("/close-count");
        w.host.take_error_log();
        for (path, body) in [
            ("/too-long", "ab"),
            ("/too-long-parts", "abcd"),
            ("/too-long-closing", "too_long_"),
            ("/too-long-list", "abcd"),
            ("/too-long-write", "abcd"),
            ("/too-long-file", "0123"),
            ("/too-long-file-like", "0123"),
        ] {
            let seen = w.get(path);
            assert!(seen.is_complete(), "{path}: {seen:?}");
            assert_eq!((seen.status, seen.text().as_str()), (200, body), "{path}");
        }
        let excess = "3 a response body is longer than its Content-Length";
        assert!(w.host.take_error_log().matches(excess).count() <= 1, "once per worker");
        assert_eq!(w.get("/close-count").text(), "[b'too_long']");
    }),
    ("a list of several parts gets the sum of their lengths", |w| {
        let seen = w.get("/list_");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!((seen.text().as_str(), seen.header("content-length")), ("one two", Some("7")));
        let head = Request::get("/list_").method("HEAD").call(&w.app);
        assert_eq!((head.header("content-length"), head.text().as_str()), (Some("7"), ""));
    }),
    ("hop-by-hop headers are left to the class", |w| {
        let seen = w.get("/hop-by-hop");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!(seen.header("connection"), Some("close"));
        assert_eq!(seen.header("trailer"), Some("X"));
    }),
    ("repeated headers are joined, whatever has been seen before", |w| {
        for round in 0..2 {
            let names = ["X-Two", "x-two", "X_Two", "X-TWO", "x-tWo"];
            for first in 0..names.len() {
                let mut request = Request::get("/environ_");
                for (at, name) in names[first..].iter().chain(&names[..first]).enumerate() {
                    request = request.header(name, &at.to_string());
                }
                request = request.header("Cookie", "a=1").header("cookie", "b=2");
                let environ = request.call(&w.app).text();
                assert!(environ.contains(r#""HTTP_X_TWO": "0,1,2,3,4""#), "{round}: {environ}");
                assert!(environ.contains(r#""HTTP_COOKIE": "a=1; b=2""#), "{round}: {environ}");
            }
            // More spellings of names than are remembered.
            for at in 0..600 {
                w.host.take_error_log();
                let name = format!("X-Name-{at}");
                assert!(Request::get("/hello").header(&name, "1").call(&w.app).is_complete());
            }
            let request = Request::get("/environ_").header("New-Name", "1").header("nEW-name", "2");
            let environ = request.call(&w.app).text();
            assert!(environ.contains(r#""HTTP_NEW_NAME": "1,2""#), "{round}: {environ}");
            let names = ["x-TWO", "X-Two", "x-TWo", "x-two"];
            let request = names
                .iter()
                .fold(Request::get("/environ_"), |request, name| request.header(name, "v"));
            let environ = request.call(&w.app).text();
            assert!(environ.contains(r#""HTTP_X_TWO": "v,v,v,v""#), "{round}: {environ}");
        }
    }),
    ("latin-1 goes through", |w| {
        let seen = w.get("/latin");
        assert_eq!((seen.reason.as_str(), seen.header("x-name")), ("Schön", Some("Jürgen")));
    }),
    ("the input is read in every way", |w| {
        let body = b"abcdef\nghij\nkl\nmno\np";
        let expected = "[b'abc', b'def\\n', b'gh', b'', [b'ij\\n'], [b'kl\\n', b'mno\\n', b'p'], b'', b'', b'']";
        for part in [1, 7, 1000] {
            let request = Request::post("/pieces", body).part(part);
            assert_eq!(request.call(&w.app).text(), expected);
            assert_eq!(request.chunked().call(&w.app).text(), expected);
        }
        let large: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let request = Request::post("/echo", &large).part(100_000);
        assert!(request.call(&w.app).body == large);
        assert!(request.chunked().call(&w.app).body == large);
        for part in [5000, 100_000] {
            assert!(Request::post("/mixed", &large).part(part).call(&w.app).body == large);
        }
        assert_eq!(w.get("/echo").text(), "");
    }),
    ("a body that does not arrive is an error", |w| {
        let large = [b'.'; 1_000_000];
        for (body, part, sent) in [(&b"0123456789"[..], 5, 5), (&large, 100_000, 700_000)] {
            let request = Request::post("/read-fault", body).part(part).sent_until(sent);
            let seen = request.call(&w.app);
            assert_eq!(seen.failed.map(|f| f.kind), Some(FailureKind::GONE));
        }
        assert!(!w.host.take_error_log().contains("Traceback"));
    }),
    ("wsgi.errors is the error log", |w| {
        assert!(w.get("/errors").is_complete());
        let log = w.host.take_error_log();
        assert!(log.contains("wsgi.errors: one\\ntwo\\n\nwsgi.errors: half a line"), "{log}");
    }),
    ("files are sent without reading them", |w| {
        let seen = w.get("/file");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!((seen.text().as_str(), seen.files), ("3456789", 1));
        assert_eq!(seen.header("content-length"), Some("7"));
        let seen = w.get("/file-like");
        assert_eq!((seen.text().as_str(), seen.files, seen.writes), ("0123456789", 0, 3));
        for (kind, body, files) in [
            ("plain", "3456789abc", 1),
            ("raw", "3456789abc", 1),
            ("random", "3456789ABC", 1),
            ("named", "3456789abc", 1),
            ("rolled", "3456789abc", 1),
            ("spooled", "3456789abc", 0),
            ("gzip", "3456789abc", 0),
            ("bz2", "3456789abc", 0),
            ("lzma", "3456789abc", 0),
            ("subclass", "3456789ABC", 0),
            ("buffered-subclass", "3456789ABC", 0),
        ] {
            let seen = w.get(&format!("/file-kinds?{kind}"));
            assert_eq!((seen.text().as_str(), seen.files), (body, files), "{kind}: {seen:?}");
        }
    }),
    ("early hints are sent before the response", |w| {
        let seen = w.get("/hints");
        assert_eq!(seen.informational.len(), 1);
        assert!(seen.informational[0].1[0].1.contains("</style.css>"), "{seen:?}");
    }),
    ("objects that an application keeps are refused after the request", |w| {
        assert_eq!(w.get("/keeps").text(), "kept");
        assert_eq!(w.get("/hello").text(), "hello");
        assert_eq!(w.get("/use-kept").text(), "refused refused");
        assert!(w.get("/hello").is_complete());
    }),
    ("an application can respond on the socket", |w| {
        let seen = w.get("/handled");
        assert!(seen.hijacked && seen.failed.is_none(), "{seen:?}");
    }),
    ("an application takes the connection over through gunicorn.socket", |w| {
        for (how, log) in [
            ("stops", "has finished with the connection"),
            ("closes", "has finished with the connection"),
            ("returns", ""),
            ("returns-text", ""),
            ("fails", "LookupError: after it took over"),
        ] {
            w.host.take_error_log();
            let (seen, received) = taken_over(w, &format!("/takes-over?{how}"), b"hello");
            assert!(seen.hijacked && seen.failed.is_none(), "{how}: {seen:?}");
            assert_eq!(received, "ready raw bytes", "{how}");
            let logged = w.host.take_error_log();
            assert!(logged.contains(log) && logged.is_empty() == log.is_empty(), "{how}: {logged}");
            assert_eq!(logged.contains("Traceback"), how == "fails", "{how}: {logged}");
        }
        let failure = w.get("/stops").failed.expect("nothing was taken over");
        assert_eq!(failure.kind, FailureKind::APPLICATION);
    }),
    ("protocols are switched before the first byte of the other one", |w| {
        let (seen, received) = taken_over(w, "/switches", b"");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!((seen.status, seen.header("upgrade"), &*received), (101, Some("x"), "raw"));
    }),
    ("the socket is closed after the request", |w| {
        let (seen, _) = taken_over(w, "/closed-later", b"");
        assert!(seen.is_complete(), "{seen:?}");
        assert_eq!(w.get("/use-closed").text(), "-1 refused refused refused refused");
    }),
    ("wsgiref.validate reports nothing", |w| {
        let request = Request::post("/validated?a=b", b"the body");
        let seen = request.call(&w.app);
        assert!(seen.is_complete(), "{seen:?}\n{}", w.host.take_error_log());
        assert_eq!(seen.text(), "<the body>");
    }),
    ("threads of the class are threads of Python", |w| {
        assert_eq!(w.get("/threads").text(), "1 True");
        let app = w.app.clone();
        let seen = std::thread::spawn(move || Request::get("/threads").call(&app))
            .join()
            .expect("the thread does not panic");
        assert_eq!(seen.text(), "2 False");
    }),
    ("traces name the running line", |w| {
        assert!(w.app.trace().contains("Thread MainThread"), "{}", w.app.trace());
        assert!(w.app.files().iter().any(|file| file.ends_with("/tests/apps/apps.py")));
    }),
    ("a class may start the next request as soon as one has ended", |w| {
        let answered = Arc::new(AtomicUsize::new(0));
        for path in ["/hello", "/generator"] {
            let answered = Arc::clone(&answered);
            let then = move || {
                assert!(w.get("/generator").is_complete());
                answered.fetch_add(1, Ordering::Relaxed);
            };
            let request = Request::get(path).then(then);
            assert!(request.call(&w.app).is_complete(), "{path}");
        }
        assert_eq!(answered.load(Ordering::Relaxed), 2);
    }),
    ("the fork hooks of Python run", |w| {
        w.app.before_fork();
        w.app.after_fork(false);
        assert!(w.get("/hello").is_complete());
    }),
];

/// Serves a request on a separate connection. Also returns what the client reads; the client first sends `bytes`.
fn taken_over(w: &World, target: &str, bytes: &[u8]) -> (Response, String) {
    let (mut client, server) = UnixStream::pair().expect("there are descriptors left");
    server.set_nonblocking(true).expect("it can be");
    let limit = Some(std::time::Duration::from_secs(10));
    client.set_read_timeout(limit).expect("it can be limited");
    let server = Arc::new(server);
    let connection = server.try_clone().expect("there are descriptors left");
    let request = Request::get(target).connection(OwnedFd::from(connection));
    let (seen, received) = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut received = vec![0; 64];
            let count = client.read(&mut received).expect("something comes, or the end");
            received.truncate(count);
            if count > 0 && !bytes.is_empty() {
                client.write_all(bytes).expect("it is open");
            }
            client.read_to_end(&mut received).expect("the end comes");
            String::from_utf8_lossy(&received).into_owned()
        });
        let seen = request.call(&w.app);
        // As a worker class does that gets the connection back. Has no effect if the connection was handed
        // over.
        let _ = server.shutdown(std::net::Shutdown::Both);
        (seen, reading.join().expect("the client does not panic"))
    });
    (seen, received)
}

fn environ_is_right(w: &World) {
    let request = Request::get("/environ_?a=%20b")
        .header("X-Two", "1")
        .header("x-two", "2")
        .header("Content-Type", "text/x")
        .header("Proxy", "evil")
        .header("X-Latin", "J\u{fc}rgen");
    let first = request.call(&w.app).text();
    let second = request.call(&w.app).text();
    let without_addresses = |text: &str| {
        let keys = ["wsgi.input", "socket", "early_hints"];
        let kept = text.split(", ").filter(|item| !keys.iter().any(|key| item.contains(key)));
        kept.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(without_addresses(&first), without_addresses(&second));
    for item in [
        r#""REQUEST_METHOD": "GET""#,
        r#""PATH_INFO": "/environ_""#,
        r#""QUERY_STRING": "a=%20b""#,
        r#""RAW_URI": "/environ_?a=%20b""#,
        r#""SCRIPT_NAME": """#,
        r#""SERVER_NAME": "127.0.0.1""#,
        r#""SERVER_PORT": "8000""#,
        r#""SERVER_PROTOCOL": "HTTP/1.1""#,
        r#""REMOTE_ADDR": "192.0.2.7""#,
        r#""REMOTE_PORT": "40000""#,
        r#""HTTP_HOST": "localhost:8000""#,
        r#""HTTP_X_TWO": "1,2""#,
        r#""CONTENT_TYPE": "text/x""#,
        r#""wsgi.url_scheme": "http""#,
        r#""wsgi.version": "(1, 0)""#,
        r#""wsgi.multithread": true"#,
        r#""wsgi.multiprocess": true"#,
        r#""wsgi.run_once": false"#,
        r#""wsgi.input_terminated": true"#,
        r#""SERVER_SOFTWARE": "jimu/"#,
    ] {
        assert!(first.contains(item), "{item} is not in {first}");
    }
    assert!(!first.contains("HTTP_PROXY") && !first.contains("null"), "{first}");
    let decoded = Request::get("/environ%5F?x").call(&w.app).text();
    assert!(decoded.contains(r#""PATH_INFO": "/environ_""#), "{decoded}");
}

/// Environment variable that names the interpreter in the process that runs the cases.
const CHOSEN: &str = "WSGI_TEST_PYTHON";
