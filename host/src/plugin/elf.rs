//! Reads the beginning of ELF files: the header and the table of segments.
//!
//! Checks whether a file can be a shared library of this machine, so that the operator reads what is wrong instead of
//! dlopen(3)'s message. Nothing more: the dynamic linker checks the rest, and reports it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Why a file cannot be a library of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotALibrary {
    /// Not an ELF file.
    NotElf,
    /// Built for another machine.
    Machine {
        /// Name of that machine.
        found: String,
    },
    /// An object file or a program.
    NotShared,
    /// Incomplete.
    Truncated,
}

/// Checks the beginning of a file: [`HEADER_SIZE`] bytes or more, or fewer if it is shorter.
pub fn check_header(start: &[u8]) -> Result<(), NotALibrary> {
    if !start.starts_with(MAGIC) {
        return Err(NotALibrary::NotElf);
    }
    let head = start.get(..HEADER_SIZE).ok_or(NotALibrary::Truncated)?;
    let machine = number(head, 18, 2).unwrap_or_default() as u16;
    if (head[4], head[5]) != (CLASS_64, LITTLE_ENDIAN) || machine != THIS_MACHINE {
        return Err(NotALibrary::Machine { found: describe(head[4], head[5], machine) });
    }
    if number(head, 16, 2) != Some(TYPE_SHARED) {
        return Err(NotALibrary::NotShared);
    }
    Ok(())
}

/// Checks that a file of `length` bytes with a valid header is complete: opening one that is still being written
/// would end the process by SIGBUS. `start` is its beginning, up to [`START_SIZE`] bytes.
pub fn check_whole(start: &[u8], length: u64) -> Result<(), NotALibrary> {
    is_whole(start, length).filter(|whole| *whole).map(drop).ok_or(NotALibrary::Truncated)
}

/// Checks a file as [`check_header`] and [`check_whole`] do.
pub fn check(file: &File) -> io::Result<Result<(), NotALibrary>> {
    let (start, length) = (start_of(file, START_SIZE)?, file.metadata()?.len());
    Ok(check_header(&start).and_then(|()| check_whole(&start, length)))
}

/// Returns the name of this program's machine.
pub fn this_machine() -> String {
    describe(CLASS_64, LITTLE_ENDIAN, THIS_MACHINE)
}

/// Reads the beginning of a file, up to `size` bytes, wherever its position is.
pub fn start_of(file: &File, size: usize) -> io::Result<Vec<u8>> {
    let mut start = vec![0; size];
    let mut length = 0;
    while length < size {
        match file.read_at(&mut start[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    start.truncate(length);
    Ok(start)
}

/// Reads bytes of a file, if there are as many.
pub(super) fn read_at(file: &File, at: u64, size: u64) -> Option<Vec<u8>> {
    if at.checked_add(size)? > file.metadata().ok()?.len() {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

/// An entry of the table of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_size: u64,
    pub(super) memory_size: u64,
    pub(super) align: u64,
}

impl Segment {
    /// Reads the table of segments of the file with this header.
    pub(super) fn table(file: &File, header: &[u8]) -> Option<Vec<Self>> {
        if number(header, 54, 2)? != SEGMENT_SIZE as u64 {
            return None;
        }
        let size = number(header, 56, 2)? * SEGMENT_SIZE as u64;
        let table = read_at(file, number(header, 32, 8)?, size)?;
        table.chunks(SEGMENT_SIZE).map(Self::parse).collect()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: number(bytes, 0, 4)? as u32,
            flags: number(bytes, 4, 4)? as u32,
            offset: number(bytes, 8, 8)?,
            address: number(bytes, 16, 8)?,
            file_size: number(bytes, 32, 8)?,
            memory_size: number(bytes, 40, 8)?,
            align: number(bytes, 48, 8)?,
        })
    }

    /// Returns the entry as it is in a file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let numbers =
            [self.offset, self.address, self.address, self.file_size, self.memory_size, self.align];
        let head = [self.kind, self.flags].into_iter().flat_map(u32::to_le_bytes);
        head.chain(numbers.into_iter().flat_map(u64::to_le_bytes)).collect()
    }
}

/// Returns the little-endian number of `size` bytes at `at`.
pub(super) fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + size)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Returns whether all mapped segments are present, and the table of sections, which linkers put last. Returns
/// `None` if the table of segments itself is cut.
fn is_whole(start: &[u8], length: u64) -> Option<bool> {
    let head = start.get(..HEADER_SIZE)?;
    let sections = number(head, 58, 2)?.checked_mul(number(head, 60, 2)?)?;
    let mut end = number(head, 40, 8)?.checked_add(sections)?;
    let table = usize::try_from(number(head, 32, 8)?).ok()?;
    let (size, count) = (number(head, 54, 2)? as usize, number(head, 56, 2)? as usize);
    for index in 0..count {
        let begin = table.checked_add(index.checked_mul(size)?)?;
        let entry = start.get(begin..begin.checked_add(size)?)?;
        if number(entry, 0, 4)? == u64::from(LOAD) {
            end = end.max(number(entry, 8, 8)?.checked_add(number(entry, 32, 8)?)?);
        }
    }
    Some(end <= length)
}

