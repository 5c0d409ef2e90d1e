//! The cost of a head as a multiple of httparse's: `cargo bench -p jimu-http1 --bench ratio`.
//!
//! The two alternate, and the minimum time of each counts: on a machine with other load, that is more reliable
//! than means.

use std::hint::black_box;
use std::time::Instant;

use browser::BROWSER;
use jimu_http1::{HeadScan, Policy, parse_head};

mod browser;

fn main() {
    let policy = Policy::default();
    let mut headers = Vec::with_capacity(32);
    let mut least = [f64::MAX; 4];
    for _ in 0..ROUNDS {
        let times = [
            time(httparse_alone::<32>),
            time(httparse_alone::<100>),
            time(|| {
                let head = parse_head(black_box(BROWSER), &policy, &mut headers);
                black_box(head.expect("the request is valid").is_some());
            }),
            time(|| {
                let bytes = black_box(BROWSER);
                black_box(HeadScan::new().advance(bytes, &policy).expect("the request is valid"));
                let head = parse_head(bytes, &policy, &mut headers);
                black_box(head.expect("the request is valid").is_some());
            }),
        ];
        for (least, time) in least.iter_mut().zip(times) {
            *least = least.min(time);
        }
    }
    let [httparse, roomy, parse, both] = least;
    println!("httparse alone, room for 32 fields   {httparse:6.1} ns");
    println!("httparse alone, room for 100 fields  {roomy:6.1} ns");
    for (name, time) in [("parse_head", parse), ("scan and parse_head", both)] {
        let (one, other) = (time / httparse, time / roomy);
        println!("{name:<35}  {time:6.1} ns, {one:.2} and {other:.2} times");
    }
}

/// As most programs use it, with room for this number of headers; http1 accepts 100.
fn httparse_alone<const FIELDS: usize>() {
    let mut slots = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut slots);
    let status = request.parse(black_box(BROWSER)).expect("the request is valid");
    black_box((status.is_complete(), request.headers.len()));
}

/// Nanoseconds per call, of many in a row.
fn time(mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

const ROUNDS: u32 = 20_000;
const CALLS: u32 = 200;
