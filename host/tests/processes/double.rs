//! A double of worker class and application. Its application is a word, or the file that contains the word, which
//! determines what goes wrong, and when.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use host::message::{Loaded, Refusal};
use host::payload::{MoldContext, Payload};
use host::worker::{GRACEFUL, QUICK, WorkerContext};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Responds to each connection with its process ID and closes it.
pub(crate) struct Double {
    behaviour: String,
    class: String,
}

impl Payload for Double {
    fn load(context: &MoldContext, _: &dyn Fn(&str)) -> Result<Self, Refusal> {
        let settings = &context.settings;
        // A file can change between two reloads, the command line cannot.
        let behaviour = match &settings.wsgi_app {
            Some(path) if path.starts_with('/') => {
                std::fs::read_to_string(path).unwrap_or_default()
            }
            word => word.clone().unwrap_or_default(),
        };
        let behaviour = behaviour.trim().to_owned();
        match behaviour.as_str() {
            "load-refuse" => return Err(Refusal::new("no such module: nosuch", 4)),
            "load-panic" => panic!("at the disco"),
            "load-exit-0" => std::process::exit(0),
            "load-exit-3" => std::process::exit(3),
            "all-slow" => std::thread::sleep(Duration::from_millis(1300)),
            "load-abort" => std::process::abort(),
            "load-close" => {
                for number in 3..64 {
                    let _ = nix::unistd::close(number);
                }
                std::thread::sleep(Duration::from_secs(60));
            }
            "load-hang" => loop {
                std::thread::sleep(Duration::from_secs(60));
            },
            forge if forge.starts_with("forge-mold ") => forge_in_mold(forge),
            _ => {}
        }
        if settings.worker_class == "missing" {
            return Err(Refusal::new("no worker class missing", 78));
        }
        Ok(Self { behaviour, class: settings.worker_class.clone() })
    }

    fn loaded(&self) -> Loaded {
        Loaded {
            class: self.class.clone(),
            class_version: "0.0.0".to_owned(),
            app: self.behaviour.clone(),
            worker_api: "none".to_owned(),
            libraries: Vec::new(),
        }
    }

    fn run_worker(self, context: WorkerContext) -> i32 {
        match self.behaviour.as_str() {
            "boot-refuse" => {
                context.boot_failed(Refusal::new("the worker does not like it", 3));
                return 3;
            }
            "boot-hang" => loop {
                std::thread::sleep(Duration::from_secs(60));
            },
            "all-slow" => std::thread::sleep(Duration::from_millis(1300)),
            "boot-slow" => std::thread::sleep(Duration::from_millis(400)),
            "boot-panic" => panic!("at the boot"),
            _ => {}
        }
        context.ready();
        if let Some(victim) = self.behaviour.strip_prefix("forge-worker ") {
            forge_in_worker(victim);
        }
        if self.behaviour == "forge-heartbeat" && context.age == 1 {
            forge_heartbeats();
        }
        let mut served = 0;
        loop {
            let ready = wait(&context);
            context.notify();
            let signals = context.take_signals().bits;
            if signals & QUICK != 0 {
                return 0;
            }
            for listener in &context.listeners {
                if ready.contains(&listener.descriptor()) || signals & GRACEFUL != 0 {
                    while let Some(stream) = accept(listener.descriptor()) {
                        context.slot.count_accepted(1);
                        self.answer(&context, stream);
                        served += 1;
                    }
                }
            }
            if !context.alive() {
                context.close_listeners();
                if self.behaviour == "drain-slow" {
                    std::thread::sleep(Duration::from_secs(60));
                }
                return 0;
            }
            if self.behaviour == "retire" && served >= 5 {
                context.retire("it has served 5 connections");
            }
        }
    }
}

impl Double {
    fn answer(&self, context: &WorkerContext, mut stream: TcpStream) {
        let mut request = [0; 64];
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let length = stream.read(&mut request).unwrap_or(0);
        let word = String::from_utf8_lossy(&request[..length]).trim().to_owned();
        context.slot.count_queued(0);
        let token = context.slot.begin_request(word.as_bytes(), host::clock::now_ns());
        match word.as_str() {
            "exit 3" => std::process::exit(3),
            "abort" => std::process::abort(),
            "panic" => panic!("in the request"),
            "hang" => std::thread::sleep(Duration::from_secs(60)),
            "sleep" => std::thread::sleep(Duration::from_millis(300)),
            _ => {}
        }
        if word.starts_with("GET /health ") {
            if self.behaviour == "slow-health" {
                std::thread::sleep(Duration::from_millis(300));
            }
            let status = if self.behaviour == "sick" { 500 } else { 200 };
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        } else {
            let _ = writeln!(stream, "{} {}", std::process::id(), self.behaviour);
        }
        context.slot.end_request(token);
        context.slot.count_response(200, 1, 0, 0);
    }
}

