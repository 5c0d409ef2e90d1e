//! The build-id of an ELF file, which linkers write (`--build-id`) to identify the build of a library for
//! debuggers and profilers.

use std::fmt;
use std::fs::File;

use super::elf::{HEADER_SIZE, MAGIC, NOTE, Segment, number, read_at};

/// A build-id. Displays as hexadecimal digits, as tools print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildId(Vec<u8>);

impl BuildId {
    /// Reads the build-id of a file; returns `None` if it has none or is not an ELF file.
    pub fn of(file: &File) -> Option<Self> {
        let header = read_at(file, 0, HEADER_SIZE as u64)?;
        if !header.starts_with(MAGIC) {
            return None;
        }
        let segments = Segment::table(file, &header)?;
        let mut notes = segments.iter().filter(|segment| segment.kind == NOTE);
        notes.find_map(|notes| find(&read_at(file, notes.offset, notes.file_size.min(NOTES_MAX))?))
    }
}

/// Finds the build-id among the notes of a segment.
fn find(mut notes: &[u8]) -> Option<BuildId> {
    loop {
        let name_size = number(notes, 0, 4)? as usize;
        let size = number(notes, 4, 4)? as usize;
        let kind = number(notes, 8, 4)?;
        let name = notes.get(12..12 + name_size)?;
        let begin = 12 + name_size.next_multiple_of(4);
        let content = notes.get(begin..begin + size)?;
        if kind == NOTE_BUILD_ID && name == b"GNU\0" && !content.is_empty() {
            return Some(BuildId(content.to_vec()));
        }
        notes = notes.get(begin + size.next_multiple_of(4)..)?;
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// `NT_GNU_BUILD_ID`
const NOTE_BUILD_ID: u64 = 3;
/// Linkers write a few hundred bytes of notes.
const NOTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32, content.len() as u32, kind] {
            note.extend(number.to_le_bytes());
        }
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_after_other_notes() {
        let notes = [note(1, b"GNU\0", &[9; 16]), note(3, b"GNU\0", &[0xab, 1, 2])].concat();
        assert_eq!(find(&notes).unwrap().to_string(), "ab0102");
        assert_eq!(find(&note(3, b"Go\0\0", &[1; 20])), None);
    }

    #[test]
    fn no_notes_make_the_search_panic() {
        let notes = note(3, b"GNU\0", &[1; 20]);
        for length in 0..notes.len() {
            assert_eq!(find(&notes[..length]), None, "{length} bytes");
        }
        assert_eq!(find(&[0xff; 64]), None);
    }

    #[test]
    fn a_file_without_a_build_id_has_none() {
        assert_eq!(BuildId::of(&File::open("/dev/null").unwrap()), None);
        assert_eq!(BuildId::of(&File::open(file!().trim_start_matches("host/")).unwrap()), None);
    }
}
