//! The class, as every cooperative class is tested: a whole worker, a real listener, a double of the host.

#[path = "../../coop/tests/double/behaviour.rs"]
mod behaviour;
#[path = "../../coop/tests/double/mod.rs"]
mod double;

cooperative_class!(eventlet_worker::EventletWorker);
