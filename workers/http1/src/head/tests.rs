//! Limits, strictness by policy, and the meaning of heads; the table of cases covers the rest.

use super::*;
use crate::HeaderMap;

#[test]
fn a_plain_request_is_understood() {
    let mut headers = Vec::new();
    let bytes = b"POST /a?b=c HTTP/1.1\r\nHost: example.org:80\r\nX-Id:  1 \r\nContent-Length: 3\r\n\r\nabc";
    let head = parse_head(bytes, &Policy::default(), &mut headers).unwrap().unwrap();
    assert_eq!(head.len, bytes.len() - 3);
    assert_eq!((head.method, head.path, head.query), ("POST", &b"/a"[..], &b"b=c"[..]));
    assert_eq!(
        (head.authority.as_bytes(), head.framing),
        (&b"example.org:80"[..], Framing::Length(3))
    );
    assert_eq!(headers[1], Header::new("X-Id", "1"));
    assert!(head.persistent());
}

#[test]
fn a_head_that_is_not_whole_is_waited_for() {
    let mut headers = Vec::new();
    let bytes = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for len in 0..bytes.len() {
        let head = parse_head(&bytes[..len], &Policy::default(), &mut headers);
        assert_eq!(head, Ok(None), "{len}");
    }
    assert!(parse_head(bytes, &Policy::default(), &mut headers).unwrap().is_some());
}

fn status(policy: &Policy, bytes: &[u8]) -> Result<(), u16> {
    let whole = parse_head(bytes, policy, &mut Vec::new());
    let scanned = HeadScan::new()
        .advance(bytes, policy)
        .and_then(|_| parse_head(bytes, policy, &mut Vec::new()));
    assert_eq!(whole, scanned);
    whole.map(|head| assert!(head.is_some())).map_err(|reject| reject.status)
}

/// Each limit accepts what just fits, and rejects one more (RFC 9112 3, RFC 6585 5).
#[test]
fn limits_are_exact() {
    let limits = Policy {
        limit_request_line: 20,
        limit_request_fields: 3,
        limit_request_field_size: 14,
        limit_request_body: 10,
        ..Policy::default()
    };
    let line = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 14));
    assert_eq!(status(&limits, line(20).as_bytes()), Ok(()));
    assert_eq!(status(&limits, line(21).as_bytes()), Err(414));
    let field =
        |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - 5));
    assert_eq!(status(&limits, field(14).as_bytes()), Ok(()));
    assert_eq!(status(&limits, field(15).as_bytes()), Err(431));
    let fields =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:\r\n".repeat(count - 1));
    assert_eq!(status(&limits, fields(3).as_bytes()), Ok(()));
    assert_eq!(status(&limits, fields(4).as_bytes()), Err(431));
    let wide = Policy { limit_request_body: 10, ..Policy::default() };
    let body = |len: usize| format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n");
    assert_eq!(status(&wide, body(10).as_bytes()), Ok(()));
    assert_eq!(status(&wide, body(11).as_bytes()), Err(413));
}

#[test]
fn a_limit_is_enforced_before_the_line_ends() {
    let policy = Policy::default();
    for (bytes, status) in [
        (["GET /", &"x".repeat(8190)].concat(), 414),
        (["GET / HTTP/1.1\r\nX: ", &"x".repeat(8190)].concat(), 431),
        (["GET / HTTP/1.1\r\n", &"X:\r\n".repeat(101)].concat(), 431),
    ] {
        let refused = HeadScan::new().advance(bytes.as_bytes(), &policy);
        assert_eq!(refused.map_err(|reject| reject.status), Err(status));
    }
}

#[test]
fn more_fields_than_usual_are_taken_where_the_limit_allows_it() {
    let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(500));
    let policy = Policy { limit_request_fields: 501, ..Policy::default() };
    let mut headers = Vec::new();
    let head = parse_head(bytes.as_bytes(), &policy, &mut headers).unwrap().unwrap();
    assert_eq!((head.len, headers.len()), (bytes.len(), 501));
}

#[test]
fn without_limits_a_head_is_bounded_all_the_same() {
    let policy =
        Policy { limit_request_line: 0, limit_request_fields: usize::MAX, ..Policy::default() };
    assert!(policy.head_max() < 16 << 20);
    assert_eq!(status(&policy, line_of(1 << 20).as_bytes()), Ok(()));
    assert_eq!(status(&policy, line_of((1 << 20) + 1).as_bytes()), Err(414));
}

fn line_of(len: usize) -> String {
    format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 14))
}

#[test]
fn names_with_underscores_by_policy() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\nScript_Name: /a\r\nProxy: p\r\n\r\n";
    let names = |policy: &Policy| {
        let mut headers = Vec::new();
        parse_head(bytes, policy, &mut headers).map_err(|reject| reject.status)?;
        Ok(headers.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(" "))
    };
    let trusted = Policy::default();
    assert_eq!(names(&trusted), Ok("Host Script_Name".to_owned()));
    assert_eq!(names(&trusted.for_strangers()), Ok("Host".to_owned()));
    let dangerous = Policy { header_map: HeaderMap::Dangerous, ..trusted.for_strangers() };
    assert_eq!(names(&dangerous), Ok("Host X_Y Script_Name".to_owned()));
    let refuse = Policy { header_map: HeaderMap::Refuse, ..Policy::default() };
    assert_eq!(names(&refuse), Err(400));
    let any = Policy { forwarder_headers: vec!["*".to_owned()], ..refuse };
    assert_eq!(names(&any), Ok("Host X_Y Script_Name".to_owned()));
}

