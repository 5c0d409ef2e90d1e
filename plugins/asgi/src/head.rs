//! The head of a response, between `http.response.start` and the first part of the body. Its headers are copied: the
//! application may change its list afterwards.

use python::{Exception, Object, PyErrSet, PyResult, Python};
use worker_api::{Exchange, Header, Result};

/// Status and headers of a response.
#[derive(Default)]
pub(crate) struct Head {
    status: u16,
    /// Names and values, one after the other.
    text: Vec<u8>,
    /// Where each name ends, and where its value ends.
    ends: Vec<(usize, usize)>,
    /// Whether the headers tell the length of the body: `Content-Length`, or a coding of the application's.
    has_length: bool,
    /// Whether the body is a stream of events for a browser, which lasts until one side ends it.
    pub(crate) is_event_stream: bool,
}

impl Head {
    /// Reads a status and headers from a message.
    pub(crate) fn new(status: u16, headers: Option<&Object<'_>>) -> PyResult<Self> {
        let mut head = Self { status, ..Self::default() };
        if let Some(headers) = headers {
            each_header(headers, |name, value| head.add(name, value))?;
        }
        Ok(head)
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.has_length |= name.eq_ignore_ascii_case(b"content-length")
            || name.eq_ignore_ascii_case(b"transfer-encoding");
        self.is_event_stream |= name.eq_ignore_ascii_case(b"content-type")
            && value
                .get(..EVENT_STREAM.len())
                .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM));
        self.text.extend_from_slice(name);
        let name_end = self.text.len();
        self.text.extend_from_slice(value);
        self.ends.push((name_end, self.text.len()));
    }

    /// Returns whether the response has no body whatever the application sends.
    pub(crate) fn has_no_body(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Passes the head to the exchange. `length` is that of a body in one piece, for a head that does not tell it.
    pub(crate) fn start(&self, exchange: &mut Exchange, length: Option<usize>) -> Result<()> {
        let mut digits = itoa::Buffer::new();
        let length = length.filter(|_| !self.has_length && !self.has_no_body());
        let length = length.map(|length| digits.format(length));
        let length = length.map(|digits| Header::new("content-length", digits));
        let mut inline = [Header::new("", ""); HEADERS_INLINE];
        let count = self.ends.len() + usize::from(length.is_some());
        if count <= HEADERS_INLINE {
            for (place, header) in inline.iter_mut().zip(self.headers().chain(length)) {
                *place = header;
            }
            return exchange.start(self.status, "", &inline[..count]);
        }
        let headers: Vec<Header<'_>> = self.headers().chain(length).collect();
        exchange.start(self.status, "", &headers)
    }

    fn headers(&self) -> impl Iterator<Item = Header<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |(name_end, end)| {
            // A name that is not ASCII is no token, which the exchange refuses.
            let name = std::str::from_utf8(&self.text[start..*name_end]).unwrap_or("\u{fffd}");
            let value = &self.text[*name_end..*end];
            start = *end;
            Header::new(name, value)
        })
    }
}

/// Headers of a message in owned form, for those that are rare: trailers and early hints.
pub(crate) fn owned_headers(headers: &Object<'_>) -> PyResult<Vec<(String, Vec<u8>)>> {
    let mut owned = Vec::new();
    each_header(headers, |name, value| {
        owned.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    })?;
    Ok(owned)
}

/// Calls `with` for each header: an iterable of pairs of `bytes`.
fn each_header(headers: &Object<'_>, mut with: impl FnMut(&[u8], &[u8])) -> PyResult<()> {
    headers.each_pair("a header must be a pair of name and value", |name, value| {
        match (name.as_bytes(), value.as_bytes()) {
            (Some(name), Some(value)) => with(name, value),
            _ => return Err(not_bytes(name.py(), name, value)),
        }
        Ok(())
    })
}

#[cold]
fn not_bytes(py: Python<'_>, name: &Object<'_>, value: &Object<'_>) -> PyErrSet {
    let message = format!(
        "name and value of a header must be bytes, not {} and {}",
        name.type_name(),
        value.type_name()
    );
    PyErrSet::new(py, Exception::Type, &message)
}

/// Number of headers that are passed on without an allocation.
const HEADERS_INLINE: usize = 24;
/// The media type of server-sent events (HTML Standard 9.2).
const EVENT_STREAM: &[u8] = b"text/event-stream";
