//! TLS under every class: what is served over it, which clients are accepted, peers that do not speak it, and
//! replaced certificates.

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::{Cell, Need},
    http::{Answer, Connection},
    load::{Load, Plan},
    process,
    runner::Behaviour,
    server::{Server, Setup},
    tls::{Authority, Identity},
    wait::until,
};
use nix::sys::signal::Signal;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, version};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(tls_carries_requests_and_bodies),
        behaviour!(tls_connections_are_kept).needs(Need::KeepAlive),
        behaviour!(a_client_certificate_reaches_the_application),
        behaviour!(a_session_is_resumed_by_another_worker).of_class(),
        behaviour!(a_client_without_certificate_is_turned_away).of_class(),
        behaviour!(versions_and_protocols_are_negotiated).of_class(),
        behaviour!(plain_http_where_tls_is_spoken_is_refused).of_class(),
        behaviour!(stalled_handshakes_delay_no_one).of_class(),
        behaviour!(garbage_within_tls_harms_no_one).of_class(),
        behaviour!(a_health_path_is_asked_behind_tls).of_class(),
        behaviour!(a_key_that_only_root_may_read_is_handed_over)
            .of_class()
            .only_if(process::may_change_user, "it takes root, and a user nobody"),
        behaviour!(certificates_exchanged_under_load_lose_nothing).of_class().busy().within(120),
    ]
}

/// Time limit for a correct client, handshake included.
const SOON: Duration = Duration::from_secs(2);

fn tls_carries_requests_and_bodies(cell: &Cell) {
    let authority = Authority::new();
    let server = Setup::new(cell).secured(&authority.server()).start();
    let address = server.address();
    server.log.line(&["Listening at: https://"], SOON);
    let client = authority.trusting();
    let seen = get(&server, &client, "/tls").text();
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["https", "TLSv1.3", "jimu.test"], "{address:?}");

    // More than any buffer holds, in both directions, with both framings.
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut connection = secure(&server, &client);
    assert!(connection.post("/echo", &body).unwrap().body == body, "an upload comes back");
    let mut connection = secure(&server, &client);
    connection
        .send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    for part in body.chunks(100_000) {
        connection
            .send([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())
            .unwrap();
    }
    connection.send("0\r\n\r\n").unwrap();
    assert!(connection.answer("POST").unwrap().body == body, "a chunked upload comes back");

    server.write("file", &body);
    assert!(get(&server, &client, "/file?path=file").body == body, "a file is sent");
    let mut connection = secure(&server, &client);
    connection.send("GET / HTTP/1.0\r\n\r\n").unwrap();
    // Without a close_notify the client would have to treat the response as truncated.
    assert!(connection.rest().unwrap().ends_with(b"Hello, world!\n"));
    server.stop();
}

fn a_session_is_resumed_by_another_worker(cell: &Cell) {
    let authority = Authority::new();
    let server = Setup::new(cell).secured(&authority.server()).start();
    for version in [&version::TLS13, &version::TLS12] {
        // The client keeps its tickets between connections.
        let client = authority.client_config(None, &[version], &[]);
        let handshake = || {
            let mut connection = secure(&server, &client);
            assert_eq!(connection.get("/").unwrap().status, 200);
            connection.tls().handshake_kind().unwrap()
        };
        assert_eq!(handshake(), HandshakeKind::Full);
        let first = server.until_ready_workers(1)[0];
        process::signal(first, Signal::SIGTERM);
        server.until_workers("a successor", |workers| {
            workers.len() == 1 && workers[0].state == "ready" && workers[0].pid != first
        });
        assert_eq!(handshake(), HandshakeKind::Resumed, "{version:?}");
    }
}

