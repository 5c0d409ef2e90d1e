//! What holds for any octets: the split does not matter, nothing panics, the second parser agrees.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::driver::{End, serve};
use super::naive;
use crate::http::Policy;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_split_gives_the_same(input in requests(), cuts in vec(any::<Index>(), 0..12)) {
        let whole = serve([&input[..]], &Policy::default());
        let octets = serve(input.chunks(1), &Policy::default());
        prop_assert_eq!(&whole, &octets, "octet by octet");
        prop_assert_eq!(&whole, &serve(split(&input, &cuts), &Policy::default()));
    }

    #[test]
    fn any_split_gives_the_same_whatever_the_policy(
        input in requests(),
        cuts in vec(any::<Index>(), 0..12),
        policy in policies(),
    ) {
        let whole = serve([&input[..]], &policy);
        prop_assert_eq!(&whole, &serve(split(&input, &cuts), &policy));
        prop_assert_eq!(&whole, &serve(input.chunks(1), &policy), "octet by octet");
    }

    #[test]
    fn the_second_parser_agrees(input in requests()) {
        prop_assert_eq!(naive::compare(&input), Ok(()));
    }

    #[test]
    fn nothing_of_what_follows_a_refusal_is_served(input in requests()) {
        let before = serve([&input[..]], &Policy::default());
        if matches!(before.end, End::Refused(_) | End::BodyRefused(_) | End::Closed) {
            let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
            prop_assert_eq!(&before, &serve([&input[..], smuggled], &Policy::default()));
        }
    }
}

fn split<'i>(input: &'i [u8], cuts: &[Index]) -> Vec<&'i [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect()
}

/// Octets that are nearly requests: made of pieces that are right and pieces that are nearly right, with a few octets
/// changed, inserted or removed.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = (select(METHODS), select(TARGETS), select(VERSIONS), select(LINE_ENDS))
        .prop_map(|(method, target, version, end)| format!("{method} {target} {version}{end}"));
    let field =
        (select(FIELDS), select(LINE_ENDS)).prop_map(|(field, end)| format!("{field}{end}"));
    let body = vec(select(BODIES), 0..4).prop_map(|parts| parts.concat());
    let host = prop_oneof![9 => Just("Host: a\r\n"), 1 => Just("")];
    let request = (line, host, vec(field, 0..4), body).prop_map(|(line, host, fields, body)| {
        format!("{line}{host}{}\r\n{body}", fields.concat()).into_bytes()
    });
    let edits = prop_oneof![3 => Just(Vec::new()).boxed(), 1 => vec((any::<Index>(), edit()), 1..4).boxed()];
    (vec(request, 1..4), edits).prop_map(|(requests, edits)| {
        let mut octets = requests.concat();
        for (at, edit) in edits {
            let at = at.index(octets.len());
            match edit {
                Edit::Change(octet) => octets[at] = octet,
                Edit::Insert(octet) => octets.insert(at, octet),
                Edit::Remove if octets.len() > 1 => drop(octets.remove(at)),
                Edit::Remove => {}
            }
        }
        octets
    })
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Change(u8),
    Insert(u8),
    Remove,
}

fn edit() -> impl Strategy<Value = Edit> {
    let octet = || prop_oneof![select(&b"\r\n \t:;,=\"\\0aG/\0\x7f\xff_-"[..]), any::<u8>()];
    prop_oneof![octet().prop_map(Edit::Change), octet().prop_map(Edit::Insert), Just(Edit::Remove)]
}

fn policies() -> impl Strategy<Value = Policy> {
    (1..40_usize, 0..4_usize, 5..40_usize, 0..12_u64, any::<[bool; 4]>()).prop_map(
        |(line, fields, field, body, [fold, method, version, casefold])| Policy {
            limit_request_line: line,
            limit_request_fields: fields,
            limit_request_field_size: field,
            limit_request_body: body,
            permit_obsolete_folding: fold,
            permit_unconventional_http_method: method,
            permit_unconventional_http_version: version,
            casefold_http_method: casefold,
            ..Policy::default()
        },
    )
}

const METHODS: &[&str] =
    &["GET", "GET", "POST", "POST", "OPTIONS", "CONNECT", "get", "HEAD", "G(T", "A", ""];
const TARGETS: &[&str] = &[
    "/",
    "/",
    "/a?b#c",
    "*",
    "http://b/x",
    "https://b:1",
    "http://u@b/",
    "b:80",
    "[::1]:80",
    "x",
    "/\u{e9}",
    "",
    "//",
    "ftp://b/",
    "http://b?q",
    "http:///",
    "http://[::1/",
    "http://%41/",
];
const VERSIONS: &[&str] = &[
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "http/1.1",
    "HTTP/1.10",
    "",
];
const LINE_ENDS: &[&str] =
    &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n ", " \r\n"];
const FIELDS: &[&str] = &[
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: +5",
    "content-length:5",
    "Content_Length: 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "transfer-encoding:\tCHUNKED ",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding : chunked",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: keep-alive, , close",
    "Connection: x y",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Host: b",
    "Content-Type: a/b",
    "Proxy: x",
    "X: ",
    "X:y  z\t",
    "X",
    ": y",
    " y",
    "X-\u{e9}: y",
    "X: \u{e9}",
];
const BODIES: &[&str] = &[
    "hello",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "5;a=\"b\\\"\" ; c\r\nhello\r\n",
    "5 \r\nhello\r\n",
    "00005\r\nhello\r\n",
    "0\r\nHost: b\r\n\r\n",
    "5\r\nhell",
    "ffffffffffffffffff\r\n",
    "A\r\n0123456789\r\n",
    "0\r\nX\r\n\r\n",
    "\r\n",
    "5\nhello\r\n",
];
