//! The faults that there are, and which of them was asked for: in `[class.broken] fault = "…"` or `BROKEN_CLASS`.

use worker_api::{Failure, Host, Result};

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    SetupFails,
    SetupPanics,
    SetupExits,
    SetupStartsThread,
    NewPanics,
    InitFails,
    BootsSlowly,
    RunPanics,
    RunReturns,
    ClosesListener,
    BlocksListener,
    AnswersNothing,
    AnswersItself,
    ExitsAfterFirst,
    ServesOneAtATime,
    DiesOfBadClients,
    LeaksDescriptors,
    LeaksMemory,
    RecordsNothing,
    HasNoHeartbeat,
    SpinsWhileIdle,
    IsSilentWhileWaiting,
    BeatsFromThread,
    IsDeaf,
    LooksNowAndThen,
    IgnoresTerm,
    CutsRequests,
    EndsWithError,
    DropsQueue,
    KeepsAccepting,
    HoldsIdle,
    BlocksSignals,
    NeverRetires,
    OutlivesArbiter,
}

/// What each is called.
const NAMES: &[(&str, Fault)] = &[
    ("setup-fails", Fault::SetupFails),
    ("setup-panics", Fault::SetupPanics),
    ("setup-exits", Fault::SetupExits),
    ("setup-starts-thread", Fault::SetupStartsThread),
    ("new-panics", Fault::NewPanics),
    ("init-fails", Fault::InitFails),
    ("boots-slowly", Fault::BootsSlowly),
    ("run-panics", Fault::RunPanics),
    ("run-returns", Fault::RunReturns),
    ("closes-listener", Fault::ClosesListener),
    ("blocks-listener", Fault::BlocksListener),
    ("answers-nothing", Fault::AnswersNothing),
    ("answers-itself", Fault::AnswersItself),
    ("exits-after-first", Fault::ExitsAfterFirst),
    ("serves-one-at-a-time", Fault::ServesOneAtATime),
    ("dies-of-bad-clients", Fault::DiesOfBadClients),
    ("leaks-descriptors", Fault::LeaksDescriptors),
    ("leaks-memory", Fault::LeaksMemory),
    ("records-nothing", Fault::RecordsNothing),
    ("has-no-heartbeat", Fault::HasNoHeartbeat),
    ("spins-while-idle", Fault::SpinsWhileIdle),
    ("is-silent-while-waiting", Fault::IsSilentWhileWaiting),
    ("beats-from-thread", Fault::BeatsFromThread),
    ("is-deaf", Fault::IsDeaf),
    ("looks-now-and-then", Fault::LooksNowAndThen),
    ("ignores-term", Fault::IgnoresTerm),
    ("cuts-requests", Fault::CutsRequests),
    ("ends-with-error", Fault::EndsWithError),
    ("drops-queue", Fault::DropsQueue),
    ("keeps-accepting", Fault::KeepsAccepting),
    ("holds-idle", Fault::HoldsIdle),
    ("blocks-signals", Fault::BlocksSignals),
    ("never-retires", Fault::NeverRetires),
    ("outlives-arbiter", Fault::OutlivesArbiter),
];

impl Fault {
    /// The fault that was asked for; none where nothing was.
    pub(crate) fn chosen(host: &Host) -> Result<Option<Self>> {
        let section: toml::Table = host.section().parse().unwrap_or_default();
        let written = section.get("fault").and_then(toml::Value::as_str).map(str::to_owned);
        let Some(name) = written.or_else(|| std::env::var(VARIABLE).ok()) else { return Ok(None) };
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, fault)| Some(*fault)).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            Failure::config(format!("no fault {name:?}; there are {}", names.join(", ")))
        })
    }
}

const VARIABLE: &str = "BROKEN_CLASS";
