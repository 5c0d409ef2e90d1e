//! Requests and responses: one JSON object a line, one response a request. Fields are only ever
//! added; unknown ones are to be ignored.

use serde::{Deserialize, Serialize};

use crate::message::LoadedLibrary;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Generations, molds and workers.
    Status,
    /// A new generation; answered when it has taken over, or was refused.
    Reload {
        /// Another worker class than the settings name, for this reload.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker_class: Option<String>,
        /// Try the new generation with so many workers first; answered when these serve.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        canary: Option<usize>,
    },
    /// The generation on trial takes over; answered when it has.
    Promote,
    /// The generation on trial, or the one that boots, ends. Where there is none, a generation like
    /// an earlier one takes over; answered as a reload.
    Rollback {
        /// Which one; the one before where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u32>,
    },
    /// A worker ends gracefully and is replaced.
    KillWorker {
        /// Its process id.
        pid: u32,
    },
    /// The settings of the generation that serves.
    Config,
    /// Another number of workers, until the next reload.
    Scale {
        /// How many.
        workers: usize,
    },
    /// A graceful end.
    Stop,
    /// A quick end.
    Quit,
    /// Log files are opened again.
    Reopen,
}

/// The answer to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The settings, as TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

impl Response {
    /// It was done.
    pub fn done() -> Self {
        Self { ok: true, ..Self::default() }
    }

    /// It was not done.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self { error: Some(reason.into()), ..Self::default() }
    }

    /// What the server is.
    pub fn status(status: Status) -> Self {
        Self { ok: true, status: Some(status), ..Self::default() }
    }
}

/// The server at one moment. Times are seconds, memory is KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// The arbiter's process id.
    pub pid: u32,
    /// `running` or `stopping`.
    pub state: String,
    /// Resident memory of the arbiter.
    pub memory_kib: Option<u64>,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// The oldest first.
    pub generations: Vec<GenerationStatus>,
    /// Those that have served and ended, as far as there is a way back to them.
    #[serde(default)]
    pub past: Vec<PastGeneration>,
}

/// A generation that has served and ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastGeneration {
    /// Its number.
    pub id: u32,
    /// Name and version of its worker class.
    pub class: Option<String>,
    /// Its application.
    pub app: Option<String>,
    /// The name or path of the worker class, as its settings had it.
    pub worker_class: String,
}

/// A generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Its number.
    pub id: u32,
    /// `booting`, `trial`, `serving` or `retiring`.
    pub state: String,
    /// Name and version of the worker class, once it is loaded.
    pub class: Option<String>,
    /// The application, once it is loaded.
    pub app: Option<String>,
    /// The version of worker-api that the class was built against.
    pub worker_api: Option<String>,
    /// The libraries that it loaded, with their build-ids.
    #[serde(default)]
    pub libraries: Vec<LoadedLibrary>,
    /// How many workers it shall have.
    pub target: usize,
    /// Since when it exists.
    pub age: u64,
    /// Its mold, if one runs.
    pub mold: Option<MoldStatus>,
    /// Its workers, the oldest first.
    pub workers: Vec<WorkerStatus>,
}

/// A mold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoldStatus {
    /// Its process id.
    pub pid: u32,
    /// `loading`, `loaded` or `quitting`.
    pub state: String,
    /// Resident memory.
    pub memory_kib: Option<u64>,
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its process id; 0 before it has one.
    pub pid: u32,
    /// Its place in the sequence of all workers.
    pub age: u64,
    /// Name of its class.
    pub class: Option<String>,
    /// `booting`, `ready`, `draining` or `dead`.
    pub state: String,
    /// Exchanges that it holds.
    pub busy: u32,
    /// Method and target of those, as far as they are kept.
    pub in_flight: Vec<String>,
    /// Exchanges finished.
    pub requests: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Since when it exists.
    pub uptime: u64,
    /// Since its last sign of life, in milliseconds.
    pub silent_ms: u64,
    /// Resident memory.
    pub memory_kib: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_written_as_documented() {
        let read = |text: &str| serde_json::from_str::<Request>(text).unwrap();
        assert_eq!(read(r#"{"request":"status"}"#), Request::Status);
        assert_eq!(
            read(r#"{"request":"reload"}"#),
            Request::Reload { worker_class: None, canary: None }
        );
        assert_eq!(read(r#"{"request":"scale","workers":3}"#), Request::Scale { workers: 3 });
        assert!(serde_json::from_str::<Request>(r#"{"request":"scale"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"request":"reload","clas":"x"}"#).is_err());
    }

    #[test]
    fn a_response_without_status_is_short() {
        let text = serde_json::to_string(&Response::refused("no")).unwrap();
        assert_eq!(text, r#"{"ok":false,"error":"no"}"#);
    }
}
