//! Profiles of Jimu's processes, recorded with perf during a round and kept in `docs/profiles` beside the page: where
//! the CPU time of a scenario goes, by library and by function.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// perf, which records some processes.
pub struct Recording {
    perf: PathBuf,
    child: Child,
    data: PathBuf,
}

impl Recording {
    /// Starts to record the processes, and returns when it does. The samples go into a file of `directory`.
    pub fn start(perf: &Path, pids: &[u32], directory: &Path) -> io::Result<Self> {
        let data = directory.join("perf.data");
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut command = Command::new(perf);
        command.args(["record", "--quiet", "--no-buildid-cache", "--freq", FREQUENCY]);
        // It starts and ends on commands of its standard input, and confirms on its standard output.
        command.args(["--delay", "-1", "--control", "fd:0,1", "--pid"]);
        command.arg(pids.join(",")).arg("--output").arg(&data);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let enabled = enable(&mut child);
        let recording = Self { perf: perf.to_owned(), child, data };
        match enabled {
            Ok(()) => Ok(recording),
            Err(_) => Err(recording.end()),
        }
    }

    /// Stops, and returns the most frequent functions. The libraries of Jimu are those of `built`.
    pub fn stop(self, built: &Path) -> io::Result<String> {
        let symbols = tempfile::tempdir()?;
        link_symbols(symbols.path(), built)?;
        let (perf, data) = (self.perf.clone(), self.data.clone());
        let error = self.end();
        let mut command = Command::new(perf);
        command.args(["report", "--stdio", "--no-children", "--fields", "overhead,dso,symbol"]);
        command.args(["--field-separator", "\t", "--percent-limit", "0"]);
        command.args(["--kallsyms", "/proc/kallsyms"]).arg("--symfs").arg(symbols.path());
        command.arg("--input").arg(data);
        let report = command.stdin(Stdio::null()).output()?;
        summary(&String::from_utf8_lossy(&report.stdout)).ok_or_else(|| {
            let printed = String::from_utf8_lossy(&report.stderr);
            io::Error::other(format!("{error}; perf report: {}", printed.trim()))
        })
    }

    /// Ends perf, and returns an error with its messages for the case that it has recorded nothing.
    fn end(mut self) -> io::Error {
        // Open until perf has ended: it writes no complete file if the input ends before.
        let mut input = self.child.stdin.take();
        if let Some(input) = &mut input {
            // Fails if it has ended already.
            let _ = input.write_all(b"stop\n");
        }
        match self.child.wait_with_output() {
            Ok(output) => {
                let printed = String::from_utf8_lossy(&output.stderr);
                io::Error::other(format!("perf recorded nothing: {}", printed.trim()))
            }
            Err(error) => error,
        }
    }
}

fn enable(child: &mut Child) -> io::Result<()> {
    let (Some(input), Some(output)) = (&mut child.stdin, &mut child.stdout) else {
        return Ok(());
    };
    input.write_all(b"enable\n")?;
    let mut confirmed = [0; 4];
    output.read_exact(&mut confirmed)
}

/// A directory in which perf finds the files that processes have mapped: `host` maps private copies of libraries, which
/// have no path. All else is where it is.
fn link_symbols(directory: &Path, built: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        symlink(entry.path(), directory.join(entry.file_name()))?;
    }
    for entry in fs::read_dir(built)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|kind| kind == "so") {
            let name = entry.file_name().into_string().unwrap_or_default();
            symlink(entry.path(), directory.join(format!("{COPY}{name}{DELETED}")))?;
        }
    }
    Ok(())
}

/// One line of a report.
struct Sampled<'a> {
    percent: f64,
    library: &'a str,
    in_kernel: bool,
    function: String,
}

/// Shortens a report of perf: the sums of libraries, and the most frequent functions. `None` if it has no samples.
fn summary(report: &str) -> Option<String> {
    let all: Vec<Sampled<'_>> = report.lines().filter_map(parse).collect();
    let mut libraries: Vec<(&str, f64)> = Vec::new();
    for sampled in &all {
        match libraries.iter_mut().find(|(library, _)| *library == sampled.library) {
            Some((_, sum)) => *sum += sampled.percent,
            None => libraries.push((sampled.library, sampled.percent)),
        }
    }
    libraries.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut text = String::new();
    for (library, percent) in libraries.iter().take(LIBRARIES) {
        let _ = writeln!(text, "{percent:6.2} %  {library}");
    }
    for (in_kernel, most) in [(false, FUNCTIONS), (true, FUNCTIONS_OF_KERNEL)] {
        text.push('\n');
        let of_this = all.iter().filter(|sampled| sampled.in_kernel == in_kernel);
        for Sampled { percent, library, function, .. } in of_this.take(most) {
            let _ = writeln!(text, "{percent:6.2} %  {library:<22}  {function}");
        }
    }
    (!all.is_empty()).then_some(text)
}

/// Parses a line such as `12.50%`, `libwsgi_app.so`, `[.] wsgi_app::call::h0123456789abcdef`, with tabs between.
fn parse(line: &str) -> Option<Sampled<'_>> {
    let mut columns = line.split('\t').map(str::trim);
    let percent = columns.next()?.strip_suffix('%')?.parse().ok()?;
    let library = columns.next()?;
    let library = library.strip_prefix(COPY).unwrap_or(library);
    let library = library.strip_suffix(DELETED).unwrap_or(library);
    // One that is not known to perf may have a path.
    let library = library.rsplit('/').next().unwrap_or(library);
    let (level, function) = columns.next()?.split_once(' ')?;
    let function = without_hash(function.trim()).chars().take(FUNCTION_WIDTH).collect();
    Some(Sampled { percent, library, in_kernel: level == "[k]", function })
}

/// Removes the hash that rustc adds to a symbol: it differs between builds.
fn without_hash(symbol: &str) -> &str {
    match symbol.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name
        }
        _ => symbol,
    }
}

/// Samples per second; no multiple of a timer's frequency.
const FREQUENCY: &str = "3999";
const LIBRARIES: usize = 6;
const FUNCTIONS: usize = 25;
const FUNCTIONS_OF_KERNEL: usize = 10;
/// Names with generic parameters can be longer than a page is wide.
const FUNCTION_WIDTH: usize = 120;
/// Start and end of the name of a private copy.
const COPY: &str = "memfd:";
const DELETED: &str = " (deleted)";

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
# Samples: 8K of event 'cycles'
#
# Overhead\tShared Object\tSymbol

30.00%\t[kernel.kallsyms]\t[k] tcp_sendmsg
12.50%\tmemfd:libgevent_worker.so (deleted)\t[.] <kit::Connection as Drop>::drop::h0123456789abcdef
10.25%\t[kernel.kallsyms]\t[k] fput
 1.00%\t/home/me/libx.so\t[.] 0x00000000000a1b2c
";

    #[test]
    fn a_report_is_summed_by_library() {
        let lines = summary(REPORT).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(
            lines[..3],
            [" 40.25 %  [kernel.kallsyms]", " 12.50 %  libgevent_worker.so", "  1.00 %  libx.so"]
        );
        assert_eq!(lines[4], " 12.50 %  libgevent_worker.so     <kit::Connection as Drop>::drop");
        assert_eq!(lines[5], "  1.00 %  libx.so                 0x00000000000a1b2c");
        assert_eq!(lines[7], " 30.00 %  [kernel.kallsyms]       tcp_sendmsg");
        assert_eq!(lines.len(), 9);
    }

    #[test]
    fn a_report_without_samples_is_nothing() {
        assert_eq!(summary("# To display the perf.data header info\n#\n"), None);
    }
}
