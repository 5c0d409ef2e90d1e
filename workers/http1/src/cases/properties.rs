//! Properties for arbitrary bytes: the split does not matter, nothing panics, the second parser agrees.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::driver::{End, serve};
use super::naive;
use crate::Policy;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_split_gives_the_same(input in requests(), cuts in vec(any::<Index>(), 0..12)) {
        let whole = serve([&input[..]], &Policy::default());
        let bytes = serve(input.chunks(1), &Policy::default());
        prop_assert_eq!(&whole, &bytes, "byte by byte");
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
        prop_assert_eq!(&whole, &serve(input.chunks(1), &policy), "byte by byte");
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

/// Bytes that are almost requests: composed of valid pieces and, now and then, an almost valid one, with a few
/// bytes changed, inserted or removed in some.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = (
        mostly(METHODS, ODD_METHODS),
        mostly(TARGETS, ODD_TARGETS),
        mostly(VERSIONS, ODD_VERSIONS),
        line_end(),
    )
        .prop_map(|(method, target, version, end)| format!("{method} {target} {version}{end}"));
    let host = mostly(
        &["Host: a\r\n", "Host: a:80\r\n"],
        &["", "Host: a b\r\n", "Host: a\r\nHost: a\r\n"],
    );
    let field =
        (mostly(FIELDS, ODD_FIELDS), line_end()).prop_map(|(field, end)| format!("{field}{end}"));
    let chunks = (vec(mostly(CHUNKS, ODD_CHUNKS), 0..4), mostly(LAST_CHUNKS, ODD_LAST_CHUNKS))
        .prop_map(|(chunks, last)| chunks.concat() + last);
    let body = prop_oneof![
        3 => Just(String::new()),
        2 => mostly(&["Content-Length: 5\r\n\r\nhello"], &["Content-Length: 5\r\n\r\nhell", "Content-Length: 6\r\n\r\nhello"])
            .prop_map(str::to_owned),
        3 => chunks.prop_map(|chunks| format!("Transfer-Encoding: chunked\r\n\r\n{chunks}")),
    ]
    .prop_map(|body| if body.is_empty() { "\r\n".to_owned() } else { body });
    let request = (line, host, vec(field, 0..3), body).prop_map(|(line, host, fields, body)| {
        format!("{line}{host}{}{body}", fields.concat()).into_bytes()
    });
    let edits = prop_oneof![3 => Just(Vec::new()).boxed(), 1 => vec((any::<Index>(), edit()), 1..3).boxed()];
    (vec(request, 1..4), edits).prop_map(|(requests, edits)| {
        let mut bytes = requests.concat();
        for (at, edit) in edits {
            let at = at.index(bytes.len());
            match edit {
                Edit::Change(byte) => bytes[at] = byte,
                Edit::Insert(byte) => bytes.insert(at, byte),
                Edit::Remove if bytes.len() > 1 => drop(bytes.remove(at)),
                Edit::Remove => {}
            }
        }
        bytes
    })
}

/// One of the valid values, and now and then one of the others.
fn mostly(
    right: &'static [&'static str],
    odd: &'static [&'static str],
) -> impl Strategy<Value = &'static str> {
    prop_oneof![24 => select(right), 1 => select(odd)]
}

fn line_end() -> impl Strategy<Value = &'static str> {
    mostly(&["\r\n"], &["\n", "\r", "\r\n ", " \r\n", "\r\r\n"])
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Change(u8),
    Insert(u8),
    Remove,
}

fn edit() -> impl Strategy<Value = Edit> {
    let byte = || prop_oneof![select(&b"\r\n \t:;,=\"\\0aG/\0\x7f\xff_-"[..]), any::<u8>()];
    prop_oneof![byte().prop_map(Edit::Change), byte().prop_map(Edit::Insert), Just(Edit::Remove)]
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

const METHODS: &[&str] = &["GET", "POST", "HEAD", "OPTIONS", "\r\nGET"];
const ODD_METHODS: &[&str] = &["CONNECT", "get", "G(T", "A", "", "\r\n\r\nGET"];
const TARGETS: &[&str] =
    &["/", "/a?b#c", "//", "http://b/x", "https://b:1", "http://b?q", "http://%41/"];
const ODD_TARGETS: &[&str] = &[
    "*",
    "http://u@b/",
    "b:80",
    "[::1]:80",
    "x",
    "/\u{e9}",
    "",
    "ftp://b/",
    "http:///",
    "http://[::1/",
    "http://b:/",
];
const VERSIONS: &[&str] = &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.2"];
const ODD_VERSIONS: &[&str] = &["HTTP/1.0", "HTTP/2.0", "http/1.1", "HTTP/1.10", ""];
const FIELDS: &[&str] = &[
    "X: ",
    "X:y  z\t",
    "X: \u{e9}",
    "Content_Length: 5",
    "Proxy: x",
    "Connection: keep-alive",
    "Connection: , x",
    "Expect: 100-continue",
    "Content-Type: a/b",
];
const ODD_FIELDS: &[&str] = &[
    "Content-Length: 0",
    "Content-Length: +5",
    "content-length:5",
    "Transfer-Encoding: chunked",
    "transfer-encoding:\tCHUNKED ",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding : chunked",
    "Connection: close",
    "Connection: keep-alive, , close",
    "Connection: x y",
    "Expect: 200-ok",
    "X",
    ": y",
    " y",
    "X-\u{e9}: y",
];
const CHUNKS: &[&str] = &[
    "5\r\nhello\r\n",
    "00005\r\nhello\r\n",
    "5;a=\"b\\\"\" ; c\r\nhello\r\n",
    "A\r\n0123456789\r\n",
];
const ODD_CHUNKS: &[&str] = &[
    "5 \r\nhello\r\n",
    "5\r\nhell",
    "ffffffffffffffffff\r\n",
    "5\nhello\r\n",
    "5;\r\nhello\r\n",
    "\r\n",
    "5\r\nhelloX",
];
const LAST_CHUNKS: &[&str] = &["0\r\n\r\n", "0\r\nX: y\r\n\r\n", "000;a\r\n\r\n"];
const ODD_LAST_CHUNKS: &[&str] =
    &["0\r\nHost: b\r\n\r\n", "0\r\nX\r\n\r\n", "0\r\n", "", "0\r\n\n"];