fn tls_connections_are_kept(cell: &Cell) {
    let authority = Authority::new();
    let server = Setup::new(cell).flags("--keep-alive 20").secured(&authority.server()).start();
    let mut connection = secure(&server, &authority.trusting());
    for _ in 0..20 {
        assert!(connection.get("/").unwrap().keeps());
        assert_eq!(connection.post("/echo", b"a body").unwrap().body, b"a body");
    }
    // Several requests in one record.
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5)).unwrap();
    for _ in 0..5 {
        assert_eq!(connection.answer("GET").unwrap().status, 200);
    }
    // A request in pieces, one record each.
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".chunks(1) {
        connection.send(byte).unwrap();
    }
    assert_eq!(connection.answer("GET").unwrap().status, 200);
    connection.end_sending();
    assert!(connection.rest().unwrap().is_empty());
}

fn a_client_certificate_reaches_the_application(cell: &Cell) {
    let authority = Authority::new();
    let setup = admitting(Setup::new(cell), &authority, 1);
    let server = setup.secured(&authority.server()).start();
    let mallory = Authority::new().client("mallory.test");
    let alice = authority.client("alice.test");
    let shown =
        |identity: Option<&Identity>| authority.client_config(identity, rustls::ALL_VERSIONS, &[]);
    let mut hex = String::new();
    for byte in alice.certificate.iter() {
        write!(hex, "{byte:02x}").unwrap();
    }
    let seen = get(&server, &shown(Some(&alice)), "/tls").text();
    assert_eq!(seen.lines().nth(3), Some(hex.as_str()), "{seen}");
    let seen = get(&server, &shown(None), "/tls").text();
    assert_eq!(seen.lines().nth(3), None, "{seen}");
    assert!(try_get(&server, &shown(Some(&mallory)), "/").is_err(), "a stranger's certificate");
    assert_eq!(get(&server, &shown(Some(&alice)), "/").status, 200);
}

fn a_client_without_certificate_is_turned_away(cell: &Cell) {
    let authority = Authority::new();
    let setup = admitting(Setup::new(cell), &authority, 2);
    let server = setup.secured(&authority.server()).start();
    let bob = authority.client("bob.test");
    for versions in [&[&version::TLS12], &[&version::TLS13]] {
        let with = authority.client_config(Some(&bob), versions, &[]);
        let without = authority.client_config(None, versions, &[]);
        let error = try_get(&server, &without, "/").unwrap_err();
        // The client receives the alert, not a reset.
        assert!(error.contains("ertificate") || error.contains("HandshakeFailure"), "{error}");
        assert_eq!(get(&server, &with, "/").status, 200);
    }
}

