//! The list of checks and the table of results.

use std::fmt::Write as _;

/// The checks in the order of the table: if a fault has several consequences, the first is the one that causes
/// the others. Each has a name, and the promise that a class makes by it.
pub const CHECKS: &[(&str, &str)] = &[
    (
        "loads",
        "the library is a worker class compatible with this host, and its setup accepts its settings",
    ),
    ("abi", "its worker-api is compatible with this host's"),
    ("name", "its name matches its file, libNAME_worker.so"),
    ("fork-safe", "loading and setup start no threads, since a fork loses them"),
    ("boots", "new and init_process succeed in time"),
    ("runs", "run does not return while host.alive() is true"),
    ("listeners", "the listening sockets stay open and non-blocking while the worker serves"),
    ("serves", "requests reach the application, and its responses reach the client"),
    ("stays", "one worker serves many requests in a row"),
    ("heads", "method, target and headers reach the application unchanged"),
    ("bodies", "bodies of known and unknown length arrive complete in both directions"),
    ("keep-alive", "a connection announced as kept alive serves the next request"),
    ("concurrent", "concurrent clients are all served"),
    ("silent-client", "a silent client does not delay others"),
    ("bad-clients", "malformed requests, disconnects and resets do not affect others"),
    ("app-failure", "a panic of the application fails only its request"),
    ("descriptors", "descriptors do not leak"),
    ("memory", "memory does not leak"),
    ("heartbeat-idle", "the heartbeat continues while the worker is idle"),
    ("idle-cpu", "an idle worker uses no processor time"),
    (
        "heartbeat-waiting",
        "the heartbeat continues while a request waits for its client, buffered or not",
    ),
    ("records", "each request is counted and logged"),
    ("accepted", "each connection is counted once"),
    ("timeout", "a hung application stops the heartbeat, unless others are still served"),
    ("wake-up", "signals are delivered as soon as the wake descriptor is readable"),
    ("term", "TERM: requests in flight are finished, then the worker exits with status 0"),
    ("term-queue", "TERM: connections in the listener's backlog are served"),
    ("term-idle", "TERM: idle connections do not delay the exit"),
    ("quit", "QUIT: the worker exits immediately"),
    ("int", "INT: the worker exits immediately"),
    ("max-requests", "after max_requests the worker asks to be replaced, and loses no request"),
    ("graceful-timeout", "an endless request does not prevent the exit"),
    ("parent-death", "the worker exits when the arbiter has died"),
    ("reload", "a reload under load loses no request"),
];

/// Passed, with the measured value; or failed, with the fault.
pub(super) type Finding = Result<String, String>;

/// The results so far.
#[derive(Default)]
pub(super) struct Report(Vec<(&'static str, Finding)>);

impl Report {
    /// Runs a check. Returns whether it passed.
    pub(super) fn check(&mut self, name: &'static str, check: impl FnOnce() -> Finding) -> bool {
        self.put(name, check())
    }

    /// Records the result of a check. Returns whether it passed.
    pub(super) fn put(&mut self, name: &'static str, finding: Finding) -> bool {
        debug_assert!(CHECKS.iter().any(|(known, _)| *known == name), "{name} is in the table");
        let passed = finding.is_ok();
        self.0.push((name, finding));
        passed
    }

    /// Adds the results of another report.
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns whether any check failed.
    pub(super) fn has_failed(&self) -> bool {
        self.0.iter().any(|(_, finding)| finding.is_err())
    }

    /// Returns the table, followed by one line for each fault: `fault: NAME: …`.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        let mut faults = String::new();
        for (name, promise) in CHECKS {
            let (mark, words) = match self.finding(name) {
                None => {
                    skipped += 1;
                    ("-", "not checked: it depends on a failed check")
                }
                Some(Ok(measured)) => {
                    passed += 1;
                    ("ok", measured.as_str())
                }
                Some(Err(fault)) => {
                    failed += 1;
                    let _ = writeln!(faults, "fault: {name}: {fault}");
                    ("FAILED", promise as &str)
                }
            };
            let _ = writeln!(text, "{mark:<7} {name:<18} {words}");
        }
        let _ = writeln!(text, "\n{passed} passed, {failed} failed, {skipped} not checked");
        text + &faults
    }

    fn finding(&self, name: &str) -> Option<&Finding> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, finding)| finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lists_passed_failed_and_unchecked() {
        let mut report = Report::default();
        assert!(report.put("loads", Ok("x 1.0".to_owned())));
        assert!(!report.check("boots", || Err("it panicked".to_owned())));
        let table = report.table();
        assert!(report.has_failed());
        assert!(table.starts_with("ok      loads              x 1.0\n"), "{table}");
        assert!(table.contains("\nFAILED  boots "), "{table}");
        assert!(table.contains("\n-       serves "), "{table}");
        let rest = CHECKS.len() - 2;
        assert!(table.contains(&format!("1 passed, 1 failed, {rest} not checked\n")), "{table}");
        assert!(table.ends_with("fault: boots: it panicked\n"), "{table}");
    }
}
