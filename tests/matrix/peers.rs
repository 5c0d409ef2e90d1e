//! Real Python applications, served as under gunicorn: the same requests to both; status, headers and body
//! compared.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use jimu_tests::{
    behaviour,
    cell::{Cell, apps, frameworks_python, python_of},
    http::Answer,
    process,
    runner::Behaviour,
    server::{Server, Setup},
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(flask_answers_as_under_gunicorn).of_python().within(90),
        behaviour!(django_answers_as_under_gunicorn).of_python().within(120),
        behaviour!(django_takes_a_big_upload).of_python().busy().within(120),
        behaviour!(httpbin_answers_as_under_gunicorn).of_python().within(120),
    ]
}

/// A request, without what is the same in all.
struct Ask {
    line: &'static str,
    fields: &'static str,
    body: &'static str,
}

const fn ask(line: &'static str) -> Ask {
    Ask { line, fields: "", body: "" }
}

const fn with(line: &'static str, fields: &'static str, body: &'static str) -> Ask {
    Ask { line, fields, body }
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const PARTS: &str = "Content-Type: multipart/form-data; boundary=cut\r\n";
const UPLOAD: &str = "--cut\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nfield\r\n--cut\r\n\
    Content-Disposition: form-data; name=\"f\"; filename=\"f.txt\"\r\nContent-Type: text/plain\r\n\r\n\
    some content\r\n--cut--\r\n";

const FLASK: &[Ask] = &[
    ask("GET /"),
    ask("HEAD /"),
    ask("OPTIONS /json"),
    ask("GET /json?a=1&b=%C3%A9&a=2"),
    with("POST /json", FORM, "x=1&y=two+words"),
    with("POST /json", "Content-Type: application/json\r\n", "{\"deep\": [1, {\"a\": null}]}"),
    ask("GET /user/anna%20maria"),
    ask("GET /away"),
    ask("GET /stream"),
    ask("GET /file"),
    with("POST /upload", PARTS, UPLOAD),
    ask("GET /remember/this"),
    ask("GET /remembered"),
    ask("GET /teapot"),
    ask("GET /fails"),
    ask("GET /nothing"),
    ask("DELETE /json"),
];

const DJANGO: &[Ask] = &[
    ask("GET /"),
    ask("GET /"),
    ask("GET /admin/"),
    ask("GET /admin/login/?next=/admin/"),
    with(
        "POST /admin/login/?next=/admin/",
        FORM,
        "csrfmiddlewaretoken={csrftoken}&username=anna&password=secret",
    ),
    ask("GET /admin/"),
    ask("GET /admin/auth/user/"),
    ask("GET /stream/"),
    with("POST /upload/", PARTS, UPLOAD),
    ask("GET /static/admin/css/base.css"),
    ask("HEAD /static/admin/css/base.css"),
    ask("GET /static/admin/css/nothing.css"),
    ask("GET /fails/"),
    ask("GET /nothing"),
    ask("GET /stream"),
];

const HTTPBIN: &[Ask] = &[
    ask("GET /get?a=1&b=%20&a=2"),
    with("GET /headers", "X-Several: one\r\nX-Several: two\r\nAccept: text/*\r\n", ""),
    with("POST /post", FORM, "a=1&b=2"),
    with("PUT /put", "Content-Type: application/json\r\n", "{\"a\": 1}"),
    with("PATCH /patch", PARTS, UPLOAD),
    with("DELETE /delete", "", "some body"),
    ask("GET /anything/with/a%2Fpath?x=y"),
    ask("GET /status/418"),
    ask("GET /status/204"),
    ask("GET /redirect/2"),
    ask("GET /cookies/set?name=value"),
    ask("GET /cookies"),
    ask("GET /gzip"),
    ask("GET /deflate"),
    ask("GET /stream/3"),
    ask("GET /bytes/1024?seed=7"),
    ask("GET /stream-bytes/4096?seed=7&chunk_size=100"),
    with("GET /range/2000", "Range: bytes=10-1500\r\n", ""),
    ask("GET /html"),
    ask("GET /encoding/utf8"),
    ask("GET /image/png"),
    ask("GET /response-headers?X-Name=a%20value"),
    with("GET /basic-auth/anna/secret", "Authorization: Basic YW5uYTpzZWNyZXQ=\r\n", ""),
    ask("GET /basic-auth/anna/secret"),
    with("GET /etag/abc", "If-None-Match: \"abc\"\r\n", ""),
    ask("GET /drip?duration=0&numbytes=10"),
    ask("HEAD /get"),
    ask("OPTIONS /get"),
];

fn flask_answers_as_under_gunicorn(cell: &Cell) {
    let ours = Setup::new(cell).with_frameworks().app("flask_app:app").start();
    let theirs = Setup::gunicorn(&frameworks_python().unwrap())
        .env("PYTHONPATH", apps())
        .app("flask_app:app");
    compare(&ours, &theirs.start(), FLASK);
}

fn django_answers_as_under_gunicorn(cell: &Cell) {
    let site = apps().join("site");
    let (our_data, their_data) = (site_data(), site_data());
    let ours = django(cell, our_data.path()).start();
    let theirs = Setup::gunicorn(&frameworks_python().unwrap())
        .env("PYTHONPATH", site)
        .env("SITE_DATA", their_data.path())
        .app("wsgi:application")
        .start();
    compare(&ours, &theirs, DJANGO);
}

fn django_takes_a_big_upload(cell: &Cell) {
    let data = site_data();
    let server = django(cell, data.path()).flags("--timeout 60").start();
    assert_eq!(server.get("/").status, 200);
    let worker = server.workers()[0].pid;
    let before = process::rss_kib(worker);
    let start = "--cut\r\nContent-Disposition: form-data; name=\"f\"; filename=\"big\"\r\n\r\n";
    let (end, size) = ("\r\n--cut--\r\n", 200_000_000);
    let length = start.len() + size + end.len();
    let mut client = server.connect();
    let head = "POST /upload/ HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    client.send(format!("{head}{PARTS}Content-Length: {length}\r\n\r\n{start}")).unwrap();
    let part = vec![b'u'; 1_000_000];
    (0..size / part.len()).for_each(|_| client.send(&part).unwrap());
    client.send(end).unwrap();
    let answer = client.answer("POST").unwrap();
    assert!(answer.text().contains(&size.to_string()), "{} {}", answer.status, answer.text());
    let grown = process::rss_kib(worker).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
}

/// httpbin pins versions that the other packages do not support, so it has a separate environment.
fn httpbin_answers_as_under_gunicorn(cell: &Cell) {
    let Some(python) = python_of("venv-httpbin") else {
        panic!("no environment for httpbin: cargo xtask python");
    };
    let ours = Setup::new(cell).python(&python).app("httpbin:app").start();
    let theirs = Setup::gunicorn(&python).app("httpbin:app").start();
    compare(&ours, &theirs, HTTPBIN);
}

fn django(cell: &Cell, data: &Path) -> Setup {
    let site = apps().join("site");
    Setup::new(cell)
        .with_frameworks()
        .flag("--pythonpath", site)
        .env("SITE_DATA", data)
        .app("wsgi:application")
}

/// A directory with a database that has an administrator: created once, then copied.
fn site_data() -> tempfile::TempDir {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap().keep();
        for arguments in [
            &["migrate", "--verbosity", "0"][..],
            &["createsuperuser", "--noinput", "--username", "anna", "--email", "a@example.org"],
        ] {
            let mut command = Command::new(frameworks_python().unwrap());
            command.arg(apps().join("site/manage.py")).args(arguments);
            command.env("SITE_DATA", &directory).env("DJANGO_SUPERUSER_PASSWORD", "secret");
            let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        directory
    });
    let copy = tempfile::tempdir().unwrap();
    fs::copy(made.join("db.sqlite3"), copy.path().join("db.sqlite3")).unwrap();
    copy
}

