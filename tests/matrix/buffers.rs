//! Clients that are slow to send a body or to read a response: they occupy no thread, under any class.

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStringExt,
    path::Path,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::Cell,
    http::Connection,
    mounts::{self, Change},
    process::{self, End},
    runner::Behaviour,
    server::{Server, Setup},
    wait,
};
use nix::{sys::signal::Signal, unistd::Pid};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(slow_uploads_delay_no_one),
        behaviour!(uploads_that_stall_delay_no_one),
        behaviour!(slow_readers_delay_no_one),
        behaviour!(a_reader_that_stops_is_cut),
        behaviour!(an_upload_beyond_the_bound_is_served),
        behaviour!(an_upload_is_finished_at_the_end),
        behaviour!(a_full_disk_harms_no_one_else)
            .of_class()
            .only_if(mounts::are_changeable, "mount namespaces need privileges"),
        behaviour!(a_directory_that_cannot_be_used_is_refused).of_class(),
    ]
}

/// More than there are threads, and than a worker may have temporary files.
const SLOW: usize = 6;
/// More than is kept in memory of a body, with `IN_FILES`.
const BODY: usize = 200_000;
const IN_FILES: &str = " --body-buffer-memory 1m --tmp-upload-dir ";
/// More than a socket takes at once, and than is kept in memory of a response.
const LARGE: usize = 10_000_000;
const WHOLE: &str = "/whole?size=10000000";
/// Time limit for another request.
const SOON: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);

/// A complete body with its head, in either framing; the first part of it is sent.
struct Upload {
    client: Connection,
    rest: Vec<u8>,
    body: Vec<u8>,
}

impl Upload {
    fn begin(server: &Server, number: usize, length: usize) -> Self {
        let body: Vec<u8> = (0..length).map(|at| b'a' + ((at + number) % 23) as u8).collect();
        let mut message = b"POST /echo HTTP/1.1\r\nHost: test\r\n".to_vec();
        if number.is_multiple_of(2) {
            message.extend(format!("Content-Length: {length}\r\n\r\n").bytes());
            message.extend(&body);
        } else {
            message.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for part in body.chunks(7000) {
                message.extend(format!("{:x}\r\n", part.len()).bytes());
                message.extend(part);
                message.extend(b"\r\n");
            }
            message.extend(b"0\r\nX-Sum: none\r\n\r\n");
        }
        let rest = message.split_off(message.len() / 2);
        let mut client = server.connect();
        client.send(message).unwrap();
        Self { client, rest, body }
    }

    fn finish(mut self) {
        self.client.send(&self.rest).unwrap();
        let answer = self.client.answer("POST").unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == self.body, "{} bytes of {}", answer.body.len(), self.body.len());
    }
}

fn assert_served_soon(server: &Server) {
    let asked = Instant::now();
    assert_eq!(server.get("/").status, 200);
    assert!(asked.elapsed() < SOON, "waited for {:?}", asked.elapsed());
}

/// Returns the number of temporary files of a worker.
fn temporary_files(worker: Pid) -> usize {
    let entries = fs::read_dir(format!("/proc/{worker}/fd")).unwrap();
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().ends_with("(deleted)")).count()
}

fn until_files(worker: Pid, files: usize) {
    wait::until(&format!("{files} temporary files"), LIMIT, || match temporary_files(worker) {
        found if found == files => Ok(()),
        found => Err(format!("there are {found}")),
    });
}

fn until_descriptors(worker: Pid, most: usize) {
    wait::until("files and connections are closed", LIMIT, || match process::descriptors(worker) {
        now if now <= most => Ok(()),
        now => Err(format!("{now} descriptors, at most {most} before")),
    });
}

/// Returns whether the class buffers a body before it calls the application.
fn buffers(cell: &Cell) -> bool {
    ["sync", "gthread"].contains(&cell.class.name.as_str())
}

fn slow_uploads_delay_no_one(cell: &Cell) {
    let flags = "--threads 2 --body-buffer-files 4".to_owned() + IN_FILES + ".";
    let server = Setup::new(cell).flags(&flags).start();
    let worker = server.serving_pid();
    let before = (temporary_files(worker), names(server.dir()));
    // A thread waits for a body only if there are more than files are allowed.
    let most = if buffers(cell) { 4 } else { SLOW };
    let slow: Vec<Upload> = (0..most).map(|n| Upload::begin(&server, n, BODY)).collect();
    if buffers(cell) {
        until_files(worker, before.0 + most);
    }
    assert_served_soon(&server);
    assert_eq!(names(server.dir()), before.1, "the files have no names");
    slow.into_iter().for_each(Upload::finish);
    until_files(worker, before.0);
    server.stop();
}

