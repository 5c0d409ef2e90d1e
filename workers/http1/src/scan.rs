//! Detects whether the head of a request is complete: line by line as it arrives, scanning each byte once.
//!
//! An invalid line is detected as soon as the line (or too much of it) has arrived, so that a peer that sends
//! garbage, or data without end, is rejected at once and not after a timeout. `head` interprets the headers as a
//! whole.

use super::policy::{LEADING_LINES_MAX, Policy};
use super::reject::Reject;
use super::request_line::RequestLine;
use super::tokens::{is_token_char, is_value_char};

/// Result of [`HeadScan::advance`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// More bytes are needed.
    Incomplete,
    /// The head is complete: parse it.
    Complete,
}

/// Progress of the scan of a request head. Use one per request. The buffer must start with the request's first
/// byte and may only grow between calls.
#[derive(Clone, Default, Debug)]
pub struct HeadScan {
    /// Start of the line that is not complete yet.
    line_start: usize,
    /// End of the range already searched for line ends.
    searched: usize,
    /// Number of empty lines before the request line.
    empty_lines: usize,
    /// Whether the request line has been scanned.
    started: bool,
    /// Number of headers so far.
    fields: usize,
    /// Length of the last header so far, with its line ends: folded lines add up.
    field_len: usize,
}

impl HeadScan {
    /// Creates a scan at the start of a head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether no bytes of a request have arrived, except for empty lines: a connection in this state
    /// is idle, and its client gets no 408 when it is closed.
    pub fn is_idle(&self) -> bool {
        !self.started && self.searched == self.line_start
    }

    /// Returns the number of headers so far.
    pub(super) fn fields(&self) -> usize {
        self.fields
    }

    /// Scans the bytes that have arrived since the previous call.
    pub fn advance(&mut self, buf: &[u8], policy: &Policy) -> Result<Scan, Reject> {
        if self.searched == 0 && is_small_and_whole(buf, policy) {
            return Ok(Scan::Complete);
        }
        self.scan_lines(buf, policy)
    }

    /// Like [`Self::advance`], without the fast path.
    pub(super) fn scan_lines(&mut self, buf: &[u8], policy: &Policy) -> Result<Scan, Reject> {
        while let Some(found) = memchr::memchr(b'\n', buf.get(self.searched..).unwrap_or_default())
        {
            let end = self.searched + found;
            let line = &buf[self.line_start..end];
            self.line_start = end + 1;
            self.searched = end + 1;
            let whole = line.ends_with(b"\r");
            let content = if whole { &line[..line.len() - 1] } else { line };
            let complete = self.line(content, policy)?;
            if !whole {
                return Err(Reject::bad("a line ends with LF alone"));
            }
            if self.searched > policy.head_max() {
                return Err(too_long());
            }
            if complete {
                return Ok(Scan::Complete);
            }
        }
        self.searched = buf.len();
        self.rest(buf.get(self.line_start..).unwrap_or_default(), policy)?;
        if buf.len() > policy.head_max() {
            return Err(too_long());
        }
        Ok(Scan::Incomplete)
    }

    /// Checks a complete line; returns whether it was the last of the head.
    fn line(&mut self, line: &[u8], policy: &Policy) -> Result<bool, Reject> {
        if !self.started {
            if line.is_empty() {
                self.empty_lines += 1;
                return self.empty_lines_allowed().map(|()| false);
            }
            self.limits(line, policy)?;
            self.started = true;
            return RequestLine::parse(line, policy).map(|_| false);
        }
        if line.is_empty() {
            return Ok(true);
        }
        self.limits(line, policy)?;
        if self.continues(line, policy) {
            self.field_len += line.len() + 2;
            return check_value(line).map(|()| false);
        }
        self.fields += 1;
        self.field_len = line.len() + 2;
        check_field(line).map(|()| false)
    }

    /// Checks an incomplete line.
    fn rest(&self, rest: &[u8], policy: &Policy) -> Result<(), Reject> {
        let line = rest.strip_suffix(b"\r").unwrap_or(rest);
        if line.is_empty() { Ok(()) } else { self.limits(line, policy) }
    }

    /// Checks the limits of a complete or incomplete line: a part exceeds a limit only if the whole line
    /// does.
    fn limits(&self, line: &[u8], policy: &Policy) -> Result<(), Reject> {
        if !self.started {
            if !is_token_char(line[0]) {
                return Err(
                    Reject::bad("the request begins with a byte that no method has").with(line)
                );
            }
            if line.len() > policy.line_max() {
                return Err(Reject::new(414, "the request line is longer than limit_request_line"));
            }
            return Ok(());
        }
        let continues = self.continues(line, policy);
        if !continues && self.fields >= policy.limit_request_fields {
            return Err(Reject::new(431, "more fields than limit_request_fields"));
        }
        let before = if continues { self.field_len } else { 0 };
        if before + line.len() + 2 > policy.field_max() {
            return Err(Reject::new(431, "a field is longer than limit_request_field_size"));
        }
        Ok(())
    }

    fn continues(&self, line: &[u8], policy: &Policy) -> bool {
        policy.permit_obsolete_folding && self.fields > 0 && matches!(line[0], b' ' | b'\t')
    }

    fn empty_lines_allowed(&self) -> Result<(), Reject> {
        if self.empty_lines > LEADING_LINES_MAX {
            return Err(Reject::bad("too many empty lines before the request line"));
        }
        Ok(())
    }
}

/// Fast path: the complete head has arrived at once and is too short for any line to exceed a limit. `parse_head`
/// checks its content.
fn is_small_and_whole(buf: &[u8], policy: &Policy) -> bool {
    let most = policy.line_max().min(policy.field_max());
    let ends_here = buf.len() <= most && buf.ends_with(b"\r\n\r\n");
    (ends_here || ends_within(buf, most)) && is_token_char(buf[0])
}

/// Returns whether an empty line is within the limit: a body or another request follows the head.
#[inline(never)]
fn ends_within(buf: &[u8], most: usize) -> bool {
    memchr::memmem::find(&buf[..buf.len().min(most)], b"\r\n\r\n").is_some()
}

/// Checks a header line: `name: value`.
fn check_field(line: &[u8]) -> Result<(), Reject> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(Reject::bad(
            "a field is folded over several lines, or begins with white space",
        ));
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err(Reject::bad("a field has no colon").with(line));
    };
    let name = &line[..colon];
    if name.is_empty() {
        return Err(Reject::bad("a field has no name").with(line));
    }
    if name.ends_with(b" ") || name.ends_with(b"\t") {
        return Err(Reject::bad("white space before the colon of a field").with(line));
    }
    if !name.iter().all(|byte| is_token_char(*byte)) {
        return Err(Reject::bad("a field's name is no token").with(name));
    }
    check_value(&line[colon + 1..])
}

fn check_value(value: &[u8]) -> Result<(), Reject> {
    if value.iter().all(|byte| is_value_char(*byte)) {
        return Ok(());
    }
    Err(Reject::bad("a field's value has a control character"))
}

#[cold]
fn too_long() -> Reject {
    Reject::new(431, "the head is longer than the limits allow together")
}
