//! Values that cross: text, bytes, headers, heads, records and failures, in both directions.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

use worker_api::abi::std_types::{ROption, RSlice, RStr};
use worker_api::{
    AccessRecord, Address, Failure, FailureKind, Header, RequestHead, Result, Step, TlsFacts,
    Version,
};

use crate::tables::{
    Bytes, End, FAILED, FAILURE_TEXT, Head, HeaderLine, LENGTH_UNKNOWN, OK, PENDING, READY,
    RawFailure, Record, Str, Tls,
};

impl Str {
    /// Text for the other side, valid as long as `text` is.
    pub fn of(text: &str) -> Self {
        Self { data: text.as_ptr().cast(), length: text.len() }
    }

    /// Returns the text, or `None` if it is not UTF-8.
    ///
    /// # Safety
    /// The text is valid for `'a`.
    pub unsafe fn text<'a>(self) -> Option<&'a str> {
        let bytes = Bytes { data: self.data.cast(), length: self.length };
        // SAFETY: as the caller promises.
        std::str::from_utf8(unsafe { bytes.slice() }).ok()
    }

    /// Returns the text, with U+FFFD for what is not UTF-8.
    ///
    /// # Safety
    /// The text is valid during the call.
    pub unsafe fn lossy(self) -> String {
        let bytes = Bytes { data: self.data.cast(), length: self.length };
        // SAFETY: as the caller promises.
        String::from_utf8_lossy(unsafe { bytes.slice() }).into_owned()
    }
}

impl Bytes {
    /// Bytes for the other side, valid as long as `bytes` are.
    pub fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }

    /// Returns the bytes; NULL is the empty slice.
    ///
    /// # Safety
    /// They are valid for `'a`.
    pub unsafe fn slice<'a>(self) -> &'a [u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: as the caller promises. Zero bytes are valid at any address but NULL.
        unsafe { slice::from_raw_parts(self.data, self.length) }
    }
}

/// Returns a slice of the other side's; NULL is the empty one.
///
/// # Safety
/// `data` is NULL, or `length` values are valid there for `'a`.
pub unsafe fn slice_of<'a, T>(data: *const T, length: usize) -> &'a [T] {
    if data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: as the caller promises; it is not NULL.
    unsafe { slice::from_raw_parts(data, length) }
}

/// Returns a string of the other side's that ends in NUL, or `None` if it is NULL or not UTF-8.
///
/// # Safety
/// `text` is NULL or a string that ends in NUL and is valid for `'a`.
pub unsafe fn c_text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

impl End {
    fn of(address: Address<'_>) -> Self {
        Self { host: Str::of(address.host.as_str()), port: address.port }
    }

    /// # Safety
    /// The text is valid for `'a`.
    unsafe fn address<'a>(self) -> Option<Address<'a>> {
        // SAFETY: as the caller promises.
        let host = unsafe { self.host.text() }?;
        Some(Address { host: RStr::from_str(host), port: self.port })
    }
}

