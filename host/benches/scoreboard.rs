//! Measures the cost of counting a request: the data of metrics, the status page and StatsD. Prints nanoseconds
//! of processor time for the begin, the end and the counters of one request.

use std::time::Duration;

use host::scoreboard::{Scoreboard, SlotWriter};
use nix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let board = Scoreboard::new()?;
    let writer = SlotWriter::new()?;
    writer.enter(board.claim(1, 1)?.memory)?;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        for number in 0..REQUESTS {
            let token = writer.begin_request(b"GET /some/ordinary/path?and=query", 1);
            writer.end_request(token);
            writer.count_response(200, u64::from(number % 5000), 0, 512);
        }
        let end = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        let spent = Duration::from(end).saturating_sub(Duration::from(start));
        best = best.min(spent.as_secs_f64() * 1e9 / f64::from(REQUESTS));
    }
    println!("{best:.0} ns a request");
    Ok(())
}

const ROUNDS: u32 = 20;
const REQUESTS: u32 = 100_000;
