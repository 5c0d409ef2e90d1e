//! Requests and responses.

use super::*;

type Headers = Vec<(&'static str, &'static str)>;

const VALID: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Returns the valid headers, one of them replaced or, if its new value is empty, removed; others are added.
fn with(changes: &[(&'static str, &'static str)]) -> Headers {
    let mut headers: Headers = VALID.to_vec();
    for (name, value) in changes {
        match headers.iter_mut().find(|header| header.0 == *name) {
            Some(header) => header.1 = value,
            None => headers.push((name, value)),
        }
    }
    headers.retain(|header| !header.1.is_empty());
    headers
}

fn parse_as(
    method: &'static str,
    http_version: (u8, u8),
    headers: &Headers,
) -> Result<Offer<'static>, Refused> {
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Offer::parse(RequestHead { method: method.as_bytes(), http_version, headers })
}

fn parse(headers: &Headers) -> Result<Offer<'static>, Refused> {
    parse_as("GET", (1, 1), headers)
}

#[test]
fn the_example_of_the_rfc_is_accepted() {
    let offer = parse(&with(&[])).unwrap();
    let accepted = offer.accept(None, Some(DeflatePolicy::default())).unwrap();
    let expected = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];
    let headers: Vec<_> = accepted.headers.iter().map(|(name, value)| (*name, &**value)).collect();
    assert_eq!(headers, expected);
    assert_eq!(accepted.deflate, None);
}

#[test]
fn what_is_valid_in_other_forms() {
    let cases = [
        with(&[("Upgrade", "WebSocket")]),
        with(&[("Upgrade", "h2c, websocket")]),
        with(&[("Connection", "keep-alive, upgrade")]),
        with(&[("Connection", "keep-alive"), ("connection", "Upgrade")]),
        with(&[("Sec-WebSocket-Version", " 13 ")]),
        with(&[("Sec-WebSocket-Extensions", "x-other; a=b")]),
    ];
    for headers in cases {
        assert!(parse(&headers).is_ok(), "{headers:?}");
        let bytes = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        assert!(is_upgrade(bytes), "{headers:?}");
    }
}

#[test]
fn what_is_refused() {
    let cases = [
        (with(&[("Upgrade", "")]), Refused::NotAnUpgrade),
        (with(&[("Upgrade", "h2c")]), Refused::NotAnUpgrade),
        (with(&[("Upgrade", "websocket/1")]), Refused::NotAnUpgrade),
        (with(&[("Connection", "")]), Refused::NotAnUpgrade),
        (with(&[("Connection", "keep-alive")]), Refused::NotAnUpgrade),
        (with(&[("Sec-WebSocket-Version", "")]), Refused::Version),
        (with(&[("Sec-WebSocket-Version", "8")]), Refused::Version),
        (with(&[("Sec-WebSocket-Version", "13, 8")]), Refused::Version),
        (with(&[("sec-websocket-version", "13")]), Refused::Version),
        (with(&[("Sec-WebSocket-Key", "")]), Refused::Key),
        (with(&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j")]), Refused::Key),
        (with(&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")]), Refused::Key),
        (with(&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ!==")]), Refused::Key),
        (with(&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]), Refused::Key),
        (with(&[("Sec-WebSocket-Protocol", "a b")]), Refused::Subprotocol),
        (with(&[("Sec-WebSocket-Protocol", "a, b, a")]), Refused::Subprotocol),
        (with(&[("Sec-WebSocket-Protocol", "积")]), Refused::Subprotocol),
        (with(&[("Sec-WebSocket-Extensions", "a;")]), Refused::Extensions),
    ];
    for (headers, refused) in cases {
        assert_eq!(parse(&headers), Err(refused), "{headers:?}");
    }
}

#[test]
fn methods_and_versions_of_http() {
    assert_eq!(parse_as("POST", (1, 1), &with(&[])), Err(Refused::Method));
    assert_eq!(parse_as("get", (1, 1), &with(&[])), Err(Refused::Method));
    assert_eq!(parse_as("GET", (1, 0), &with(&[])), Err(Refused::HttpVersion));
    assert_eq!(parse_as("GET", (2, 0), &with(&[])), Err(Refused::HttpVersion));
}

#[test]
fn refusals_have_the_status_and_the_headers_that_it_demands() {
    assert_eq!(Refused::Version.status(), 426);
    assert!(Refused::Version.headers().contains(&("Sec-WebSocket-Version", "13")));
    assert!(Refused::NotAnUpgrade.headers().contains(&("Upgrade", "websocket")));
    assert_eq!(
        (Refused::Method.status(), Refused::Method.headers()),
        (405, &[("Allow", "GET")][..])
    );
    assert_eq!((Refused::Key.status(), Refused::Key.headers()), (400, &[][..]));
}

#[test]
fn subprotocols_of_several_lines_in_order() {
    let mut headers = with(&[("Sec-WebSocket-Protocol", "graphql-ws, v2.json")]);
    headers.push(("sec-websocket-protocol", "soap"));
    let offer = parse(&headers).unwrap();
    assert_eq!(offer.subprotocols(), ["graphql-ws", "v2.json", "soap"]);
    let accepted = offer.accept(Some("soap"), None).unwrap();
    assert!(accepted.headers.contains(&("Sec-WebSocket-Protocol", "soap".into())));
    for absent in ["SOAP", "", "x"] {
        assert_eq!(offer.accept(Some(absent), None), Err(SubprotocolNotOffered(absent.to_owned())));
    }
}

#[test]
fn offers_of_several_lines_in_order() {
    let mut headers = with(&[("Sec-WebSocket-Extensions", "x, permessage-deflate; unknown")]);
    headers.push(("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"));
    let offer = parse(&headers).unwrap();
    assert!(offer.has_deflate());
    let policy = DeflatePolicy { client_max_window_bits: 12, ..DeflatePolicy::default() };
    let accepted = offer.accept(None, Some(policy)).unwrap();
    let value = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12";
    assert!(accepted.headers.contains(&("Sec-WebSocket-Extensions", value.into())));
    assert_eq!(accepted.deflate.map(|params| params.client_max_window_bits), Some(12));
    let declined = offer.accept(None, None).unwrap();
    assert_eq!((declined.headers.len(), declined.deflate), (3, None));
}
