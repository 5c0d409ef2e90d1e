//! Objects of `worker-api` for the other side: a table of functions of this crate, and the object as their `self`.
//!
//! | module | object |
//! | --- | --- |
//! | [`exchange`] | one request and its response |
//! | [`host`], [`tls`] | the host's services, and its TLS |
//! | [`runtime`] | the class's services for the application, and its engine |
//! | [`app`] | an application, for a worker class |
//!
//! **Invariant:** none of these functions unwinds: the objects behind them catch panics.

pub mod app;
pub mod exchange;
pub mod host;
pub mod runtime;
pub mod tls;
