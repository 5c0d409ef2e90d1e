//! The server's responses as text for people.

use crate::control::{GenerationStatus, LoadedLibrary, Response, Status, WorkerStatus};

/// Returns the whole response as JSON, for programs.
pub(super) fn json(response: &Response) -> String {
    // A response consists of texts and numbers, which JSON can represent.
    let mut text = serde_json::to_string_pretty(response).unwrap_or_default();
    text.push('\n');
    text
}

/// Returns the full status.
pub(super) fn status(status: &Status) -> String {
    let mut lines = vec![headline(status)];
    for generation in &status.generations {
        lines.push(generation_line(generation));
        lines.extend(generation.libraries.iter().map(library_line));
        if let Some(mold) = &generation.mold {
            let memory = memory(mold.memory_kib);
            lines.push(format!("  mold   {:>7}  {:<9} {memory}", mold.pid, mold.state));
        }
        lines.extend(generation.workers.iter().map(|worker| worker_line(worker, None)));
    }
    join(&lines)
}

/// Returns the generations alone, including past ones.
pub(super) fn generations(status: &Status) -> String {
    let past = status.past.iter().map(|past| {
        let class = past.class.as_deref().unwrap_or(&past.worker_class);
        let app = past.app.as_deref().unwrap_or("application not loaded");
        format!("generation {}: past, {class}, {app}", past.id)
    });
    let present = status.generations.iter().map(|generation| {
        let workers = generation.workers.len();
        format!("{}, {workers} of {} workers", generation_line(generation), generation.target)
    });
    join(&past.chain(present).collect::<Vec<_>>())
}

pub(super) fn headline(status: &Status) -> String {
    format!(
        "host {} (pid {}), {}, listening at {}",
        status.version,
        status.pid,
        status.state,
        status.listeners.join(", ")
    )
}

pub(super) fn generation_line(generation: &GenerationStatus) -> String {
    let class = generation.class.as_deref().unwrap_or("worker class not loaded");
    let app = generation.app.as_deref().unwrap_or("application not loaded");
    format!("generation {}: {}, {class}, {app}", generation.id, generation.state)
}

/// Returns the line of a library, which identifies the file for debugging a process or a core.
fn library_line(library: &LoadedLibrary) -> String {
    let build_id = library.build_id.as_deref().unwrap_or("none");
    format!("  {:<12}  {}  build-id {build_id}", library.kind, printable(&library.path))
}

/// Returns the line of a worker, with its requests per second if they are known.
pub(super) fn worker_line(worker: &WorkerStatus, rate: Option<f64>) -> String {
    let rate = rate.map_or_else(String::new, |rate| format!("  {rate:>7.0}/s"));
    let messages = messages(worker);
    format!(
        "  worker {:>7}  {:<9} {}{rate}  busy {}  requests {}{messages}  age {} s  {}",
        worker.pid,
        worker.state,
        memory(worker.memory_kib),
        worker.busy,
        worker.requests,
        worker.uptime,
        printable(&worker.in_flight.join(", "))
    )
}

/// Returns the columns of a worker that has served WebSockets: open connections, messages received and sent.
fn messages(worker: &WorkerStatus) -> String {
    let WorkerStatus { upgraded, messages_received, messages_sent, .. } = worker;
    if upgraded + messages_received + messages_sent == 0 {
        return String::new();
    }
    format!("  upgraded {upgraded}  received {messages_received}  sent {messages_sent}")
}

pub(super) fn join(lines: &[String]) -> String {
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    trimmed.join("\n") + "\n"
}

/// Escapes text that clients have sent, so that it cannot control the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn memory(kib: Option<u64>) -> String {
    kib.map_or_else(
        || "?".to_owned(),
        |kib| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cannot_move_the_cursor() {
        let worker =
            WorkerStatus { in_flight: vec!["GET /\x1b[2J".to_owned()], ..WorkerStatus::default() };
        assert!(worker_line(&worker, None).ends_with("GET /?[2J"));
    }

    #[test]
    fn messages_are_shown_for_workers_that_have_some() {
        let worker = WorkerStatus { requests: 4, ..WorkerStatus::default() };
        assert!(worker_line(&worker, None).contains("requests 4  age"));
        let worker = WorkerStatus { upgraded: 1, messages_received: 2, messages_sent: 3, ..worker };
        let line = worker_line(&worker, None);
        assert!(line.contains("requests 4  upgraded 1  received 2  sent 3  age"), "{line}");
    }
}
