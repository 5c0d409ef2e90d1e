//! The bytes sent for the headers of an application.

use super::*;

const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

fn ctx() -> ResponseContext<'static> {
    ResponseContext { keep_alive: true, ..ResponseContext::refusal(Some("jimu"), DATE) }
}

fn encode(
    ctx: &ResponseContext<'_>,
    status: u16,
    headers: &[Header<'_>],
) -> Result<(String, BodyPlan), HeaderFault> {
    let mut out = b"before ".to_vec();
    let plan = encode_head(&mut out, ctx, status, "", headers);
    if plan.is_err() {
        assert_eq!(out, b"before ", "something was written in spite of a fault");
    }
    Ok((String::from_utf8(out).unwrap().split_off(7), plan?))
}

#[test]
fn a_head_has_the_fields_of_server_and_application() {
    let headers = [Header::new("X-Id", " 1\t"), Header::new("Content-Length", "3")];
    let (text, plan) = encode(&ctx(), 200, &headers).unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\nServer: jimu\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Connection: keep-alive\r\nX-Id: 1\r\nContent-Length: 3\r\n\r\n"
    );
    let kind = BodyKind::Length(3);
    assert_eq!(plan, BodyPlan { kind, keep_alive: true, connection_at: 75, ..BodyPlan::NONE });
}

#[test]
fn an_encoded_head_can_still_announce_a_close() {
    let headers = [Header::new("X-Said", "Connection: keep-alive"), Header::new("Upgrade", "h2c")];
    let quiet = ResponseStyle { says_keep_alive: false, ..ResponseStyle::GUNICORN };
    for style in [ResponseStyle::GUNICORN, quiet] {
        for status in [200, 426] {
            let mut kept = Vec::new();
            let ctx = ResponseContext { style, ..ctx() };
            let mut plan = encode_head(&mut kept, &ctx, status, "", &headers).unwrap();
            let mut closing = Vec::new();
            let ctx = ResponseContext { keep_alive: false, ..ctx };
            encode_head(&mut closing, &ctx, status, "", &headers).unwrap();
            for _ in 0..2 {
                plan.announce_close(&mut kept);
                assert_eq!(kept.escape_ascii().to_string(), closing.escape_ascii().to_string());
                assert!(!plan.keep_alive);
            }
        }
    }
}

#[test]
fn a_reason_phrase_goes_out_as_latin_1() {
    let mut out = Vec::new();
    encode_head(&mut out, &ctx(), 200, "Sch\u{f6}n", &[]).unwrap();
    assert!(out.starts_with(b"HTTP/1.1 200 Sch\xf6n\r\n"), "{}", out.escape_ascii());
}

#[test]
fn what_the_application_says_of_date_and_server_holds() {
    let headers = [Header::new("date", "then"), Header::new("SERVER", "mine")];
    let (text, _) = encode(&ctx(), 200, &headers).unwrap();
    assert!(text.contains("date: then\r\n") && text.contains("SERVER: mine\r\n"), "{text}");
    assert!(!text.contains("jimu") && !text.contains("1994"), "{text}");
    let (text, _) = encode(&ResponseContext { server: None, ..ctx() }, 200, &[]).unwrap();
    assert!(!text.contains("Server"), "{text}");
}

/// RFC 9112 6.3: status, request and version determine the framing, and whether the connection is kept open.
#[test]
fn the_framing_follows_from_status_method_and_version() {
    let length = [Header::new("Content-Length", "3")];
    let old = ResponseContext { version: Version::HTTP_10, ..ctx() };
    let head = ResponseContext { head_method: true, ..ctx() };
    let connect = ResponseContext { connect: true, ..ctx() };
    let silent = BodyKind::None { warn_if_body: false };
    let warned = BodyKind::None { warn_if_body: true };
    for (ctx, status, headers, kind, keep_alive) in [
        (ctx(), 200, &length[..], BodyKind::Length(3), true),
        (ctx(), 200, &[], BodyKind::Chunked, true),
        (old, 200, &length, BodyKind::Length(3), true),
        (old, 200, &[], BodyKind::UntilClose, false),
        (head, 200, &length, silent, true),
        (head, 200, &[], silent, true),
        (ctx(), 204, &length, warned, true),
        (ctx(), 205, &length, warned, true),
        (ctx(), 304, &length, warned, true),
        (head, 304, &[], silent, true),
        (old, 204, &[], warned, true),
        (connect, 200, &[], BodyKind::UntilClose, false),
        (connect, 404, &length, BodyKind::Length(3), false),
    ] {
        let (_, plan) = encode(&ctx, status, headers).unwrap();
        assert_eq!((plan.kind, plan.keep_alive), (kind, keep_alive), "{status} {ctx:?}");
    }
}

