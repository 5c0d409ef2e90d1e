//! The cost of an echo in the codec: a masked message is received and sent back. `cargo bench -p jimu-websocket`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jimu_websocket::{Codec, DeflateParams, Event, Message, Role, Sender, Settings};

fn echo(c: &mut Criterion) {
    let deflate = Some(DeflateParams::default());
    let settings = [("plain", None), ("deflate", deflate)]
        .map(|(name, deflate)| (name, Settings { deflate, ..Settings::default() }));
    for (name, settings) in settings {
        let mut group = c.benchmark_group(name);
        for (size, alphabet) in [(32, ASCII), (10 * 1024, ASCII), (10 * 1024, CHINESE)] {
            let text: String = alphabet.chars().cycle().take(size).collect();
            let text = &text[..size];
            group.throughput(Throughput::Bytes(size as u64));
            let label = if alphabet.is_ascii() { "ASCII" } else { "Chinese" };
            group.bench_function(BenchmarkId::new(label, size), |b| {
                let mut client =
                    Sender::new(Role::Client { mask: || [0x37, 0xfa, 0x21, 0x3d] }, &settings);
                let mut server = Codec::new(Role::Server, &settings);
                let mut frames = Vec::new();
                // With context takeover, a stream can be decompressed once: all frames are part of it.
                client.message(Message::text(text), &mut frames).expect("the connection is open");
                let mut out = Vec::new();
                b.iter(|| {
                    out.clear();
                    echo_once(&mut server, black_box(&frames), &mut out);
                    out.len()
                });
            });
        }
        group.finish();
    }
}

fn echo_once(server: &mut Codec, mut input: &[u8], out: &mut Vec<u8>) {
    let Codec { receiver, sender } = server;
    while let Some(event) = receiver.receive(&mut input).expect("the frame is valid") {
        if let Event::Message(message) = event {
            sender.message(message, out).expect("the connection is open");
        }
    }
}

const ASCII: &str = "{\"id\":12345,\"name\":\"block\"},";
const CHINESE: &str = "积木是孩子们喜欢的玩具,";

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = echo
}
criterion_main!(benches);
