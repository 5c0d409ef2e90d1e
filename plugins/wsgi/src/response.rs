//! The response that an application produces: the arguments of `start_response`, and whether the body matches
//! them.
//!
//! This module does not use Python: it applies the rules of PEP 3333 and RFC 9110 to bytes.

use smallvec::SmallVec;
use worker_api::{Exchange, Failure, Header, Result};

/// State of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    /// `start_response` was not called yet.
    #[default]
    NotStarted,
    /// `start_response` was called and nothing was sent: it may be called again with `exc_info`.
    Started,
    /// The head was passed to the exchange.
    Sent,
    /// The request has ended.
    Ended,
}

/// One response. Reused for the next request, to keep its memory.
#[derive(Default)]
pub(crate) struct Response {
    pub(crate) phase: Phase,
    status: u16,
    reason: String,
    names: String,
    values: Vec<u8>,
    /// Lengths of the name and the value of each header, in `names` and `values`.
    fields: Vec<(u32, u32)>,
    /// Value of `Content-Length`.
    announced: Option<u64>,
    /// Length of the whole body, if it is known and not set by the application.
    whole: Option<u64>,
    written: u64,
    /// Whether the application has given up a part before all of it was sent.
    gap: bool,
    head_request: bool,
}

/// Reason why a response head is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("Invalid status {0:?}: expected three digits, such as 200, a space and a reason")]
    Status(String),
    #[error("Invalid header name {0:?}")]
    Name(String),
    // The value may be a secret: only the name is shown.
    #[error("Invalid value of header {0:?}")]
    Value(String),
    #[error("Content-Length was set twice")]
    TwoLengths,
}

impl Response {
    /// Resets the response for another request.
    pub(crate) fn begin(&mut self, head_request: bool) {
        self.forget();
        self.phase = Phase::NotStarted;
        self.written = 0;
        self.gap = false;
        self.whole = None;
        self.head_request = head_request;
    }

    /// Discards an earlier `start_response`.
    pub(crate) fn forget(&mut self) {
        self.reason.clear();
        self.names.clear();
        self.values.clear();
        self.fields.clear();
        self.announced = None;
    }

    /// Sets the status, such as `200 OK`.
    pub(crate) fn set_status(&mut self, line: &str) -> Result<(), Refused> {
        let refused = || Refused::Status(line.to_owned());
        let (digits, reason) = line.as_bytes().split_at_checked(3).ok_or_else(refused)?;
        if !digits.iter().all(u8::is_ascii_digit) || digits[0] < b'2' && digits != b"101".as_slice()
        {
            return Err(refused());
        }
        if !(reason.is_empty() || reason[0] == b' ' && are(reason, TEXT)) {
            return Err(refused());
        }
        self.status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        // After three ASCII digits and a space, the rest starts at a character boundary.
        self.reason.push_str(line.get(4..).unwrap_or_default());
        Ok(())
    }

    /// Adds a header.
    pub(crate) fn add(&mut self, name: &str, value: &[u8]) -> Result<(), Refused> {
        if name.is_empty() || !are(name.as_bytes(), TOKEN) {
            return Err(Refused::Name(name.to_owned()));
        }
        let value = trimmed(value);
        if !are(value, TEXT) {
            return Err(Refused::Value(name.to_owned()));
        }
        if name.eq_ignore_ascii_case("content-length") {
            let length = number(value).ok_or_else(|| Refused::Value(name.to_owned()))?;
            if self.announced.replace(length).is_some() {
                return Err(Refused::TwoLengths);
            }
            if self.status == 204 {
                // RFC 9110 8.6: not permitted with 204.
                return Ok(());
            }
        }
        self.names.push_str(name);
        self.values.extend_from_slice(value);
        self.fields.push((name.len() as u32, value.len() as u32));
        Ok(())
    }

