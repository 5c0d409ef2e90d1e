//! Servers and clients side by side: starts that fail beside a live server, sockets of killed servers, silent
//! clients of the control socket.

use std::{
    ffi::OsStr,
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    http::{Address, Connection},
    process::{self, End},
    runner::Behaviour,
    server::{Control, PATIENCE, Setup, address},
};
use nix::{sys::signal::Signal, unistd::Pid};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_start_that_fails_leaves_the_other_server_alone).of_host().within(120),
        behaviour!(a_start_that_fails_leaves_nothing_behind).of_host(),
        behaviour!(a_file_in_the_place_of_the_control_socket_stays).of_host(),
        behaviour!(the_control_socket_serves_before_the_first_worker).of_host(),
        behaviour!(what_a_killed_server_left_is_removed_by_the_next).of_host(),
        behaviour!(silent_clients_of_the_control_socket_hold_up_no_one).of_host(),
        behaviour!(half_a_request_is_not_waited_for).of_host(),
        behaviour!(a_directory_that_is_not_utf8_works),
        behaviour!(a_small_limit_of_file_sizes_is_named).of_class(),
        behaviour!(a_refusal_that_waits_for_a_change_is_logged_once).of_class(),
    ]
}

fn a_start_that_fails_leaves_the_other_server_alone(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let (socket, pid_file) = (place.path().join("web.sock"), place.path().join("host.pid"));
    let port = address();
    let setup = Setup::new(cell).bind(Address::Tcp(port)).bind(Address::Unix(socket.clone()));
    let server = setup.flag("--pid", &pid_file).start();
    let worker = server.serving_pid();
    let identity = |path: &Path| fs::symlink_metadata(path).map(|facts| facts.ino()).unwrap();
    let paths = [server.control_socket(), socket.clone(), pid_file.clone()];
    let before = paths.each_ref().map(|path| identity(path));
    let beside = || Setup::new(cell).flag("--control-socket", server.control_socket());
    let elsewhere = || beside().bind(Address::Tcp(address()));
    let starts = [
        ("the port is taken", beside().bind(Address::Tcp(port))),
        ("the socket is taken", beside().bind(Address::Unix(socket))),
        ("the pid file is taken", elsewhere().flag("--pid", &pid_file)),
        ("the settings are wrong", elsewhere().file("host.toml", "workers = 'many'\n")),
        ("the class is missing", elsewhere().class("/nowhere/libnone_worker.so")),
        ("the application is missing", elsewhere().app("/nowhere/libnone.so")),
        (
            "the application fails",
            elsewhere()
                .app(artifacts::library("faulty_app"))
                .env("FAULTY_APP", "load=error")
                .flags("--boot-failures-max 1"),
        ),
    ];
    for (what, start) in starts {
        let ended = start.refused();
        assert_ne!(ended.status(), 0, "{what}: {}", ended.log);
        let status = server.ctl(&["status"]).done();
        assert!(status.contains(&format!("(pid {})", server.pid())), "{what}: {status}");
        assert_eq!(paths.each_ref().map(|path| identity(path)), before, "{what}");
        let written = fs::read_to_string(&paths[2]).unwrap();
        assert_eq!(written.trim(), server.pid().to_string(), "{what}");
        for address in server.addresses() {
            let answer = Connection::open(address).unwrap().get("/pid").unwrap();
            assert_eq!(answer.text().trim(), worker.to_string(), "{what}");
        }
    }
    server.stop();
}

