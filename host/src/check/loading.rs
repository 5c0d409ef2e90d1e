//! Checks before a server runs: the file, its exports, its setup.

use super::report::{Finding, Report};
use super::server::Bench;

/// Checks whether the class can be loaded; returns whether it can.
pub(super) fn check(bench: &Bench, report: &mut Report) -> bool {
    let output = match bench.load() {
        Ok(output) => output,
        Err(error) => {
            return report.put("loads", Err(format!("the check cannot be started: {error}")));
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let class = said.lines().find_map(|line| line.strip_prefix("worker class "));
    let Some(class) = class.filter(|_| output.status.success()) else {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let error = words.lines().find_map(|line| line.strip_prefix("error: "));
        let ended = || format!("loading or setup ended the process: {}", output.status);
        return report.put("loads", Err(error.map_or_else(ended, ToOwned::to_owned)));
    };
    let (class, rest) = class.split_once(" (").unwrap_or((class, ""));
    let found = rest.split(')').next().unwrap_or_default();
    report.put("loads", Ok(class.to_owned()));
    report.put("abi", Ok(relation(found)));
    report.put("name", name(bench, class.split(' ').next().unwrap_or_default()));
    true
}

/// Compares the class's version of the interface with this host's. Their compatibility has already been checked.
fn relation(found: &str) -> String {
    if let Some(version) = found.strip_prefix("jimu.h ") {
        return format!("built with jimu.h {version}, which this host accepts");
    }
    let found = found.strip_prefix("worker-api ").unwrap_or(found);
    let own = worker_api::API_VERSION;
    let number = |version: &str| -> Vec<u32> {
        version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    match number(found).cmp(&number(own)) {
        std::cmp::Ordering::Equal => {
            format!("built against worker-api {found}, the same as this host's")
        }
        std::cmp::Ordering::Less => {
            format!(
                "built against worker-api {found}, older than this host's {own}, but compatible"
            )
        }
        std::cmp::Ordering::Greater => {
            format!(
                "built against worker-api {found}, newer than this host's {own}, but compatible"
            )
        }
    }
}

/// `hostctl status` and `[class.NAME]` use this name, and short names are resolved to it.
fn name(bench: &Bench, name: &str) -> Finding {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(format!(
            "the name {name:?} must consist of lower-case letters, digits, - and _"
        ));
    }
    let file = bench.class.file_name().unwrap_or_default().to_string_lossy();
    let right = format!("lib{name}_worker.so");
    // Cargo replaces hyphens with underscores in the names of libraries.
    if file == right || file == right.replace('-', "_") {
        Ok(file.into_owned())
    } else {
        Err(format!("the class is named {name}, but its file {file}: rename the file to {right}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(relation(worker_api::API_VERSION).contains("the same as this host's"));
        assert!(relation("0.9.0").contains("older"));
        assert!(relation("1.1000.0").contains("newer"));
    }
}