fn describe(class: u8, order: u8, machine: u16) -> String {
    let machine = if order == LITTLE_ENDIAN { machine } else { machine.swap_bytes() };
    let bits = if class == CLASS_64 { "64-bit" } else { "32-bit" };
    match MACHINES.iter().find(|(number, _)| *number == machine) {
        Some((_, name)) => format!("{bits} {name}"),
        None => format!("{bits} machine number {machine}"),
    }
}

pub(super) const MAGIC: &[u8] = b"\x7fELF";
/// Size in a 64-bit file. A 32-bit header is shorter, but no library fits into the difference.
pub const HEADER_SIZE: usize = 64;
/// Bytes that contain the header and its table of segments, which linkers put immediately after it.
pub const START_SIZE: usize = 16 << 10;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_SHARED: u64 = 3;
/// Size of an entry in the table of segments of a 64-bit file.
pub(super) const SEGMENT_SIZE: usize = 56;
/// Kind of a segment that is mapped.
pub(super) const LOAD: u32 = 1;
/// Kind of a segment of notes.
pub(super) const NOTE: u32 = 4;

/// ELF number of this program's machine.
const THIS_MACHINE: u16 = if cfg!(target_arch = "aarch64") {
    183
} else if cfg!(target_arch = "riscv64") {
    243
} else {
    62
};

/// Machines of servers and laptops (elf(5), `e_machine`).
const MACHINES: [(u16, &str); 10] = [
    (3, "x86"),
    (8, "MIPS"),
    (20, "PowerPC"),
    (21, "PowerPC 64"),
    (22, "S/390"),
    (40, "ARM"),
    (62, "x86-64"),
    (183, "AArch64"),
    (243, "RISC-V"),
    (258, "LoongArch"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &[u8]) -> Result<(), NotALibrary> {
        check_header(&file[..file.len().min(HEADER_SIZE)])
            .and_then(|()| check_whole(&file[..file.len().min(START_SIZE)], file.len() as u64))
    }

    /// The test program itself: position-independent, so of the same type as a library.
    fn own_program() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn a_file_of_this_machine_passes() {
        assert_eq!(check(&own_program()), Ok(()));
    }

    #[test]
    fn other_files_are_distinguished() {
        for text in [&b""[..], b"\x7fEL", b"#!/bin/sh\n", &[0; 100]] {
            assert_eq!(check(text), Err(NotALibrary::NotElf), "{text:?}");
        }
    }

    #[test]
    fn other_machines_are_named() {
        let mut file = own_program();
        file[18..20].copy_from_slice(&22u16.to_le_bytes());
        assert_eq!(check(&file), Err(NotALibrary::Machine { found: "64-bit S/390".to_owned() }));
        let mut file = own_program();
        file[4] = 1;
        file[18..20].copy_from_slice(&3u16.to_le_bytes());
        assert_eq!(check(&file), Err(NotALibrary::Machine { found: "32-bit x86".to_owned() }));
        let mut file = own_program();
        file[5] = 2;
        file[18..20].copy_from_slice(&21u16.to_be_bytes());
        assert_eq!(
            check(&file),
            Err(NotALibrary::Machine { found: "64-bit PowerPC 64".to_owned() })
        );
    }

    #[test]
    fn object_files_and_truncated_files_are_refused() {
        let mut file = own_program();
        file[16] = 1;
        assert_eq!(check(&file), Err(NotALibrary::NotShared));
        let file = own_program();
        for length in [4, 63, 64, 100, file.len() / 2, file.len() - 1] {
            assert_eq!(check(&file[..length]), Err(NotALibrary::Truncated), "{length} bytes");
        }
    }

    #[test]
    fn no_header_makes_the_check_panic() {
        let file = own_program();
        for at in 0..HEADER_SIZE {
            for value in [0, 1, 0x7f, 0xff] {
                let mut file = file[..4096].to_vec();
                file[at] = value;
                let _ = check(&file);
            }
        }
    }
}
