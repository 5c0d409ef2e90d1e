//! Listeners as clients see them.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::IntoRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use super::{Address, Inherited, ListenError, Listener, open_all, upgrade_variable};
use crate::settings::{Settings, Sources};

fn settings(binds: &[&str]) -> Arc<Settings> {
    let args = binds.iter().flat_map(|bind| ["--bind".into(), (*bind).into()]).collect();
    let sources = Sources { args, directory: std::env::temp_dir(), ..Sources::default() };
    sources.load().unwrap().0
}

fn open(binds: &[&str]) -> Result<Vec<Arc<Listener>>, ListenError> {
    open_all(&settings(binds), &[], &mut Inherited::default(), 1)
}

fn tcp_address(listener: &Listener) -> SocketAddr {
    match listener.address() {
        Address::Tcp(address) => *address,
        other => panic!("no TCP: {other:?}"),
    }
}

#[test]
fn several_addresses_of_all_kinds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let name = format!("jimu-test-{}", std::process::id());
    let unix = format!("unix:{}?mode=0640", path.display());
    let binds = ["127.0.0.1:0", "[::1]:0", &unix, &format!("unix:@{name}")];
    let listeners = open(&binds).unwrap();
    TcpStream::connect(tcp_address(&listeners[0])).unwrap();
    assert_eq!(tcp_address(&listeners[1]).ip(), Ipv6Addr::LOCALHOST);
    UnixStream::connect(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    UnixStream::connect_addr(&address).unwrap();
}

#[test]
fn what_is_asked_for_again_is_kept_and_a_port_in_use_is_named() {
    let first = open(&["127.0.0.1:0"]).unwrap();
    let settings = settings(&["127.0.0.1:0"]);
    let second = open_all(&settings, &first, &mut Inherited::default(), 1).unwrap();
    assert!(Arc::ptr_eq(&first[0], &second[0]));
    let taken = tcp_address(&first[0]).to_string();
    let error = open(&[&taken]).unwrap_err();
    assert!(matches!(&error, ListenError::InUse { address } if *address == taken), "{error}");
}

#[test]
fn a_path_that_is_no_socket_is_left_alone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(&[&format!("unix:{}", file.path().display())]).unwrap_err();
    assert!(matches!(error, ListenError::NoSocket { .. }), "{error}");
    assert!(file.path().exists());
}

#[test]
fn a_live_socket_is_not_stolen_even_when_its_backlog_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let live = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&live, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _waits = UnixStream::connect(&path).unwrap();
    let error = open(&[&format!("unix:{}", path.display())]).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert!(path.exists());
}

#[test]
fn a_descriptor_is_inherited_only_if_it_listens() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let number = socket.into_raw_fd();
    let listeners = open(&[&format!("fd://{number}")]).unwrap();
    assert_eq!(tcp_address(&listeners[0]), address);
    assert!(listeners[0].is_from_outside());
    let error = open(&["fd://987"]).unwrap_err();
    assert!(matches!(error, ListenError::NotListening { .. }), "{error}");
}

#[test]
fn a_successor_finds_its_listeners_by_what_asked_for_them() {
    let present = open(&["127.0.0.1:0"]).unwrap();
    let variable = upgrade_variable(&present);
    assert_eq!(variable, format!("{}=tcp:127.0.0.1:0", present[0].descriptor()));
}

#[test]
fn a_listener_that_stops_taking_still_gives_what_it_has() {
    let listeners = open(&["127.0.0.1:0"]).unwrap();
    let address = tcp_address(&listeners[0]);
    let _early = TcpStream::connect(address).unwrap();
    listeners[0].stop_accepting();
    let late = TcpStream::connect_timeout(&address, Duration::from_millis(100));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(listeners[0].backlog(), 1);
    assert!(nix::sys::socket::accept(listeners[0].descriptor()).is_ok());
    assert_eq!(listeners[0].backlog(), 0);
}

#[test]
fn a_listener_shows_that_it_has_stopped_taking() {
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", directory.path().join("socket").display());
    let name = format!("unix:@jimu-test-{}", std::process::id());
    for listener in open(&["127.0.0.1:0", &path, &name]).unwrap() {
        assert!(!listener.has_stopped_accepting(), "{listener}");
        listener.stop_accepting();
        assert!(listener.has_stopped_accepting(), "{listener}");
    }
}

#[test]
fn an_abstract_listener_that_stops_taking_refuses_new_clients_alone() {
    let name = format!("jimu-refusing-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listeners = open(&[&format!("unix:@{name}")]).unwrap();
    let _early = UnixStream::connect_addr(&address).unwrap();
    listeners[0].stop_accepting();
    let late = UnixStream::connect_addr(&address);
    assert_eq!(late.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(nix::sys::socket::accept(listeners[0].descriptor()).is_ok());
}

#[test]
fn a_unix_listener_that_stops_taking_removes_its_own_path_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listeners = open(&[&format!("unix:{}", path.display())]).unwrap();
    let moved = directory.path().join("moved");
    std::fs::rename(&path, moved).unwrap();
    let _others = UnixListener::bind(&path).unwrap();
    listeners[0].stop_accepting();
    assert!(path.exists());
}
