//! Chunked bodies after a fixed head, with limits that are easily reached for the second run.

#![no_main]

use jimu_http1::Policy;
use jimu_http1::cases::{naive, serve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let input = [HEAD, bytes].concat();
    let narrow = Policy {
        limit_request_fields: 2,
        limit_request_field_size: 32,
        limit_request_body: 20,
        ..Policy::default()
    };
    for policy in [Policy::default(), narrow] {
        let whole = serve([&input[..]], &policy);
        assert_eq!(whole, serve(input.chunks(1), &policy));
        assert_eq!(whole, serve(input.chunks(7), &policy));
    }
    if let Err((ours, other)) = naive::compare(&input) {
        panic!("the parsers disagree\n ours: {ours:?}\nother: {other:?}");
    }
});

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
