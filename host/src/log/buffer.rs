//! Access lines that outlive the worker that wrote them: shared memory, one slot a worker.
//!
//! A slot:
//!
//! ```text
//! 0        8         64          64 + start            64 + end        SLOT_BYTES
//! | span   | owner   | written   | whole lines ...     | free          |
//! ```
//!
//! A line is copied behind the others first, and counted in `end` then: wherever its writer dies, `end` is the end of
//! a whole line. `span` is both numbers in one word. The arbiter maps the slots before it forks anything, and writes
//! out what a dead worker has left. A worker that is killed between writing its lines and counting them as written
//! leaves them there, so that they are written twice: better than not at all. Lines that the reader of a pipe has no
//! room for stay in the slot until it has.

use std::{
    io,
    num::NonZero,
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use super::file::LogFile;

/// The slots of all workers; mapped for the life of the process.
#[derive(Debug, Clone, Copy)]
pub struct AccessBuffers {
    start: NonNull<u8>,
    slots: usize,
}

// SAFETY: the pointer is to memory that is never unmapped; every access goes through an atomic
// header, through the one owner of a slot, or by volatile reads.
unsafe impl Send for AccessBuffers {}
// SAFETY: as above.
unsafe impl Sync for AccessBuffers {}

impl AccessBuffers {
    /// Maps memory that is shared with all processes forked later. Pages cost nothing until a
    /// worker uses its slot.
    pub fn map(slots: usize) -> io::Result<Self> {
        let bytes = NonZero::new(slots * SLOT_BYTES)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping touches no memory of anybody.
        let start = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self { start: start.cast(), slots })
    }

    /// The buffer of a slot, for the worker that has the slot. Nothing where there is no such
    /// slot, or this process has claimed it already. Lines of a predecessor that nobody rescued
    /// are kept and written with the first of its own.
    pub fn claim(&self, slot: usize) -> Option<AccessBuffer> {
        let header = self.header(slot)?;
        let pid = std::process::id();
        let before = header.owner.swap(pid, Ordering::AcqRel);
        (before != pid).then_some(AccessBuffer { slot: header })
    }

    /// Writes out what a worker has left and frees its slot: to be called once it has been reaped. Says how many bytes
    /// were written. What the log does not take now is kept for the next worker of the slot.
    pub fn rescue(&self, slot: usize, file: &LogFile) -> usize {
        let Some(header) = self.header(slot) else { return 0 };
        let span = header.span();
        let mut lines: Vec<u8> = (span.start..span.end)
            // SAFETY: a span is within the slot. Volatile, since the memory belongs to another process, which may have
            // scribbled over it.
            .map(|at| unsafe { header.lines().add(at).read_volatile() })
            .collect();
        // A plugin gone wild may have written here, too: what goes out are lines all the same.
        lines.truncate(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        let end = span.start + lines.len();
        let written = match file.append_some(&lines) {
            Ok(()) => lines.len(),
            Err((written, Errno::EAGAIN)) => written,
            Err((written, error)) => {
                file.lose(&lines[written..], error);
                lines.len()
            }
        };
        header.set_span(span.start + written..end);
        header.owner.store(0, Ordering::Release);
        written
    }

    fn header(&self, slot: usize) -> Option<&'static Header> {
        if slot >= self.slots {
            return None;
        }
        // SAFETY: the slot lies within the mapping, begins at a page and is never unmapped; a
        // header is valid whatever its bits.
        Some(unsafe { self.start.add(slot * SLOT_BYTES).cast().as_ref() })
    }
}

/// One worker's slot.
#[derive(Debug)]
pub struct AccessBuffer {
    slot: &'static Header,
}

impl AccessBuffer {
    /// Adds a line; false where there is no room for it.
    pub(super) fn append(&mut self, line: &[u8]) -> bool {
        let Range { start, end } = self.slot.span();
        if line.len() > LINES_BYTES - end {
            return false;
        }
        // SAFETY: the bytes from `end` to `end + line.len()` lie within the slot, and only the
        // slot's one owner, which is borrowed here, writes to it.
        unsafe {
            self.slot.lines().add(end).copy_from_nonoverlapping(line.as_ptr(), line.len());
        }
        self.slot.set_span(start..end + line.len());
        true
    }

    /// Writes the lines out. Those that the log's reader has no room for stay.
    pub(super) fn flush(&mut self, file: &LogFile) {
        let Range { start, end } = self.slot.span();
        if start == end {
            return;
        }
        // SAFETY: the bytes of the span have been written by an owner of this slot; while the one owner is borrowed
        // here no one writes.
        let lines =
            unsafe { std::slice::from_raw_parts(self.slot.lines().add(start), end - start) };
        match file.append_some(lines) {
            Ok(()) => self.slot.set_span(end..end),
            Err((written, Errno::EAGAIN)) => self.slot.set_span(start + written..end),
            Err((written, error)) => {
                file.lose(&lines[written..], error);
                self.slot.set_span(end..end);
            }
        }
    }