#[test]
fn content_length_is_sent_where_it_may_be() {
    let length = [Header::new("content-length", "3")];
    for (status, sent) in [(200, true), (204, false), (304, true), (404, true)] {
        let (text, _) = encode(&ctx(), status, &length).unwrap();
        assert_eq!(text.contains("content-length: 3\r\n"), sent, "{status}");
    }
    let (text, _) = encode(&ctx(), 205, &length).unwrap();
    assert!(text.contains("Content-Length: 0\r\n") && !text.contains("length: 3"), "{text}");
}

#[test]
fn hop_by_hop_fields_are_the_servers() {
    let headers = [
        Header::new("Connection", "keep-alive, x"),
        Header::new("Keep-Alive", "timeout=5"),
        Header::new("Proxy-Connection", "x"),
        Header::new("Transfer-Encoding", "Chunked"),
        Header::new("TE", "x"),
        Header::new("Upgrade", "h2c"),
    ];
    let (text, plan) = encode(&ctx(), 200, &headers).unwrap();
    assert!(
        text.ends_with("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "{text}"
    );
    assert_eq!(plan.kind, BodyKind::Chunked);
    assert_eq!((plan.left_out, left_out(&headers, 200)), (true, Some("Connection")));
    let (text, plan) = encode(&ctx(), 200, &[Header::new("Connection", "x, CLOSE")]).unwrap();
    assert!(text.contains("Connection: close\r\n"), "{text}");
    assert!(!plan.keep_alive);
}

#[test]
fn a_header_that_is_left_out_is_reported() {
    for (name, value, status, reported) in [
        ("Transfer-Encoding", "gzip", 200, true),
        ("te", "trailers", 200, true),
        ("Keep-Alive", "timeout=5", 404, true),
        ("Connection", "X-Foo", 200, true),
        ("Connection", "Upgrade", 200, true),
        ("Upgrade", "h2c", 200, true),
        ("Connection", "close", 200, false),
        ("Connection", "Keep-Alive", 200, false),
        ("Connection", "Upgrade", 426, false),
        ("Upgrade", "websocket", 426, false),
        ("Content-Length", "0", 204, false),
    ] {
        let header = [Header::new(name, value)];
        let (_, plan) = encode(&ctx(), status, &header).unwrap();
        let expected = reported.then_some(name);
        assert_eq!((plan.left_out, left_out(&header, status)), (reported, expected), "{name}");
    }
    for (name, value) in [("Trailer", "X-Checksum"), ("Proxy-Authenticate", "Basic")] {
        let (text, plan) = encode(&ctx(), 407, &[Header::new(name, value)]).unwrap();
        assert!(text.contains(&format!("{name}: {value}\r\n")) && !plan.left_out, "{text}");
    }
}

#[test]
fn a_switch_of_protocols_needs_a_client_that_asked() {
    let headers = [Header::new("Upgrade", "websocket"), Header::new("Connection", "Upgrade")];
    assert_eq!(encode(&ctx(), 101, &headers), Err(HeaderFault::Status(101)));
    let asked = ResponseContext { upgrade: true, ..ctx() };
    let (text, plan) = encode(&asked, 101, &headers).unwrap();
    assert!(text.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"), "{text}");
    let kind = BodyKind::UntilClose;
    assert_eq!((plan.kind, plan.keep_alive, plan.upgrade), (kind, false, true));
    let (text, _) = encode(&ctx(), 426, &headers).unwrap();
    assert!(text.contains("Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n"), "{text}");
}

/// RFC 9110 5.5, RFC 9112 11.1: what would split or corrupt a response is refused.
#[test]
fn nothing_can_be_injected() {
    for name in ["", "a b", "a:", "a\r\nb", "a\n", "é", "a\0", "(a)"] {
        let fault = encode(&ctx(), 200, &[Header::new(name, "x")]).unwrap_err();
        assert_eq!(fault, HeaderFault::Name(name.to_owned()));
    }
    for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0", "\x7f", "\x1b[0m", "\r", "a\r\n"] {
        let fault = encode(&ctx(), 200, &[Header::new("X", value)]).unwrap_err();
        assert_eq!(fault, HeaderFault::Value("X".to_owned()), "{value:?}");
    }
    for reason in ["OK\r\nX: y", "\n", "\0"] {
        let fault = encode_head(&mut Vec::new(), &ctx(), 200, reason, &[]).unwrap_err();
        assert_eq!(fault, HeaderFault::Reason);
    }
    for status in [0, 99, 100, 103, 199, 1000, 65535] {
        assert_eq!(encode(&ctx(), status, &[]), Err(HeaderFault::Status(status)));
    }
    let latin = [Header::new("X", b"\xe9\xff")];
    assert!(encode_head(&mut Vec::new(), &ctx(), 200, "", &latin).is_ok());
}

#[test]
fn a_length_is_one_number() {
    for value in ["-1", "+1", "", "1, 1", "0x1", "1.0", "18446744073709551616"] {
        let fault = encode(&ctx(), 200, &[Header::new("Content-Length", value)]).unwrap_err();
        assert_eq!(fault, HeaderFault::ContentLength, "{value}");
    }
    let twice = [Header::new("Content-Length", "1"), Header::new("content-length", "1")];
    assert_eq!(encode(&ctx(), 200, &twice), Err(HeaderFault::ContentLength));
}

#[test]
fn informational_responses_go_to_clients_that_know_them() {
    let mut out = Vec::new();
    let link = [Header::new("Link", "</a>; rel=preload"), Header::new("Content-Length", "5")];
    assert_eq!(encode_informational(&mut out, Version::HTTP_10, 103, &link), Ok(false));
    assert!(out.is_empty());
    assert_eq!(encode_informational(&mut out, Version::HTTP_11, 103, &link), Ok(true));
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n");
    for status in [101, 99, 200] {
        let fault = encode_informational(&mut out, Version::HTTP_11, status, &[]);
        assert_eq!(fault, Err(HeaderFault::Status(status)));
    }
    let split = [Header::new("Link", "a\r\n\r\nb")];
    assert!(encode_informational(&mut out, Version::HTTP_11, 103, &split).is_err());
}

#[test]
fn trailers_end_a_chunked_body() {
    let mut out = Vec::new();
    encode_trailers(&mut out, &[Header::new("X-Sum", "1")]).unwrap();
    assert_eq!(out, b"0\r\nX-Sum: 1\r\n\r\n");
    out.clear();
    encode_trailers(&mut out, &[]).unwrap();
    assert_eq!(out, LAST_CHUNK);
    for name in ["Content-Length", "transfer-encoding", "Host", "Set-Cookie"] {
        let fault = encode_trailers(&mut out, &[Header::new(name, "1")]).unwrap_err();
        assert_eq!(fault, HeaderFault::Trailer(name.to_owned()));
    }
    assert_eq!(out, LAST_CHUNK, "something was written in spite of a fault");
}

#[test]
fn chunk_heads_are_hexadecimal() {
    for len in [1, 9, 10, 255, 4096, usize::MAX] {
        assert_eq!(chunk_head(len).as_slice(), format!("{len:x}\r\n").as_bytes());
    }
}

#[test]
fn what_is_encoded_is_what_a_client_reads() {
    let (text, _) = encode(&ctx(), 299, &[Header::new("X", "y"), Header::new("X", "z")]).unwrap();
    let mut fields = [httparse::EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut fields);
    assert!(response.parse(text.as_bytes()).unwrap().is_complete());
    assert_eq!((response.code, response.reason), (Some(299), Some("")));
    let own: Vec<_> = response.headers.iter().filter(|field| field.name == "X").collect();
    assert_eq!(own.len(), 2);
}
