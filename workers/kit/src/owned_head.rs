//! A request's head, stored together with the memory that it borrows from.
//!
//! An exchange owns its head, and the head borrows from memory of the same exchange, which the type system cannot
//! express. This is the only place of the kit with an extended lifetime. Three rules keep it sound, in terms of Rust's
//! aliasing models too:
//!
//! - Everything that a head borrows from is in a heap allocation that does not move with its owner, and the owner is a
//!   `Vec` or an `Arc`. A `Box` would not do: moving it invalidates references to its content.
//! - None of these owners is accessed mutably or dropped while the head can be read.
//! - The head is in a `MaybeUninit`: a function that receives an [`OwnedHead`] by value may then free what the head
//!   refers to. Plain references in an argument have to stay valid until the function returns.

use std::mem::MaybeUninit;
use std::sync::Arc;

use worker_api::abi::std_types::{ROption, RSlice, RStr};
use worker_api::raw::TlsProperties;
use worker_api::{Header, RequestHead, TlsFacts};

use crate::buffer;
use crate::vec_pool::VecPool;
use crate::wire::Wire;
use jimu_http1::{Framing, Head, Policy, Reject, parse_head};

/// The head of a request, with everything that it borrows from.
pub(crate) struct OwnedHead {
    /// Always initialized. Borrows from the fields below.
    head: MaybeUninit<RequestHead<'static>>,
    headers: Vec<Header<'static>>,
    _tls: Option<Arc<TlsFacts<'static>>>,
    owned: Owned,
}

/// What a head borrows from: heap allocations that do not move with this value.
pub(crate) struct Owned {
    /// The bytes of the head.
    pub(crate) bytes: Vec<u8>,
    /// The connection's, which has its ends.
    pub(crate) wire: Arc<Wire>,
    /// The TLS session.
    pub(crate) tls: Option<Arc<TlsProperties>>,
}

/// Returns the properties of a session as they are in a head.
fn facts_of(properties: &TlsProperties) -> TlsFacts<'_> {
    TlsFacts {
        protocol: properties.protocol.as_rstr(),
        cipher: properties.cipher.as_rstr(),
        server_name: properties.server_name.as_rstr(),
        client_certificate: properties.client_certificate.as_rslice(),
    }
}

/// What the connection decides about a request, based on its headers and its peer.
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

/// The result of parsing a head.
pub(crate) struct Parsed<T> {
    /// The head.
    pub(crate) head: OwnedHead,
    /// The properties that `look` returned.
    pub(crate) properties: T,
    /// The bytes that follow the head, if any.
    pub(crate) following: Vec<u8>,
}

/// A head that was rejected.
pub(crate) struct Refused {
    /// Why.
    pub(crate) reject: Reject,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl OwnedHead {
    /// Parses `owned.bytes`, which begin with a complete head. `look` is called with the parsed head: it decides what the
    /// application receives, and returns the properties that the connection needs.
    pub(crate) fn parse<T>(
        owned: Owned,
        policy: &Policy,
        look: impl FnOnce(&Head<'_>, &[Header<'_>]) -> Result<(Decision, T), Reject>,
    ) -> Result<Parsed<T>, Box<Refused>> {
        // SAFETY: the vector's allocation stays where it is, unchanged, until `owned` is dropped, which the order of
        // fields puts after `head` and `headers`. References with this lifetime leave `OwnedHead` through `get` only,
        // which shortens it.
        let bytes: &'static [u8] = unsafe { extend_lifetime(owned.bytes.as_slice()) };
        let mut headers = spare();
        let looked = parse_head(bytes, policy, &mut headers).and_then(|head| {
            let head = head.ok_or_else(|| Reject::new(400, "the request's head is incomplete"))?;
            look(&head, &headers).map(|(decision, properties)| (head, decision, properties))
        });
        let (head, decision, properties) = match looked {
            Ok(looked) => looked,
            Err(reject) => return Err(Box::new(Refused { reject, bytes: owned.bytes })),
        };
        let following = bytes[head.len..].to_vec();
        // SAFETY: as above: the vector of headers is not changed while `head` is in use.
        let fields: &'static [Header<'static>] = unsafe { extend_lifetime(headers.as_slice()) };
        // SAFETY: as above: the ends are behind an `Arc` that `owned` holds.
        let ends = unsafe { extend_lifetime(&owned.wire.ends) };
        let tls = owned.tls.as_ref().map(|tls| {
            // SAFETY: as above: the session's properties are behind an `Arc` that `owned` holds.
            Arc::new(facts_of(unsafe { extend_lifetime(&**tls) }))
        });
        // SAFETY: as above: the content of the `Arc` stays where it is until `_tls` is dropped, after `head`.
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
            peer: ends.peer.address(),
            local: ends.local.end.address(),
            tls: facts.into(),
            received_ns: decision.received_ns,
            id: decision.id,
        };
        Ok(Parsed {
            head: Self { head: MaybeUninit::new(head), headers, _tls: tls, owned },
            properties,
            following,
        })
    }

    /// Drops the head, and keeps its buffers for the thread's next one.
    pub(crate) fn recycle(self) {
        let Self { head: _, headers, _tls, owned } = self;
        VecPool::keep(&SPARES, headers, 0..=HEADERS_KEPT_MAX);
        buffer::recycle(owned.bytes);
    }

    /// Returns the head.
    pub(crate) fn get(&self) -> &RequestHead<'_> {
        // SAFETY: it is initialized, and what it borrows from lives as long as `self`.
        unsafe { self.head.assume_init_ref() }
    }
}

