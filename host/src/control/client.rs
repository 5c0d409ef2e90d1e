//! The other side of the control socket: one request, one response.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Request, Response};

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no server answers at {}: {reason}", path.display())]
    Unreachable {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The server went away before it answered.
    #[error("the server ended before it answered")]
    Gone,
    /// The time was over before an answer came.
    #[error(
        "no answer within {} s: the server may still carry it out, see `hostctl status` (--timeout sets the limit)",
        .0.as_secs_f64()
    )]
    TimedOut(Duration),
    /// The answer makes no sense: another version's, perhaps.
    #[error("the server's answer is not understood: {0}")]
    Garbled(serde_json::Error),
}

/// Sends a request to the server behind `path` and waits for its answer, for as long as `limit` if there is one.
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
    // A server that refuses to talk has said why before it closed.
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
