//! The list of checks and the table of results.

use std::fmt::Write as _;

/// The checks in the order of the table: if a fault has several consequences, the first is the one that causes
/// the others. Each has a name, and the promise that a class makes by it.
pub const CHECKS: &[(&str, &str)] = &[
    ("loads", "it is a worker class that fits this host, and its setup takes its settings"),
    ("abi", "its worker-api and this host's understand each other"),
    ("name", "it is called as its file is, libNAME_worker.so"),
    ("fork-safe", "loading and setup start no threads, which a fork would lose"),
    ("boots", "new and init_process end well and soon"),
    ("runs", "run goes on while the worker is to live"),
    ("listeners", "the listening sockets stay open and non-blocking while the worker lives"),
    ("serves", "requests reach the application, its answers the client"),
    ("stays", "one worker serves one request after the other"),
    ("heads", "method, target and fields reach the application as they were sent"),
    ("bodies", "bodies of known and unknown length arrive whole in both directions"),
    ("keep-alive", "a connection that it says to keep takes the next request"),
    ("concurrent", "clients that come at the same time are all answered"),
    ("silent-client", "a client that says nothing keeps nobody from being served"),
    ("bad-clients", "nonsense, hang-ups and resets harm nobody else"),
    ("app-failure", "a panic of the application costs its request alone"),
    ("descriptors", "served connections leave no descriptors behind"),
    ("memory", "served requests leave no memory behind"),
    ("heartbeat-idle", "the heartbeat goes on while there is nothing to do"),
    ("idle-cpu", "having nothing to do takes no processor time"),
    ("heartbeat-waiting", "the heartbeat goes on while a request waits for its client"),
    ("records", "each request is counted and stands in the access log"),
    ("timeout", "a hung application stops the heartbeat, or others are served meanwhile"),
    ("wake-up", "the wake descriptor is heard at once, and its signals are delivered"),
    ("term", "TERM: what is in flight is answered, then the worker ends with status 0"),
    ("term-queue", "TERM: who waits in the listener's queue is answered"),
    ("term-idle", "TERM: idle connections do not hold up the end"),
    ("quit", "QUIT: the worker ends at once"),
    ("int", "INT: the worker ends at once"),
    ("max-requests", "after max_requests it asks to be replaced, and loses nothing"),
    ("graceful-timeout", "a request that goes on for ever does not keep the worker from its end"),
    ("parent-death", "it ends when the arbiter has died"),
    ("reload", "a reload under load loses nothing"),
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
                    ("-", "not checked: what it needs has failed")
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
    fn a_table_tells_what_passed_what_failed_and_what_was_not_looked_at() {
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
