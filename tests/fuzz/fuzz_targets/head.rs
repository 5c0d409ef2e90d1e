//! Heads and what follows them: the split does not matter, and the second parser agrees.

#![no_main]

use jimu_http1::Policy;
use jimu_http1::cases::{naive, serve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let policy = Policy::default();
    let whole = serve([bytes], &policy);
    // A split that depends on the bytes, so that the same input always splits in the same place.
    let at = bytes.iter().fold(0, |sum, byte| sum + usize::from(*byte)) % (bytes.len() + 1);
    let (before, after) = bytes.split_at(at);
    assert_eq!(whole, serve([before, after], &policy));
    assert_eq!(whole, serve(bytes.chunks(1), &policy));
    if let Err((ours, other)) = naive::compare(bytes) {
        panic!("the parsers disagree\n ours: {ours:?}\nother: {other:?}");
    }
});
