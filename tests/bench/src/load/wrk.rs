//! wrk as a second load generator, so that no result depends on ours alone. It runs for a time instead of a number of
//! requests: its report says how many there were.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Figures;

/// A run of wrk.
#[derive(Debug)]
pub struct Wrk<'a> {
    /// The program.
    pub program: &'a Path,
    /// What to request.
    pub url: &'a str,
    /// Headers beside Host.
    pub headers: &'a [(&'a str, &'a str)],
    /// Number of concurrent connections.
    pub connections: usize,
    /// Duration. wrk counts whole seconds, at least one.
    pub seconds: f64,
}

impl Wrk<'_> {
    /// Runs it, on one thread. What failed are responses with another status, and errors of sockets.
    pub fn run(&self) -> io::Result<Figures> {
        let mut command = Command::new(self.program);
        command.args(["--threads", "1", "--latency", "--timeout", "30s"]);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{:.0}s", self.seconds.ceil().max(1.0))]);
        for (name, value) in self.headers {
            command.args(["--header", &format!("{name}: {value}")]);
        }
        let output = command.arg(self.url).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            io::Error::other(format!("wrk reports nothing: {}", said.trim()))
        })
    }
}

/// Parses a report. `None` if there is no number of requests in it.
fn parse(text: &str) -> Option<Figures> {
    let mut report = Figures::default();
    let mut counted = false;
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if line.contains(" requests in ") {
            report.requests = first.parse().ok()?;
            counted = true;
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            report.failed += count.trim().parse::<u64>().ok()?;
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            let counts = errors.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
            report.failed += counts.sum::<u64>();
        } else if first == "Requests/sec:" {
            report.rate = words.next()?.parse().ok()?;
            report.steady_rate = report.rate;
        } else if first == "50%" {
            report.p50_us = microseconds(words.next()?)?;
        } else if first == "99%" {
            report.p99_us = microseconds(words.next()?)?;
        }
    }
    counted.then_some(report)
}

/// Converts a time such as `1.50ms`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Running 2s test @ http://127.0.0.1:8000/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   295.11us  102.50us   3.02ms   81.44%
    Req/Sec   105.86k     2.96k  112.10k    65.00%
  Latency Distribution
     50%  284.00us
     75%  340.00us
     90%  410.00us
     99%    1.50ms
  210650 requests in 2.00s, 30.13MB read
";

    #[test]
    fn a_report_is_parsed() {
        let rate = "Requests/sec: 105321.20\nTransfer/sec:     15.07MB\n";
        let report = parse(&format!("{TEXT}{rate}")).unwrap();
        let (rate, p50_us, p99_us) = (105_321.2, 284.0, 1500.0);
        let steady_rate = rate;
        let requests = 210_650;
        assert_eq!(report, Figures { requests, failed: 0, rate, steady_rate, p50_us, p99_us });
    }

    #[test]
    fn failures_are_counted() {
        let errors = "  Socket errors: connect 0, read 3, write 0, timeout 4\n  \
                      Non-2xx or 3xx responses: 12\n";
        assert_eq!(parse(&format!("{TEXT}{errors}")).unwrap().failed, 19);
    }

    #[test]
    fn a_text_without_a_number_of_requests_is_no_report() {
        assert_eq!(parse("unable to connect to 127.0.0.1:1 Connection refused\n"), None);
    }
}
