//! The cost of the HTTP parser, compared to httparse on the same bytes: `cargo bench -p jimu-http1`.
//!
//! The limit: a browser's request takes at most 1.3 times the time of httparse.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jimu_http1::{
    BodyDecoder, Framing, HeadScan, Policy, ResponseContext, Scan, date::DateCache, encode_head,
    parse_head,
};
use worker_api::{Header, Version};

use browser::BROWSER;

mod browser;

fn head(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    group.throughput(Throughput::Bytes(BROWSER.len() as u64));
    group.bench_function("httparse alone, room for 32 fields", |b| b.iter(httparse_alone::<32>));
    group.bench_function("httparse alone, room for 100 fields", |b| b.iter(httparse_alone::<100>));
    let policy = Policy::default();
    let mut headers = Vec::with_capacity(32);
    group.bench_function("parse_head", |b| {
        b.iter(|| {
            let head = parse_head(black_box(BROWSER), &policy, &mut headers);
            black_box(head.expect("the request is valid").expect("the request is whole").len)
        });
    });
    group.bench_function("scan and parse_head", |b| {
        b.iter(|| {
            let bytes = black_box(BROWSER);
            let scan = HeadScan::new().advance(bytes, &policy).expect("the request is valid");
            assert_eq!(scan, Scan::Complete);
            let head = parse_head(bytes, &policy, &mut headers);
            black_box(head.expect("the request is valid").expect("the request is whole").len)
        });
    });
    group.bench_function("scan byte by byte", |b| {
        b.iter(|| {
            let mut scan = HeadScan::new();
            for len in 1..=BROWSER.len() {
                black_box(scan.advance(&BROWSER[..len], &policy).expect("the request is valid"));
            }
        });
    });
    group.finish();
}

/// As most programs use it, with room for this number of headers; http1 accepts 100.
fn httparse_alone<const FIELDS: usize>() {
    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(black_box(BROWSER)).expect("the request is valid");
    black_box((status.is_complete(), request.method, request.headers.len()));
}

fn body(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunked body");
    for size in [64, 4096] {
        let mut bytes = Vec::new();
        for _ in 0..(256 * 1024 / size) {
            bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            bytes.resize(bytes.len() + size, b'x');
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("chunks of {size}"), |b| {
            b.iter_batched(
                || BodyDecoder::new(Framing::Chunked, &Policy::default()),
                |mut decoder| {
                    let mut at = 0;
                    while !decoder.is_done() {
                        at += decoder.decode(&bytes[at..]).expect("the body is valid").consumed;
                    }
                    at
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn response(c: &mut Criterion) {
    let mut dates = DateCache::new(1_700_000_000);
    let ctx = ResponseContext {
        version: Version::HTTP_11,
        head_method: false,
        connect: false,
        upgrade: false,
        keep_alive: true,
        server: Some("jimu"),
        date: dates.at(1_700_000_000),
        style: jimu_http1::ResponseStyle::GUNICORN,
    };
    let headers = [
        Header::new("Content-Type", "text/html; charset=utf-8"),
        Header::new("Content-Length", "1234"),
    ];
    let mut out = Vec::with_capacity(512);
    c.bench_function("response head", |b| {
        b.iter(|| {
            out.clear();
            black_box(encode_head(&mut out, &ctx, 200, "OK", black_box(&headers)))
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = head, body, response
}
criterion_main!(benches);
