//! Measures the cost of a line of the access log: formatted, buffered and written, for an ordinary browser's
//! request. Prints nanoseconds of processor time, which do not depend on other load, with a file in the temporary
//! directory and without one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

use host::{
    log::AccessLog,
    scoreboard::{AccessBuffer, Scoreboard, SlotWriter},
    settings::Sources,
};
use worker_api::{
    AccessRecord, Address, Header, RequestHead, Version,
    abi::std_types::{ROption, RSlice, RStr},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    for (name, flags) in [
        ("default format", &[][..]),
        ("status and time", &["--access-logformat", "%(t)s %(s)s %(D)s"]),
        ("json", &["--log-format", "json"]),
    ] {
        let written = best(&directory.path().join("access.log"), flags)?;
        let made = best(Path::new("/dev/null"), flags)?;
        println!("{name}: {written:.0} ns a line, {made:.0} ns without writing");
    }
    Ok(())
}

fn best(path: &Path, flags: &[&str]) -> Result<f64, Box<dyn std::error::Error>> {
    let log = open(path, flags)?;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        best = best.min(round(&log));
        if path.is_file() {
            std::fs::File::options().write(true).open(path)?.set_len(0)?;
        }
    }
    Ok(best)
}

fn open(path: &Path, flags: &[&str]) -> Result<AccessLog, Box<dyn std::error::Error>> {
    let args = ["--access-logfile".into(), path.into()];
    let sources = Sources {
        args: args.into_iter().chain(flags.iter().map(Into::into)).collect(),
        environment: BTreeMap::new(),
        directory: PathBuf::from("/"),
        ..Sources::default()
    };
    let (settings, _) = sources.load()?;
    let file = AccessLog::open_file(&settings)?.ok_or("there is a file")?;
    let claimed = Scoreboard::new()?.claim(1, 1)?;
    let writer = SlotWriter::new()?;
    writer.enter(claimed.memory)?;
    let buffer = AccessBuffer::take(writer).ok_or("the slot is free")?;
    Ok(AccessLog::new(&settings, Arc::new(file), buffer))
}

fn round(log: &AccessLog) -> f64 {
    let fields = [
        Header::new("Host", "www.example.org"),
        Header::new("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        Header::new("Accept-Language", "en-GB,en;q=0.5"),
        Header::new("Accept-Encoding", "gzip, deflate, br"),
        Header::new("Cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
        Header::new("Referer", "https://www.example.org/articles/2026/11/"),
        Header::new(
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        ),
        Header::new("Connection", "keep-alive"),
    ];
    let head = RequestHead {
        method: RStr::from_str("GET"),
        target: RSlice::from_slice(b"/articles/2026/11/settings?page=2"),
        path: RSlice::from_slice(b"/articles/2026/11/settings"),
        query: RSlice::from_slice(b"page=2"),
        authority: RStr::from_str("www.example.org"),
        version: Version::HTTP_11,
        trusted_peer: false,
        chunked: false,
        content_length: ROption::RSome(0),
        scheme: RStr::from_str("http"),
        headers: RSlice::from_slice(&fields),
        peer: Address { host: RStr::from_str("192.0.2.17"), port: 50_123 },
        local: Address { host: RStr::from_str("192.0.2.1"), port: 80 },
        tls: ROption::RNone,
        received_ns: 0,
        id: 1,
    };
    let record = AccessRecord {
        head: ROption::RSome(&head),
        request_line: RSlice::EMPTY,
        peer: head.peer,
        status: 200,
        body_bytes: 18_234,
        duration_ns: 1_834_000,
        response_headers: RSlice::EMPTY,
    };
    let start = processor_time();
    for _ in 0..LINES {
        log.record(std::hint::black_box(&record));
    }
    log.flush();
    processor_time().saturating_sub(start).as_secs_f64() * 1e9 / f64::from(LINES)
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

const LINES: u32 = 200_000;
const ROUNDS: usize = 7;
