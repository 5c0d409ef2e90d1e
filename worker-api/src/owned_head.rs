//! A request's head together with the memory that it borrows from, for a worker class that makes exchanges itself.
//!
//! An exchange returns its head by reference, and a head borrows from the bytes of the connection, which usually belong
//! to the same exchange. The type system cannot express that. This module is the only place of the crate with an extended
//! lifetime, and three rules keep it sound:
//!
//! - Everything that the head borrows from is behind an `Arc`, whose content does not move with its owner. A `Box` would
//!   not do: moving it invalidates references to its content.
//! - Nothing mutates that content, and it is freed only together with the head.
//! - The head is in a `MaybeUninit`: a function that receives an [`OwnedHead`] by value may then free what the head refers
//!   to. A plain reference in an argument has to stay valid until the function returns.

use std::mem::MaybeUninit;
use std::sync::Arc;

use abi_stable::std_types::{ROption, RSlice, RStr};

use crate::head::{Address, Header, RequestHead, TlsFacts};

/// A copy of a request's head that owns what it refers to.
///
/// [`crate::raw::RawExchange::head`] returns a reference, so an exchange must own its head. Parse the head as borrowed from
/// the connection's buffer, copy it with [`OwnedHead::new`], and return [`OwnedHead::get`].
///
/// ```
/// use worker_api::{OwnedHead, RequestHead, testing::Request};
///
/// struct MyExchange {
///     head: OwnedHead,
/// }
///
/// impl MyExchange {
///     fn head(&self) -> &RequestHead<'_> {
///         self.head.get()
///     }
/// }
///
/// # let (parsed, _) = Request::get("/hello?to=you").exchange();
/// # let parsed = parsed.head();
/// let exchange = MyExchange { head: OwnedHead::new(parsed) };
/// assert_eq!(exchange.head().path_str(), "/hello");
/// ```
#[derive(Clone)]
pub struct OwnedHead {
    /// Always initialized. Borrows from the fields below.
    head: MaybeUninit<RequestHead<'static>>,
    _tls: Option<Arc<TlsFacts<'static>>>,
    _headers: Arc<[Header<'static>]>,
    _bytes: Arc<[u8]>,
}

impl OwnedHead {
    /// Copies a head. It takes two allocations, and one more with TLS.
    pub fn new(head: &RequestHead<'_>) -> Self {
        let bytes: Arc<[u8]> = collect(head).into();
        // SAFETY: the content of the `Arc` stays where it is, unchanged, until `_bytes` of this value and of its clones is
        // dropped, together with `head`. References with this lifetime leave `OwnedHead` through `get` only, which
        // shortens it.
        let mut copies = Copies(unsafe { extend_lifetime(&*bytes) });
        let headers: Arc<[Header<'static>]> =
            head.headers.iter().map(|header| copies.header(header)).collect();
        let tls = head.tls.into_option().map(|facts| Arc::new(copies.facts(facts)));
        let head = RequestHead {
            method: copies.text(head.method),
            target: copies.bytes(head.target),
            path: copies.bytes(head.path),
            query: copies.bytes(head.query),
            authority: copies.text(head.authority),
            scheme: copies.text(head.scheme),
            peer: copies.address(head.peer),
            local: copies.address(head.local),
            // SAFETY: as above, for `_headers`.
            headers: RSlice::from_slice(unsafe { extend_lifetime(&*headers) }),
            // SAFETY: as above, for `_tls`.
            tls: tls.as_ref().map(|facts| unsafe { extend_lifetime(&**facts) }).into(),
            version: head.version,
            trusted_peer: head.trusted_peer,
            chunked: head.chunked,
            content_length: head.content_length,
            received_ns: head.received_ns,
            id: head.id,
        };
        Self { head: MaybeUninit::new(head), _tls: tls, _headers: headers, _bytes: bytes }
    }

    /// Returns the head.
    pub fn get(&self) -> &RequestHead<'_> {
        // SAFETY: every constructor initializes it.
        unsafe { self.head.assume_init_ref() }
    }
}

impl std::fmt::Debug for OwnedHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// Returns all text of a head, in the order in which [`Copies`] takes it.
fn collect(head: &RequestHead<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for header in head.headers {
        bytes.extend_from_slice(header.name.as_bytes());
        bytes.extend_from_slice(header.value.as_slice());
    }
    if let ROption::RSome(facts) = head.tls {
        for text in [facts.protocol, facts.cipher, facts.server_name] {
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(facts.client_certificate.as_slice());
    }
    bytes.extend_from_slice(head.method.as_bytes());
    for part in [head.target, head.path, head.query] {
        bytes.extend_from_slice(part.as_slice());
    }
    for text in [head.authority, head.scheme, head.peer.host, head.local.host] {
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The rest of the copied bytes. Each method takes as many as its argument has, which are equal to them.
struct Copies(&'static [u8]);

impl Copies {
    fn bytes(&mut self, original: RSlice<'_, u8>) -> RSlice<'static, u8> {
        let (copy, rest) = self.0.split_at(original.len());
        self.0 = rest;
        RSlice::from_slice(copy)
    }

    fn text(&mut self, original: RStr<'_>) -> RStr<'static> {
        let (copy, rest) = self.0.split_at(original.len());
        self.0 = rest;
        std::str::from_utf8(copy).expect("the copy of a text is a text").into()
    }

    fn header(&mut self, original: &Header<'_>) -> Header<'static> {
        Header { name: self.text(original.name), value: self.bytes(original.value) }
    }

    fn facts(&mut self, original: &TlsFacts<'_>) -> TlsFacts<'static> {
        TlsFacts {
            protocol: self.text(original.protocol),
            cipher: self.text(original.cipher),
            server_name: self.text(original.server_name),
            client_certificate: self.bytes(original.client_certificate),
        }
    }

    fn address(&mut self, original: Address<'_>) -> Address<'static> {
        Address { host: self.text(original.host), port: original.port }
    }
}

/// # Safety
/// The caller must not use the result after the referent is freed, moved or changed.
unsafe fn extend_lifetime<T: ?Sized>(reference: &T) -> &'static T {
    // SAFETY: by the contract of this function.
    unsafe { &*std::ptr::from_ref(reference) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Version;

    #[test]
    fn a_copy_outlives_its_original_and_its_clones() {
        let copy = {
            let target = "/a?b".to_owned();
            let name = "Host".to_owned();
            let headers = [Header::new(&name, "localhost"), Header::new("X", "")];
            let facts = TlsFacts {
                protocol: "TLSv1.3".into(),
                cipher: "TLS_AES_128_GCM_SHA256".into(),
                server_name: "localhost".into(),
                client_certificate: b"der".as_slice().into(),
            };
            let head = RequestHead {
                method: "GET".into(),
                target: target.as_bytes().into(),
                path: target.as_bytes()[..2].into(),
                query: target.as_bytes()[3..].into(),
                authority: "localhost".into(),
                version: Version::HTTP_11,
                trusted_peer: true,
                chunked: false,
                content_length: ROption::RSome(3),
                scheme: "https".into(),
                headers: RSlice::from_slice(&headers),
                peer: Address { host: "192.0.2.7".into(), port: 1 },
                local: Address { host: "127.0.0.1".into(), port: 2 },
                tls: ROption::RSome(&facts),
                received_ns: 5,
                id: 6,
            };
            let first = OwnedHead::new(&head);
            assert_eq!(format!("{first:?}"), format!("{head:?}"));
            first.clone()
        };
        let moved = std::thread::spawn(move || {
            let head = copy.get();
            assert_eq!((head.path_str(), head.header("host")), ("/a", Some(&b"localhost"[..])));
            assert_eq!((head.peer.host.as_str(), head.local.port), ("192.0.2.7", 2));
            let facts = head.tls.into_option().expect("the original has TLS");
            assert_eq!(facts.client_certificate.as_slice(), b"der");
            copy
        });
        drop(moved.join().expect("the thread does not panic"));
    }
}
