//! Scrapes a server's metrics once per second, like Prometheus but more often.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use support::http::{Address, Connection};

/// The scraping thread, on the processor of the load.
pub(super) struct Scraper {
    end: Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Scraper {
    /// Scrapes at once, then once per second.
    pub(super) fn start(socket: PathBuf) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            loop {
                scrape(&socket)?;
                if ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return Ok(());
                }
            }
        });
        Self { end, thread }
    }

    /// Stops it. An error means that a scrape failed, so that nothing was measured.
    pub(super) fn stop(self) -> io::Result<()> {
        drop(self.end);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the scraper panicked")))
    }
}

fn scrape(socket: &Path) -> io::Result<()> {
    let mut client = Connection::open(&Address::Unix(socket.to_owned()))?;
    client.patience(ANSWER_MAX);
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let answer = client.answer("GET").map_err(io::Error::other)?;
    if answer.status == 200 && answer.text().contains("jimu_requests_total") {
        return Ok(());
    }
    Err(io::Error::other("the metrics were not answered"))
}

const PAUSE: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(10);
