//! Names of the server's processes in `ps(1)` and `top(1)`: "NAME: arbiter", "NAME: mold", "NAME: worker".
//!
//! The kernel's short name has 15 bytes, so a long NAME is truncated and the role kept. `ps` also shows the
//! command line, whose memory is overwritten with the full text, as gunicorn's setproctitle does.

use std::ffi::CString;
use std::ptr;
use std::sync::OnceLock;

use nix::sys::prctl;

use crate::process::read_small;
use crate::settings::Settings;

/// Names this process after the setting `proc_name` and its role.
pub(crate) fn set(settings: &Settings, role: &str) {
    let name = settings.proc_name.as_deref().unwrap_or("host");
    // The names are cosmetic: nothing depends on them.
    if let Ok(short) = CString::new(short(name, role)) {
        let _ = prctl::set_name(&short);
    }
    if let Some(area) = CommandLine::find() {
        area.write(&format!("{name}: {role}"));
    }
}

/// Returns the kernel's short name: the full role, and as much of the name as fits.
fn short(name: &str, role: &str) -> String {
    let room = SHORT_MAX.saturating_sub(role.len() + ": ".len());
    let fits = |&end: &usize| name.is_char_boundary(end);
    let end = (0..=name.len().min(room)).rev().find(fits).unwrap_or(0);
    format!("{}: {role}", &name[..end])
}

/// The memory of the process's arguments, which `/proc/PID/cmdline` shows. At the same address in every process
/// forked from the first one.
#[derive(Clone, Copy)]
struct CommandLine {
    start: usize,
    len: usize,
}

impl CommandLine {
    fn find() -> Option<Self> {
        static FOUND: OnceLock<Option<CommandLine>> = OnceLock::new();
        *FOUND.get_or_init(|| Self::parse(&read_small("/proc/self/stat")?))
    }

    /// Parsed from the fields `arg_start` and `arg_end`, 48 and 49 of `proc_pid_stat(5)`. The second field,
    /// the command, may contain spaces and parentheses.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace().skip(ARG_START - FIRST_AFTER);
        let first: usize = fields.next()?.parse().ok()?;
        let end: usize = fields.next()?.parse().ok()?;
        let len = end.checked_sub(first).filter(|len| *len > 0 && first != 0)?;
        Some(Self { start: first, len })
    }

    fn write(self, text: &str) {
        // A final zero, without which the kernel takes the environment for a part of the text.
        let text = &text.as_bytes()[..text.len().min(self.len - 1)];
        let area = ptr::with_exposed_provenance_mut::<u8>(self.start);
        // SAFETY: the kernel put the arguments there, and nothing moves or frees them. The server reads
        // its arguments once, before the first call of this function, and keeps copies; only threads that
        // do the same exist at that time.
        unsafe {
            ptr::write_bytes(area, 0, self.len);
            ptr::copy_nonoverlapping(text.as_ptr(), area, text.len());
        }
    }
}

/// Length of the kernel's short name (`TASK_COMM_LEN` without the final zero).
const SHORT_MAX: usize = 15;
const ARG_START: usize = 48;
/// The first field after the command: the state.
const FIRST_AFTER: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_keeps_the_role() {
        for (name, role, expected) in [
            ("host", "arbiter", "host: arbiter"),
            ("my-long-application", "worker", "my-long: worker"),
            ("my-long-application", "arbiter", "my-lon: arbiter"),
            ("äöüäöü", "worker", "äöü: worker"),
        ] {
            assert_eq!(short(name, role), expected);
        }
    }

    #[test]
    fn the_arguments_are_found_after_any_command_name() {
        let fields: Vec<String> = (4..=52).map(|field| format!("{field}000")).collect();
        let stat = format!("812 (a) (b c) S {}", fields.join(" "));
        let found = CommandLine::parse(&stat).unwrap();
        assert_eq!((found.start, found.len), (48_000, 1_000));
        assert!(CommandLine::parse("812 (host) S 1 2").is_none());
    }
}
