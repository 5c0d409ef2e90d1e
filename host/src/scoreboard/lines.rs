//! Lines of the access log that survive the death of their worker: they wait in its shared memory.
//!
//! ```text
//! 0        8         64          64 + start            64 + end      64 KiB
//! | span   | unused  | written   | whole lines ...     | free        |
//! ```
//!
//! A line is first copied after the others, and then counted in `end`: wherever its writer dies, `end` is the end
//! of a complete line. `span` is both numbers in one word. The arbiter writes the lines that a dead worker has
//! left. If a worker is killed after it has written lines and before it has counted them as written, they are
//! written twice: better than not at all.
//!
//! The arbiter reads memory that a hostile worker may have filled: the span is limited to the memory, and the
//! result is complete lines, which that worker could have written to the log itself.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::uio::pwrite;

use super::layout::{LINES_BYTES, LinePages, SLOT_SIZE, SlotPages};
use super::memory::{OwnLines, SlotMemory};
use super::writer::SlotWriter;

/// The lines of this process that wait for the access log. In a process that was forked from the one that has
/// taken it, it is empty and has no room.
#[derive(Debug)]
pub struct AccessBuffer(OwnLines);

impl AccessBuffer {
    /// Takes the buffer of the process that `writer` writes for, if it has one.
    pub fn take(writer: SlotWriter) -> Option<Self> {
        writer.take_lines().map(Self)
    }

    /// Appends a line; returns false if there is no room for it.
    pub fn append(&mut self, line: &[u8]) -> bool {
        let Some(pages) = self.0.get() else { return false };
        let Range { start, end } = pages.span();
        if line.len() > LINES_BYTES - end {
            return false;
        }
        // SAFETY: the bytes from `end` to `end + line.len()` lie within the text. Only this process writes
        // there, and only through the one handle, which is borrowed here.
        unsafe { pages.at(end).copy_from_nonoverlapping(line.as_ptr(), line.len()) };
        pages.set_span(start..end + line.len());
        true
    }

    /// Returns the lines.
    pub fn waiting(&self) -> &[u8] {
        let Some(pages) = self.0.get() else { return &[] };
        let Range { start, end } = pages.span();
        // SAFETY: a span lies within the text. As in `append`, nothing is written there while the handle is borrowed.
        unsafe { std::slice::from_raw_parts(pages.at(start), end - start) }
    }

    /// Removes this number of bytes from the front.
    pub fn remove(&mut self, bytes: usize) {
        let Some(pages) = self.0.get() else { return };
        let Range { start, end } = pages.span();
        pages.set_span((start + bytes).min(end)..end);
    }

    /// Returns whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.0.get().is_none_or(|pages| pages.span().is_empty())
    }
}

impl SlotMemory {
    /// Puts lines into the memory of a worker that is not forked yet, which writes them with its own. At most
    /// [`ACCESS_LINES_MAX`] bytes.
    pub fn leave_lines(&self, lines: &[u8]) -> nix::Result<()> {
        if lines.len() > LINES_BYTES {
            return Err(Errno::EINVAL);
        }
        match self {
            Self::File(file) => {
                write_all_at(file, lines, SLOT_SIZE + std::mem::offset_of!(LinePages, text))?;
                let span = lines.len() as u64;
                write_all_at(file, &span.to_ne_bytes(), std::mem::offset_of!(SlotPages, lines))
            }
            Self::Inherited(memory) => {
                let pages = &memory.pages().lines;
                // SAFETY: within the text, and the worker that will own this memory does not
                // exist.
                unsafe { pages.at(0).copy_from_nonoverlapping(lines.as_ptr(), lines.len()) };
                pages.set_span(0..lines.len());
                Ok(())
            }
        }
    }
}

impl LinePages {
    /// Copies the complete lines of a process that has exited.
    pub(super) fn copy(&self) -> Vec<u8> {
        let mut lines: Vec<u8> = self
            .span()
            // SAFETY: a span lies within the text. Volatile, since another process may write there
            // even now.
            .map(|at| unsafe { self.at(at).read_volatile() })
            .collect();
        lines.truncate(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        lines
    }

    /// Removes all lines.
    pub(super) fn clear(&self) {
        self.set_span(0..0);
    }

    /// Returns the range of the lines, which is within the text whatever the memory contains.
    fn span(&self) -> Range<usize> {
        let span = self.span.load(Ordering::Acquire);
        let end = (span as u32 as usize).min(LINES_BYTES);
        let start = ((span >> 32) as usize).min(end);
        start..end
    }

    /// An empty span starts at the beginning of the text.
    fn set_span(&self, span: Range<usize>) {
        let word = if span.is_empty() { 0 } else { (span.start as u64) << 32 | span.end as u64 };
        self.span.store(word, Ordering::Release);
    }

    /// Returns the address of a byte of the text, or of its end.
    fn at(&self, index: usize) -> *mut u8 {
        self.text.get().cast::<u8>().wrapping_add(index)
    }
}

fn write_all_at(file: &OwnedFd, mut bytes: &[u8], mut at: usize) -> nix::Result<()> {
    while !bytes.is_empty() {
        let written = pwrite(file, bytes, at as i64)?;
        if written == 0 {
            return Err(Errno::EIO);
        }
        bytes = &bytes[written..];
        at += written;
    }
    Ok(())
}

/// Maximum size of buffered access lines of a worker, in bytes.
pub const ACCESS_LINES_MAX: usize = LINES_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Scoreboard;
    use crate::scoreboard::tests::{boards, claim};

