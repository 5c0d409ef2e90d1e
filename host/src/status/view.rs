//! A snapshot of all metrics, collected from the scoreboard, `/proc` and the kernel's sockets, in the form that
//! the status page reads.

use std::collections::BTreeMap;

use serde::Serialize;

use super::backlog::{self, Backlog};
use crate::clock;
use crate::process::{memory_kib, shared_memory_kib};
use crate::scoreboard::{
    Event, GenerationNote, Scoreboard, ServerCounters, SlotReader, SlotSnapshot, Totals,
    WorkerState,
};

/// What a load balancer is to do with this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Send requests: a worker serves.
    Serving,
    /// Send no new requests: workers may still serve, but the server is about to stop.
    Stopping,
    /// Send no requests: no worker serves.
    Down,
}

/// A snapshot of the server. Times are seconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct View {
    pub(super) version: &'static str,
    pub(super) pid: u32,
    /// Seconds since 1970.
    pub(super) started_at: u64,
    pub(super) uptime: f64,
    /// Whether it is about to stop.
    pub(super) stopping: bool,
    pub(super) memory_kib: Option<u64>,
    pub(super) listeners: Vec<ListenerView>,
    pub(super) generations: Vec<GenerationView>,
    /// Totals of all workers, including exited ones, by worker class.
    pub(super) classes: BTreeMap<String, ClassView>,
    pub(super) events: BTreeMap<&'static str, u64>,
    /// Lines of the error log: debug, info, warning, error, critical.
    pub(super) log_lines: [u64; 5],
}

/// A listening socket.
#[derive(Debug, Serialize)]
pub(super) struct ListenerView {
    pub(super) name: String,
    /// Connections that no worker has accepted yet; `None` if the kernel does not report it.
    pub(super) backlog: Option<u32>,
    pub(super) backlog_max: Option<u32>,
}

/// A generation.
#[derive(Debug, Serialize)]
pub(super) struct GenerationView {
    pub(super) id: u32,
    pub(super) state: &'static str,
    pub(super) class: String,
    pub(super) app: String,
    pub(super) target: u32,
    pub(super) age: f64,
    pub(super) mold: Option<ProcessView>,
    pub(super) workers: Vec<WorkerView>,
}

/// A mold.
#[derive(Debug, Serialize)]
pub(super) struct ProcessView {
    pub(super) pid: u32,
    pub(super) memory_kib: Option<u64>,
}

/// A worker.
#[derive(Debug, Serialize)]
pub(super) struct WorkerView {
    pub(super) slot: u32,
    pub(super) pid: u32,
    pub(super) age: u64,
    pub(super) state: &'static str,
    pub(super) requests: u64,
    pub(super) held: u32,
    pub(super) connections: u64,
    /// Open connections that carry another protocol.
    pub(super) upgraded: u64,
    /// WebSocket messages.
    pub(super) messages_received: u64,
    pub(super) messages_sent: u64,
    pub(super) busy_slots: u64,
    pub(super) slots: u64,
    pub(super) uptime: f64,
    pub(super) silent: f64,
    pub(super) memory_kib: Option<u64>,
    pub(super) in_flight: Vec<RequestView>,
}

/// A request that a worker holds.
#[derive(Debug, Serialize)]
pub(super) struct RequestView {
    pub(super) text: String,
    pub(super) seconds: f64,
}

/// Totals of the workers of a class.
#[derive(Debug, Default, Serialize)]
pub(super) struct ClassView {
    pub(super) accepted: u64,
    pub(super) requests: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) duration_us: u64,
    /// WebSocket messages.
    pub(super) messages_received: u64,
    pub(super) messages_sent: u64,
    pub(super) latency: Vec<u64>,
    pub(super) queued_us: u64,
    pub(super) queued: Vec<u64>,
}

impl View {
    /// Collects everything.
    pub(super) fn take(scoreboard: &Scoreboard) -> Self {
        let now_ns = clock::now_ns();
        let ledger = scoreboard.ledger();
        let (slots, ended) = read(scoreboard, ledger);
        let notes = ledger.generations();
        let pid = crate::process::number(scoreboard.arbiter_pid());
        let (started_ns, started_at) = ledger.started();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid,
            started_at,
            uptime: seconds(started_ns, now_ns),
            stopping: ledger.is_stopping(),
            memory_kib: memory(pid),
            listeners: listeners(ledger),
            classes: classes(&slots, &notes, ended),
            generations: notes
                .into_iter()
                .map(|note| GenerationView::new(note, &slots, now_ns))
                .collect(),
            events: EVENTS.iter().map(|(event, name)| (*name, ledger.counted(*event))).collect(),
            log_lines: scoreboard.logged(),
        }
    }

    /// Returns what `/health` reports.
    pub(super) fn health(&self) -> Health {
        let serves = self.workers().any(|worker| worker.state == WorkerState::Ready.name());
        match (serves, self.stopping) {
            (true, false) => Health::Serving,
            (true, true) => Health::Stopping,
            (false, _) => Health::Down,
        }
    }

    /// Returns all workers.
    pub(super) fn workers(&self) -> impl Iterator<Item = &WorkerView> {
        self.generations.iter().flat_map(|generation| &generation.workers)
    }
}

