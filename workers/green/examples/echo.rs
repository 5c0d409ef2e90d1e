//! An echo server like eventlet's: an acceptor greenlet that blocks in accept, a green pool that limits the connections,
//! and a timeout around each read. It ends after a number of connections.
//!
//!     cargo run --example echo -- 8000

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use jimu_green::net::{TcpListener, TcpStream};
use jimu_green::pool::GreenPool;
use jimu_green::{Hub, Timeout};

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".into());
    Hub::new()?.block_on(move || serve(&port).map_err(|error| error.to_string()))??;
    Ok(())
}

fn serve(port: &str) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    println!("echo at {}", listener.local_addr()?);
    let pool = GreenPool::new(100);
    for _ in 0..CONNECTIONS {
        let (stream, peer) = listener.accept()?;
        // Waits while a hundred connections are being served, so no other one is accepted.
        pool.spawn(move || match echo(stream) {
            Ok(Some(bytes)) => println!("{peer}: {bytes} bytes"),
            Ok(None) => println!("{peer}: was silent for too long"),
            Err(error) => println!("{peer}: {error}"),
        })?;
    }
    pool.waitall()?;
    Ok(())
}

/// Echoes until the end of the stream. `None` if the client was silent for too long.
fn echo(mut stream: TcpStream) -> io::Result<Option<usize>> {
    let mut buffer = [0; 4096];
    let mut total = 0;
    loop {
        let silence = Timeout::silent(SILENCE_MAX)?;
        match silence.scope(|| stream.receive(&mut buffer))? {
            None => return Ok(None),
            Some(0) => return Ok(Some(total)),
            Some(count) => {
                stream.write_all(&buffer[..count])?;
                total += count;
            }
        }
    }
}

const CONNECTIONS: usize = 1000;
const SILENCE_MAX: Duration = Duration::from_secs(30);