fn versions_and_protocols_are_negotiated(cell: &Cell) {
    let authority = Authority::new();
    let identity = authority.server();
    let server = Setup::new(cell).secured(&identity).start();
    let offering = |protocols: &[&str]| {
        let client = authority.client_config(None, rustls::ALL_VERSIONS, protocols);
        let connection = try_secure(&server, &client);
        connection.map(|connection| connection.tls().alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(offering(&["h2", "http/1.1"]).unwrap().unwrap(), b"http/1.1");
    assert_eq!(offering(&["http/1.0"]).unwrap().unwrap(), b"http/1.0");
    assert_eq!(offering(&[]).unwrap(), None);
    assert!(offering(&["h2"]).is_err(), "a client that would speak nothing but h2");
    let old = authority.client_config(None, &[&version::TLS12], &[]);
    let connection = secure(&server, &old);
    assert_eq!(connection.tls().protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(get(&server, &old, "/tls").text().lines().nth(1), Some("TLSv1.2"));
    drop(connection);

    let server = Setup::new(cell).flags("--ssl-version-min 1.3").secured(&identity).start();
    assert!(try_secure(&server, &old).is_err(), "TLS 1.2 where 1.3 is the oldest");
    assert_eq!(get(&server, &authority.trusting(), "/").status, 200);
}

fn plain_http_where_tls_is_spoken_is_refused(cell: &Cell) {
    let authority = Authority::new();
    let server = Setup::new(cell).secured(&authority.server()).start();
    assert_eq!(server.get("/").status, 400);
    server.log.line(&["invalid request", "TLS"], SOON);
    for garbage in ["\r\n\r\n", "\0\0\0\0\0\0\0\0", "\x16\x03\x01\x00\x05hello"] {
        let mut client = server.connect();
        client.send(garbage).unwrap();
        assert!(client.ends(Duration::from_secs(5)), "{garbage:?}");
    }
    assert_eq!(get(&server, &authority.trusting(), "/").status, 200);
}

fn stalled_handshakes_delay_no_one(cell: &Cell) {
    let authority = Authority::new();
    let setup = Setup::new(cell).flags("--header-timeout 3 --threads 2");
    let server = setup.secured(&authority.server()).start();
    let client = authority.trusting();
    let mut stalled: Vec<Connection> = (0..60).map(|_| server.connect()).collect();
    for connection in stalled.iter_mut().step_by(2) {
        // The start of a ClientHello whose rest never arrives.
        connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    }
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(get(&server, &client, "/").status, 200);
        assert!(begun.elapsed() < SOON, "the good client waited for {:?}", begun.elapsed());
    }
    assert!(
        stalled.iter_mut().all(|client| client.ends(Duration::from_secs(10))),
        "not all are cut"
    );
    assert_eq!(get(&server, &client, "/").status, 200);
}

/// Whatever the settings for TLS and client certificates are.
fn a_health_path_is_asked_behind_tls(cell: &Cell) {
    let authority = Authority::new();
    let setup = Setup::new(cell).secured(&authority.server()).file("ca.pem", &authority.pem);
    let server = setup.flags("--health-path / --ca-certs ca.pem --cert-reqs 2").start();
    server.ctl(&["reload"]).done();
    server.log.line(&["generation 2 is healthy: / returned 200"], SOON);
    let identity = authority.client("someone");
    let client = authority.client_config(Some(&identity), rustls::ALL_VERSIONS, &[]);
    assert_eq!(get(&server, &client, "/").status, 200);
    assert!(server.try_get("/").is_err() || server.get("/").status == 400, "clients speak TLS");
    server.stop();
}

/// Files that root has opened or reopened are written by workers of another user.
fn a_key_that_only_root_may_read_is_handed_over(cell: &Cell) {
    let user = process::nobody().expect("the behavior's condition");
    let authority = Authority::new();
    let setup = Setup::new(cell).secured(&authority.server());
    fs::set_permissions(setup.dir(), Permissions::from_mode(0o755)).unwrap();
    for file in fs::read_dir(setup.dir()).unwrap().flatten() {
        fs::set_permissions(file.path(), Permissions::from_mode(0o600)).unwrap();
    }
    let server = setup.flags("--user nobody --access-logfile access").start();
    let status = format!("/proc/{}/status", server.until_ready_workers(1)[0]);
    let uids = format!("Uid:\t{0}\t{0}\t{0}\t{0}", user.uid);
    let status = fs::read_to_string(status).unwrap();
    let gids = format!("Gid:\t{0}\t{0}\t{0}\t{0}", user.gid);
    for line in [uids.as_str(), &gids, "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
    for generation in 2..4 {
        assert_eq!(get(&server, &authority.trusting(), "/").status, 200);
        server.ctl(&["reload"]).done();
        let rotated = server.dir().join(format!("access.{generation}"));
        fs::rename(server.dir().join("access"), rotated).unwrap();
        let mark = server.log.mark();
        server.ctl(&["reopen"]).done();
        server.log.line_after(mark, &["open"], SOON);
        // The worker that served it writes its line within 100 ms, or when it ends: to either file.
        until("one line for each request", SOON, || {
            let count = lines_of_logs(server.dir());
            (count == generation - 1).then_some(()).ok_or(format!("{count} lines"))
        });
    }
    server.stop();
}

/// Returns the number of lines in the access log and the files to which it was renamed.
fn lines_of_logs(directory: &Path) -> usize {
    let files = fs::read_dir(directory).unwrap().flatten();
    let logs = files.filter(|file| file.file_name().as_encoded_bytes().starts_with(b"access"));
    logs.map(|file| fs::read_to_string(file.path()).unwrap().lines().count()).sum()
}

/// A handshake, then bytes that are not records.
fn garbage_within_tls_harms_no_one(cell: &Cell) {
    let authority = Authority::new();
    let server = Setup::new(cell).secured(&authority.server()).start();
    let client = authority.trusting();
    let worker = server.until_ready_workers(1);
    for head in ["", "GET / HT", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"]
    {
        let mut connection = secure(&server, &client);
        connection.send(head).unwrap();
        let mut socket = connection.into_plain();
        socket.send("no record of TLS at all, and longer than the head of one").unwrap();
        assert!(socket.ends(Duration::from_secs(5)), "after {head:?}");
        assert_eq!(get(&server, &client, "/").status, 200);
    }
    assert_eq!(server.until_ready_workers(1), worker);
}

fn certificates_exchanged_under_load_lose_nothing(cell: &Cell) {
    let authority = Authority::new();
    let mut current = authority.server();
    let server = Setup::new(cell).flags("--workers 2").secured(&current).start();
    let client = authority.trusting();
    let (address, config) = (server.address().clone(), Arc::clone(&client));
    let connect = move || Connection::open(&address)?.over_tls(&config);
    let load = Load::through(connect, Plan { clients: 6, ..Plan::default() });
    for round in 0..4 {
        let next = authority.server();
        // Invalid files are refused with the setting's name, and the old generation continues.
        for (chain, key, word) in [
            (&*next.chain_pem, &*current.key_pem, "keyfile"),
            ("no certificate", &*next.key_pem, "certfile"),
            (&*next.chain_pem, "no key", "keyfile"),
        ]
        .into_iter()
        .skip(round)
        .take(1)
        {
            exchange(&server, chain, key);
            let reason = server.ctl(&["reload"]).refused();
            assert!(reason.contains(word), "no {word:?} in {reason:?}");
            assert_shown(&server, &client, &current);
        }
        exchange(&server, &next.chain_pem, &next.key_pem);
        server.ctl(&["reload"]).done();
        current = next;
        assert_shown(&server, &client, &current);
        load.flows(20, Duration::from_secs(20));
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

/// Requests client certificates of this authority.
fn admitting(setup: Setup, authority: &Authority, requirement: u8) -> Setup {
    let roots = setup.dir().join("roots.pem");
    setup
        .file("roots.pem", &authority.pem)
        .flag("--ca-certs", roots)
        .flag("--cert-reqs", requirement.to_string())
}

fn exchange(server: &Server, chain: &str, key: &str) {
    server.write("chain.pem", chain);
    server.write("key.pem", key);
}

fn try_secure(server: &Server, client: &Arc<ClientConfig>) -> io::Result<Connection> {
    server.connect().over_tls(client)
}

fn secure(server: &Server, client: &Arc<ClientConfig>) -> Connection {
    try_secure(server, client).unwrap()
}

fn try_get(server: &Server, client: &Arc<ClientConfig>, target: &str) -> Result<Answer, String> {
    let mut connection = try_secure(server, client).map_err(|error| format!("{error:?}"))?;
    connection.get(target).map_err(|broken| format!("{broken:?}"))
}

fn get(server: &Server, client: &Arc<ClientConfig>, target: &str) -> Answer {
    try_get(server, client, target).unwrap()
}

fn assert_shown(server: &Server, client: &Arc<ClientConfig>, identity: &Identity) {
    let connection = secure(server, client);
    let chain = connection.tls().peer_certificates().unwrap();
    assert_eq!(
        chain,
        std::slice::from_ref(&identity.certificate),
        "not the certificate that was expected"
    );
}
