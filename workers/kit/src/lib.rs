//! What worker classes are built from: HTTP/1.1, connections, exchanges, the base worker.
pub mod http;
