//! Responses, parsed strictly by RFC 9112: what a lenient client would accept is malformed here.

use std::{io, time::Duration};

/// Why there is no complete response.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection was closed before the first byte of a response.
    #[error("the connection was closed before an answer")]
    Closed,
    /// The connection was reset before the first byte of a response.
    #[error("the connection was reset before an answer")]
    Reset,
    /// The response is incomplete: what was read, and how it ended.
    #[error("the answer was cut: {0}")]
    Cut(String),
    /// The response is malformed.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Nothing arrived within the time-out.
    #[error("silence for {0:?}")]
    Silent(Duration),
    /// Any other error of the socket.
    #[error(transparent)]
    Io(io::Error),
}

/// One response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Minor version, 0 or 1.
    pub minor: u8,
    /// Status.
    pub status: u16,
    /// Reason phrase.
    pub reason: String,
    /// Headers in order, with names as sent.
    pub fields: Vec<(String, String)>,
    /// Body, without its framing.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// How the end of the body was determined.
    pub framing: Framing,
    /// Informational responses before this one.
    pub informational: Vec<Answer>,
}

/// How the end of a body is determined (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body: HEAD, 1xx, 204, 304.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The end of the connection.
    Close,
}

impl Answer {
    /// Returns the value of the only header with this name.
    pub fn field<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.values(name);
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {:?}", self.fields);
        value
    }

    /// Returns the values of all headers with this name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns whether the connection may carry another request.
    pub fn keeps(&self) -> bool {
        let says = |word: &str| {
            self.values("Connection")
                .flat_map(|value| value.split(','))
                .any(|option| option.trim().eq_ignore_ascii_case(word))
        };
        self.framing != Framing::Close && !says("close") && (self.minor == 1 || says("keep-alive"))
    }

    /// Parses a head, including the empty line that ends it.
    pub(super) fn head(bytes: &[u8], method: &str) -> Result<Self, Broken> {
        let text =
            str::from_utf8(bytes).map_err(|_| malformed("a head that is not ASCII", bytes))?;
        let mut lines = text.strip_suffix("\r\n\r\n").unwrap_or(text).split("\r\n");
        let line = lines.next().unwrap_or_default();
        let (minor, status, reason) =
            status_line(line).ok_or_else(|| malformed("the status line", line.as_bytes()))?;
        let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
        let mut answer = Self {
            minor,
            status,
            reason,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
            framing: Framing::None,
            informational: Vec::new(),
        };
        answer.framing = answer.body_framing(method)?;
        Ok(answer)
    }

    fn body_framing(&self, method: &str) -> Result<Framing, Broken> {
        let bad = |what: &str| Err(malformed(what, format!("{:?}", self.fields).as_bytes()));
        let encodings: Vec<&str> = self.values("Transfer-Encoding").collect();
        let lengths: Vec<&str> = self.values("Content-Length").collect();
        if !encodings.is_empty() && !lengths.is_empty() {
            return bad("both Content-Length and Transfer-Encoding");
        }
        if lengths.len() > 1 || encodings.len() > 1 {
            return bad("a framing field twice");
        }
        if (self.status < 200 || self.status == 204)
            && !(encodings.is_empty() && lengths.is_empty())
        {
            return bad("a framing field where none is allowed (RFC 9110 8.6, RFC 9112 6.1)");
        }
        if method == "HEAD" || self.status < 200 || self.status == 204 || self.status == 304 {
            return Ok(Framing::None);
        }
        match (encodings.first(), lengths.first()) {
            (Some(&"chunked"), _) if self.minor == 1 => Ok(Framing::Chunked),
            (Some(_), _) => bad("a Transfer-Encoding that the client did not ask for"),
            (_, Some(length))
                if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) =>
            {
                length.parse().map(Framing::Length).or_else(|_| bad("Content-Length"))
            }
            (_, Some(_)) => bad("Content-Length"),
            (None, None) => Ok(Framing::Close),
        }
    }
}

/// Parses one header line, without its CRLF.
pub(super) fn field(line: &str) -> Result<(String, String), Broken> {
    let bad = || malformed("a field line", line.as_bytes());
    let (name, value) = line.split_once(':').ok_or_else(bad)?;
    let value = value.trim_matches([' ', '\t']);
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let plain = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b) || b >= 0x80;
    if name.is_empty() || !name.bytes().all(token) || !value.bytes().all(plain) {
        return Err(bad());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses a chunk's size line, without its CRLF.
pub(super) fn chunk_size(line: &[u8]) -> Result<usize, Broken> {
    let bad = || malformed("a chunk size", line);
    if line.is_empty() || line.len() > 8 || !line.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad());
    }
    let digits = str::from_utf8(line).map_err(|_| bad())?;
    usize::from_str_radix(digits, 16).map_err(|_| bad())
}

pub(super) fn malformed(what: &str, bytes: &[u8]) -> Broken {
    let shown = &bytes[..bytes.len().min(200)];
    Broken::Malformed(format!("{what}: {:?}", String::from_utf8_lossy(shown)))
}

fn status_line(line: &str) -> Option<(u8, u16, String)> {
    let rest = line.strip_prefix("HTTP/1.")?;
    let (minor, rest) = rest.split_once(' ')?;
    let (status, reason) = rest.split_once(' ')?;
    let minor = ["0", "1"].iter().position(|digit| *digit == minor)? as u8;
    let number: u16 = status.parse().ok()?;
    (status.len() == 3 && (100..600).contains(&number)).then(|| (minor, number, reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Answer, Broken> {
        Answer::head(text.as_bytes(), "GET")
    }

    #[test]
    fn framing_is_known_by_the_letter() {
        let framing = |text: &str| head(text).map(|answer| answer.framing).ok();
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
            Some(Framing::Length(3))
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            Some(Framing::Chunked)
        );
        assert_eq!(framing("HTTP/1.0 200 OK\r\n\r\n"), Some(Framing::Close));
        assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n"), Some(Framing::None));
        for wrong in [
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert_eq!(framing(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_malformed_head_is_refused() {
        for wrong in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
            "HTTP/1.1 200 OK\r\nname: a\nb\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded\r\n\r\n",
        ] {
            assert!(head(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_only_when_the_answer_says_so() {
        let keeps = |text: &str| head(text).unwrap().keeps();
        assert!(keeps("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\n\r\n"));
    }
}
