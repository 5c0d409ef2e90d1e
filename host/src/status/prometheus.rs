//! The metrics in Prometheus' text format 0.0.4.
//!
//! Counters never decrease while the server lives: the requests of exited workers are kept per class. Series of
//! single workers are named by their slot, of which there are only as many as workers at a time; a slot's counter
//! restarts with each worker.

use std::fmt::{Display, Write as _};

use super::view::{ClassView, View, WorkerView};
use crate::scoreboard::{bucket_limit_us, queued_limit_us};

/// Returns the response to a scrape.
pub(super) fn text(view: &View) -> String {
    let mut page = Page(String::new());
    server(&mut page, view);
    requests(&mut page, view);
    workers(&mut page, view);
    each_worker(&mut page, view);
    page.0
}

fn server(page: &mut Page, view: &View) {
    page.family("jimu_info", "gauge", "The server's version.");
    page.sample("jimu_info", &[("version", &view.version)], 1);
    page.family("jimu_start_time_seconds", "gauge", "Start of the server, in seconds since 1970.");
    page.sample("jimu_start_time_seconds", &[], view.started_at);
    page.family("jimu_generation", "gauge", "Existing generations, by state.");
    for generation in &view.generations {
        let labels: [Label<'_>; 4] = [
            ("generation", &generation.id),
            ("state", &generation.state),
            ("class", &generation.class),
            ("app", &generation.app),
        ];
        page.sample("jimu_generation", &labels, 1);
    }
    for (name, count) in &view.events {
        let name = format!("jimu_{name}_total");
        page.family(&name, "counter", "Events counted by the arbiter; see docs/metrics.md.");
        page.sample(&name, &[], count);
    }
    page.family("jimu_log_lines_total", "counter", "Lines of the error log.");
    for (level, count) in LEVELS.iter().zip(view.log_lines) {
        page.sample("jimu_log_lines_total", &[("level", level)], count);
    }
    page.family(
        "jimu_listener_backlog",
        "gauge",
        "Connections in the backlog, which no worker has accepted yet.",
    );
    for listener in &view.listeners {
        if let Some(backlog) = listener.backlog {
            page.sample("jimu_listener_backlog", &[("listener", &listener.name)], backlog);
        }
    }
    page.family("jimu_listener_backlog_max", "gauge", "Limit of the backlog.");
    for listener in &view.listeners {
        if let Some(backlog_max) = listener.backlog_max {
            page.sample("jimu_listener_backlog_max", &[("listener", &listener.name)], backlog_max);
        }
    }
    page.family("jimu_memory_bytes", "gauge", "Memory, by kind of process.");
    let molds = view.generations.iter().filter_map(|generation| generation.mold.as_ref());
    let of_molds: u64 = molds.filter_map(|mold| mold.memory_kib).sum();
    let of_workers: u64 = view.workers().filter_map(|worker| worker.memory_kib).sum();
    for (role, kib) in
        [("arbiter", view.memory_kib.unwrap_or(0)), ("mold", of_molds), ("worker", of_workers)]
    {
        page.sample("jimu_memory_bytes", &[("role", &role)], kib * 1024);
    }
}