/// Returns the descriptors that become readable within a second.
fn wait(context: &WorkerContext) -> Vec<RawFd> {
    let listeners = context.listeners.iter().map(|listener| listener.as_fd());
    let mut polled: Vec<PollFd<'_>> = std::iter::once(context.wake_fd())
        .chain(listeners)
        .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
        .collect();
    let _ = poll(&mut polled, PollTimeout::from(1000u16));
    polled
        .iter()
        .filter(|descriptor| descriptor.any().unwrap_or(false))
        .map(|descriptor| descriptor.as_fd().as_raw_fd())
        .collect()
}

fn accept(listener: RawFd) -> Option<TcpStream> {
    let number = nix::sys::socket::accept(listener).ok()?;
    // SAFETY: the kernel has just created this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(number) }.into())
}

/// A mold that reports an unrelated process as its worker, repeatedly, for each possible worker.
fn forge_in_mold(behaviour: &str) {
    let victim = behaviour.trim_start_matches("forge-mold ").to_owned();
    std::thread::spawn(move || {
        for _ in 0..2000 {
            for age in 1..8 {
                send_everywhere(&format!(r#"{{"forked":{{"age":{age},"pid":{victim}}}}}"#));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A worker that writes to all shared memory it has, and sends all messages for all slots.
fn forge_in_worker(victim: &str) {
    for age in 1..8 {
        send_everywhere(&format!(r#"{{"started":{{"age":{age}}}}}"#));
        send_everywhere(&format!(r#"{{"forked":{{"age":{age},"pid":{victim}}}}}"#));
        send_everywhere(&format!(r#"{{"ready":{{"slot":{age}}}}}"#));
    }
    let number: u64 = victim.parse().unwrap_or(0);
    let (mut own, mut others) = (0, 0);
    for (words, is_slot) in shared_memory() {
        *(if is_slot { &mut own } else { &mut others }) += 1;
        for word in words {
            word.store(number << 32 | number, Ordering::Relaxed);
        }
        // Access lines from the start to far beyond the end of the memory.
        let Some((span, text)) = words.get(LINES_AT / 8..).and_then(|words| words.split_first())
        else {
            continue;
        };
        for word in text {
            word.store(u64::from_ne_bytes(*b"forged.\n"), Ordering::Relaxed);
        }
        span.store(u64::from(u32::MAX), Ordering::Relaxed);
    }
    tracing::info!("scribbled over {own} slots and {others} other mappings");
}

/// A worker that endlessly writes the time everywhere.
fn forge_heartbeats() {
    tracing::info!("{} forges heartbeats", std::process::id());
    let memory = shared_memory();
    std::thread::spawn(move || {
        loop {
            for word in memory.iter().flat_map(|(words, _)| *words) {
                word.store(host::clock::now_ns(), Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

/// Returns the writable mappings that this process shares with others, and which of them are slots of the
/// scoreboard.
fn shared_memory() -> Vec<(&'static [AtomicU64], bool)> {
    let mut found = Vec::new();
    for line in std::fs::read_to_string("/proc/self/maps").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some("rw-s")) = (words.next(), words.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        let (start, length) = (number(start), number(end).saturating_sub(number(start)));
        let memory = std::ptr::with_exposed_provenance::<AtomicU64>(start);
        // SAFETY: mapped for reading and writing for the life of the process; damaging this process is the
        // purpose.
        let words = unsafe { std::slice::from_raw_parts(memory, length.min(1 << 20) / 8) };
        found.push((words, line.contains("jimu-slot")));
    }
    found
}

/// Sends a packet on every socket of this process that accepts one.
fn send_everywhere(packet: &str) {
    for number in 3..64 {
        let flags =
            nix::sys::socket::MsgFlags::MSG_DONTWAIT | nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
        let _ = nix::sys::socket::send(number, packet.as_bytes(), flags);
    }
}

/// Offset of the access lines in the memory of a slot.
const LINES_AT: usize = 8192;
