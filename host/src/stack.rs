//! The stack of a panic or of a request that hangs, on its way from a worker into the error log.
//!
//! ```text
//!     worker ── addresses ──▶ arbiter ──▶ mold ──fork──▶ namer ──fork──▶ finds names, writes the log
//! ```
//!
//! To name the functions of a stack means to read the debug information of each library in it: in a debug build most of
//! a second, and 80 MiB for the rest of the process's life. A worker that serves does not do that. The mold has the same
//! libraries at the same addresses, since the worker was forked from it, and so has each process that it forks. What was
//! loaded after the fork, and everything if no mold is left, is named `FILE+0xOFFSET`: `addr2line -e FILE 0xOFFSET`
//! shows the line.
//!
//! Nothing waits for any of this: what a full queue does not take is logged without names.

use std::ffi::{CStr, c_int, c_void};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;

use nix::libc;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::log::ErrorLog;
use crate::settings::LogLevel;

/// A stack to be logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackReport {
    /// Severity of the record.
    pub level: LogLevel,
    /// Who reports it; only JSON logs show it.
    pub target: String,
    /// What it is the stack of.
    pub heading: String,
    /// Process ID of the mold that the worker was forked from.
    pub mold: u32,
    /// The stack.
    pub stack: Stack,
}

impl StackReport {
    /// Writes it as a record of process `pid`, without the names of functions.
    pub fn log_unnamed(&self, log: &ErrorLog, pid: u32) {
        self.log(log, pid, &self.stack.unnamed());
    }

    /// Writes it as a record of process `pid`, with the names of functions, which takes time and memory.
    pub fn log_named(&self, log: &ErrorLog, pid: u32) {
        self.log(log, pid, &self.stack.named());
    }

    fn log(&self, log: &ErrorLog, pid: u32, frames: &str) {
        let heading = &self.heading;
        let message = format!("{heading} (stack {:08x}):\n{frames}", self.stack.fingerprint());
        log.write_as(pid, self.level, &self.target, &message);
    }
}

/// The frames of a stack, as far as one message carries them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    modules: Vec<Module>,
    /// The innermost first: a module, and the return address relative to its base. Outside of all modules (generated
    /// code) the number is [`NO_MODULE`] and the address is absolute.
    frames: Vec<(u8, u64)>,
}

/// A file that is loaded: the program, or a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Module {
    name: String,
    /// By how much its addresses differ from those in the file.
    pub(crate) base: u64,
    size: u64,
}

impl Stack {
    /// Creates a stack from return addresses in this process.
    pub fn new(addresses: &[usize]) -> Self {
        let loaded = loaded_modules();
        let mut stack = Self { modules: Vec::new(), frames: Vec::new() };
        for &address in addresses.iter().take(FRAMES_MAX) {
            stack.push(address as u64, &loaded);
        }
        stack
    }

    fn push(&mut self, address: u64, loaded: &[Module]) {
        // A return address may be the first address after its function.
        let module = loaded.iter().find(|module| module.contains(address.wrapping_sub(1)));
        let known = module.and_then(|module| {
            let is_it = |known: &Module| known.base == module.base;
            let known = self.modules.iter().position(is_it);
            known.or_else(|| {
                let has_room = self.modules.len() < MODULES_MAX;
                has_room.then(|| {
                    self.modules.push(module.shortened());
                    self.modules.len() - 1
                })
            })
        });
        let frame = known.and_then(|index| {
            let base = self.modules.get(index)?.base;
            Some((u8::try_from(index).ok()?, address - base))
        });
        self.frames.push(frame.unwrap_or((NO_MODULE, address)));
    }

    /// Returns a hash of the addresses, which is the same in all workers of a mold.
    pub fn fingerprint(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        for frame in &self.frames {
            self.address(frame).hash(&mut hasher);
        }
        hasher.finish() as u32
    }

    /// Formats one line for each frame, `FILE+0xOFFSET`.
    pub fn unnamed(&self) -> String {
        let mut text = String::new();
        for (number, frame) in self.frames.iter().enumerate() {
            self.write_unnamed(&mut text, number, frame);
        }
        text
    }

    /// Formats the frames as std's backtraces do, without those of the panic machinery and of the server. Call it in a
    /// process that was forked from the same mold.
    pub fn named(&self) -> String {
        let loaded = loaded_modules();
        let mut text = String::new();
        for (number, frame) in self.frames.iter().enumerate() {
            let is_here = self.module(frame).is_some_and(|module| {
                let here = |here: &Module| (here.base, here.size) == (module.base, module.size);
                frame.1 <= module.size && loaded.iter().any(here)
            });
            if !is_here || !write_named(&mut text, number, self.address(frame)) {
                self.write_unnamed(&mut text, number, frame);
            }
        }
        own_frames(&text).to_owned()
    }

