//! Runs the tests of the cooperative classes: a complete worker with a real listener and a double of the host.

doubles::cooperative_class!(jimu_green_kit::stream_server::GeventWorker<asgi_worker::Asgi>);
