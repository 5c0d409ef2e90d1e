//! The smallest server worth measuring: a listener watched by the hub, a bounded pool, a greenlet for each piece of input,
//! and idle connections that hold only a descriptor. It responds without parsing. `bare` is the baseline.
//!
//!     cargo run --release --example hello -- 8000

use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use jimu_green::net::{TcpListener, TcpStream};
use jimu_green::pool::Pool;
use jimu_green::{Hub, Interest, Ready};

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".into());
    let hub = Hub::new()?;
    let listener = Rc::new(TcpListener::bind(format!("127.0.0.1:{port}"))?);
    println!("http://{}/", listener.local_addr()?);
    let pool = Pool::new(Some(1000));

    let (source, connections) = (Rc::clone(&listener), pool.clone());
    listener.source().watch(Interest::Read, move |_| {
        while let Ok((stream, _)) = source.try_accept() {
            let pool = connections.clone();
            stream.idle(KEEPALIVE, move |stream, ready| on_input(stream, ready, pool));
        }
    });
    listener.source().start()?;
    hub.run()?;
    Ok(())
}

/// Called by the hub when an idle connection is readable.
fn on_input(stream: TcpStream, ready: Ready, pool: Pool) {
    if ready.is_timed_out() {
        return;
    }
    let members = pool.clone();
    let spawned = members.spawn(move || {
        if let Ok(true) = answer(&stream) {
            stream.idle(KEEPALIVE, move |stream, ready| on_input(stream, ready, pool));
        }
    });
    if let Err(error) = spawned {
        eprintln!("connection dropped: {error}");
    }
}

/// Sends one response; returns `false` at the end of the stream.
fn answer(stream: &TcpStream) -> io::Result<bool> {
    let mut buffer = [0; 2 << 10];
    if stream.receive(&mut buffer)? == 0 {
        return Ok(false);
    }
    let mut rest = RESPONSE;
    while !rest.is_empty() {
        rest = &rest[stream.send(rest)?..];
    }
    Ok(true)
}

const KEEPALIVE: Option<Duration> = Some(Duration::from_secs(5));
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
