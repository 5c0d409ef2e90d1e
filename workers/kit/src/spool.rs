//! Buffers for what a client sends or accepts slowly, so that no thread has to wait for it: in memory, or in an
//! unnamed temporary file for larger amounts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use worker_api::{Failure, Host, Result};

use crate::socket;

/// The request bodies that a class whose threads block has buffered before the application is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffering {
    /// All of them.
    All,
    /// Those of clients that are not fast: for a class that replaces a thread that waits for its client.
    Slow,
}

/// The limits of a worker's buffers, and what is in use.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The maximum bytes of one buffer.
    pub(crate) max: u64,
    pub(crate) buffering: Buffering,
    /// The maximum bytes of all buffers in memory.
    memory_max: usize,
    /// The maximum number of open temporary files.
    files_max: usize,
    directory: PathBuf,
    memory: AtomicUsize,
    files: AtomicUsize,
    /// Whether the last attempt to create or write a file failed, which has been logged.
    failing: AtomicBool,
}

/// A first-in, first-out buffer. The bytes in the file precede those in memory.
#[derive(Debug)]
pub(crate) struct Spool {
    buffers: Arc<Buffers>,
    file: Option<CountedFile>,
    /// The numbers of bytes written to and read from the file.
    written: u64,
    read: u64,
    memory: Vec<u8>,
    /// The number of bytes read from memory.
    used: usize,
    /// Whether the buffer accepts no more bytes.
    is_full: bool,
}

/// A file that counts toward the worker's limit.
#[derive(Debug)]
pub(crate) struct CountedFile {
    pub(crate) file: File,
    buffers: Arc<Buffers>,
}

impl Buffers {
    /// Reads the settings; `None` if bodies are not buffered.
    pub(crate) fn read(host: &Host, buffering: Buffering) -> Option<Arc<Self>> {
        let max = host.setting_usize("body_buffer_max").unwrap_or_default() as u64;
        (max > 0).then(|| {
            Arc::new(Self {
                max,
                buffering,
                memory_max: host.setting_usize("body_buffer_memory").unwrap_or_default(),
                files_max: host.setting_usize("body_buffer_files").unwrap_or_default(),
                directory: directory(host),
                memory: AtomicUsize::new(0),
                files: AtomicUsize::new(0),
                failing: AtomicBool::new(false),
            })
        })
    }

