//! Finds the end of a response. Parses no more of HTTP than that.

use std::io;

use memchr::memmem;

use super::chunked::Chunked;
use super::invalid;

/// A response that is being received.
#[derive(Default)]
pub(super) struct Answer {
    head: Vec<u8>,
    body: Body,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    Complete,
}

#[derive(Clone, Copy, Default)]
enum Body {
    /// The head is incomplete.
    #[default]
    Unknown,
    /// This number of bytes is missing.
    Left { bytes: u64, closes: bool },
    /// In chunks.
    Chunked { position: Chunked, closes: bool },
    /// Everything until the connection is closed.
    UntilClose,
}

impl Answer {
    /// Whether the server closes the connection after this response.
    pub(super) fn closes(&self) -> bool {
        !matches!(self.body, Body::Left { closes: false, .. } | Body::Chunked { closes: false, .. })
    }

    /// Processes what was read; an empty slice means that the connection was closed. Returns also how many of the bytes
    /// belong to this response: those behind them are of the next.
    pub(super) fn take(&mut self, part: &[u8]) -> io::Result<(Step, usize)> {
        match self.body {
            Body::UntilClose if part.is_empty() => Ok((Step::Complete, 0)),
            Body::UntilClose => Ok((Step::More, part.len())),
            _ if part.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Body::Unknown => self.take_head(part),
            Body::Left { .. } | Body::Chunked { .. } => self.take_body(part),
        }
    }

    fn take_head(&mut self, part: &[u8]) -> io::Result<(Step, usize)> {
        let joined;
        let whole = if self.head.is_empty() {
            part
        } else {
            self.head.extend_from_slice(part);
            joined = std::mem::take(&mut self.head);
            &joined
        };
        let Some(end) = memmem::find(whole, b"\r\n\r\n") else {
            self.head = whole.to_vec();
            return Ok((Step::More, part.len()));
        };
        // The head has ended in this part, so what is behind it is in this part too.
        let behind = &whole[end + 4..];
        let of_head = part.len() - behind.len();
        self.body = body_of(&whole[..end + 2])?;
        let (step, of_body) = self.take_body(behind)?;
        Ok((step, of_head + of_body))
    }

    fn take_body(&mut self, part: &[u8]) -> io::Result<(Step, usize)> {
        let (complete, taken) = match &mut self.body {
            Body::Left { bytes, .. } => {
                let taken = part.len().min(usize::try_from(*bytes).unwrap_or(usize::MAX));
                *bytes -= taken as u64;
                (*bytes == 0, taken)
            }
            Body::Chunked { position, .. } => {
                let taken = position.take(part)?;
                (position.is_complete(), taken)
            }
            Body::Unknown | Body::UntilClose => (false, part.len()),
        };
        Ok((if complete { Step::Complete } else { Step::More }, taken))
    }
}

/// Parses what a head, including its final line end, says about the body.
fn body_of(head: &[u8]) -> io::Result<Body> {
    let mut lines = memmem::find_iter(head, b"\r\n");
    let status_end = lines.next().unwrap_or_default();
    let status = &head[..status_end];
    if status.get(9..12) != Some(b"200") {
        let status = String::from_utf8_lossy(status);
        return Err(invalid(&format!("the server answered {status:?}")));
    }
    let mut closes = status.starts_with(b"HTTP/1.0");
    let mut bytes = None;
    let mut chunked = false;
    let mut start = status_end + 2;
    for end in lines {
        let (name, value) = split(&head[start..end]);
        start = end + 2;
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(value).unwrap_or_default();
            bytes = Some(digits.parse().map_err(|_| invalid("a strange Content-Length"))?);
        } else if name.eq_ignore_ascii_case(b"connection") {
            closes = !value.eq_ignore_ascii_case(b"keep-alive");
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            chunked = value.eq_ignore_ascii_case(b"chunked");
            if !chunked {
                return Err(invalid("an answer with a transfer coding that was not asked for"));
            }
        }
    }
    if chunked {
        return Ok(Body::Chunked { position: Chunked::Size(None), closes });
    }
    Ok(bytes.map_or(Body::UntilClose, |bytes| Body::Left { bytes, closes }))
}

fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = memchr::memchr(b':', line).unwrap_or(line.len());
    (&line[..colon], line[colon..].get(1..).unwrap_or_default().trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_after_its_length_however_it_is_cut() {
        let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-length: 5\r\n\r\nHello";
        for cut in 1..bytes.len() {
            let mut answer = Answer::default();
            assert_eq!(answer.take(&bytes[..cut]).unwrap(), (Step::More, cut));
            let rest = bytes.len() - cut;
            assert_eq!(answer.take(&bytes[cut..]).unwrap(), (Step::Complete, rest), "at {cut}");
            assert!(!answer.closes());
        }
        let longer = [&bytes[..], b"HTTP/1.1 200"].concat();
        let taken = Answer::default().take(&longer).unwrap();
        assert_eq!(taken, (Step::Complete, bytes.len()), "the rest is of the next response");
    }

    #[test]
    fn an_answer_in_chunks_ends_after_the_last_however_it_is_cut() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n0\r\n\r\n";
        for cut in 1..bytes.len() {
            let mut answer = Answer::default();
            assert_eq!(answer.take(&bytes[..cut]).unwrap(), (Step::More, cut));
            let rest = bytes.len() - cut;
            assert_eq!(answer.take(&bytes[cut..]).unwrap(), (Step::Complete, rest), "at {cut}");
            assert!(!answer.closes());
        }
        let longer = [&bytes[..], b"HTTP/1.1 200"].concat();
        let taken = Answer::default().take(&longer).unwrap();
        assert_eq!(taken, (Step::Complete, bytes.len()), "the rest is of the next response");
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let mut answer = Answer::default();
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nHel";
        assert_eq!(answer.take(head).unwrap().0, Step::More);
        assert_eq!(answer.take(b"lo").unwrap().0, Step::More);
        assert_eq!(answer.take(b"").unwrap().0, Step::Complete);
        assert!(answer.closes());
    }

    #[test]
    fn what_is_no_whole_answer_is_an_error() {
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHell";
        let mut answer = Answer::default();
        assert_eq!(answer.take(cut).unwrap().0, Step::More);
        assert!(answer.take(b"").is_err());
        for bytes in [
            &b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"",
        ] {
            assert!(Answer::default().take(bytes).is_err());
        }
    }
}