    /// Whether there is no line.
    pub(super) fn is_empty(&self) -> bool {
        self.slot.span().is_empty()
    }
}

/// The beginning of a slot.
#[repr(C, align(64))]
#[derive(Debug)]
struct Header {
    /// Start and end of the lines, in the high and the low half.
    span: AtomicU64,
    owner: AtomicU32,
}

impl Header {
    /// Where the lines are, within the slot whatever stands in the memory.
    fn span(&self) -> Range<usize> {
        let span = self.span.load(Ordering::Acquire);
        let end = (span as u32 as usize).min(LINES_BYTES);
        let start = ((span >> 32) as usize).min(end);
        start..end
    }

    /// An empty span begins at the start of the slot.
    fn set_span(&self, span: Range<usize>) {
        let word = if span.is_empty() { 0 } else { (span.start as u64) << 32 | span.end as u64 };
        self.span.store(word, Ordering::Release);
    }

    /// Where the slot's bytes begin. The pointer is good for the whole slot, not only for the header.
    fn lines(&self) -> *mut u8 {
        let start: *const Self = self;
        start.cast_mut().cast::<u8>().wrapping_add(size_of::<Self>())
    }
}

/// Some 400 lines of usual length; a multiple of the page size, so that slots share no page.
const SLOT_BYTES: usize = 64 * 1024;
const LINES_BYTES: usize = SLOT_BYTES - size_of::<Header>();
const _: () = assert!(size_of::<Header>() == 64);

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, io::stderr, os::fd::AsFd, path::Path};

    use super::*;
    use crate::{log::file::tests::as_user, settings::LogTarget};

    pub(in crate::log) fn open(path: &Path) -> LogFile {
        LogFile::open(&LogTarget::File(path.to_owned()), stderr().as_fd(), &as_user(&[])).unwrap()
    }

    #[test]
    fn a_slot_takes_whole_lines_until_it_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = open(&path);
        let buffers = AccessBuffers::map(2).unwrap();
        let mut buffer = buffers.claim(1).unwrap();
        let line = [b'x'; 999];
        let fitted =
            std::iter::repeat_with(|| buffer.append(&line)).take_while(|fits| *fits).count();
        assert_eq!(fitted, LINES_BYTES / line.len());
        buffer.flush(&file);
        assert!(buffer.is_empty());
        assert_eq!(fs::metadata(&path).unwrap().len(), (fitted * line.len()) as u64);
        assert_eq!(buffers.rescue(0, &file), 0, "another slot is another's");
    }

    #[test]
    fn a_slot_has_one_owner() {
        let buffers = AccessBuffers::map(1).unwrap();
        assert!(buffers.claim(0).is_some());
        assert!(buffers.claim(0).is_none());
        assert!(buffers.claim(1).is_none());
        buffers.rescue(0, &open(Path::new("/dev/null")));
        assert!(buffers.claim(0).is_some());
    }

    #[test]
    fn what_a_killed_process_wrote_is_rescued_without_its_half_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = open(&path);
        let buffers = AccessBuffers::map(1).unwrap();
        // SAFETY: the child touches the mapping only, and ends by a signal.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                if let Some(mut buffer) = buffers.claim(0) {
                    buffer.append(b"one\n");
                    buffer.append(b"two\n");
                    // A third line of which the count has not been told yet.
                    // SAFETY: within the slot, and this process owns it.
                    unsafe { buffer.slot.lines().add(8).write(b'x') };
                }
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
                std::process::abort();
            }
            nix::unistd::ForkResult::Parent { child } => {
                nix::sys::wait::waitpid(child, None).unwrap();
            }
        }
        assert_eq!(buffers.rescue(0, &file), 8);
        assert_eq!(buffers.rescue(0, &file), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn scribbled_memory_gives_lines_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = open(&path);
        let buffers = AccessBuffers::map(1).unwrap();
        let mut buffer = buffers.claim(0).unwrap();
        buffer.append(b"one\ntorn");
        assert_eq!(buffers.rescue(0, &file), 4);
        for span in [u64::MAX, u64::from(u32::MAX), 7 << 32 | 3] {
            buffer.slot.span.store(span, Ordering::Release);
            buffers.rescue(0, &file);
        }
        assert!(fs::read_to_string(&path).unwrap().ends_with('\n'));
    }
}