/// A client with cookies, for one server.
struct Browser<'s> {
    server: &'s Server,
    cookies: BTreeMap<String, String>,
}

impl<'s> Browser<'s> {
    fn new(server: &'s Server) -> Self {
        Self { server, cookies: BTreeMap::new() }
    }

    fn send(&mut self, ask: &Ask) -> Answer {
        let (method, _) = ask.line.split_once(' ').unwrap();
        let mut body = ask.body.to_owned();
        for (name, value) in &self.cookies {
            body = body.replace(&format!("{{{name}}}"), value);
        }
        let mut head =
            format!("{} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n", ask.line);
        if !self.cookies.is_empty() {
            let cookies: Vec<String> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let _ = write!(head, "Cookie: {}\r\n", cookies.join("; "));
        }
        if !body.is_empty() || method == "POST" {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        let mut client = self.server.connect();
        client.send(format!("{head}{}\r\n{body}", ask.fields)).unwrap();
        let answer = client.answer(method);
        let answer = answer.unwrap_or_else(|broken| panic!("{}: {broken}", ask.line));
        for cookie in answer.values("Set-Cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    /// Returns a response without what must differ: time, the server's name, random tokens.
    fn told(&mut self, ask: &Ask) -> String {
        let answer = self.send(ask);
        // The framing of a body is up to the server (RFC 9112 section 6); its content is not.
        let head = ask.line.starts_with("HEAD");
        let ignored =
            ["date", "server", "transfer-encoding", if head { "" } else { "content-length" }];
        let mut fields: Vec<String> = answer
            .fields
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value))
            .filter(|(name, _)| !ignored.contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {}", without_tokens(&sorted(&name, value))))
            .collect();
        fields.sort();
        let mut content = answer.body.clone();
        if content.starts_with(&[0x1f, 0x8b]) {
            // The time of compression in the header of gzip (RFC 1952 2.3.1).
            content[4..8].fill(0);
        }
        let body = without_tokens(&String::from_utf8_lossy(&content));
        format!("{} {}\n{}\n\n{body}", answer.status, answer.reason, fields.join("\n"))
    }
}

fn compare(ours: &Server, theirs: &Server, asks: &[Ask]) {
    let (mut ours, mut theirs) = (Browser::new(ours), Browser::new(theirs));
    for ask in asks {
        let (our, their) = (ours.told(ask), theirs.told(ask));
        assert!(our == their, "{}\n--- ours\n{our:.1500}\n--- gunicorn's\n{their:.1500}", ask.line);
    }
}

/// Removes random parts and times from the text: long runs of letters and digits, and times of day.
fn without_tokens(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || c == ':' {
            run.push(c);
            continue;
        }
        let token = (30..=70).contains(&run.len());
        let time = run.len() == 8 && run.matches(':').count() == 2;
        out.push_str(if token || time { "(differs)" } else { &run });
        run.clear();
        out.push(c);
    }
    out
}

/// Sorts a list in a header whose order has no meaning.
fn sorted(name: &str, value: &str) -> String {
    if name != "allow" {
        return value.to_owned();
    }
    let mut words: Vec<&str> = value.split(", ").collect();
    words.sort_unstable();
    words.join(", ")
}