    #[test]
    fn a_buffer_takes_whole_lines_until_it_is_full() {
        for board in boards() {
            let (index, writer, _) = claim(&board, 1, 1);
            let mut buffer = AccessBuffer::take(writer).unwrap();
            assert!(AccessBuffer::take(writer).is_none(), "there is one");
            let line = [[b'x'; 998].as_slice(), b"\n"].concat();
            let fitted =
                std::iter::repeat_with(|| buffer.append(&line)).take_while(|fits| *fits).count();
            assert_eq!(fitted, LINES_BYTES / line.len());
            let (other, ..) = claim(&board, 1, 2);
            assert_eq!(board.unwritten_lines(other), b"", "memory of another worker");
            buffer.remove(line.len());
            assert_eq!(buffer.waiting().len(), (fitted - 1) * line.len());
            assert_eq!(board.unwritten_lines(index), buffer.waiting());
            buffer.remove(usize::MAX / 2);
            assert!(buffer.is_empty());
            assert!(buffer.append(&line), "it begins at the start again");
        }
    }

    #[test]
    fn leftover_lines_are_the_first_of_the_next_worker() {
        for board in boards() {
            let claimed = board.claim(1, 1).unwrap();
            claimed.memory.leave_lines(b"one\n").unwrap();
            assert_eq!(claimed.memory.leave_lines(&vec![0; LINES_BYTES + 1]), Err(Errno::EINVAL));
            let writer = SlotWriter::new().unwrap();
            writer.enter(claimed.memory).unwrap();
            let mut buffer = AccessBuffer::take(writer).unwrap();
            buffer.append(b"two\n");
            assert_eq!(buffer.waiting(), b"one\ntwo\n");
            board.release(claimed.index);
            let (index, ..) = claim(&board, 1, 2);
            assert_eq!(index, claimed.index);
            assert_eq!(board.unwritten_lines(index), b"");
        }
    }

    #[test]
    fn lines_of_a_killed_process_are_read_without_an_incomplete_one() {
        let board = Scoreboard::new().unwrap();
        let claimed = board.claim(1, 1).unwrap();
        let writer = SlotWriter::new().unwrap();
        // SAFETY: the child touches the slot only, and is killed by a signal.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                if writer.enter(claimed.memory).is_ok()
                    && let Some(mut buffer) = AccessBuffer::take(writer)
                {
                    buffer.append(b"one\n");
                    buffer.append(b"two\n");
                    buffer.append(b"thr");
                }
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
                std::process::abort();
            }
            nix::unistd::ForkResult::Parent { child } => {
                nix::sys::wait::waitpid(child, None).unwrap();
            }
        }
        assert_eq!(board.unwritten_lines(claimed.index), b"one\ntwo\n");
    }

    #[test]
    fn garbage_in_every_byte_yields_complete_lines_within_the_memory() {
        for board in boards() {
            let (index, writer, _) = claim(&board, 1, 1);
            let buffer = AccessBuffer::take(writer).unwrap();
            let pages = buffer.0.get().unwrap();
            for byte in [0, b'\n', b'x', 0x80, 0xff] {
                // SAFETY: all of the text, which belongs to this process.
                unsafe { pages.at(0).write_bytes(byte, LINES_BYTES) };
                for span in [0, u64::MAX, u64::from(u32::MAX), 7 << 32 | 3, 1 << 63, 1 << 32 | 0xff]
                {
                    pages.span.store(span, Ordering::Release);
                    let lines = board.unwritten_lines(index);
                    assert!(lines.len() <= LINES_BYTES);
                    assert!(lines.last().is_none_or(|byte| *byte == b'\n'));
                }
            }
        }
    }

    #[test]
    fn children_of_a_worker_have_no_buffer() {
        for board in boards() {
            let (index, writer, _) = claim(&board, 1, 1);
            let mut buffer = AccessBuffer::take(writer).unwrap();
            buffer.append(b"one\n");
            // SAFETY: the child calls async-signal-safe functions only, and exits.
            match unsafe { nix::unistd::fork() }.unwrap() {
                nix::unistd::ForkResult::Child => {
                    let is_refused = !buffer.append(b"two\n") && buffer.is_empty();
                    buffer.remove(4);
                    crate::process::exit_now(i32::from(!is_refused))
                }
                nix::unistd::ForkResult::Parent { child } => {
                    let ended = nix::sys::wait::waitpid(child, None).unwrap();
                    assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
                }
            }
            assert_eq!(board.unwritten_lines(index), b"one\n");
        }
    }
}
