//! The client's side of WebSocket (RFC 6455), as far as the load needs it: one short text message at a time, which
//! the server echoes.

use std::io;
use std::net::SocketAddr;

use memchr::memmem;

use super::answer::Step;
use super::invalid;

/// A message and its echo, as frames.
#[derive(Clone, Debug)]
pub struct Message {
    pub(super) frame: Vec<u8>,
    echo: Vec<u8>,
}

impl Message {
    /// Makes a text message of this length, at most 125: longer ones have another frame header.
    pub fn of_length(length: u8) -> Self {
        assert!(length <= 125, "a short message has at most 125 bytes");
        let text = vec![b'm'; usize::from(length)];
        let masked = text.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let mut frame = vec![FINAL_TEXT, MASKED | length];
        frame.extend_from_slice(&MASK);
        frame.extend(masked);
        let echo = [&[FINAL_TEXT, length][..], &text].concat();
        Self { frame, echo }
    }
}

/// Returns the request that opens a WebSocket. It offers no compression.
pub fn handshake(address: SocketAddr) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// The server's response to the handshake, which is being received.
#[derive(Default)]
pub(super) struct Upgrade(Vec<u8>);

impl Upgrade {
    /// Processes what was read; an empty slice means that the connection was closed.
    pub(super) fn take(&mut self, part: &[u8]) -> io::Result<Step> {
        if part.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.extend_from_slice(part);
        match memmem::find(&self.0, b"\r\n\r\n") {
            None => Ok(Step::More),
            Some(end) if end + 4 < self.0.len() => Err(invalid("a frame before the first message")),
            Some(_) if self.0.starts_with(b"HTTP/1.1 101 ") => Ok(Step::Complete),
            Some(_) => Err(invalid("the server did not open a WebSocket")),
        }
    }
}

/// An echo that is being received.
#[derive(Default)]
pub(super) struct Echo(Vec<u8>);

impl Echo {
    /// Processes what was read; an empty slice means that the connection was closed.
    pub(super) fn take(&mut self, part: &[u8], message: &Message) -> io::Result<Step> {
        if part.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.extend_from_slice(part);
        // A ping is not answered: no connection lives as long as servers wait for that.
        while let [PING | PONG, length, ..] = self.0[..] {
            let frame = 2 + usize::from(length);
            if frame > self.0.len() {
                return Ok(Step::More);
            }
            self.0.drain(..frame);
        }
        if self.0 == message.echo {
            Ok(Step::Complete)
        } else if message.echo.starts_with(&self.0) || matches!(self.0[..], [PING | PONG]) {
            Ok(Step::More)
        } else {
            Err(invalid("not the echo of the message"))
        }
    }
}

const FINAL_TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;
/// A mask protects proxies, which are absent here.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_recognized_however_it_is_cut_and_beside_a_ping() {
        let message = Message::of_length(20);
        let bytes = [&[PING, 2, b'h', b'i'][..], &message.echo].concat();
        for cut in 1..bytes.len() {
            let mut echo = Echo::default();
            assert_eq!(echo.take(&bytes[..cut], &message).unwrap(), Step::More, "cut at {cut}");
            assert_eq!(echo.take(&bytes[cut..], &message).unwrap(), Step::Complete, "at {cut}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let message = Message::of_length(5);
        for bytes in [&b"\x88\x02\x03\xe8"[..], b"\x81\x05hello", b"\x82\x05mmmmm", b""] {
            assert!(Echo::default().take(bytes, &message).is_err());
        }
        let twice = [&message.echo[..], &message.echo].concat();
        assert!(Echo::default().take(&twice, &message).is_err());
    }

    #[test]
    fn only_a_101_opens_a_websocket() {
        let open = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        let mut upgrade = Upgrade::default();
        assert_eq!(upgrade.take(&open[..20]).unwrap(), Step::More);
        assert_eq!(upgrade.take(&open[20..]).unwrap(), Step::Complete);
        for bytes in [&b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"[..], b""] {
            assert!(Upgrade::default().take(bytes).is_err());
        }
    }
}
