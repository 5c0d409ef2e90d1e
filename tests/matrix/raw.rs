//! http1's table of raw requests, over real connections: what is served, rejected, and never parsed as a second
//! request, is the same for every class and application as for the parser alone.

use std::{thread, time::Duration};

use jimu_http1::cases::{CASES, Case, End, Request};
use jimu_tests::{
    artifacts, behaviour,
    cell::{App, Cell, Need},
    http::{Answer, Broken, Connection},
    runner::Behaviour,
    server::{Server, Setup},
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(raw_requests_are_served_or_refused).within(120),
        behaviour!(nothing_is_smuggled_behind_them).within(120),
        behaviour!(raw_requests_may_come_in_pieces).of_class().busy().within(120),
    ]
}

/// Number of clients that replay cases concurrently.
const CLIENTS: usize = 8;
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn raw_requests_are_served_or_refused(cell: &Cell) {
    replay(cell, |case, client| {
        client.send(case.bytes)?;
        client.end_sending();
        Ok(())
    });
}

fn nothing_is_smuggled_behind_them(cell: &Cell) {
    let server = mirror(cell);
    let closing = cases().filter(|case| {
        matches!(case.expect.end, End::Refused(_) | End::BodyRefused(_) | End::Closed)
    });
    each(&closing.collect::<Vec<_>>(), |case| {
        let mut client = server.connect();
        // The server may have closed before all of it is sent.
        let _ = client.send([case.bytes, SMUGGLED].concat());
        for answer in told(&mut client, case).0 {
            assert!(
                field(&answer, "X-Target") != "/smuggled" || answer.status >= 400,
                "{}: the smuggled request was served",
                case.name
            );
        }
    });
    assert_eq!(server.until_ready_workers(1).len(), 1);
}

/// Each byte is a separate packet.
fn raw_requests_may_come_in_pieces(cell: &Cell) {
    replay(cell, |case, client| {
        for bytes in case.bytes.chunks(case.bytes.len().div_ceil(PIECES_MAX).max(1)) {
            client.send(bytes)?;
        }
        client.end_sending();
        Ok(())
    });
}

/// Limit for long cases.
const PIECES_MAX: usize = 200;

type Sent = std::io::Result<()>;

fn replay(cell: &Cell, send: impl Fn(&Case, &mut Connection) -> Sent + Sync) {
    let server = mirror(cell);
    let worker = server.until_ready_workers(1);
    let keeps = cell.class.can(Need::KeepAlive);
    each(&cases().collect::<Vec<_>>(), |case| {
        let mut client = server.connect();
        let written = send(case, &mut client);
        let (answers, end) = told(&mut client, case);
        let seen = format!(
            "{} (RFC {})\n{:?}\nexpected {:?}\nanswers {answers:#?}\nend {end:?}, sent {written:?}",
            case.name,
            case.rfc,
            String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(300)]),
            case.expect
        );
        let count = if keeps { case.expect.served.len() } else { case.expect.served.len().min(1) };
        assert!(answers.len() >= count, "not all are served: {seen}");
        for (answer, request) in answers.iter().zip(case.expect.served) {
            assert!(
                answer.status == 200 && is(cell.app, answer, request),
                "served wrongly: {seen}"
            );
        }
        let refused: Vec<u16> = answers[count..].iter().map(|answer| answer.status).collect();
        let whole = keeps || case.expect.served.is_empty();
        let right = match case.expect.end {
            End::Refused(status) if whole => refused == [status],
            // The application may have started its response, which is then truncated instead.
            End::BodyRefused(status) if whole => refused.is_empty() || refused == [status],
            End::InHead | End::InBody => refused.iter().all(|status| *status >= 400),
            _ => refused.is_empty(),
        };
        assert!(right, "the end: {seen}");
    });
    assert_eq!(server.until_ready_workers(1), worker, "a worker died of a request");
}

fn mirror(cell: &Cell) -> Server {
    let setup = Setup::new(cell).flags("--threads 8");
    match cell.app {
        App::Native => setup.app(artifacts::library("mirror_app")).start(),
        App::Wsgi => setup.app("mirror:application").start(),
        App::Asgi => setup.app("mirror_asgi:application").start(),
    }
}

fn cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().copied().flatten()
}

/// Runs `check` on all cases with several clients, and panics with all that failed.
fn each(cases: &[&'static Case], check: impl Fn(&Case) + Sync) {
    let wrong: Vec<String> = thread::scope(|scope| {
        let work = |part: Vec<&'static Case>| {
            let check = &check;
            scope.spawn(move || {
                let failed = |case: &Case| {
                    let run = std::panic::AssertUnwindSafe(|| check(case));
                    let payload = std::panic::catch_unwind(run).err()?;
                    Some(jimu_tests::runner::message(payload.as_ref()))
                };
                part.into_iter().filter_map(failed).collect::<Vec<_>>()
            })
        };
        let parts = cases.chunks(cases.len().div_ceil(CLIENTS));
        let threads: Vec<_> = parts.map(|part| work(part.to_vec())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(6)].join("\n")
    );
}

/// Returns all responses on the connection, and how it ended.
fn told(client: &mut Connection, case: &Case) -> (Vec<Answer>, Broken) {
    client.patience(Duration::from_secs(20));
    let mut answers = Vec::new();
    loop {
        let method = match case.expect.served.get(answers.len()) {
            Some(request) => request.method,
            None if case.bytes.starts_with(b"HEAD ") => "HEAD",
            None => "GET",
        };
        match client.answer(method) {
            Ok(answer) => answers.push(answer),
            Err(broken) => return (answers, broken),
        }
    }
}

fn is(app: App, answer: &Answer, request: &Request) -> bool {
    // An ASGI scope has the path and the query, not the target.
    let target = match app {
        App::Asgi if request.method == "CONNECT" => String::new(),
        App::Asgi => path_and_query(request.target),
        App::Native | App::Wsgi => request.target.to_owned(),
    };
    field(answer, "X-Method") == request.method
        && field(answer, "X-Target") == target
        && field(answer, "X-Authority") == request.authority
        && field(answer, "X-Body") == request.body
}

/// Returns path and query of a target, as an ASGI scope has them: without scheme, authority and fragment, and an empty query
/// is none.
fn path_and_query(target: &str) -> String {
    let local = match target.split_once("://") {
        Some((_, rest)) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
        None => target,
    };
    let local = local.split('#').next().unwrap_or_default();
    let local = local.strip_suffix('?').unwrap_or(local);
    if local.starts_with(['/', '*']) { local.to_owned() } else { format!("/{local}") }
}

/// Decodes hexadecimal digits.
fn field(answer: &Answer, name: &str) -> String {
    let digits = answer.field(name).unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).unwrap_or(b'?');
    let bytes: Vec<u8> = digits.as_bytes().chunks(2).map(byte).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
