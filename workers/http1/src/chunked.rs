//! The chunked transfer coding, byte by byte (RFC 9112 7.1): sizes, extensions and trailers are checked, counted
//! and dropped; nothing is buffered.

use super::decoded::Decoded;
use super::policy::Policy;
use super::reject::Reject;
use super::tokens::{is_token_char, is_value_char};

/// State of the decoder in a chunked body.
#[derive(Clone, Debug)]
pub(super) struct Chunked {
    state: State,
    /// Size of the chunk while it is read, then the number of data bytes left.
    size: u64,
    /// Number of data bytes in all chunks so far.
    total: u64,
    /// Number of bytes of the current line.
    line: usize,
    /// Number of bytes in size lines beyond those that sizes need.
    overhead: u64,
    /// Number of trailer fields so far.
    trailers: usize,
    /// Start of the current trailer's name, in lower case.
    name: [u8; NAME_SHOWN],
    line_max: usize,
    trailers_max: usize,
    body_max: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before the first digit of a size.
    SizeStart,
    Size,
    /// White space after a size or an extension: only another extension may follow.
    BeforeSemicolon,
    ExtStart,
    ExtName,
    /// White space after the name of an extension: `=` or another extension may follow.
    AfterExtName,
    ExtValueStart,
    ExtValue,
    ExtQuoted,
    ExtQuotedPair,
    ExtQuotedEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed,
}

impl Chunked {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            state: State::SizeStart,
            size: 0,
            total: 0,
            line: 0,
            overhead: 0,
            trailers: 0,
            name: [0; NAME_SHOWN],
            line_max: policy.field_max(),
            trailers_max: policy.limit_request_fields,
            body_max: if policy.limit_request_body == 0 {
                u64::MAX
            } else {
                policy.limit_request_body
            },
        }
    }

    pub(super) fn decode(&mut self, input: &[u8]) -> Result<Decoded, Reject> {
        let mut at = 0;
        loop {
            if self.state == State::Data {
                let len = (input.len() - at).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= len as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Decoded { consumed: at + len, data: at..at + len, done: false });
            }
            if self.state == State::Done || at == input.len() {
                return Ok(Decoded { consumed: at, data: at..at, done: self.is_done() });
            }
            match self.step(input[at]) {
                Ok(state) => self.state = state,
                Err(reject) => {
                    self.state = State::Failed;
                    return Err(reject);
                }
            }
            at += 1;
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn remaining_hint(&self) -> Option<u64> {
        match self.state {
            State::Data => Some(self.size),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Processes one byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Reject> {
        self.count()?;
        match self.state {
            State::SizeStart | State::Size => self.size(byte),
            State::BeforeSemicolon
            | State::ExtStart
            | State::ExtName
            | State::AfterExtName
            | State::ExtValueStart
            | State::ExtValue
            | State::ExtQuoted
            | State::ExtQuotedPair
            | State::ExtQuotedEnd => extension(self.state, byte),
            State::SizeLf => self.size_line_end(byte),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => {
                self.line = 0;
                Ok(State::SizeStart)
            }
            State::DataCr | State::DataLf => {
                Err(Reject::bad("a chunk's data does not end with CRLF"))
            }
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.trailer(byte)
            }
            State::EndLf if byte == b'\n' => Ok(State::Done),
            State::EndLf => Err(Reject::bad("the body does not end with CRLF")),
            State::Failed => Err(Reject::bad("the body was malformed before")),
            State::Data | State::Done => Ok(self.state),
        }
    }

    /// Counts a byte of the current line against the limits.
    fn count(&mut self) -> Result<(), Reject> {
        self.line += 1;
        let trailer = matches!(
            self.state,
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf
        );
        if self.line > self.line_max {
            let status = if trailer { 431 } else { 400 };
            return Err(Reject::new(
                status,
                "a line of the chunked coding is longer than limit_request_field_size",
            ));
        }
        if self.line > SIZE_LINE_FREE && !trailer {
            self.overhead += 1;
            if self.overhead > OVERHEAD_FREE.saturating_add(self.total) {
                return Err(Reject::bad("more bytes of chunk extensions than of data"));
            }
        }
        Ok(())
    }

    fn size(&mut self, byte: u8) -> Result<State, Reject> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if self.state == State::SizeStart {
                self.size = 0;
            }
            if self.size > SIZE_MAX >> 4 {
                return Err(Reject::bad("a chunk size is beyond all bounds"));
            }
            self.size = self.size << 4 | u64::from(digit);
            return Ok(State::Size);
        }
        match byte {
            _ if self.state == State::SizeStart => Err(Reject::bad("a chunk has no size")),
            b'\r' => Ok(State::SizeLf),
            b';' => Ok(State::ExtStart),
            b' ' | b'\t' => Ok(State::BeforeSemicolon),
            _ => Err(Reject::bad("a chunk size is no hexadecimal number")),
        }
    }

    fn size_line_end(&mut self, byte: u8) -> Result<State, Reject> {
        if byte != b'\n' {
            return Err(Reject::bad("a chunk size does not end with CRLF"));
        }
        self.line = 0;
        if self.size == 0 {
            return Ok(State::TrailerStart);
        }
        self.total = self.total.saturating_add(self.size);
        if self.total > self.body_max {
            return Err(Reject::new(413, "the body is longer than limit_request_body"));
        }
        Ok(State::Data)
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Reject> {
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, _) if is_token_char(byte) => {
                self.trailers += 1;
                if self.trailers > self.trailers_max {
                    return Err(Reject::new(431, "more trailer fields than limit_request_fields"));
                }
                self.name = [0; NAME_SHOWN];
                self.name[0] = byte.to_ascii_lowercase();
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => self.check_trailer_name(),
            (State::TrailerName, _) if is_token_char(byte) => {
                if let Some(place) = self.name.get_mut(self.line - 1) {
                    *place = byte.to_ascii_lowercase();
                }
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_value_char(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => {
                self.line = 0;
                Ok(State::TrailerStart)
            }
            _ => Err(Reject::bad("a trailer field is malformed")),
        }
    }

    fn check_trailer_name(&self) -> Result<State, Reject> {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_SHOWN);
        if TRAILERS_REFUSED.iter().any(|name| name.as_bytes() == &self.name[..len]) {
            return Err(Reject::bad("a field that may not be a trailer").with(&self.name[..len]));
        }
        Ok(State::TrailerValue)
    }
}