/// Neither a pid file nor the socket that was bound before another one failed.
fn a_start_that_fails_leaves_nothing_behind(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let taken = address();
    let _taken = std::net::TcpListener::bind(taken).unwrap();
    let setup = Setup::new(cell).flag("--pid", place.path().join("host.pid"));
    let setup = setup.bind(Address::Unix(place.path().join("web.sock")));
    let ended = setup.bind(Address::Tcp(taken)).refused();
    assert_ne!(ended.status(), 0, "{}", ended.log);
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn a_file_in_the_place_of_the_control_socket_stays(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("precious");
    fs::write(&path, "kept").unwrap();
    let server = Setup::new(cell).flag("--control-socket", &path).start();
    server.log.line(&["cannot create the control socket", "exists and is not a socket"], PATIENCE);
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGHUP);
    server.log.line(&["generation 2 serves"], PATIENCE);
    server.stop();
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

/// It reports that the server is starting, refuses commands that need a serving generation, and can stop it.
fn the_control_socket_serves_before_the_first_worker(cell: &Cell) {
    let setup = Setup::new(cell).app(artifacts::library("faulty_app"));
    let mut server = setup.env("FAULTY_APP", "new=hang").launch();
    server.log.line(&["Listening at"], PATIENCE);
    jimu_tests::wait::until("the control socket", PATIENCE, || {
        let status = server.ctl(&["status"]);
        status.out.contains("starting").then_some(()).ok_or(status.err)
    });
    assert!(server.ctl(&["config", "show"]).refused().contains("no generation is serving yet"));
    server.ctl(&["stop"]).done();
    assert_eq!(server.ended(PATIENCE).end, End::Status(0));
}

fn what_a_killed_server_left_is_removed_by_the_next(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let base = place.path().join("host.ctl");
    let start = || Setup::new(cell).flag("--control-socket", &base).start();
    let sockets = || {
        let entries = fs::read_dir(place.path()).unwrap().map(Result::unwrap);
        let sockets = entries.filter(|entry| entry.file_type().unwrap().is_socket());
        let mut names: Vec<_> =
            sockets.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let named = |pid: Pid| format!("host.ctl.{pid}");
    let first = start();
    let mut second = start();
    let third = start();
    assert_eq!(sockets().len(), 3);
    fs::write(place.path().join("host.ctl.7"), "a file").unwrap();
    second.signal(Signal::SIGKILL);
    assert_eq!(second.leader_ended(PATIENCE), End::Signal(Signal::SIGKILL));
    assert!(sockets().contains(&named(second.pid())));
    let fourth = start();
    let mut expected = [first.pid(), third.pid(), fourth.pid()].map(named);
    "host.ctl".clone_into(&mut expected[0]);
    expected.sort();
    assert_eq!(sockets(), expected);
    assert!(place.path().join("host.ctl.7").exists(), "a regular file is no one's socket");
    for server in [third, fourth, first] {
        server.stop();
    }
    assert!(sockets().is_empty());
}

fn silent_clients_of_the_control_socket_hold_up_no_one(cell: &Cell) {
    let server = Setup::new(cell).start();
    let connect = || UnixStream::connect(server.control_socket()).unwrap();
    let mut silent: Vec<UnixStream> = (0..40).map(|_| connect()).collect();
    for (index, client) in silent.iter_mut().enumerate() {
        if index % 2 == 0 {
            // A client that was disconnected in favor of another does not matter.
            let _ = client.write_all(b"{\"request\":");
        }
    }
    for _ in 0..3 {
        let asked = Instant::now();
        server.ctl(&["status"]).done();
        assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?}", asked.elapsed());
    }
    server.stop();
}

/// A client has 5 s for a request; sending it byte by byte makes no difference.
fn half_a_request_is_not_waited_for(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut half = UnixStream::connect(server.control_socket()).unwrap();
    let mut silent = UnixStream::connect(server.control_socket()).unwrap();
    let begun = Instant::now();
    for client in [&mut half, &mut silent] {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    half.write_all(b"{\"request\"").unwrap();
    for client in [&mut half, &mut silent] {
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "it is disconnected");
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "after {:?}", begun.elapsed());
    // A client that asks in time stays connected for the next request.
    let mut client = UnixStream::connect(server.control_socket()).unwrap();
    for _ in 0..2 {
        client.write_all(b"{\"request\":\"status\"}\n").unwrap();
        let mut start = [0; 10];
        client.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"{\"ok\":true");
        let mut rest = vec![0; 65536];
        while client.read(&mut rest).is_ok_and(|length| rest[..length].last() != Some(&b'\n')) {}
    }
    server.stop();
}

