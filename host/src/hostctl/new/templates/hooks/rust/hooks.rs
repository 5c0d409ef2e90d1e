//! Hooks that log each request with its status and time.

use worker_api::{AccessRecord, Hooks, HooksFactory, Host, LogLevel, RequestHead, Result};

worker_api::export_hooks!({{type}}Hooks);

/// The hooks: created in the mold, and used by each worker, possibly on several threads at a time.
pub struct {{type}}Hooks {
    host: Host,
}

impl HooksFactory for {{type}}Hooks {
    const NAME: &'static str = "{{name}}";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(host: Host) -> Result<Self> {
        Ok(Self { host })
    }
}

impl Hooks for {{type}}Hooks {
    fn when_ready(&self) {
        self.log("the first worker is ready");
    }

    fn wants_requests(&self) -> bool {
        true
    }

    fn post_request(&self, record: &AccessRecord<'_>) {
        // A request that was rejected early has no head.
        let method = record.head.map_or("-", |head: &RequestHead<'_>| head.method.as_str());
        let time_us = record.duration_ns / 1000;
        self.log(&format!("{method} {} in {time_us} µs", record.status));
    }
}

impl {{type}}Hooks {
    fn log(&self, line: &str) {
        self.host.log(LogLevel::INFO, "{{name}}", line);
    }
}