/// Half of each upload arrives as fast as the connection permits, and nothing more for now.
fn uploads_that_stall_delay_no_one(cell: &Cell) {
    let server = Setup::new(cell).flags("--threads 2").start();
    let stalled: Vec<Upload> = (0..4).map(|_| Upload::begin(&server, 0, 10 * BODY)).collect();
    (0..3).for_each(|_| assert_served_soon(&server));
    stalled.into_iter().for_each(Upload::finish);
    server.stop();
}

/// They request a response that the application hands over completely, and read it only after another request was
/// served.
fn slow_readers_delay_no_one(cell: &Cell) {
    let setup = Setup::new(cell).flags("--threads 2").file("large", vec![b'.'; LARGE]);
    let mut server = setup.start();
    let worker = server.serving_pid();
    let (files, memory) = (process::descriptors(worker), process::rss_kib(worker));
    for _ in 0..2 {
        let mut slow = slow_readers(&server);
        assert_served_soon(&server);
        slow.iter_mut().for_each(read_whole);
        drop(slow);
        until_descriptors(worker, files + 2);
    }
    let grown = process::rss_kib(worker).saturating_sub(memory);
    assert!(grown < 64 << 10, "{grown} KiB more");
    let mut slow = slow_readers(&server);
    assert_served_soon(&server);
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], LIMIT);
    slow.iter_mut().for_each(read_whole);
    drop(slow);
    assert_eq!(server.ended(LIMIT).end, End::Status(0));
}

fn slow_readers(server: &Server) -> Vec<Connection> {
    let ask = |number: usize| {
        let mut client = server.connect();
        let target = if number.is_multiple_of(2) { WHOLE } else { "/file?path=large" };
        client.send_get(target).unwrap();
        client
    };
    (0..4).map(ask).collect()
}

fn read_whole(client: &mut Connection) {
    let answer = client.answer("GET").unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, LARGE));
}

/// A client that reads nothing of such a response for `write_timeout` is disconnected.
fn a_reader_that_stops_is_cut(cell: &Cell) {
    let server = Setup::new(cell).flags("--write-timeout 1").start();
    let worker = server.serving_pid();
    let files = process::descriptors(worker);
    let mut client = server.connect();
    client.send_get(WHOLE).unwrap();
    assert!(client.take_byte().is_some());
    until_descriptors(worker, files);
    assert_served_soon(&server);
    assert_eq!(server.serving_pid(), worker);
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn an_upload_beyond_the_bound_is_served(cell: &Cell) {
    for flags in [
        "--body-buffer-max 70k",
        "--body-buffer-files 0 --body-buffer-memory 1m",
        "--body-buffer-max 0",
    ] {
        let server = Setup::new(cell).flags(flags).start();
        (0..2).for_each(|n| Upload::begin(&server, n, BODY).finish());
        server.stop();
    }
}

fn an_upload_is_finished_at_the_end(cell: &Cell) {
    let mut server = Setup::new(cell).flags("--threads 2").start();
    let slow: Vec<Upload> = (0..2).map(|n| Upload::begin(&server, n, BODY)).collect();
    server.until_held("/echo");
    assert_served_soon(&server);
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], LIMIT);
    slow.into_iter().for_each(Upload::finish);
    assert_eq!(server.ended(LIMIT).end, End::Status(0));
}

/// A request for which there is no room for its body is still served, and the log names the problem once.
fn a_full_disk_harms_no_one_else(cell: &Cell) {
    let flags = "--threads 4".to_owned() + IN_FILES + "small";
    let setup = Setup::new(cell).flags(&flags);
    let small = setup.dir().join("small");
    fs::create_dir(&small).unwrap();
    let limit = [Change::Limit(CString::new(small.into_os_string().into_vec()).unwrap())];
    let server = setup.with(|command| mounts::change(command, limit)).start();
    let worker = server.serving_pid();
    let files = temporary_files(worker);
    for _ in 0..2 {
        // In chunks, of unknown length: that is buffered although it arrives fast.
        Upload::begin(&server, 1, 4 * BODY).finish();
        Upload::begin(&server, 0, BODY / 2).finish();
    }
    until_files(worker, files);
    assert_eq!(server.serving_pid(), worker);
    let log = server.stop().log;
    if buffers(cell) {
        assert!(log.contains("small: No space left on device"), "{log}");
    }
}

fn a_directory_that_cannot_be_used_is_refused(cell: &Cell) {
    let ended = Setup::new(cell).flags("--tmp-upload-dir /nowhere").refused();
    let told = "tmp_upload_dir: cannot create a temporary file in /nowhere: No such file";
    assert!(ended.log.contains(told), "{}", ended.log);
}
