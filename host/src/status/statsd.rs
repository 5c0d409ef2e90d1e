//! StatsD, with gunicorn's names. Changes are sent once per second instead of three datagrams per request:
//! counters are exact; the duration of a request is known by its histogram bucket, and one timing with a sampling
//! rate represents all of a bucket.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::live::LiveScoreboard;
use super::view;
use crate::scoreboard::{Scoreboard, Totals, WorkerState, bucket_limit_us};
use crate::settings::{Settings, StatsdHost};

/// Sends metrics to StatsD once per second.
pub(super) struct Statsd {
    socket: Socket,
    prefix: String,
    tags: String,
    with_backlog: bool,
    due_ns: u64,
    /// Values sent previously.
    totals: Totals,
    logged: [u64; 5],
}

/// Neither blocks.
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Statsd {
    /// Created from the settings; `None` if they name no server, or one that cannot be resolved.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let host = settings.statsd_host.as_ref()?;
        let socket = match Socket::open(host) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!("cannot send metrics to StatsD at {host:?}: {error}");
                return None;
            }
        };
        let prefix = settings.statsd_prefix.trim_end_matches('.');
        let tags = &settings.dogstatsd_tags;
        Some(Self {
            socket,
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}.") },
            tags: if tags.is_empty() { String::new() } else { format!("|#{tags}") },
            with_backlog: settings.enable_backlog_metric,
            due_ns: 0,
            totals: Totals::default(),
            logged: [0; 5],
        })
    }

    /// Returns when the next datagrams are due.
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Sends, if it is time.
    pub(super) fn send_due(&mut self, now_ns: u64, scoreboard: LiveScoreboard<'_>) {
        if now_ns < self.due_ns {
            return;
        }
        let is_first = self.due_ns == 0;
        self.due_ns = now_ns + PERIOD_NS;
        let lines = self.lines(scoreboard.current());
        // Values that a previous process has already sent are not sent again.
        if !is_first {
            self.send(&lines);
        }
    }

    fn lines(&mut self, scoreboard: &Scoreboard) -> Vec<String> {
        let mut sum = Totals::default();
        for totals in view::totals(scoreboard).values() {
            sum.add(totals);
        }
        let mut lines = Vec::new();
        let ready = scoreboard.occupied().filter(|(_, slot)| slot.state() == WorkerState::Ready);
        lines.push(self.line("workers", &format!("{}|g", ready.count())));
        if self.with_backlog {
            let listeners = view::listeners(scoreboard.ledger());
            let waiting: u32 = listeners.iter().filter_map(|listener| listener.backlog).sum();
            lines.push(self.line("backlog", &format!("{waiting}|g")));
        }
        let mut count = |name: &str, count: u64| {
            if count > 0 {
                lines.push(self.line(name, &format!("{count}|c")));
            }
        };
        count("requests", sum.requests.saturating_sub(self.totals.requests));
        for (status, number) in increases(&self.totals.statuses, &sum.statuses) {
            count(&format!("request.status.{status}"), number);
        }
        let logged = scoreboard.logged();
        for (level, name) in [(2, "warning"), (3, "error"), (4, "critical")] {
            count(&format!("log.{name}"), logged[level].saturating_sub(self.logged[level]));
        }
        for (bucket, (now, before)) in sum.latency.iter().zip(self.totals.latency).enumerate() {
            let number = now.saturating_sub(before);
            if number > 0 {
                lines.push(self.line("request.duration", &timing(bucket, number)));
            }
        }
        self.totals = sum;
        self.logged = logged;
        lines
    }

    fn line(&self, name: &str, value: &str) -> String {
        format!("{}gunicorn.{name}:{value}{}\n", self.prefix, self.tags)
    }

    /// Sends as few datagrams as the lines need. Lost datagrams are not repeated, as usual with StatsD.
    fn send(&self, lines: &[String]) {
        let mut datagram = String::new();
        for line in lines {
            if !datagram.is_empty() && datagram.len() + line.len() > DATAGRAM_MAX {
                self.socket.send(datagram.trim_end());
                datagram.clear();
            }
            datagram.push_str(line);
        }
        self.socket.send(datagram.trim_end());
    }
}

