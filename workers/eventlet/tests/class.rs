//! Runs the tests of the cooperative classes: a complete worker with a real listener and a double of the host.

// A failing helper fails the test.
#![allow(clippy::unwrap_used)]

#[path = "../../green-kit/tests/double/behaviour.rs"]
mod behaviour;
#[path = "../../green-kit/tests/double/mod.rs"]
mod double;

cooperative_class!(eventlet_worker::EventletWorker);
