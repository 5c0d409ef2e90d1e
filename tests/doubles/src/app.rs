//! Small applications.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use worker_api::{Exchange, Result};

/// Responds with `hello`.
pub fn hello(exchange: &mut Exchange) -> Result<()> {
    exchange.respond(200, &[], b"hello")
}

/// Responds with the request's body, of up to 1 MiB.
pub fn echo(exchange: &mut Exchange) -> Result<()> {
    let body = exchange.read_to_end(1 << 20)?;
    exchange.respond(200, &[], &body)
}

/// Takes the connection over, and sends back what was already read from it and a word.
pub fn take_over(exchange: &mut Exchange) -> Result<()> {
    let hijacked = exchange.hijack()?;
    let mut stream = UnixStream::from(hijacked.fd);
    stream.write_all(&hijacked.already_read)?;
    stream.write_all(b" raw")?;
    Ok(())
}