impl Socket {
    fn open(host: &StatsdHost) -> std::io::Result<Self> {
        match host {
            StatsdHost::Udp { host, port } => {
                let address = (host.as_str(), *port).to_socket_addrs()?.next();
                let address = address.ok_or(std::io::ErrorKind::NotFound)?;
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            StatsdHost::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
        }
    }

    fn send(&self, datagram: &str) {
        let result = match self {
            Self::Udp(socket) => socket.send(datagram.as_bytes()),
            Self::Unix(socket) => socket.send(datagram.as_bytes()),
        };
        if let Err(error) = result {
            tracing::debug!("StatsD datagram of {} bytes lost: {error}", datagram.len());
        }
    }
}

fn increases(
    before: &BTreeMap<u16, u64>,
    now: &BTreeMap<u16, u64>,
) -> impl Iterator<Item = (u16, u64)> {
    now.iter().map(|(status, count)| {
        let before = before.get(status).copied().unwrap_or(0);
        (*status, count.saturating_sub(before))
    })
}

/// One timing that represents `number` of them: the middle of the bucket, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a second has far fewer than 2^52 requests")]
fn timing(bucket: usize, number: u64) -> String {
    let upper = bucket_limit_us(bucket);
    let lower = bucket.checked_sub(1).and_then(bucket_limit_us).unwrap_or(0);
    let micros = u64::midpoint(lower, upper.unwrap_or(lower));
    let mut text = format!("{}.{:03}|ms", micros / 1000, micros % 1000);
    if number > 1 {
        // Writing to a string cannot fail.
        let _ = write!(text, "|@{:.9}", 1.0 / number as f64);
    }
    text
}

const PERIOD_NS: u64 = 1_000_000_000;
/// Fits into one Ethernet packet in any case.
const DATAGRAM_MAX: usize = 1400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::GenerationNote;

    fn statsd(socket: Socket) -> Statsd {
        Statsd {
            socket,
            prefix: "app.".to_owned(),
            tags: "|#env:test".to_owned(),
            with_backlog: false,
            due_ns: 0,
            totals: Totals::default(),
            logged: [0; 5],
        }
    }

    #[test]
    fn changes_are_sent_with_gunicorns_names() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = receiver.local_addr().unwrap().port();
        let host = StatsdHost::Udp { host: "127.0.0.1".to_owned(), port };
        let mut statsd = statsd(Socket::open(&host).unwrap());
        let board = Scoreboard::new().unwrap();
        let note = GenerationNote { id: 1, class: "sync".to_owned(), ..Default::default() };
        board.ledger().note_generations(std::iter::once(note));
        let (_, writer, _) = crate::scoreboard::tests::claim(&board, 1, 1);
        let (_arbiter, slots) = crate::message::Channel::pair().unwrap();
        let scoreboard = LiveScoreboard { scoreboard: &board, slots: &slots };
        writer.set_state(WorkerState::Ready);
        writer.count_response(200, 100, 0, 0);
        statsd.send_due(1, scoreboard);
        for _ in 0..4 {
            writer.count_response(200, 100, 0, 0);
        }
        writer.count_response(404, 1000, 0, 0);
        board.log_lines().count(3);
        statsd.send_due(2, scoreboard);
        statsd.send_due(1 + PERIOD_NS, scoreboard);
        let mut buffer = [0; 2048];
        let length = receiver.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "app.gunicorn.workers:1|g|#env:test",
                "app.gunicorn.requests:5|c|#env:test",
                "app.gunicorn.request.status.200:4|c|#env:test",
                "app.gunicorn.request.status.404:1|c|#env:test",
                "app.gunicorn.log.error:1|c|#env:test",
                "app.gunicorn.request.duration:0.096|ms|@0.250000000|#env:test",
                "app.gunicorn.request.duration:0.768|ms|#env:test",
            ]
        );
    }
}