    fn module(&self, frame: &(u8, u64)) -> Option<&Module> {
        self.modules.get(usize::from(frame.0))
    }

    fn address(&self, frame: &(u8, u64)) -> u64 {
        self.module(frame).map_or(frame.1, |module| module.base.wrapping_add(frame.1))
    }

    fn write_unnamed(&self, text: &mut String, number: usize, frame: &(u8, u64)) {
        // The call, not the instruction after it. Writing to a string does not fail.
        let offset = frame.1.saturating_sub(1);
        let _ = match self.module(frame) {
            Some(module) => writeln!(text, "{number:4}: {}+{offset:#x}", module.name),
            None => writeln!(text, "{number:4}: {offset:#x}"),
        };
    }
}

/// Writes the functions at an address, which are several if some are inlined; returns whether there is a name.
fn write_named(text: &mut String, number: usize, address: u64) -> bool {
    let mut is_first = true;
    backtrace::resolve(address as *mut c_void, |symbol| {
        let Some(name) = symbol.name() else { return };
        // Writing to a string does not fail.
        let _ = if is_first {
            writeln!(text, "{number:4}: {name:#}")
        } else {
            writeln!(text, "      {name:#}")
        };
        is_first = false;
        if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
            let column = symbol.colno().unwrap_or(0);
            let _ = writeln!(text, "             at {}:{line}:{column}", file.display());
        }
    });
    !is_first
}

impl Module {
    fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.base).is_some_and(|offset| offset < self.size)
    }

    /// Returns the module with as much of the end of its name as a message has room for.
    fn shortened(&self) -> Self {
        let surplus = self.name.len().saturating_sub(NAME_MAX);
        let start = (surplus..=self.name.len()).find(|at| self.name.is_char_boundary(*at));
        let name = self.name.get(start.unwrap_or(0)..).unwrap_or_default().to_owned();
        Self { name, ..*self }
    }
}

/// Reduces a backtrace in the format of `std` to the frames of the code that was at work: drops the frames that report
/// (the panic machinery, a signal's frame) above them and the callers (worker-api's guard and everything before) below
/// them. Returns the whole text if nothing is left.
pub(crate) fn own_frames(backtrace: &str) -> &str {
    let mut begin = 0;
    let mut end = backtrace.len();
    let mut at = 0;
    for line in backtrace.split_inclusive('\n') {
        let names = |list: &[&str]| list.iter().any(|name| line.contains(name));
        // The location of a dropped frame is on the following line.
        let is_its_location = begin == at && at > 0 && line.trim_start().starts_with("at ");
        if names(&CALLERS) {
            end = at;
            break;
        }
        at += line.len();
        if is_its_location || names(&REPORTERS) {
            begin = at;
        }
    }
    match backtrace[begin..end.max(begin)].trim_end() {
        "" => backtrace.trim_end(),
        frames => frames,
    }
}

/// Returns everything that is loaded in this process, the program first.
pub(crate) fn loaded_modules() -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    let list: *mut Vec<Module> = &raw mut modules;
    // SAFETY: `push_module` is only called during this call, with the pointer that is passed here.
    unsafe { libc::dl_iterate_phdr(Some(push_module), list.cast()) };
    modules
}

unsafe extern "C" fn push_module(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    list: *mut c_void,
) -> c_int {
    // SAFETY: the dynamic linker passes a valid record, with its name as a C string and the number of its headers; the list
    // is the one that `loaded_modules` passes.
    let (list, info, name, headers) = unsafe {
        let info = &*info;
        let name = (!info.dlpi_name.is_null()).then(|| CStr::from_ptr(info.dlpi_name));
        let headers: &[_] = if info.dlpi_phdr.is_null() {
            &[]
        } else {
            std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum))
        };
        (&mut *list.cast::<Vec<Module>>(), info, name, headers)
    };
    let segments = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let size = segments.map(|header| header.p_vaddr.saturating_add(header.p_memsz)).max();
    let name = name.map(CStr::to_string_lossy).unwrap_or_default().into_owned();
    // The program is the first, and has no name here.
    let name = if name.is_empty() && list.is_empty() { program() } else { name };
    list.push(Module { name, base: info.dlpi_addr, size: size.unwrap_or(0) });
    0
}

fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "host".into());
    program.to_string_lossy().into_owned()
}

/// The stacks that a worker has sent for naming. What it sends again within an hour is only referred to.
#[derive(Debug, Default)]
pub struct KnownStacks(Mutex<Vec<(u32, u64)>>);

