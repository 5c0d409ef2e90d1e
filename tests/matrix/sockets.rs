//! Listening sockets: TCP, unix paths, several at once, and inherited ones.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use jimu_tests::{
    behaviour,
    cell::Cell,
    http::{Address, Connection},
    runner::Behaviour,
    server::{Setup, address, inherit},
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(unix_sockets_serve).of_class(),
        behaviour!(abstract_names_serve).of_class(),
        behaviour!(several_addresses_serve_at_once).of_class(),
        behaviour!(ipv6_serves).of_class(),
        behaviour!(a_stale_unix_socket_is_replaced).of_host(),
        behaviour!(a_live_unix_socket_is_not_stolen).of_host(),
        behaviour!(a_file_at_the_sockets_path_is_not_removed).of_host(),
        behaviour!(a_foreign_address_is_refused).of_host(),
        behaviour!(the_mode_of_a_unix_socket_is_as_asked).of_host(),
        behaviour!(an_inherited_descriptor_serves).of_host(),
        behaviour!(sockets_from_systemd_serve).of_class(),
        behaviour!(addresses_change_with_a_reload).of_host(),
        behaviour!(the_pid_file_is_there_while_it_runs).of_host(),
        behaviour!(the_control_socket_is_private).of_host(),
    ]
}

fn unix_sockets_serve(cell: &Cell) {
    let setup = Setup::new(cell);
    let path = setup.dir().join("web.sock");
    let server = setup.bind(Address::Unix(path.clone())).start();
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    assert_eq!(server.connect().post("/echo", b"over a path").unwrap().text(), "over a path");
    server.stop();
    assert!(!path.exists(), "the socket is left over");
}

