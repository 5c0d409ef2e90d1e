//! The cost of a call through `jimu.h` as a multiple of one through `worker-api`: `cargo bench -p jimu-c-api --bench call`.
//!
//! The exchange behind both is in memory and does next to nothing, so that the ratios are upper bounds: a call of a real
//! exchange costs as much more on both sides. The two alternate, and the minimum time of each counts: on a machine with
//! other load, that is more reliable than means. Both pass the same through `black_box`, each time a store and a load, and
//! check the same.

use std::hint::black_box;
use std::time::Instant;

use c_api::tables::{ExchangeObject, READY, RawFailure, WakerObject};
use c_api::to_c::exchange::ExchangeForC;
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RSliceMut, RStr};
use worker_api::raw::{ExchangeBox, Hijacked, RawExchange, RawExchange_TO};
use worker_api::{Address, Exchange, Failure, Header, Interest, RequestHead, Step, Version, Waker};

fn main() {
    let mut rust = Exchange::from_raw(exchange());
    let mut least = [[f64::MAX; 2]; 3];
    // As in an application, whose call receives the place.
    let mut failure = std::mem::MaybeUninit::uninit();
    let failure = failure.as_mut_ptr();
    ExchangeForC::new(exchange()).lend(|object| {
        for _ in 0..ROUNDS {
            let times = [
                [
                    time(|| write(black_box(&mut rust))),
                    time(|| write_c(black_box(object), failure)),
                ],
                [time(|| read(black_box(&mut rust))), time(|| read_c(black_box(object), failure))],
                [time(|| head(black_box(&rust))), time(|| head_c(black_box(object)))],
            ];
            for (least, time) in least.as_flattened_mut().iter_mut().zip(times.as_flattened()) {
                *least = least.min(*time);
            }
        }
        Ok(())
    });
    for (name, [rust, c]) in ["write", "read", "head"].into_iter().zip(least) {
        println!(
            "{name:<8} {rust:6.2} ns by worker-api, {c:6.2} ns by jimu.h: {:.2} times",
            c / rust
        );
    }
}

fn write(exchange: &mut Exchange) {
    assert!(matches!(exchange.poll_write(black_box(&BYTES), None), Step::Ready(LENGTH)));
}

fn write_c(object: *mut ExchangeObject, failure: *mut RawFailure) {
    let mut done = 0;
    // SAFETY: the object is lent, and all pointers are valid during the call.
    let step = unsafe {
        let write = (*(*object).functions).write.expect("the table is complete");
        let bytes: &[u8] = black_box(&BYTES);
        let waker = WakerObject::NONE;
        write((*object).this, bytes.as_ptr(), bytes.len(), waker, &raw mut done, failure)
    };
    assert!(step == READY && done == LENGTH);
}

fn read(exchange: &mut Exchange) {
    let mut buffer = [0; LENGTH];
    assert!(matches!(exchange.poll_read(black_box(&mut buffer), None), Step::Ready(LENGTH)));
}

fn read_c(object: *mut ExchangeObject, failure: *mut RawFailure) {
    let mut done = 0;
    let mut buffer = [0; LENGTH];
    // SAFETY: the object is lent, and all pointers are valid during the call.
    let step = unsafe {
        let read = (*(*object).functions).read.expect("the table is complete");
        let buffer: &mut [u8] = black_box(&mut buffer);
        let waker = WakerObject::NONE;
        read((*object).this, buffer.as_mut_ptr(), buffer.len(), waker, &raw mut done, failure)
    };
    assert!(step == READY && done == LENGTH);
}

fn head(exchange: &Exchange) {
    black_box(exchange.head().id);
}

fn head_c(object: *mut ExchangeObject) {
    // SAFETY: the object is lent, and the head is valid until the next call.
    unsafe {
        let head = (*(*object).functions).head.expect("the table is complete");
        black_box((*head((*object).this)).id);
    }
}

/// Nanoseconds per call, of many in a row.
fn time(mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn exchange() -> ExchangeBox {
    RawExchange_TO::from_value(InMemory { buffer: Vec::with_capacity(ROOM) }, TD_Opaque)
}

/// Copies what is written to a buffer, and reads from it.
struct InMemory {
    buffer: Vec<u8>,
}

impl RawExchange for InMemory {
    fn head(&self) -> &RequestHead<'_> {
        &HEAD
    }

    fn poll_read(&mut self, mut buf: RSliceMut<'_, u8>, _: ROption<Waker>) -> Step {
        buf.as_mut_slice().copy_from_slice(&BYTES);
        Step::Ready(LENGTH)
    }

    fn start(&mut self, _: u16, _: RStr<'_>, _: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        RResult::ROk(())
    }

    fn poll_write(&mut self, bytes: RSlice<'_, u8>, _: ROption<Waker>) -> Step {
        if self.buffer.len() + bytes.len() > ROOM {
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes.as_slice());
        Step::Ready(bytes.len())
    }

    fn poll_send_file(&mut self, _: i32, _: u64, _: u64, _: ROption<Waker>) -> Step {
        Step::Pending
    }

    fn informational(&mut self, _: u16, _: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        RResult::ROk(())
    }

    fn trailers(&mut self, _: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        RResult::ROk(())
    }

    fn finish(&mut self) -> RResult<(), Failure> {
        RResult::ROk(())
    }

    fn fail(&mut self, _: Failure) {}

    fn hijack(&mut self) -> RResult<Hijacked, Failure> {
        RResult::RErr(Failure::unsupported("in memory"))
    }

    fn descriptor(&self) -> i32 {
        -1
    }

    fn deadline_ns(&self) -> u64 {
        0
    }

    fn extend_deadline(&mut self, _: u64) {}

    fn on_disconnect(&mut self, _: Waker) {}

    fn wait(&mut self, _: Interest) -> RResult<(), Failure> {
        RResult::ROk(())
    }

    fn is_proxied(&self) -> bool {
        false
    }
}

static HEAD: RequestHead<'static> = RequestHead {
    method: RStr::from_str("GET"),
    target: RSlice::EMPTY,
    path: RSlice::EMPTY,
    query: RSlice::EMPTY,
    authority: RStr::from_str(""),
    version: Version::HTTP_11,
    trusted_peer: false,
    chunked: false,
    content_length: ROption::RSome(0),
    scheme: RStr::from_str("http"),
    headers: RSlice::EMPTY,
    peer: Address { host: RStr::from_str(""), port: 0 },
    local: Address { host: RStr::from_str(""), port: 0 },
    tls: ROption::RNone,
    received_ns: 0,
    id: 1,
};

const LENGTH: usize = 64;
const BYTES: [u8; LENGTH] = [b'.'; LENGTH];
/// Size of the buffer in bytes.
const ROOM: usize = 64 * 1024;
const ROUNDS: u32 = 2_000;
const CALLS: u32 = 1_000;
