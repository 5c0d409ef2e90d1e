//! A client that sends given bytes and reads responses strictly: a truncated or missing response is a fault with
//! a description.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection to the server under test.
pub(super) struct Client {
    stream: TcpStream,
    /// Bytes that were read and not used.
    input: Vec<u8>,
}

/// A complete response.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Whether the connection can be reused.
    pub(super) keeps: bool,
}

/// Requests a path on a new connection.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<Response, String> {
    let mut client = Client::open(address)?;
    client.send_get(path, "Connection: close\r\n")?;
    client.response()
}

/// Requests a path that exists.
pub(super) fn get_ok(address: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let response = get(address, path)?;
    if response.status == 200 {
        Ok(response.body)
    } else {
        Err(format!("status {}", response.status))
    }
}

impl Client {
    pub(super) fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .map_err(|error| format!("cannot connect: {error}"))?;
        let limits = stream
            .set_read_timeout(Some(PATIENCE))
            .and(stream.set_write_timeout(Some(PATIENCE)))
            .and(stream.set_nodelay(true));
        limits.map_err(|error| format!("cannot set the time limits of a connection: {error}"))?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// Sends a request without a body; `fields` are complete header lines.
    pub(super) fn send_get(&mut self, path: &str, fields: &str) -> Result<(), String> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: check\r\n{fields}\r\n").as_bytes())
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("cannot send: {error}"))
    }

    /// Returns another handle for sending while this one reads.
    pub(super) fn sender(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Limits the receive buffer, so that a long response fills the buffers of both sides.
    pub(super) fn keep_small(&self) {
        use nix::sys::socket::{setsockopt, sockopt};
        // If the kernel refuses, the check is easier to pass, not wrong.
        let _ = setsockopt(&self.stream, sockopt::RcvBuf, &SMALL_BUFFER);
    }

    /// Closes the connection so that the other side gets a reset.
    pub(super) fn reset(self) {
        use nix::sys::socket::{setsockopt, sockopt};
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // Without this the connection is closed normally: the check is easier to pass, not wrong.
        let _ = setsockopt(&self.stream, sockopt::Linger, &linger);
    }

    /// Reads one complete response.
    pub(super) fn response(&mut self) -> Result<Response, String> {
        let head = loop {
            match self.input.windows(4).position(|end| end == b"\r\n\r\n") {
                Some(at) => break self.input.drain(..at + 4).collect::<Vec<u8>>(),
                None => self.more("a response")?,
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|digits| digits.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("the response is not HTTP: {line:?}"))?;
        let field = |wanted: &str| {
            let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
            let field = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            field.map(|(_, value)| value.trim().to_ascii_lowercase())
        };
        let closes = field("connection").is_some_and(|value| value.contains("close"));
        let chunked = field("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        let length = field("content-length").and_then(|digits| digits.parse().ok());
        let body = match length {
            _ if chunked => self.chunks()?,
            Some(length) => self.take(length)?,
            None => self.rest()?,
        };
        Ok(Response { status, body, keeps: !closes && (chunked || length.is_some()) })
    }

    /// Reads until the other side closes; an error if it does not.
    pub(super) fn rest(&mut self) -> Result<Vec<u8>, String> {
        let mut rest = std::mem::take(&mut self.input);
        self.stream.read_to_end(&mut rest).map_err(|error| broken(&error, "the end"))?;
        Ok(rest)
    }

    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                match self.input.windows(2).position(|end| end == b"\r\n") {
                    Some(at) => break self.input.drain(..at + 2).collect::<Vec<u8>>(),
                    None => self.more("a chunk")?,
                }
            };
            let digits = String::from_utf8_lossy(&line);
            let length = usize::from_str_radix(digits.trim(), 16);
            let length = length.map_err(|_| format!("invalid chunk size {digits:?}"))?;
            let chunk = self.take(length + 2)?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.input.len() < length {
            self.more("the rest of a response")?;
        }
        Ok(self.input.drain(..length).collect())
    }

    fn more(&mut self, what: &str) -> Result<(), String> {
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part) {
            Ok(0) => Err(format!("the connection was closed before {what}")),
            Ok(bytes) => {
                self.input.extend_from_slice(&part[..bytes]);
                Ok(())
            }
            Err(error) => Err(broken(&error, what)),
        }
    }
}

fn broken(error: &io::Error, what: &str) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("{what} did not arrive within {} s", PATIENCE.as_secs())
        }
        io::ErrorKind::ConnectionReset => format!("the connection was reset before {what}"),
        _ => format!("{what} cannot be read: {error}"),
    }
}

/// Time-out of each wait for the server.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Receive buffer that is too small for a long response.
const SMALL_BUFFER: usize = 256 * 1024;