#[test]
fn unconventional_methods_and_versions_by_policy() {
    let policy = Policy {
        permit_unconventional_http_method: true,
        permit_unconventional_http_version: true,
        ..Policy::default()
    };
    for line in ["g / HTTP/1.1", "get# / HTTP/1.1", "GET / HTTP/2.0", "GET / HTTP/0.9"] {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(status(&policy, bytes.as_bytes()), Ok(()), "{line}");
    }
    for line in ["g(t / HTTP/1.1", "GET / HTTP/1.10", "GET / http/1.1"] {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(status(&policy, bytes.as_bytes()), Err(400), "{line}");
    }
}

/// RFC 9112 5.2: a fold becomes spaces; the length of the head does not change.
#[test]
fn folded_fields_are_unfolded_in_place() {
    let policy = Policy { permit_obsolete_folding: true, ..Policy::default() };
    let mut bytes =
        b"GET / HTTP/1.1\r\nHost: a\r\nX: one\r\n two\r\n\tthree\r\nY:\r\n z\r\n\r\n\r\n body"
            .to_vec();
    assert_eq!(HeadScan::new().advance(&bytes, &policy), Ok(Scan::Complete));
    assert!(parse_head(&bytes, &policy, &mut Vec::new()).is_err(), "without normalize");
    let before = bytes.len();
    normalize(&mut bytes, &policy);
    let mut headers = Vec::new();
    let head = parse_head(&bytes, &policy, &mut headers).unwrap().unwrap();
    assert_eq!(bytes.len(), before);
    assert_eq!(&bytes[head.len..], b"\r\n body");
    assert_eq!(headers[1], Header::new("X", "one   two  \tthree"));
    assert_eq!(headers[2], Header::new("Y", "z"));
}

#[test]
fn a_fold_before_the_first_field_is_never_taken() {
    let policy = Policy { permit_obsolete_folding: true, ..Policy::default() };
    assert_eq!(status(&policy, b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n"), Err(400));
}

#[test]
fn methods_are_turned_into_upper_case_by_policy() {
    let policy = Policy {
        casefold_http_method: true,
        permit_unconventional_http_method: true,
        ..Policy::default()
    };
    let mut bytes = b"\r\n-blargh /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    assert!(policy.rewrites());
    normalize(&mut bytes, &policy);
    let head = parse_head(&bytes, &policy, &mut Vec::new()).unwrap().unwrap();
    assert_eq!((head.method, head.path), ("-BLARGH", &b"/a"[..]));
}

#[test]
fn paths_and_queries_by_the_form_of_the_target() {
    for (method, target, path, query, scheme) in [
        ("GET", "/a?b?c#d", "/a", "b?c", None),
        ("GET", "/a#b?c", "/a", "", None),
        ("GET", "http://b", "/", "", Some("http")),
        ("GET", "HTTPS://b?c", "/", "c", Some("https")),
        ("GET", "http://b/a?c#d", "/a", "c", Some("http")),
        ("OPTIONS", "*", "*", "", None),
        ("OPTIONS", "http://b", "*", "", Some("http")),
        ("OPTIONS", "http://b/", "/", "", Some("http")),
        ("CONNECT", "b:1", "", "", None),
    ] {
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut headers = Vec::new();
        let head = parse_head(bytes.as_bytes(), &Policy::default(), &mut headers).unwrap().unwrap();
        assert_eq!((head.path, head.query), (path.as_bytes(), query.as_bytes()), "{target}");
        assert_eq!((head.target, head.absolute_scheme), (target.as_bytes(), scheme), "{target}");
    }
}

#[test]
fn a_client_waits_for_100_only_before_a_body() {
    for (version, fields, waits) in [
        ("1.1", "Expect: 100-continue\r\nContent-Length: 5", true),
        ("1.1", "expect: 100-Continue\r\nTransfer-Encoding: chunked", true),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 0", false),
        ("1.1", "Expect: 100-continue", false),
        ("1.0", "Expect: 100-continue\r\nContent-Length: 5", false),
        ("1.1", "Content-Length: 5", false),
    ] {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
        let head = parse_head(bytes.as_bytes(), &Policy::default(), &mut Vec::new())
            .unwrap()
            .unwrap()
            .expect_continue;
        assert_eq!(head, waits, "{version} {fields}");
    }
}

#[test]
fn an_upgrade_is_asked_for_by_two_fields_in_http_1_1() {
    for (version, fields, asked) in [
        ("1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket", true),
        ("1.1", "Connection: upgrade", false),
        ("1.1", "Upgrade: websocket", false),
        ("1.0", "Connection: upgrade\r\nUpgrade: websocket", false),
    ] {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
        let head = parse_head(bytes.as_bytes(), &Policy::default(), &mut Vec::new())
            .unwrap()
            .unwrap()
            .connection;
        assert_eq!(head.upgrade, asked, "{version} {fields}");
    }
}

/// The work on a head that arrives byte by byte grows with its length, not with its square.
#[test]
fn what_was_looked_at_is_not_looked_at_again() {
    let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(99)).into_bytes();
    let mut scan = HeadScan::new();
    for len in 1..bytes.len() {
        assert_eq!(scan.advance(&bytes[..len], &Policy::default()), Ok(Scan::Incomplete), "{len}");
    }
    // Everything before the last line is corrupted: a second scan would reject it.
    let len = bytes.len();
    let mut spoilt = vec![0; len - 2];
    spoilt.extend_from_slice(&bytes[len - 2..]);
    assert_eq!(scan.advance(&spoilt, &Policy::default()), Ok(Scan::Complete));
}
