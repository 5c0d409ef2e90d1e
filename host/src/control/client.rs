//! The client's side of the control socket: one request, one response.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Request, Response};

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No process listens.
    #[error("no server is listening at {}: {reason}", path.display())]
    Unreachable {
        /// Path of the socket.
        path: PathBuf,
        /// The system's error.
        reason: std::io::Error,
    },
    /// The server exited before it responded.
    #[error("the server exited before it responded")]
    Gone,
    /// The time limit passed before a response came.
    #[error(
        "no response within {} s; the server may still execute the request, see `hostctl status` (--timeout sets the limit)",
        .0.as_secs_f64()
    )]
    TimedOut(Duration),
    /// The response is invalid: possibly that of another version.
    #[error("invalid response from the server: {0}")]
    Garbled(serde_json::Error),
}

/// Sends a request to the server at `path` and waits for its response, up to `limit` if there is one.
pub fn ask(
    path: &Path,
    request: &Request,
    limit: Option<Duration>,
) -> Result<Response, ClientError> {
    let unreachable = |reason| ClientError::Unreachable { path: path.to_owned(), reason };
    let mut stream = UnixStream::connect(path).map_err(unreachable)?;
    stream.set_read_timeout(limit).map_err(unreachable)?;
    stream.set_write_timeout(limit).map_err(unreachable)?;
    let mut line = serde_json::to_vec(request).map_err(ClientError::Garbled)?;
    line.push(b'\n');
    // A server that refuses the connection has sent the reason before it closed.
    let _ = stream.write_all(&line);
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
        Ok(length) if length > 0 => serde_json::from_str(&answer).map_err(ClientError::Garbled),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(ClientError::TimedOut(limit.unwrap_or_default()))
        }
        _ => Err(ClientError::Gone),
    }
}