/// The headers of a request or response for the other side, which are the same in memory.
pub fn header_lines<'a>(headers: &'a [Header<'_>]) -> &'a [HeaderLine] {
    const { assert!(size_of::<Header<'_>>() == size_of::<HeaderLine>()) };
    // SAFETY: both are two pairs of pointer and length: `RStr` and `RSlice` are `repr(C)`, and a test compares their
    // fields. What is valid as a `Header` is valid as a `HeaderLine`.
    unsafe { slice::from_raw_parts(headers.as_ptr().cast(), headers.len()) }
}

/// Converts the other side's headers, and passes them to `with`.
///
/// # Safety
/// `count` headers are valid at `lines` during the call.
pub unsafe fn with_headers<T>(
    lines: *const HeaderLine,
    count: usize,
    with: impl FnOnce(&[Header<'_>]) -> Result<T>,
) -> Result<T> {
    // SAFETY: as the caller promises.
    let lines = unsafe { slice_of(lines, count) };
    let mut inline = [Header::new("", ""); HEADERS_INLINE];
    let mut more = Vec::new();
    let headers = if let Some(place) = inline.get_mut(..lines.len()) {
        place
    } else {
        more.resize(lines.len(), Header::new("", ""));
        &mut more[..]
    };
    for (place, line) in headers.iter_mut().zip(lines) {
        // SAFETY: as the caller promises.
        *place = unsafe { header(line) }
            .ok_or_else(|| Failure::application("the name of a header is not UTF-8"))?;
    }
    with(headers)
}

/// # Safety
/// As many headers are valid there for `'a`.
unsafe fn headers_of<'a>(lines: *const HeaderLine, count: usize) -> Option<Vec<Header<'a>>> {
    // SAFETY: as the caller promises.
    let lines = unsafe { slice_of(lines, count) };
    // SAFETY: see above.
    lines.iter().map(|line| unsafe { header(line) }).collect()
}

/// # Safety
/// The header is valid for `'a`.
unsafe fn header<'a>(line: &HeaderLine) -> Option<Header<'a>> {
    // SAFETY: as the caller promises.
    let (name, value) = unsafe { (line.name.text()?, line.value.slice()) };
    Some(Header { name: RStr::from_str(name), value: RSlice::from_slice(value) })
}

/// A request head in the form of the other side. It refers to itself: [`HeadView::set`] makes it valid where it is.
#[derive(Debug)]
pub struct HeadView {
    head: MaybeUninit<Head>,
    tls: MaybeUninit<Tls>,
}

impl HeadView {
    /// Room for a head.
    pub const fn new() -> Self {
        Self { head: MaybeUninit::uninit(), tls: MaybeUninit::uninit() }
    }

    /// Returns where [`HeadView::set`] has written the head.
    pub fn converted(&self) -> *const Head {
        self.head.as_ptr()
    }

    /// Converts a head. The result is valid as long as `head` is and `self` is neither moved nor set again.
    pub fn set(&mut self, head: &RequestHead<'_>) -> *const Head {
        let tls = match head.tls {
            ROption::RSome(tls) => ptr::from_ref(self.tls.write(Tls {
                protocol: Str::of(tls.protocol.as_str()),
                cipher: Str::of(tls.cipher.as_str()),
                server_name: Str::of(tls.server_name.as_str()),
                client_certificate: Bytes::of(tls.client_certificate.as_slice()),
            })),
            ROption::RNone => ptr::null(),
        };
        let headers = header_lines(head.headers.as_slice());
        self.head.write(Head {
            size: size_of::<Head>() as u32,
            version: head.version.0,
            trusted_peer: head.trusted_peer,
            chunked: head.chunked,
            method: Str::of(head.method.as_str()),
            target: Bytes::of(head.target.as_slice()),
            path: Bytes::of(head.path.as_slice()),
            query: Bytes::of(head.query.as_slice()),
            authority: Str::of(head.authority.as_str()),
            scheme: Str::of(head.scheme.as_str()),
            content_length: match head.content_length {
                ROption::RSome(length) => i64::try_from(length).unwrap_or(i64::MAX),
                ROption::RNone => LENGTH_UNKNOWN,
            },
            headers: headers.as_ptr(),
            header_count: headers.len(),
            peer: End::of(head.peer),
            local: End::of(head.local),
            tls,
            received_ns: head.received_ns,
            id: head.id,
        })
    }
}

impl Default for HeadView {
    fn default() -> Self {
        Self::new()
    }
}

/// A request head of the other side, converted.
#[derive(Debug)]
pub struct OwnedParts<'a> {
    headers: Vec<Header<'a>>,
    tls: Option<TlsFacts<'a>>,
    /// Without headers and TLS session.
    bare: RequestHead<'a>,
}

impl<'a> OwnedParts<'a> {
    /// Converts a head, or names the field that is not UTF-8.
    ///
    /// # Safety
    /// The head and what it refers to are valid for `'a`.
    pub unsafe fn of(head: &'a Head) -> Result<Self, &'static str> {
        // SAFETY: as the caller promises, for this and the next four.
        let text = |text: Str, name| unsafe { text.text() }.map(RStr::from_str).ok_or(name);
        // SAFETY: see above.
        let bytes = |bytes: Bytes| RSlice::from_slice(unsafe { bytes.slice() });
        // SAFETY: see above.
        let headers = unsafe { headers_of(head.headers, head.header_count) }.ok_or("headers")?;
        // SAFETY: see above.
        let (peer, local) = unsafe { (head.peer.address(), head.local.address()) };
        // SAFETY: see above.
        let tls = unsafe { head.tls.as_ref() };
        let tls = tls.map(|tls| {
            Ok::<_, &'static str>(TlsFacts {
                protocol: text(tls.protocol, "tls.protocol")?,
                cipher: text(tls.cipher, "tls.cipher")?,
                server_name: text(tls.server_name, "tls.server_name")?,
                client_certificate: bytes(tls.client_certificate),
            })
        });
        let bare = RequestHead {
            method: text(head.method, "method")?,
            target: bytes(head.target),
            path: bytes(head.path),
            query: bytes(head.query),
            authority: text(head.authority, "authority")?,
            version: Version(head.version),
            trusted_peer: head.trusted_peer,
            chunked: head.chunked,
            content_length: u64::try_from(head.content_length).ok().into(),
            scheme: text(head.scheme, "scheme")?,
            headers: RSlice::EMPTY,
            peer: peer.ok_or("peer.host")?,
            local: local.ok_or("local.host")?,
            tls: ROption::RNone,
            received_ns: head.received_ns,
            id: head.id,
        };
        Ok(Self { headers, tls: tls.transpose()?, bare })
    }

    /// Returns the head.
    pub fn head(&self) -> RequestHead<'_> {
        RequestHead {
            headers: RSlice::from_slice(&self.headers),
            tls: self.tls.as_ref().into(),
            ..self.bare
        }
    }
}

/// Converts a record, and passes it to `with`.
pub fn with_record<T>(record: &AccessRecord<'_>, with: impl FnOnce(*const Record) -> T) -> T {
    let mut view = HeadView::new();
    let head = record.head.into_option().map_or(ptr::null(), |head| view.set(head));
    let headers = header_lines(record.response_headers.as_slice());
    with(&Record {
        size: size_of::<Record>() as u32,
        status: record.status,
        head,
        request_line: Bytes::of(record.request_line.as_slice()),
        peer: End::of(record.peer),
        body_bytes: record.body_bytes,
        duration_ns: record.duration_ns,
        response_headers: headers.as_ptr(),
        response_header_count: headers.len(),
    })
}

/// Converts a record of the other side and passes it to `with`; does nothing if a text in it is not UTF-8.
///
/// # Safety
/// The record is valid during the call.
pub unsafe fn with_record_of(record: &Record, with: impl FnOnce(&AccessRecord<'_>)) {
    // SAFETY: as the caller promises, here and below.
    let parts = unsafe { record.head.as_ref().map(|head| OwnedParts::of(head)) };
    // SAFETY: see above.
    let headers = unsafe { headers_of(record.response_headers, record.response_header_count) };
    // SAFETY: see above.
    let (peer, request_line) = unsafe { (record.peer.address(), record.request_line.slice()) };
    let (Ok(parts), Some(headers), Some(peer)) = (parts.transpose(), headers, peer) else { return };
    let head = parts.as_ref().map(OwnedParts::head);
    with(&AccessRecord {
        head: head.as_ref().into(),
        request_line: RSlice::from_slice(request_line),
        peer,
        status: record.status,
        body_bytes: record.body_bytes,
        duration_ns: record.duration_ns,
        response_headers: RSlice::from_slice(&headers),
    });
}

impl RawFailure {
    /// Reads a failure that the other side has filled in.
    ///
    /// # Safety
    /// `place` is a failure of which as much of the text is written as its `length` says.
    pub unsafe fn read(place: *const Self) -> Failure {
        // SAFETY: as the caller promises; no reference to the part that is not written is made.
        let (kind, status, length, text) = unsafe {
            let length = ((*place).length as usize).min(FAILURE_TEXT);
            let text = slice::from_raw_parts((&raw const (*place).text).cast::<u8>(), length);
            ((*place).kind, (*place).status, length, text)
        };
        let text = String::from_utf8_lossy(text);
        let (message, details) = text.split_once('\n').unwrap_or((&text, ""));
        let message = if length == 0 { "it gave no reason" } else { message };
        let failure = Failure::new(FailureKind(kind), message).with_status(status);
        if details.is_empty() { failure } else { failure.with_detail(details) }
    }

    /// Writes a failure where the other side expects it: the message and its causes of one line in the first line, then those
    /// of several lines (tracebacks), up to the room that there is.
    ///
    /// # Safety
    /// `place` is NULL or memory for a failure.
    pub unsafe fn fill(place: *mut Self, failure: &Failure) {
        if place.is_null() {
            return;
        }
        let text = in_lines(failure);
        let is_end = |length: &usize| text.is_char_boundary(*length);
        let length = (0..=text.len().min(FAILURE_TEXT)).rev().find(is_end).unwrap_or(0);
        // SAFETY: as the caller promises; the fields are written without being read.
        unsafe {
            (&raw mut (*place).kind).write(failure.kind.0);
            (&raw mut (*place).status).write(failure.status);
            (&raw mut (*place).length).write(length as u32);
            ptr::copy_nonoverlapping(text.as_ptr(), (&raw mut (*place).text).cast(), length);
        }
    }

    /// Passes room for a failure to a function of the other side.
    pub fn catch(call: impl FnOnce(*mut Self) -> i32) -> Result<()> {
        Self::catch_step(call).map(drop)
    }

    /// Like [`RawFailure::catch`], with the result if it is not `JIMU_FAILED`.
    pub fn catch_step(call: impl FnOnce(*mut Self) -> i32) -> Result<i32> {
        let mut place = MaybeUninit::<Self>::uninit();
        let raw = place.as_mut_ptr();
        // SAFETY: the fields are in memory of this function. The text is left as it is: `length` of it are read.
        unsafe {
            (&raw mut (*raw).kind).write(0);
            (&raw mut (*raw).status).write(0);
            (&raw mut (*raw).length).write(0);
        }
        match call(raw) {
            FAILED => {
                // SAFETY: the other side has written as much of the text as `length` says.
                Err(unsafe { Self::read(raw) })
            }
            step => Ok(step),
        }
    }
}

/// Returns a failure with its causes: those of one line behind the message, then those of several lines.
fn in_lines(failure: &Failure) -> String {
    let (long, short): (Vec<&str>, Vec<&str>) =
        failure.chain.iter().map(|cause| cause.trim_end()).partition(|cause| cause.contains('\n'));
    let first: Vec<&str> = std::iter::once(failure.message.as_str()).chain(short).collect();
    std::iter::once(first.join(": ").replace('\n', " "))
        .chain(long.into_iter().map(str::to_owned))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns the outcome of a function for the other side, with its failure.
///
/// # Safety
/// `place` is NULL or memory for a failure.
pub unsafe fn outcome(result: Result<()>, place: *mut RawFailure) -> i32 {
    match result {
        Ok(()) => OK,
        Err(failure) => {
            // SAFETY: as the caller promises.
            unsafe { RawFailure::fill(place, &failure) };
            FAILED
        }
    }
}

/// Returns a step for the other side, with the number of bytes or the failure.
///
/// # Safety
/// `done` and `failure` are NULL or memory for what their types say.
pub unsafe fn step_outcome(step: Step, done: *mut usize, failure: *mut RawFailure) -> i32 {
    match step {
        Step::Ready(bytes) => {
            if !done.is_null() {
                // SAFETY: as the caller promises.
                unsafe { done.write(bytes) };
            }
            READY
        }
        Step::Pending => PENDING,
        // SAFETY: as the caller promises.
        Step::Failed(error) => unsafe { outcome(Err(error), failure) },
    }
}

/// As many headers are converted without an allocation.
const HEADERS_INLINE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_the_same_in_memory() {
        let headers = [Header::new("Host", "example.org"), Header::new("X", "")];
        let lines = header_lines(&headers);
        assert_eq!(lines.len(), 2);
        // SAFETY: the lines are those of the headers above.
        let (name, value) = unsafe { (lines[0].name.text(), lines[0].value.slice()) };
        assert_eq!((name, value), (Some("Host"), &b"example.org"[..]));
    }

    #[test]
    fn a_failure_survives_the_way_and_a_long_one_is_cut_at_a_character() {
        let failure = Failure::new(FailureKind::TOO_LARGE, "x".to_owned() + &"é".repeat(3000));
        let back = RawFailure::catch(|place| {
            // SAFETY: `place` is memory for a failure.
            unsafe { outcome(Err(failure.with_status(413)), place) }
        });
        let back = back.unwrap_err();
        assert_eq!((back.kind, back.status), (FailureKind::TOO_LARGE, 413));
        assert_eq!(back.message.len(), 4087);
        assert!(RawFailure::catch(|_| OK).is_ok());
        assert_eq!(RawFailure::catch(|_| FAILED).unwrap_err().message, "it gave no reason");
    }

    #[test]
    fn a_traceback_stays_apart_from_the_message() {
        let failure =
            Failure::application("no answer").with_detail("because").with_detail("a\n b\n");
        let back = RawFailure::catch(|place| {
            // SAFETY: `place` is memory for a failure.
            unsafe { outcome(Err(failure), place) }
        });
        let back = back.unwrap_err();
        assert_eq!((back.message.as_str(), back.chain.len()), ("no answer: because", 1));
        assert_eq!(back.chain[0].as_str(), "a\n b");
    }

    #[test]
    fn null_is_empty() {
        let none = Bytes { data: ptr::null(), length: 7 };
        // SAFETY: NULL is valid.
        let (none, none_text) = unsafe { (none.slice(), c_text(ptr::null())) };
        assert!(none.is_empty());
        assert_eq!(none_text, None);
    }
}