/// Start, reload, upgrade, hostctl and logs in a directory whose name is Latin-1.
fn a_directory_that_is_not_utf8_works(cell: &Cell) {
    let parent = tempfile::tempdir().unwrap();
    let place = parent.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&place).unwrap();
    let setup = Setup::new(cell).with(|command| {
        command.current_dir(&place).env("PWD", &place);
    });
    let flags = "--pid host.pid --log-file error.log --access-logfile access.log \
                 --control-socket ./here.ctl --bind unix:web.sock";
    let mut server = setup.flags(flags).reached_at(Address::Unix(place.join("web.sock"))).start();
    let old = server.pid();
    assert_eq!(server.get("/").status, 200);
    let ctl = |arguments: &[&str]| Control::run_in(&place, Path::new("here.ctl"), arguments);
    ctl(&["reload"]).done();
    let json = ctl(&["status", "--json"]).done();
    assert!(json.contains("unix:./web.sock"), "{json}");
    ctl(&["config", "show"]).done();
    server.signal(Signal::SIGUSR2);
    let log = || fs::read_to_string(place.join("error.log")).unwrap();
    jimu_tests::wait::until("a successor", PATIENCE, || {
        let log = log();
        (log.matches("Server is ready").count() == 2).then_some(()).ok_or(log)
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(server.leader_ended(PATIENCE), End::Status(0));
    let read = || fs::read_to_string(place.join("host.pid")).unwrap_or_default();
    let new: i32 = jimu_tests::wait::until("the pid file follows", PATIENCE, || {
        read().trim().parse().ok().filter(|pid| *pid != old.as_raw()).ok_or_else(read)
    });
    assert_eq!(server.get("/").status, 200);
    ctl(&["reload"]).done();
    process::signal(Pid::from_raw(new), Signal::SIGTERM);
    assert!(server.all_gone(PATIENCE), "left: {:?}", server.processes());
    assert!(!log().contains("[ERROR]"), "{}", log());
    assert_eq!(fs::read_to_string(place.join("access.log")).unwrap().lines().count(), 2);
}

/// The server works without memfds for scoreboard and copies, and each line about it names the limit.
fn a_small_limit_of_file_sizes_is_named(cell: &Cell) {
    let limit = libc::rlimit { rlim_cur: 1024, rlim_max: libc::RLIM_INFINITY };
    let set = move || {
        // SAFETY: setrlimit reads one structure, which outlives the call.
        match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    let server = Setup::new(cell)
        .with(|command| {
            // SAFETY: the closure makes one system call.
            unsafe { std::os::unix::process::CommandExt::pre_exec(command, set) };
        })
        .start();
    assert_eq!(server.get("/").status, 200);
    for word in ["cannot create a memfd for the scoreboard", "cannot create a private copy"] {
        let line = server.log.line(&[word], PATIENCE);
        assert!(line.contains("File too large"), "{line}");
        assert!(line.contains("RLIMIT_FSIZE (now 1024; ulimit -f, LimitFSIZE=)"), "{line}");
    }
    server.stop();
}

/// With `reload`, whatever number of workers fails.
fn a_refusal_that_waits_for_a_change_is_logged_once(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    let setup = Setup::new(cell).app(app).env("FAULTY_APP", "init_worker=error");
    let server = setup.flags("--reload --workers 4 --boot-failures-max 1").launch();
    server.log.line(&["waiting for a file to change"], PATIENCE);
    server.until_workers("no worker", <[_]>::is_empty);
    let text = server.log.text();
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("[ERROR]")).collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    server.stop();
}