/// Returns the same reference with a longer lifetime.
///
/// # Safety
/// The referent is not moved, changed or freed while the result, or a copy of it, is in use.
unsafe fn extend_lifetime<T: ?Sized>(reference: &T) -> &'static T {
    // SAFETY: guaranteed by the caller.
    unsafe { &*std::ptr::from_ref(reference) }
}

/// Returns an empty vector for headers, from the thread's pool if possible.
fn spare() -> Vec<Header<'static>> {
    VecPool::take(&SPARES).unwrap_or_else(|| Vec::with_capacity(HEADERS_USUAL))
}

thread_local! {
    static SPARES: VecPool<Header<'static>> = const { VecPool::new() };
}

/// Vectors with a larger capacity are not kept.
const HEADERS_KEPT_MAX: usize = 64;
/// A capacity that suffices for most requests: a browser sends about a dozen headers.
const HEADERS_USUAL: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ends::{Endpoint, Ends, Local};

    fn owned(bytes: &[u8]) -> Owned {
        let peer = Endpoint { host: "192.0.2.1".into(), port: 7 };
        let end = Endpoint::from_ip("192.0.2.2:80".parse().unwrap());
        let local = Arc::new(Local { end, unix: false, private: false, proxied: false });
        let tls = TlsProperties { protocol: "TLSv1.3".into(), ..TlsProperties::default() };
        Owned {
            bytes: bytes.to_vec(),
            wire: Wire::new(Ends { peer, local }),
            tls: Some(Arc::new(tls)),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Parsed<()>, Box<Refused>> {
        OwnedHead::parse(owned(bytes), &Policy::default(), |_, _| {
            let decision = Decision { scheme: "https", trusted_peer: false, received_ns: 1, id: 1 };
            Ok((decision, ()))
        })
    }

    /// Also a check of the aliasing rules, when run by Miri.
    #[test]
    fn a_head_stays_readable_where_it_is_moved() {
        for _ in 0..2 {
            let parsed = parse(b"GET /a?b HTTP/1.1\r\nHost: c\r\nX-Y: z\r\n\r\nrest").ok().unwrap();
            assert_eq!(parsed.following, b"rest");
            let moved = Box::new((parsed.head, 1)).0;
            let head = moved.get();
            assert_eq!((head.method.as_str(), head.path.as_slice()), ("GET", &b"/a"[..]));
            assert_eq!(head.headers[1].value.as_slice(), b"z");
            assert_eq!((head.peer.host.as_str(), head.peer.port), ("192.0.2.1", 7));
            let protocol = head.tls.into_option().map(|tls| tls.protocol.as_str());
            assert_eq!(protocol, Some("TLSv1.3"));
            moved.recycle();
        }
    }

    #[test]
    fn a_refused_head_gives_its_bytes() {
        let refused = parse(b"GET /a\x00 HTTP/1.1\r\nHost: c\r\n\r\n").err().unwrap();
        assert_eq!(refused.reject.status, 400);
        assert!(refused.bytes.starts_with(b"GET /a"));
    }
}
