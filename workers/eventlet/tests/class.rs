//! Runs the tests of the cooperative classes: a complete worker with a real listener and a double of the host.

doubles::cooperative_class!(eventlet_worker::EventletWorker);