/// Processes one byte inside the extensions of a chunk (RFC 9112 7.1.1).
fn extension(state: State, byte: u8) -> Result<State, Reject> {
    let blank = matches!(byte, b' ' | b'\t');
    let token = is_token_char(byte);
    match (state, byte) {
        (State::ExtQuoted, b'"') => Ok(State::ExtQuotedEnd),
        (State::ExtQuoted, b'\\') => Ok(State::ExtQuotedPair),
        (State::ExtQuoted | State::ExtQuotedPair, _) if is_value_char(byte) => Ok(State::ExtQuoted),
        (State::ExtStart | State::ExtName, _) if token => Ok(State::ExtName),
        (State::ExtValueStart | State::ExtValue, _) if token => Ok(State::ExtValue),
        (State::ExtValueStart, b'"') => Ok(State::ExtQuoted),
        (State::ExtName | State::AfterExtName, b'=') => Ok(State::ExtValueStart),
        (State::ExtName | State::ExtValue | State::ExtQuotedEnd, b'\r') => Ok(State::SizeLf),
        (
            State::ExtStart | State::ExtValueStart | State::BeforeSemicolon | State::AfterExtName,
            _,
        ) if blank => Ok(state),
        (State::ExtName, _) if blank => Ok(State::AfterExtName),
        (State::ExtValue | State::ExtQuotedEnd, _) if blank => Ok(State::BeforeSemicolon),
        (
            State::BeforeSemicolon
            | State::ExtName
            | State::AfterExtName
            | State::ExtValue
            | State::ExtQuotedEnd,
            b';',
        ) => Ok(State::ExtStart),
        _ => Err(Reject::bad("a chunk extension is malformed")),
    }
}

/// Fields that frame, route or authenticate a message: as trailers they can only be an attack (RFC 9110 6.5.1).
/// All other trailers are checked and dropped.
const TRAILERS_REFUSED: [&str; 7] =
    ["authorization", "connection", "content-length", "host", "te", "trailer", "transfer-encoding"];
/// One more than the length of the longest name in [`TRAILERS_REFUSED`], so that a longer name cannot match one
/// of them.
const NAME_SHOWN: usize = 18;
/// Maximum size of a chunk: sums of sizes stay far within 64 bits.
const SIZE_MAX: u64 = i64::MAX as u64;
/// Bytes of a size line that are not counted as overhead: sixteen digits and the line end.
const SIZE_LINE_FREE: usize = 18;
/// Bytes of extensions that any body may have; beyond that, as many as data bytes (compare CVE-2023-39326).
const OVERHEAD_FREE: u64 = 16 * 1024;