    /// Reserves `more` bytes of memory for a buffer that has `has` already; returns whether the limits allow
    /// it.
    fn take_memory(&self, has: usize, more: usize) -> bool {
        let taken = |taken: usize| (taken + more <= self.memory_max).then_some(taken + more);
        has + more <= self.memory_max / SHARES
            && self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Opens a temporary file, unless the limit is reached.
    fn open(self: &Arc<Self>) -> Option<CountedFile> {
        self.count_file(|| open_unnamed(&self.directory).map_err(|error| self.warn(&error)).ok())
    }

    /// Duplicates the descriptor of an application's file, unless the limit is reached.
    pub(crate) fn share(self: &Arc<Self>, file: RawFd) -> Option<CountedFile> {
        self.count_file(|| socket::duplicate(file).ok().map(File::from))
    }

    fn count_file(self: &Arc<Self>, open: impl FnOnce() -> Option<File>) -> Option<CountedFile> {
        let one_more = |files| (files < self.files_max).then_some(files + 1);
        self.files.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        let file = open();
        if file.is_none() {
            self.files.fetch_sub(1, Ordering::Relaxed);
        }
        file.map(|file| CountedFile { file, buffers: Arc::clone(self) })
    }

    /// Logs that a file cannot be used: once, until one can be used again.
    fn warn(&self, error: &io::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "cannot write a temporary file in {}: {error}; applications read slow bodies from the client until \
                 this is fixed (tmp_upload_dir)",
                self.directory.display()
            );
        }
    }
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        self.buffers.files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Spool {
    /// Creates an empty buffer.
    pub(crate) fn new(buffers: &Arc<Buffers>) -> Self {
        Self {
            buffers: Arc::clone(buffers),
            file: None,
            written: 0,
            read: 0,
            memory: Vec::new(),
            used: 0,
            is_full: false,
        }
    }

    /// Keeps all of `bytes`, even if the buffer exceeds its limits afterwards.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.is_full || !self.take(bytes) {
            self.is_full = true;
            self.buffers.memory.fetch_add(bytes.len(), Ordering::Relaxed);
            self.memory.extend_from_slice(bytes);
        }
        self.is_full |= self.written + self.memory.len() as u64 >= self.buffers.max;
    }

    /// Appends the result of one call of `read`, which appends up to `most` bytes to the buffer's memory, and returns what
    /// was appended. Returns `None`, without the call, if the limits do not allow them in memory.
    pub(crate) fn fill(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> Option<io::Result<&[u8]>> {
        let before = self.memory.len();
        if self.is_full || self.file.is_some() || !self.buffers.take_memory(before, most) {
            return None;
        }
        let outcome = read(&mut self.memory);
        let unused = most - (self.memory.len() - before);
        self.buffers.memory.fetch_sub(unused, Ordering::Relaxed);
        self.is_full = self.memory.len() as u64 >= self.buffers.max;
        Some(outcome.map(|_| &self.memory[before..]))
    }

    /// Keeps all of `bytes` or nothing, within the limits; returns whether it keeps them.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        if self.file.is_none() && self.buffers.take_memory(self.memory.len(), bytes.len()) {
            self.memory.extend_from_slice(bytes);
            return true;
        }
        self.append_to_file(bytes)
    }

    /// Returns whether the buffer accepts no more bytes: further ones are read from the connection.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns the number of bytes in memory.
    pub(crate) fn in_memory(&self) -> usize {
        self.memory.len()
    }

    /// Returns whether everything was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.read == self.written && self.used == self.memory.len()
    }

    /// Reads the next bytes; 0 if it is empty.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(CountedFile { file, .. }) = &self.file
            && self.read < self.written
        {
            let left = usize::try_from(self.written - self.read).unwrap_or(usize::MAX);
            let most = into.len().min(left);
            let count = file.read_at(&mut into[..most], self.read)?;
            if count == 0 && most > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read += count as u64;
            return Ok(count);
        }
        let unread = &self.memory[self.used..];
        let count = unread.len().min(into.len());
        into[..count].copy_from_slice(&unread[..count]);
        self.used += count;
        Ok(count)
    }

    /// Takes the unread bytes.
    pub(crate) fn take_unread(&mut self) -> io::Result<Vec<u8>> {
        let in_file = usize::try_from(self.written - self.read).unwrap_or(usize::MAX);
        let mut unread = vec![0; in_file + self.memory.len() - self.used];
        let mut filled = 0;
        while filled < unread.len() {
            filled += self.read(&mut unread[filled..])?;
        }
        Ok(unread)
    }

    /// Appends the bytes in memory and `bytes` to the file; returns whether that succeeded.
    fn append_to_file(&mut self, bytes: &[u8]) -> bool {
        if self.file.is_none() {
            self.file = self.buffers.open();
        }
        let Some(CountedFile { file, .. }) = &self.file else { return false };
        let in_memory = self.memory.len() as u64;
        let outcome = file
            .write_all_at(&self.memory, self.written)
            .and_then(|()| file.write_all_at(bytes, self.written + in_memory));
        match outcome {
            Ok(()) => {
                self.written += in_memory + bytes.len() as u64;
                self.release_memory();
                self.buffers.failing.store(false, Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.buffers.warn(&error);
                false
            }
        }
    }

    fn release_memory(&mut self) {
        self.buffers.memory.fetch_sub(self.memory.len(), Ordering::Relaxed);
        self.memory = Vec::new();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.release_memory();
    }
}

/// Checks that temporary files can be created in `tmp_upload_dir`. Called in the mold, so that an unusable
/// directory is rejected before a worker exists.
pub(crate) fn check_directory(host: &Host) -> Result<()> {
    let Some(directory) = host.setting_text("tmp_upload_dir").map(PathBuf::from) else {
        return Ok(());
    };
    open_unnamed(&directory).map(drop).map_err(|error| {
        Failure::config(format!(
            "tmp_upload_dir: cannot create a temporary file in {}: {error}",
            directory.display()
        ))
    })
}

fn directory(host: &Host) -> PathBuf {
    host.setting_text("tmp_upload_dir").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Creates a file without a name.
fn open_unnamed(directory: &Path) -> io::Result<File> {
    let open = |flags, path: &Path, create| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(create).mode(0o600).custom_flags(flags);
        options.open(path)
    };
    match open(libc::O_TMPFILE, directory, false) {
        // Some file systems (overlayfs before Linux 6.1, NFS) do not support unnamed files: create a named
        // one and remove it at once.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("host-{}-{number}.body", std::process::id()));
            let file = open(0, &path, true)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        outcome => outcome,
    }
}