impl KnownStacks {
    /// Notes a stack; returns whether it was noted before.
    pub fn insert(&self, fingerprint: u32) -> bool {
        let now_ns = clock::now_ns();
        // Held by another thread, or by this one below a signal handler: report it rather than wait.
        let Ok(mut known) = self.0.try_lock() else { return false };
        known.retain(|(_, noted_ns)| now_ns.saturating_sub(*noted_ns) < KNOWN_NS);
        if known.iter().any(|(known, _)| *known == fingerprint) {
            return true;
        }
        if known.len() == KNOWN_MAX {
            known.remove(0);
        }
        known.push((fingerprint, now_ns));
        false
    }
}

/// Returns `text`, or its beginning where it is longer than a message has room for.
pub fn shorten(text: &str) -> String {
    text.chars().take(HEADING_MAX).collect()
}

/// Frames that report: what is of interest stands below the last of them.
const REPORTERS: [&str; 4] =
    ["std::panicking::panic", "core::panicking::", "rust_begin_unwind", "on_signal"];
/// Frames that call: what is of interest stands above the first of them.
const CALLERS: [&str; 3] = ["catch_unwind", "panic::unwind_safe", "worker_api::guard::"];

/// Marks a frame outside of all modules.
const NO_MODULE: u8 = u8::MAX;
// With these, a report fits into a message: 96 * 20 + 16 * 200 bytes, and up to 2000 for the heading.
const FRAMES_MAX: usize = 96;
const MODULES_MAX: usize = 16;
const NAME_MAX: usize = 128;
const HEADING_MAX: usize = 500;
/// Number of different stacks of one worker that are remembered.
const KNOWN_MAX: usize = 64;
const KNOWN_NS: u64 = 3600 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_named_and_located() {
        let stack = Stack::new(&worker_api::stack::addresses());
        let name = "a_stack_is_named_and_located";
        assert!(stack.named().contains(name), "{}", stack.named());
        let program = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        let end = &program[program.len().saturating_sub(NAME_MAX)..];
        assert!(stack.unnamed().contains(&format!("{end}+0x")), "{}", stack.unnamed());
        assert!(!stack.unnamed().contains(name));
    }

    #[test]
    fn a_module_that_is_not_loaded_here_is_not_taken_for_another() {
        let mut stack = Stack::new(&worker_api::stack::addresses());
        for module in &mut stack.modules {
            module.size += 1;
        }
        assert_eq!(stack.named(), stack.unnamed().trim_end());
    }

    #[test]
    fn addresses_outside_of_modules_are_kept() {
        let stack = Stack::new(&[0x11]);
        assert_eq!(stack.unnamed(), "   0: 0x10\n");
        let read: Stack = serde_json::from_str(&serde_json::to_string(&stack).unwrap()).unwrap();
        assert_eq!(read, stack);
    }

    #[test]
    fn a_report_of_the_greatest_size_fits_into_a_message() {
        let module = |index: u64| Module {
            name: "n".repeat(NAME_MAX + 3),
            base: 0x7fff_0000_0000 + index * 0x100_0000,
            size: 0x100_0000,
        };
        let loaded: Vec<Module> = (0..20).map(module).collect();
        let mut stack = Stack { modules: Vec::new(), frames: Vec::new() };
        for frame in 0..FRAMES_MAX as u64 {
            stack.push(0x7fff_0000_0000 + frame % 20 * 0x100_0000 + 0xff_fff0, &loaded);
        }
        let report = StackReport {
            level: LogLevel::Error,
            target: "panic".into(),
            heading: shorten(&"\\x00".repeat(8000)),
            mold: u32::MAX,
            stack,
        };
        assert!(serde_json::to_vec(&report).unwrap().len() < 7 * 1024);
    }

    #[test]
    fn a_stack_is_known_once_it_was_seen() {
        let known = KnownStacks::default();
        assert!(!known.insert(1));
        assert!(known.insert(1));
        for other in 2..2 + KNOWN_MAX as u32 {
            assert!(!known.insert(other));
        }
        assert!(!known.insert(1), "the oldest is forgotten");
    }

    #[test]
    fn a_backtrace_is_cut_to_the_frames_of_who_was_at_work() {
        let whole = "   0: worker_api::log::report\n             at log.rs:1\n   \
            1: core::panicking::panic_fmt\n             at panicking.rs:1\n   \
            2: app::call\n             at lib.rs:56\n   \
            3: worker_api::guard::catch\n             at guard.rs:13\n   4: main\n";
        assert_eq!(own_frames(whole), "   2: app::call\n             at lib.rs:56");
    }

    #[test]
    fn a_backtrace_without_known_frames_is_left_whole() {
        assert_eq!(own_frames("   0: main\n"), "   0: main");
        assert_eq!(own_frames("disabled backtrace"), "disabled backtrace");
    }
}
