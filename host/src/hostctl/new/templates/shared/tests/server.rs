//! A server that runs during a test.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

/// Returns the path of the library, which cargo builds beside the test.
pub fn library() -> String {
    let library = std::env::current_exe().unwrap().with_file_name("{{library}}");
    library.into_os_string().into_string().unwrap()
}

/// A server on a free port.
pub struct Server {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
    address: String,
}

impl Server {
    /// Starts `host` with these arguments, and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        let host = std::env::var("HOST").unwrap_or("host".to_owned());
        let mut process = Command::new(&host)
            .args(["--bind", "127.0.0.1:0", "--no-control-socket"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {host}: {error}"));
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut server = Self { process, log, address: String::new() };
        let mut seen = String::new();
        for line in server.log.by_ref() {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("Server is ready. Listening at: http://") {
                server.address = address.to_owned();
                return server;
            }
            seen = seen + &line + "\n";
        }
        panic!("the server did not start:\n{seen}");
    }

    /// Sends a request, and returns the response with its head.
    pub fn get(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).unwrap();
        response
    }

    /// Stops the server gracefully, and returns the rest of its log.
    pub fn stop(mut self) -> String {
        let signaled = Command::new("kill").arg(self.process.id().to_string()).status();
        assert!(signaled.unwrap().success());
        let log: Vec<String> = self.log.by_ref().map(|line| line.unwrap()).collect();
        let log = log.join("\n");
        assert!(self.process.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Server {
    /// Ends the server of a test that has failed; one that has stopped is not affected.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