fn requests(page: &mut Page, view: &View) {
    page.family("jimu_requests_total", "counter", "Finished requests, by worker class and status.");
    for (class, totals) in &view.classes {
        for (status, count) in &totals.statuses {
            let labels: [Label<'_>; 2] = [("class", class), ("status", status)];
            page.sample("jimu_requests_total", &labels, count);
        }
        let unanswered = totals.requests.saturating_sub(totals.statuses.values().sum());
        let labels: [Label<'_>; 2] = [("class", class), ("status", &"none")];
        page.sample("jimu_requests_total", &labels, unanswered);
    }
    for (name, help, figure) in SUMS {
        page.family(name, "counter", help);
        for (class, totals) in &view.classes {
            page.sample(name, &[("class", class)], figure(totals));
        }
    }
    let name = "jimu_request_duration_seconds";
    page.family(
        name,
        "histogram",
        "Time from the complete head of a request to the end of its response.",
    );
    for (class, totals) in &view.classes {
        histogram(page, name, class, (&totals.latency, totals.duration_us), bucket_limit_us);
    }
    let name = "jimu_request_queued_seconds";
    page.family(
        name,
        "histogram",
        "Time from the arrival of a request to the call of the application, sampled for one request in sixteen.",
    );
    for (class, totals) in &view.classes {
        histogram(page, name, class, (&totals.queued, totals.queued_us), queued_limit_us);
    }
}

fn histogram(
    page: &mut Page,
    name: &str,
    class: &str,
    (counts, all_us): (&[u64], u64),
    limit_us: fn(usize) -> Option<u64>,
) {
    let mut sum = 0;
    for (bucket, count) in counts.iter().enumerate() {
        sum += count;
        let limit = limit_us(bucket).map_or_else(|| "+Inf".to_owned(), decimal_seconds);
        let labels: [Label<'_>; 2] = [("class", &class), ("le", &limit)];
        page.sample(&format!("{name}_bucket"), &labels, sum);
    }
    page.sample(&format!("{name}_sum"), &[("class", &class)], decimal_seconds(all_us));
    page.sample(&format!("{name}_count"), &[("class", &class)], sum);
}

fn workers(page: &mut Page, view: &View) {
    page.family("jimu_workers", "gauge", "Workers, by state.");
    for state in ["booting", "ready", "draining"] {
        let count = view.workers().filter(|worker| worker.state == state).count();
        page.sample("jimu_workers", &[("state", &state)], count);
    }
    page.family("jimu_workers_target", "gauge", "Configured number of workers.");
    let serving = view.generations.iter().filter(|generation| generation.state == "serving");
    page.sample("jimu_workers_target", &[], serving.map(|serving| serving.target).sum::<u32>());
    page.family("jimu_requests_in_flight", "gauge", "Requests in progress.");
    let held: u64 = view.workers().map(|worker| u64::from(worker.held)).sum();
    page.sample("jimu_requests_in_flight", &[], held);
    page.family("jimu_connections", "gauge", "Open connections.");
    let connections: u64 = view.workers().map(|worker| worker.connections).sum();
    page.sample("jimu_connections", &[], connections);
    page.family(
        "jimu_upgraded_connections",
        "gauge",
        "Open connections that carry another protocol, such as WebSocket.",
    );
    let upgraded: u64 = view.workers().map(|worker| worker.upgraded).sum();
    page.sample("jimu_upgraded_connections", &[], upgraded);
    page.family(
        "jimu_slots",
        "gauge",
        "Threads or greenlets, by state; workers, for a class that has neither.",
    );
    let slots = view.workers().filter(|worker| worker.state == "ready").map(request_slots);
    let (busy, all) = slots.fold((0, 0), |sum, slots| (sum.0 + slots.0, sum.1 + slots.1));
    page.sample("jimu_slots", &[("state", &"busy")], busy);
    page.sample("jimu_slots", &[("state", &"idle")], all.saturating_sub(busy));
}

/// Returns busy and total request slots of a worker.
fn request_slots(worker: &WorkerView) -> (u64, u64) {
    match worker.slots {
        0 => (u64::from(worker.held.min(1)), 1),
        slots => (worker.busy_slots.min(slots), slots),
    }
}

fn each_worker(page: &mut Page, view: &View) {
    for (name, kind, help, figure) in EACH {
        page.family(name, kind, help);
        for worker in view.workers() {
            page.sample(name, &[("worker", &worker.slot)], figure(worker));
        }
    }
}

type Label<'a> = (&'static str, &'a dyn Display);

/// Text that grows line by line. Writing to a string cannot fail.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(&value.to_string()));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{after} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn decimal_seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

type OfClass = fn(&ClassView) -> u64;

/// Counters per class.
const SUMS: [(&str, &str, OfClass); 5] = [
    ("jimu_connections_accepted_total", "Accepted connections.", |totals| totals.accepted),
    ("jimu_request_body_bytes_total", "Bytes of request bodies.", |totals| totals.bytes_in),
    ("jimu_response_body_bytes_total", "Bytes of response bodies.", |totals| totals.bytes_out),
    ("jimu_websocket_messages_received_total", "WebSocket messages received.", |totals| {
        totals.messages_received
    }),
    ("jimu_websocket_messages_sent_total", "WebSocket messages sent.", |totals| {
        totals.messages_sent
    }),
];

type OfWorker = fn(&WorkerView) -> String;

/// Series of single workers.
const EACH: [(&str, &str, &str, OfWorker); 5] = [
    (
        "jimu_worker_requests_total",
        "counter",
        "Finished requests of the worker in this slot.",
        |worker| worker.requests.to_string(),
    ),
    (
        "jimu_worker_requests_in_flight",
        "gauge",
        "Requests in progress in the worker in this slot.",
        |worker| worker.held.to_string(),
    ),
    (
        "jimu_worker_upgraded_connections",
        "gauge",
        "Open connections of the worker in this slot that carry another protocol.",
        |worker| worker.upgraded.to_string(),
    ),
    (
        "jimu_worker_heartbeat_age_seconds",
        "gauge",
        "Time since the last heartbeat of the worker in this slot.",
        |worker| format!("{:.3}", worker.silent),
    ),
    ("jimu_worker_memory_bytes", "gauge", "Memory of the worker in this slot.", |worker| {
        (worker.memory_kib.unwrap_or(0) * 1024).to_string()
    }),
];

const LEVELS: [&str; 5] = ["debug", "info", "warning", "error", "critical"];
/// Content type that Prometheus expects.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::tests::claim;
    use crate::scoreboard::{GenerationNote, Scoreboard, WorkerState};

    fn scraped() -> String {
        let board = Scoreboard::new().unwrap();
        let note = GenerationNote {
            id: 1,
            stage: 3,
            target: 1,
            class: "sync".to_owned(),
            app: "a \"b\"".to_owned(),
            ..GenerationNote::default()
        };
        board.ledger().note_generations(std::iter::once(note));
        let (gone, writer, _) = claim(&board, 1, 1);
        writer.count_response(200, 100, 0, 0);
        writer.count_messages_sent(5);
        writer.count_upgraded(1);
        board.release(gone);
        let (_, writer, _) = claim(&board, 1, 2);
        writer.set_state(WorkerState::Ready);
        writer.count_response(200, 50, 0, 7);
        writer.count_response(0, 3_000_000, 0, 0);
        writer.count_queued(500_000);
        writer.count_upgraded(2);
        writer.count_messages_received(3);
        writer.count_messages_sent(4);
        let _held = writer.begin_request(b"GET /", 1);
        text(&View::take(&board))
    }

    #[test]
    fn every_line_is_a_sample_or_describes_the_next_ones() {
        let text = scraped();
        let mut families = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(families.insert(name.to_owned()), "{name} comes twice");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.starts_with("jimu_"), "{line}");
            }
        }
    }

    #[test]
    fn requests_of_exited_workers_are_kept() {
        let text = scraped();
        for line in [
            "jimu_requests_total{class=\"sync\",status=\"200\"} 2",
            "jimu_requests_total{class=\"sync\",status=\"none\"} 1",
            "jimu_request_duration_seconds_bucket{class=\"sync\",le=\"0.000064\"} 1",
            "jimu_request_duration_seconds_bucket{class=\"sync\",le=\"+Inf\"} 3",
            "jimu_request_duration_seconds_sum{class=\"sync\"} 3.000150",
            "jimu_request_duration_seconds_count{class=\"sync\"} 3",
            "jimu_request_queued_seconds_bucket{class=\"sync\",le=\"0.256000\"} 0",
            "jimu_request_queued_seconds_bucket{class=\"sync\",le=\"0.512000\"} 1",
            "jimu_request_queued_seconds_sum{class=\"sync\"} 0.500000",
            "jimu_slots{state=\"busy\"} 1",
            "jimu_upgraded_connections 2",
            "jimu_worker_upgraded_connections{worker=\"0\"} 2",
            "jimu_websocket_messages_received_total{class=\"sync\"} 3",
            "jimu_websocket_messages_sent_total{class=\"sync\"} 9",
            "jimu_workers{state=\"ready\"} 1",
            "jimu_workers_target 1",
            "jimu_generation{generation=\"1\",state=\"serving\",class=\"sync\",app=\"a \\\"b\\\"\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
        }
    }
}
