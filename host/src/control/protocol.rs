//! Requests and responses: one JSON object per line, one response per request. Later versions only add fields;
//! ignore unknown ones.

use serde::{Deserialize, Serialize};

use crate::message::LoadedLibrary;

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Return generations, molds and workers.
    Status,
    /// Start a new generation. The response comes once it has taken over or was refused.
    Reload {
        /// Worker class to use instead of the configured one, for this reload.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker_class: Option<String>,
        /// Start the new generation with this number of workers first, on trial. The response comes once
        /// they serve.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        canary: Option<usize>,
    },
    /// Let the generation on trial take over. The response comes once it has.
    Promote,
    /// End the generation on trial, or the one that boots. Without either, start a generation like an earlier
    /// one, with the response of a reload.
    Rollback {
        /// Number of the earlier generation; the previous one if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u32>,
    },
    /// Replace a worker after it has exited gracefully.
    KillWorker {
        /// Its process ID.
        pid: u32,
    },
    /// Return the settings of the serving generation.
    Config,
    /// Change the number of workers, until the next reload.
    Scale {
        /// The number of workers.
        workers: usize,
    },
    /// Shut down gracefully.
    Stop,
    /// Shut down quickly.
    Quit,
    /// Reopen the log files.
    Reopen,
}

/// The response to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Whether the request succeeded.
    pub ok: bool,
    /// The reason if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The requested data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The settings, as TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

impl Response {
    /// Reports success.
    pub fn done() -> Self {
        Self { ok: true, ..Self::default() }
    }

    /// Reports failure.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self { error: Some(reason.into()), ..Self::default() }
    }

    /// Returns the status.
    pub fn status(status: Status) -> Self {
        Self { ok: true, status: Some(status), ..Self::default() }
    }
}

/// A snapshot of the server. Times are seconds, memory is KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// The arbiter's process ID.
    pub pid: u32,
    /// `starting`, `running` or `stopping`.
    pub state: String,
    /// Resident memory of the arbiter.
    pub memory_kib: Option<u64>,
    /// Addresses of the listeners.
    pub listeners: Vec<String>,
    /// Current generations, the oldest first.
    pub generations: Vec<GenerationStatus>,
    /// Retired generations that a rollback can still return to.
    #[serde(default)]
    pub past: Vec<PastGeneration>,
}

/// A retired generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastGeneration {
    /// Number of the generation.
    pub id: u32,
    /// Name and version of its worker class.
    pub class: Option<String>,
    /// Its application.
    pub app: Option<String>,
    /// Name or path of the worker class, as in its settings.
    pub worker_class: String,
}

/// A generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Number of the generation.
    pub id: u32,
    /// `booting`, `trial`, `serving` or `retiring`.
    pub state: String,
    /// Name and version of the worker class, once loaded.
    pub class: Option<String>,
    /// The application, once loaded.
    pub app: Option<String>,
    /// Version of worker-api that the class was built against.
    pub worker_api: Option<String>,
    /// Loaded libraries, with their build-ids.
    #[serde(default)]
    pub libraries: Vec<LoadedLibrary>,
    /// Configured number of workers.
    pub target: usize,
    /// Seconds since it was created.
    pub age: u64,
    /// Its mold, if one runs.
    pub mold: Option<MoldStatus>,
    /// Its workers, the oldest first.
    pub workers: Vec<WorkerStatus>,
}

/// A mold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoldStatus {
    /// Its process ID.
    pub pid: u32,
    /// `loading`, `loaded` or `quitting`.
    pub state: String,
    /// Resident memory.
    pub memory_kib: Option<u64>,
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its process ID; 0 before it has one.
    pub pid: u32,
    /// 1-based spawn number among all workers.
    pub age: u64,
    /// Name of its class.
    pub class: Option<String>,
    /// `booting`, `ready`, `draining` or `dead`.
    pub state: String,
    /// Number of exchanges in flight.
    pub busy: u32,
    /// Method and target of those, as far as they are kept.
    pub in_flight: Vec<String>,
    /// Number of finished exchanges.
    pub requests: u64,
    /// Number of accepted connections.
    pub accepted: u64,
    /// Number of open connections that carry another protocol, such as WebSocket.
    #[serde(default)]
    pub upgraded: u64,
    /// Number of WebSocket messages received.
    #[serde(default)]
    pub messages_received: u64,
    /// Number of WebSocket messages sent.
    #[serde(default)]
    pub messages_sent: u64,
    /// Seconds since it was created.
    pub uptime: u64,
    /// Milliseconds since its last heartbeat.
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