fn abstract_names_serve(cell: &Cell) {
    let name = format!("jimu-test-{}-{}", std::process::id(), cell.class.name);
    let server = Setup::new(cell).bind(Address::Abstract(name.clone())).start();
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    let stolen = Setup::new(cell).bind(Address::Abstract(name)).refused();
    assert_eq!(stolen.status(), 1, "{}", stolen.log);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

fn several_addresses_serve_at_once(cell: &Cell) {
    let setup = Setup::new(cell);
    let path = setup.dir().join("web.sock");
    let server = setup
        .bind(Address::Tcp(address()))
        .bind(Address::Tcp(address()))
        .bind(Address::Unix(path))
        .start();
    for _ in 0..3 {
        for at in server.addresses() {
            let answer = Connection::open(at).unwrap().get("/").unwrap();
            assert_eq!(answer.status, 200, "{at:?}");
        }
    }
    server.stop();
}

fn ipv6_serves(cell: &Cell) {
    // IPv6 loopback has one address for all tests; a free port suffices for one.
    let probe = TcpListener::bind((Ipv6Addr::LOCALHOST, 0));
    let Ok(free) = probe.and_then(|listener| listener.local_addr()) else {
        return eprintln!("this machine has no IPv6 loopback");
    };
    let server = Setup::new(cell).bind(Address::Tcp(free)).start();
    assert_eq!(server.get("/").status, 200);
}

fn a_stale_unix_socket_is_replaced(cell: &Cell) {
    let setup = Setup::new(cell);
    let path = setup.dir().join("web.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = setup.bind(Address::Unix(path)).start();
    assert_eq!(server.get("/").status, 200);
}

fn a_live_unix_socket_is_not_stolen(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("web.sock");
    let alive = UnixListener::bind(&path).unwrap();
    let ended = Setup::new(cell).bind(Address::Unix(path.clone())).refused();
    assert_eq!(ended.status(), 1, "{}", ended.log);
    assert!(ended.log.contains("web.sock"), "{}", ended.log);
    // The server may have connected to see whether a process listens; then the test connects and the owner
    // accepts both.
    let _client = UnixStream::connect(&path).expect("the path is still there");
    alive.set_nonblocking(true).unwrap();
    assert!(alive.accept().is_ok(), "the socket is another's");
}

fn a_file_at_the_sockets_path_is_not_removed(cell: &Cell) {
    let setup = Setup::new(cell).file("web.sock", "precious");
    let path = setup.dir().join("web.sock");
    let mut server = setup.bind(Address::Unix(path.clone())).launch();
    let ended = server.ended(Duration::from_secs(20));
    assert_ne!(ended.status(), 0);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

/// An address that does not belong to this machine, and a directory that does not exist.
fn a_foreign_address_is_refused(cell: &Cell) {
    for bind in ["192.0.2.1:8000", "unix:/nowhere/at/all.sock"] {
        let setup = Setup::new(cell).flags(&format!("--bind {bind}"));
        let ended = setup.reached_at(Address::Unix("/nowhere".into())).refused();
        assert_eq!(ended.status(), 1, "{bind}: {}", ended.log);
        let words = bind.trim_start_matches("unix:");
        assert!(ended.log.contains(words), "{bind}: {}", ended.log);
    }
}

fn the_mode_of_a_unix_socket_is_as_asked(cell: &Cell) {
    let setup = Setup::new(cell);
    let path = setup.dir().join("web.sock");
    let bind = format!("--bind unix:{}?mode=0620", path.display());
    let server = setup.flags(&bind).reached_at(Address::Unix(path.clone())).start();
    assert_eq!(server.get("/").status, 200);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
}

fn an_inherited_descriptor_serves(cell: &Cell) {
    let listener = TcpListener::bind(address()).unwrap();
    let at = listener.local_addr().unwrap();
    let server = Setup::new(cell)
        .with(|command| inherit(command, &listener, 17))
        .flags("--bind fd://17")
        .reached_at(Address::Tcp(at))
        .start();
    assert_eq!(server.get("/").status, 200);
}

/// `LISTEN_FDS`, with `LISTEN_PID` as a shell would set it: only the process itself knows its PID.
fn sockets_from_systemd_serve(cell: &Cell) {
    let listener = TcpListener::bind(address()).unwrap();
    let at = listener.local_addr().unwrap();
    let server = Setup::shell(cell, "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"")
        .with(|command| inherit(command, &listener, 3))
        .reached_at(Address::Tcp(at))
        .start();
    drop(listener);
    assert_eq!(server.get("/").status, 200);
    let path = format!("/proc/{}/environ", server.serving_pid());
    let environ = fs::read(path).unwrap();
    assert!(!environ.windows(9).any(|w| w == b"LISTEN_P="), "LISTEN_PID is handed on");
}

fn addresses_change_with_a_reload(cell: &Cell) {
    let (first, second) = (address(), address());
    let (class, app) = (cell.class.path.display(), jimu_tests::artifacts::library("hello_app"));
    let settings = |at: SocketAddr| {
        format!("bind = [\"{at}\"]\nworker_class = \"{class}\"\nwsgi_app = \"{}\"\n", app.display())
    };
    let server = Setup::bare()
        .file("host.toml", settings(first))
        .reached_at(Address::Tcp(first))
        .reached_at(Address::Tcp(second))
        .start();
    assert_eq!(server.get("/").status, 200);
    server.write("host.toml", settings(second));
    server.ctl(&["reload"]).done();
    let mut client = Connection::open(&server.addresses()[1]).unwrap();
    assert_eq!(client.get("/").unwrap().status, 200);
    assert!(Connection::open(&server.addresses()[0]).is_err(), "the old address still listens");
}

fn the_pid_file_is_there_while_it_runs(cell: &Cell) {
    let server = Setup::new(cell).flags("--pid host.pid").start();
    let path = server.dir().join("host.pid");
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), server.pid().to_string());
    server.signal(Signal::SIGHUP);
    server.log.line(&["generation 2 serves"], Duration::from_secs(10));
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), server.pid().to_string());
    let dir = server.dir().to_owned();
    let mut server = server;
    server.signal(Signal::SIGTERM);
    server.ended(Duration::from_secs(10));
    assert!(!dir.join("host.pid").exists(), "the pid file is left over");
}

fn the_control_socket_is_private(cell: &Cell) {
    let server = Setup::new(cell).start();
    let facts = fs::metadata(server.control_socket()).unwrap();
    assert!(facts.file_type().is_socket());
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);
    let open = Setup::new(cell).flags("--control-socket-mode 0660").start();
    let mode = fs::metadata(open.control_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}