/// The maximum share of the memory for one buffer, so that a few large ones leave room for small ones.
const SHARES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits that allow `share` bytes of memory for each spool.
    fn buffers(share: usize, max: u64, files_max: usize, directory: &str) -> Arc<Buffers> {
        Arc::new(Buffers {
            max,
            buffering: Buffering::All,
            memory_max: share * SHARES,
            files_max,
            directory: directory.into(),
            memory: AtomicUsize::new(0),
            files: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
        })
    }

    fn filled(parts: &[&[u8]], buffers: &Arc<Buffers>) -> Spool {
        let mut spool = Spool::new(buffers);
        for part in parts {
            spool.append(part);
        }
        spool
    }

    /// Returns the bytes in memory and the number of files in use.
    fn in_use(buffers: &Buffers) -> (usize, usize) {
        (buffers.memory.load(Ordering::Relaxed), buffers.files.load(Ordering::Relaxed))
    }

    fn read_all(spool: &mut Spool) -> Vec<u8> {
        let mut all = Vec::new();
        let mut part = [0; 3];
        loop {
            match spool.read(&mut part).unwrap() {
                0 => return all,
                count => all.extend_from_slice(&part[..count]),
            }
        }
    }

    #[test]
    fn what_fits_stays_in_memory_and_the_rest_goes_to_a_file() {
        let buffers = buffers(8, 100, 1, "/tmp");
        let mut small = filled(&[b"1234", b"5678"], &buffers);
        assert!(small.file.is_none() && !small.is_full());
        assert_eq!(in_use(&buffers), (8, 0));
        assert_eq!(read_all(&mut small), b"12345678");
        assert!(small.is_empty());
        drop(small);
        let mut large = filled(&[b"1234", b"5678", b"9", b"0"], &buffers);
        assert_eq!((large.written, large.memory.len()), (10, 0));
        assert_eq!(in_use(&buffers), (0, 1));
        assert_eq!(read_all(&mut large), b"1234567890");
        drop(large);
        assert_eq!(in_use(&buffers), (0, 0));
    }

    #[test]
    fn what_is_read_into_memory_counts_toward_the_limits() {
        let buffers = buffers(8, 100, 1, "/tmp");
        let mut spool = filled(&[b"12"], &buffers);
        let read = |memory: &mut Vec<u8>| {
            memory.extend_from_slice(b"345");
            Ok(3)
        };
        assert_eq!(spool.fill(6, read).unwrap().unwrap(), b"345");
        assert_eq!(in_use(&buffers), (5, 0), "what was not read is free again");
        let fail = |_: &mut Vec<u8>| Err(io::ErrorKind::WouldBlock.into());
        assert!(spool.fill(3, fail).unwrap().is_err());
        assert!(spool.fill(4, read).is_none(), "beyond the limit");
        assert_eq!((in_use(&buffers), read_all(&mut spool)), ((5, 0), b"12345".to_vec()));
        drop(spool);
        assert_eq!(in_use(&buffers), (0, 0));
    }

    #[test]
    fn all_spools_share_limits_of_memory_and_files() {
        let buffers = buffers(8, 100, 1, "/tmp");
        let whole: Vec<Spool> = (0..SHARES).map(|_| filled(&[b"12345678"], &buffers)).collect();
        assert_eq!(in_use(&buffers), (8 * SHARES, 0));
        let in_file = filled(&[b"1"], &buffers);
        assert_eq!((in_use(&buffers), in_file.is_full()), ((8 * SHARES, 1), false));
        assert!(filled(&[b"1"], &buffers).is_full());
        drop((whole, in_file));
        assert_eq!(in_use(&buffers), (0, 0));
    }

    #[test]
    fn nothing_is_lost_without_a_file() {
        for (files_max, directory) in [(0, "/tmp"), (1, "/nowhere")] {
            let buffers = buffers(8, 100, files_max, directory);
            let mut spool = filled(&[b"1234", b"5678", b"9"], &buffers);
            assert!(spool.is_full() && spool.file.is_none());
            spool.append(b"0");
            assert_eq!(spool.take_unread().unwrap(), b"1234567890");
            drop(spool);
            assert_eq!(in_use(&buffers), (0, 0));
        }
    }

    #[test]
    fn the_order_is_kept_when_the_file_is_full() {
        let buffers = buffers(2, 100, 1, "/tmp");
        let mut spool = filled(&[b"123"], &buffers);
        spool.file.as_mut().unwrap().file = File::open("/dev/full").unwrap();
        spool.append(b"456");
        spool.append(b"7");
        assert!(spool.is_full());
        assert_eq!((spool.written, spool.memory.as_slice()), (3, b"4567".as_slice()));
    }

    #[test]
    fn a_spool_is_full_at_its_limit() {
        let buffers = buffers(2, 6, 1, "/tmp");
        assert!(!filled(&[b"12345"], &buffers).is_full());
        assert!(filled(&[b"12345", b"6"], &buffers).is_full());
    }

    #[test]
    fn bytes_that_were_read_are_not_taken_again() {
        let buffers = buffers(2, 100, 1, "/tmp");
        let mut spool = filled(&[b"12345"], &buffers);
        spool.read(&mut [0; 2]).unwrap();
        assert_eq!(spool.take_unread().unwrap(), b"345");
        assert!(spool.is_empty());
    }
}