    /// Passes the head to the exchange, which sends it with the first bytes of the body.
    pub(crate) fn send_head(&mut self, exchange: &mut Exchange) -> Result<()> {
        if self.phase == Phase::Sent {
            return Ok(());
        }
        let mut digits = itoa::Buffer::new();
        let mut headers = SmallVec::<[Header<'_>; HEADERS_USUAL]>::new();
        let (mut names, mut values) = (self.names.as_str(), self.values.as_slice());
        for (name, value) in &self.fields {
            let (name, other_names) = names.split_at(*name as usize);
            let (value, other_values) = values.split_at(*value as usize);
            (names, values) = (other_names, other_values);
            headers.push(Header::new(name, value));
        }
        if let Some(length) = self.whole
            && self.announced.is_none()
            && !self.forbids_body()
        {
            headers.push(Header::new("Content-Length", digits.format(length)));
            self.announced = self.whole;
        }
        exchange.start(self.status, &self.reason, &headers)?;
        self.phase = Phase::Sent;
        Ok(())
    }

    /// Sets the length of the whole body. It becomes `Content-Length` if the application set none. Has no
    /// effect once the head is sent.
    pub(crate) fn set_whole(&mut self, len: u64) {
        if self.phase == Phase::Started {
            self.whole = Some(len);
        }
    }

    /// Prepares to send a body part of `len` bytes and returns how many of them `Content-Length` permits.
    /// Passes the head to the exchange before the first part.
    pub(crate) fn begin_part(&mut self, exchange: &mut Exchange, len: u64) -> Result<u64> {
        self.check_gapless()?;
        if let (Some(announced), Some(whole)) = (self.announced, self.whole)
            && whole < announced
            && self.phase == Phase::Started
            && !self.has_no_body()
        {
            return Err(too_short(announced, whole));
        }
        let len = len.min(self.room());
        self.written += len;
        self.send_head(exchange)?;
        Ok(len)
    }

    /// Returns how many more bytes `Content-Length` permits.
    pub(crate) fn room(&self) -> u64 {
        match self.announced {
            Some(announced) if !self.has_no_body() => announced.saturating_sub(self.written),
            _ => u64::MAX,
        }
    }

    /// Records that the application has given up a part before all of it was sent. What it sends afterwards fails: the
    /// client would take the response for a complete one.
    pub(crate) fn leave_gap(&mut self) {
        self.gap = true;
    }

    fn check_gapless(&self) -> Result<()> {
        if self.gap {
            let message = "the application gave up write() before all of its data was sent";
            return Err(Failure::application(message));
        }
        Ok(())
    }

    /// Fails if a part of the body is missing. Called at the end of the body.
    pub(crate) fn complete(&self) -> Result<()> {
        self.check_gapless()?;
        match self.announced {
            Some(announced) if self.written < announced && !self.has_no_body() => {
                Err(too_short(announced, self.written))
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the client has been sent the whole response: its end adds nothing, and it is so small that the
    /// kernel has taken it.
    pub(crate) fn is_sent(&self) -> bool {
        let is_whole = self.announced == Some(self.written) && !self.has_no_body();
        is_whole && (1..=SMALL as u64).contains(&self.written)
    }

    /// Returns whether the body is not passed to the exchange, as for HEAD. For a status without a body, the
    /// exchange drops it and logs a warning.
    pub(crate) fn omits_body(&self) -> bool {
        self.head_request
    }

    /// Returns whether there is no body, whatever the application sends (RFC 9110 6.4.1).
    fn has_no_body(&self) -> bool {
        self.head_request || self.forbids_body()
    }

    fn forbids_body(&self) -> bool {
        matches!(self.status, 101 | 204 | 304)
    }

    /// Returns whether the response switches protocols and its head has not been passed on.
    pub(crate) fn is_switch(&self) -> bool {
        self.status == 101 && self.phase == Phase::Started
    }
}

/// Maximum length of what is sent with the interpreter's lock: sending it takes less time than a switch of threads.
pub(crate) const SMALL: usize = 16 * 1024;

fn too_short(announced: u64, len: u64) -> Failure {
    Failure::application(format!(
        "the response body is shorter than its Content-Length: {len} of {announced} bytes"
    ))
}

/// Returns whether RFC 9110 5.6.2 permits the byte in a token.
pub(crate) fn is_token(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// Returns whether RFC 9110 5.5 permits the byte in a header value or a reason phrase.
pub(crate) fn is_text(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TEXT != 0
}

/// Returns whether all bytes are in the class. There is no early exit, because nearly always all are.
fn are(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |all, byte| all & CLASSES[usize::from(*byte)]) != 0
}

/// Trims spaces and tabs.
pub(crate) fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(*b, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    &value[start..end]
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

const TOKEN: u8 = 1;
const TEXT: u8 = 2;

/// Classes of each byte value: checking a byte is one lookup.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        let mark = matches!(
            character,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        if mark || character.is_ascii_alphanumeric() {
            classes[byte] |= TOKEN;
        }
        if matches!(character, b'\t' | b' '..=b'~' | 0x80..) {
            classes[byte] |= TEXT;
        }
        byte += 1;
    }
    classes
};

/// Number of response headers that need no allocation.
const HEADERS_USUAL: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_of_bytes_are_those_of_the_rfcs() {
        for byte in 0..=u8::MAX {
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(byte), token, "{byte:#x}");
            let text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            assert_eq!(is_text(byte), text, "{byte:#x}");
        }
    }

    #[test]
    fn a_status_is_three_digits_and_a_reason() {
        let mut response = Response::default();
        assert_eq!(response.set_status("404 Not Found"), Ok(()));
        assert_eq!((response.status, response.reason.as_str()), (404, "Not Found"));
        for bad in ["", "20", "2000", "200\tOK", "100 Continue", "200 O\r\nK", "２00 OK", "+20 OK"]
        {
            assert!(Response::default().set_status(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn headers_that_would_lie_are_refused() {
        let mut response = Response::default();
        assert_eq!(response.add("Content-Length", b" 5 "), Ok(()));
        assert_eq!(response.add("content-length", b"5"), Err(Refused::TwoLengths));
        for (name, value) in [
            ("Content-Length", &b"-1"[..]),
            ("Content-Length", b"+1"),
            ("Content-Length", b""),
            ("X Y", b"1"),
            ("", b"1"),
            ("X", b"a\r\nb"),
            ("X", b"a\0"),
        ] {
            assert!(Response::default().add(name, value).is_err(), "{name}");
        }
    }

    #[test]
    fn a_body_is_as_long_as_was_announced() {
        let mut response = Response::default();
        assert_eq!(response.room(), u64::MAX);
        response.set_status("200 OK").unwrap();
        response.add("Content-Length", b"5").unwrap();
        response.written = 3;
        assert_eq!(response.room(), 2);
        assert!(response.complete().is_err());
        response.written = 5;
        assert_eq!(response.room(), 0);
        assert!(response.complete().is_ok());
        response.head_request = true;
        assert_eq!(response.room(), u64::MAX);
    }
}
