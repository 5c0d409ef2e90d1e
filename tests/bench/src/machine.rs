//! The machine that was measured on, and the date.

use std::fs;
use std::thread;

/// Returns processors, kernel and memory in one line.
pub fn description() -> String {
    let meminfo = read("/proc/meminfo");
    let memory = value(&meminfo, "MemTotal").and_then(|words| words.split(' ').next());
    let gib =
        memory.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{}, {gib:.0} GiB, Linux {}", processors(), kernel.trim())
}

/// Returns the model and the number of processors.
pub fn processors() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let model = value(&cpuinfo, "model name").unwrap_or("an unknown processor");
    // A thread pinned to one processor would only see that one.
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let count = count.max(thread::available_parallelism().map_or(1, usize::from));
    format!("{model}, {count} processors")
}

/// Returns the load average of the last minute.
pub fn load() -> f64 {
    let text = read("/proc/loadavg");
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Converts a day since 1970 to year, month and day in the Gregorian calendar.
pub fn date(day: u64) -> String {
    let mut left = day;
    let mut year = 1970;
    while left >= days_of_year(year) {
        left -= days_of_year(year);
        year += 1;
    }
    let february = days_of_year(year) - 337;
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", left + 1)
}

fn days_of_year(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    if leap { 366 } else { 365 }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_with_leap_years() {
        for (day, words) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (20_780, "2026-11-23"),
            (20_818, "2026-12-31"),
        ] {
            assert_eq!(date(day), words);
        }
    }
}
