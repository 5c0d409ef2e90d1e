//! The blocking detector, as its users see it: in the log.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jimu_green::{Hub, sleep, spawn};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const LIMIT: Duration = Duration::from_millis(40);

#[test]
fn a_greenlet_that_computes_too_long_is_named_with_its_place() {
    let log = Log::default();
    let lines = Arc::clone(&log.0);
    tracing::subscriber::with_default(log, || {
        let hub = Hub::new().unwrap();
        hub.watch_blocking(LIMIT).unwrap();
        hub.block_on(|| {
            // Neither waiting nor many short runs are too long.
            let patient = spawn(|| {
                for _ in 0..20 {
                    sleep(LIMIT / 10).unwrap();
                }
            })
            .unwrap();
            patient.join().unwrap();
            assert_ne!(spawn(computes_for_ever).unwrap().join().unwrap(), 0);
        })
        .unwrap();
    });
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("kept the hub"), "{lines:#?}");
    assert!(lines[0].contains("computes_for_ever"), "{lines:#?}");
}

#[inline(never)]
fn computes_for_ever() -> u64 {
    let began = Instant::now();
    let mut sum = 1_u64;
    while began.elapsed() < 10 * LIMIT {
        sum = std::hint::black_box(sum.wrapping_mul(3));
    }
    sum
}

/// Stores the messages.
#[derive(Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("jimu_green")
    }

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
