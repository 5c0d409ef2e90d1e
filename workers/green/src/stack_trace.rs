//! Stack traces. Capturing the addresses takes microseconds; finding the names of the functions takes up to a second and
//! tens of MiB the first time, so a server can have another process do that ([`report_stacks`]).

use std::fmt::{self, Write as _};
use std::sync::OnceLock;

/// The return addresses on a greenlet's stack, the innermost first. Displaying it finds the names of the functions, with
/// the feature `names`.
#[derive(Debug, Clone)]
pub struct StackTrace(Vec<usize>);

impl StackTrace {
    /// Captures the calling thread's stack.
    pub(crate) fn capture() -> Self {
        let mut addresses = Vec::new();
        backtrace::trace(|frame| {
            addresses.push(frame.ip() as usize);
            addresses.len() < FRAMES_MAX
        });
        Self(addresses)
    }

    pub(crate) fn of(addresses: impl Iterator<Item = usize>) -> Self {
        Self(addresses.collect())
    }

    /// Returns the addresses.
    pub fn addresses(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for StackTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for address in &self.0 {
            write_function(&mut text, *address);
        }
        f.write_str(&text)
    }
}

/// Writes the functions at an address, which are several if some are inlined. Writing to a string does not fail.
#[cfg(feature = "names")]
fn write_function(text: &mut String, address: usize) {
    backtrace::resolve(address as *mut std::ffi::c_void, |symbol| {
        let name = symbol.name().map_or_else(|| "?".to_owned(), |name| format!("{name:#}"));
        text.push_str("  ");
        text.push_str(&name);
        if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
            let _ = write!(text, " at {}:{line}", file.display());
        }
        text.push('\n');
    });
}

/// Writes the address. Writing to a string does not fail.
#[cfg(not(feature = "names"))]
fn write_function(text: &mut String, address: usize) {
    let _ = writeln!(text, "  {address:#x}");
}

/// Has `reporter` log the stacks that this crate reports: it is called with a heading and the addresses. Of several
/// calls the first counts. Without one, the stacks are events of `tracing`.
pub fn report_stacks(reporter: impl Fn(&str, &[usize]) + Send + Sync + 'static) {
    REPORTER.get_or_init(|| Box::new(reporter));
}

pub(crate) fn report(heading: &str, trace: &StackTrace) {
    if let Some(reporter) = REPORTER.get() {
        reporter(heading, trace.addresses());
    } else {
        tracing::warn!("{heading}:\n{trace}");
    }
}

static REPORTER: OnceLock<Reporter> = OnceLock::new();

type Reporter = Box<dyn Fn(&str, &[usize]) + Send + Sync>;

const FRAMES_MAX: usize = 128;
