//! A request's head, kept beside the bytes that it points into.
//!
//! The only place of the kit where a lifetime is left out of sight: an exchange owns its head, and the head borrows
//! from memory of the same exchange.

use std::sync::Arc;

use worker_api::abi::std_types::{ROption, RSlice, RStr};
use worker_api::{Header, RequestHead, TlsFacts};

use crate::buffer;
use crate::socket::{Endpoint, Local};
use crate::vec_pool::VecPool;
use http1::{Framing, Head, Policy, Reject, parse_head};

/// The head of a request with everything that it borrows from.
pub(crate) struct OwnedHead {
    // Borrows from all that stands below it, none of which is changed or given away before this is dropped.
    head: RequestHead<'static>,
    _headers: Vec<Header<'static>>,
    _tls: Option<Box<TlsFacts<'static>>>,
    _owned: Owned,
}

/// What a head borrows from: blocks of memory whose place does not change when this is moved.
pub(crate) struct Owned {
    /// The bytes of the head.
    pub(crate) bytes: Vec<u8>,
    /// The client's end.
    pub(crate) peer: Arc<Endpoint>,
    /// The server's end.
    pub(crate) local: Arc<Local>,
    /// The TLS session.
    pub(crate) tls: Option<Arc<TlsInfo>>,
}

/// What is known of a connection's TLS session, for as long as it lasts.
#[derive(Debug, Default)]
pub struct TlsInfo {
    /// See [`TlsFacts`].
    pub protocol: String,
    /// See [`TlsFacts`].
    pub cipher: String,
    /// See [`TlsFacts`].
    pub server_name: String,
    /// See [`TlsFacts`].
    pub client_certificate: Vec<u8>,
}

impl TlsInfo {
    fn facts(&self) -> TlsFacts<'_> {
        TlsFacts {
            protocol: self.protocol.as_str().into(),
            cipher: self.cipher.as_str().into(),
            server_name: self.server_name.as_str().into(),
            client_certificate: self.client_certificate.as_slice().into(),
        }
    }
}

/// What the connection decides about a request, from its fields and from who sent it.
pub(crate) struct Decision {
    /// See [`RequestHead::scheme`].
    pub(crate) scheme: &'static str,
    /// See [`RequestHead::trusted_peer`].
    pub(crate) trusted_peer: bool,
    /// See [`RequestHead::received_ns`].
    pub(crate) received_ns: u64,
    /// See [`RequestHead::id`].
    pub(crate) id: u64,
}

/// What the connection itself needs to know of a head, once it is kept.
pub(crate) struct Parsed<T> {
    /// The head.
    pub(crate) head: OwnedHead,
    /// What `look` made of the parser's answer.
    pub(crate) seen: T,
    /// The bytes behind the head, if any.
    pub(crate) behind: Vec<u8>,
}

/// A head that was not taken.
pub(crate) struct Refused {
    /// Why.
    pub(crate) reject: Reject,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl OwnedHead {
    /// Parses `owned.bytes`, which begin with a whole head, and keeps the result. `look` sees the head once: it decides what
    /// the application is told, and takes what the connection needs.
    pub(crate) fn parse<T>(
        owned: Owned,
        policy: &Policy,
        look: impl FnOnce(&Head<'_>, &[Header<'_>]) -> Result<(Decision, T), Reject>,
    ) -> Result<Parsed<T>, Box<Refused>> {
        // SAFETY: the vector's block of memory stays where it is, unchanged, until `_owned` is dropped, which the
        // order of fields puts after `head` and `_headers`; and no reference of this lifetime leaves `OwnedHead` but
        // through `get`, which shortens it.
        let bytes: &'static [u8] = unsafe { extend_lifetime(owned.bytes.as_slice()) };
        let mut headers = spare();
        let looked = parse_head(bytes, policy, &mut headers).and_then(|head| {
            let head = head.ok_or_else(|| Reject::new(400, "the request's head has no end"))?;
            look(&head, &headers).map(|(decision, seen)| (head, decision, seen))
        });
        let (head, decision, seen) = match looked {
            Ok(looked) => looked,
            Err(reject) => return Err(Box::new(Refused { reject, bytes: owned.bytes })),
        };
        let behind = bytes[head.len..].to_vec();
        // SAFETY: as above: the vector of headers is not touched any more while `head` lives.
        let fields: &'static [Header<'static>] = unsafe { extend_lifetime(headers.as_slice()) };
        // SAFETY: as above: the ends of the connection are behind an `Arc` that `_owned` holds.
        let (peer, local) =
            unsafe { (extend_lifetime(&*owned.peer), extend_lifetime(&*owned.local)) };
        let tls = owned.tls.as_ref().map(|tls| {
            // SAFETY: as above: the session's facts are behind an `Arc` that `_owned` holds.
            Box::new(unsafe { extend_lifetime(&**tls) }.facts())
        });
        // SAFETY: as above: the box's content stays where it is until `_tls` is dropped, after `head`.
        let facts = tls.as_ref().map(|facts| unsafe { extend_lifetime(&**facts) });
        // SAFETY: an authority is ASCII, so it is UTF-8.
        let authority = unsafe { str::from_utf8_unchecked(head.authority.as_bytes()) };
        let head = RequestHead {
            method: head.method.into(),
            target: head.target.into(),
            path: head.path.into(),
            query: head.query.into(),
            authority: authority.into(),
            version: head.version,
            trusted_peer: decision.trusted_peer,
            chunked: head.framing == Framing::Chunked,
            content_length: match head.framing {
                Framing::None => ROption::RSome(0),
                Framing::Length(length) => ROption::RSome(length),
                Framing::Chunked => ROption::RNone,
            },
            scheme: RStr::from_str(decision.scheme),
            headers: RSlice::from_slice(fields),
            peer: peer.address(),
            local: local.end.address(),
            tls: facts.into(),
            received_ns: decision.received_ns,
            id: decision.id,
        };
        Ok(Parsed {
            head: Self { head, _headers: headers, _tls: tls, _owned: owned },
            seen,
            behind,
        })
    }

    /// Ends it, and keeps its memory for the thread's next one.
    pub(crate) fn recycle(self) {
        let Self { head: _, _headers: headers, _tls, _owned: owned } = self;
        VecPool::keep(&SPARES, headers, 0..=HEADERS_KEPT_MAX);
        buffer::give_back(owned.bytes);
    }

    /// The head, for as long as it is kept.
    pub(crate) fn get(&self) -> &RequestHead<'_> {
        &self.head
    }
}

/// The same reference with a lifetime that the caller vouches for.
///
/// # Safety
/// What it points to is neither moved, changed nor freed while the result, or a copy of it, is in use.
unsafe fn extend_lifetime<T: ?Sized>(reference: &T) -> &'static T {
    // SAFETY: the caller's promise.
    unsafe { &*std::ptr::from_ref(reference) }
}

/// Room for the fields of a head: such as the thread has had in use before, where there is some.
fn spare() -> Vec<Header<'static>> {
    VecPool::take(&SPARES).unwrap_or_else(|| Vec::with_capacity(HEADERS_USUAL))
}

thread_local! {
    static SPARES: VecPool<Header<'static>> = const { VecPool::new() };
}

/// Room for more fields than this is not kept.
const HEADERS_KEPT_MAX: usize = 64;
/// Room for the fields of most requests: a browser sends about a dozen.
const HEADERS_USUAL: usize = 16;
