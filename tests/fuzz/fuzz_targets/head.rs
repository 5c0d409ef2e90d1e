//! Heads and what follows them: the split does not matter, and the second parser agrees.

#![no_main]

use kit::http::Policy;
use kit::http::cases::{naive, serve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let policy = Policy::default();
    let whole = serve([octets], &policy);
    // A split that depends on the bytes, so that the same input always splits in the same place.
    let at = octets.iter().fold(0, |sum, octet| sum + usize::from(*octet)) % (octets.len() + 1);
    let (before, after) = octets.split_at(at);
    assert_eq!(whole, serve([before, after], &policy));
    assert_eq!(whole, serve(octets.chunks(1), &policy));
    if let Err((ours, other)) = naive::compare(octets) {
        panic!("the parsers disagree\n ours: {ours:?}\nother: {other:?}");
    }
});
