//! The class, as every cooperative class is tested: a whole worker, a real listener, a double of the host.

// Helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

#[path = "../../green-kit/tests/double/behaviour.rs"]
mod behaviour;
#[path = "../../green-kit/tests/double/mod.rs"]
mod double;

cooperative_class!(eventlet_worker::EventletWorker);
