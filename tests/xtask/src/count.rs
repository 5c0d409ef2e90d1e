//! Sums up the final lines of test runners.

use std::fmt;

/// Number of tests that passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Adds the counts of a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; ...`; ignores other
    /// lines.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Returns the name of the test in a line such as `test a_test ... FAILED`; `None` for other lines.
pub(crate) fn failed_test(line: &str) -> Option<&str> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    verdict.starts_with("FAILED").then(|| name.trim())
}

/// Returns the option that selects the target in a line such as ``    `-p a-package --test a_test` ``, of which cargo prints
/// one for each target that failed; `None` for other lines.
pub(crate) fn failed_target(line: &str) -> Option<&str> {
    let (_, target) = line.trim().strip_prefix("`-p ")?.strip_suffix('`')?.split_once(' ')?;
    Some(target)
}

/// Returns whether this is the name of a test in documentation.
pub(crate) fn is_of_documentation(name: &str) -> bool {
    name.contains(" (line ")
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let mut counts = Counts::default();
        for line in [
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test a_test ... ok",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s",
        ] {
            counts.add_line(line);
        }
        assert_eq!(
            failed_test("test sync::native::a_test ... FAILED"),
            Some("sync::native::a_test")
        );
        assert_eq!(failed_test("test sync::native::a_test ... ok"), None);
        assert_eq!(counts, Counts { passed: 7, failed: 3, skipped: 1 });
        assert_eq!(counts.to_string(), "7 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn failed_targets_are_found() {
        for (line, target) in [
            ("    `-p jimu-tests --test tidy`", Some("--test tidy")),
            ("    `-p worker-api --doc`", Some("--doc")),
            ("    `-p host --lib`", Some("--lib")),
            ("error: 1 target failed:", None),
            ("     Running tests/tidy.rs (target/debug/deps/tidy-0)", None),
        ] {
            assert_eq!(failed_target(line), target);
        }
        assert!(is_of_documentation("worker-api/src/lib.rs - app::App (line 40)"));
        assert!(!is_of_documentation("sync::native::a_test"));
    }
}