impl GenerationView {
    fn new(note: GenerationNote, slots: &[Occupied], now_ns: u64) -> Self {
        let mut workers: Vec<WorkerView> = slots
            .iter()
            .filter(|slot| slot.snapshot.generation == note.id)
            .map(|slot| WorkerView::new(slot, now_ns))
            .collect();
        workers.sort_by_key(|worker| worker.age);
        Self {
            id: note.id,
            state: STAGES.get(note.stage as usize).copied().unwrap_or_default(),
            class: note.class,
            app: note.app,
            target: note.target,
            age: seconds(note.started_ns, now_ns),
            mold: (note.mold != 0)
                .then(|| ProcessView { pid: note.mold, memory_kib: memory(note.mold) }),
            workers,
        }
    }
}

impl WorkerView {
    fn new(slot: &Occupied, now_ns: u64) -> Self {
        let snapshot = &slot.snapshot;
        let in_flight = slot.reader.in_flight().into_iter().map(|request| RequestView {
            text: request.text,
            seconds: seconds(request.start_ns, now_ns),
        });
        Self {
            slot: slot.number,
            pid: snapshot.pid,
            age: snapshot.age,
            state: snapshot.state.name(),
            requests: snapshot.totals.requests,
            held: snapshot.held,
            connections: snapshot.connections,
            upgraded: snapshot.upgraded,
            messages_received: snapshot.totals.messages_received,
            messages_sent: snapshot.totals.messages_sent,
            busy_slots: snapshot.busy_request_slots,
            slots: snapshot.request_slots,
            uptime: seconds(snapshot.forked_ns, now_ns),
            silent: seconds(snapshot.heartbeat_ns, now_ns),
            memory_kib: memory(snapshot.pid).filter(|_| snapshot.pid != 0),
            in_flight: in_flight.collect(),
        }
    }
}

impl From<Totals> for ClassView {
    fn from(totals: Totals) -> Self {
        Self {
            accepted: totals.accepted,
            requests: totals.requests,
            statuses: totals.statuses,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            duration_us: totals.duration_us,
            messages_received: totals.messages_received,
            messages_sent: totals.messages_sent,
            latency: totals.latency.to_vec(),
            queued_us: totals.queued_us,
            queued: totals.queued.to_vec(),
        }
    }
}

/// A slot with an owner.
pub(super) struct Occupied {
    number: u32,
    reader: SlotReader,
    snapshot: SlotSnapshot,
}

/// All slots and the totals of exited workers, as of one moment.
fn read(scoreboard: &Scoreboard, ledger: ServerCounters) -> (Vec<Occupied>, Vec<(String, Totals)>) {
    ledger.consistently(|| {
        let slots = scoreboard.occupied().map(|(number, reader)| Occupied {
            number,
            reader,
            snapshot: reader.snapshot(),
        });
        (slots.collect(), ledger.ended())
    })
}

/// Returns the totals so far, by class.
pub(super) fn totals(scoreboard: &Scoreboard) -> BTreeMap<String, Totals> {
    let ledger = scoreboard.ledger();
    let (slots, ended) = read(scoreboard, ledger);
    sums(&slots, &ledger.generations(), ended)
}

fn classes(
    slots: &[Occupied],
    notes: &[GenerationNote],
    ended: Vec<(String, Totals)>,
) -> BTreeMap<String, ClassView> {
    sums(slots, notes, ended).into_iter().map(|(class, sum)| (class, sum.into())).collect()
}

fn sums(
    slots: &[Occupied],
    notes: &[GenerationNote],
    ended: Vec<(String, Totals)>,
) -> BTreeMap<String, Totals> {
    let mut sums: BTreeMap<String, Totals> = ended.into_iter().collect();
    for slot in slots {
        let note = notes.iter().find(|note| note.id == slot.snapshot.generation);
        let class = note.map_or("unknown", |note| note.class.as_str());
        // No worker serves before the class is loaded.
        if !class.is_empty() {
            sums.entry(class.to_owned()).or_default().add(&slot.snapshot.totals);
        }
    }
    sums
}

pub(super) fn listeners(ledger: ServerCounters) -> Vec<ListenerView> {
    let backlogs = backlog::read();
    let listener = |(inode, name): (u64, String)| {
        let backlog: Option<Backlog> = backlogs.get(&inode).copied();
        ListenerView {
            name,
            backlog: backlog.map(|backlog| backlog.waiting),
            backlog_max: backlog.map(|backlog| backlog.max),
        }
    };
    ledger.listeners().into_iter().map(listener).collect()
}

/// Returns the memory of a process, including its share of shared pages if the system permits reading that, else
/// all resident pages.
fn memory(pid: u32) -> Option<u64> {
    shared_memory_kib(pid).or_else(|| memory_kib(pid))
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of less than a hundred days")]
fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

/// Names of the numbers that the arbiter records for the state of a generation.
pub(super) const STAGES: [&str; 5] = ["", "booting", "trial", "serving", "retiring"];

/// Events that the arbiter counts, by the names of their metrics.
const EVENTS: [(Event, &str); 11] = [
    (Event::WorkerReady, "worker_starts"),
    (Event::WorkerDied, "worker_deaths"),
    (Event::WorkerTimedOut, "worker_timeouts"),
    (Event::WorkerRetired, "worker_retirements"),
    (Event::WorkerTooBig, "worker_memory_limits"),
    (Event::BootFailed, "boot_failures"),
    (Event::MoldDied, "mold_deaths"),
    (Event::Reloaded, "reloads"),
    (Event::ReloadRefused, "reloads_refused"),
    (Event::RolledBack, "rollbacks"),
    (Event::StatusDied, "status_deaths"),
];
