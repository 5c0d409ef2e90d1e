//! The dynamic section of a library: which libraries it needs, and where the dynamic linker looks for them. In a copy of
//! the library both can be rewritten.
//!
//! Other sections follow the string table, so it cannot grow where it is. A rewritten copy has a second one in a
//! segment at its end, which begins with the content of the first, so that the names of symbols keep their offsets:
//!
//! ```text
//! | the file, with edited entries | [program headers] | old strings | new strings |
//! ```
//!
//! The program headers stay in place if one of them can be spared: profilers look for the build-id in the first page.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::elf::{HEADER_SIZE, LOAD, NOTE, SEGMENT_SIZE, Segment, number, read_at};

/// What the dynamic linker reads of a library to find its dependencies.
#[derive(Debug)]
pub struct Dynamic {
    table_at: u64,
    segments: Vec<Segment>,
    section_at: u64,
    entries: Vec<(u64, u64)>,
    strings: Vec<u8>,
    /// The places in the file that name a library whose symbol versions are needed, and the strings that they refer to.
    versions: Vec<(u64, u64)>,
    /// Where the section header of the string table is.
    strings_header: Option<u64>,
}

impl Dynamic {
    /// Reads the dynamic section of a library; returns nothing if there is none or it is malformed.
    pub fn read(file: &File) -> Option<Self> {
        let header = read_at(file, 0, HEADER_SIZE as u64)?;
        let table_at = number(&header, 32, 8)?;
        let segments = Segment::table(file, &header)?;
        let section = segments.iter().find(|segment| segment.kind == DYNAMIC)?;
        let section_at = offset_of(&segments, section.address)?;
        let section = read_at(file, section_at, section.file_size)?;
        let entries = section.chunks_exact(16);
        let entries = entries.map_while(|entry| Some((number(entry, 0, 8)?, number(entry, 8, 8)?)));
        let entries: Vec<_> = entries.take_while(|(tag, _)| *tag != DT_NULL).collect();
        let strings_address = value(&entries, DT_STRTAB)?;
        let strings_at = offset_of(&segments, strings_address)?;
        let strings = read_at(file, strings_at, value(&entries, DT_STRSZ)?)?;
        let versions = match value(&entries, DT_VERNEED) {
            Some(address) => {
                let count = value(&entries, DT_VERNEEDNUM)?;
                read_versions(file, offset_of(&segments, address)?, count)?
            }
            None => Vec::new(),
        };
        let strings_header = find_section(file, &header, strings_address);
        Some(Self { table_at, segments, section_at, entries, strings, versions, strings_header })
    }

    /// Returns the names of the libraries that it needs.
    pub fn needed(&self) -> Vec<Vec<u8>> {
        let needed = self.entries.iter().filter(|(tag, _)| *tag == DT_NEEDED);
        needed.filter_map(|(_, at)| Some(self.string(*at)?.to_vec())).collect()
    }

    /// Returns the name under which other libraries need it.
    pub fn soname(&self) -> Option<&[u8]> {
        self.string(value(&self.entries, DT_SONAME)?)
    }

    /// Returns the list of directories for what this library needs.
    pub fn runpath(&self) -> Option<&[u8]> {
        self.string(value(&self.entries, DT_RUNPATH)?)
    }

    /// Returns the list of directories for what this library and its dependencies need. A runpath overrides it.
    pub fn rpath(&self) -> Option<&[u8]> {
        let value = value(&self.entries, DT_RPATH).filter(|_| self.runpath().is_none());
        self.string(value?)
    }

    fn string(&self, at: u64) -> Option<&[u8]> {
        self.strings.get(usize::try_from(at).ok()?..)?.split(|byte| *byte == 0).next()
    }

    /// Replaces names of needed libraries, and the list of directories, in a copy of the file that was read.
    pub fn rewrite(
        mut self,
        copy: &File,
        needed: &HashMap<Vec<u8>, Vec<u8>>,
        directories: Option<&[u8]>,
    ) -> io::Result<()> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let mut strings = self.strings.clone();
        let mut append = |text: &[u8]| {
            let at = strings.len() as u64;
            strings.extend(text);
            strings.push(0);
            at
        };
        let directories = directories.map(&mut append);
        let needed: HashMap<&[u8], u64> =
            needed.iter().map(|(name, path)| (name.as_slice(), append(path))).collect();
        let renamed = |at: u64| needed.get(self.string(at)?).copied();

        for (place, at) in &self.versions {
            if let Some(at) = renamed(*at) {
                let at = u32::try_from(at).map_err(|_| malformed())?;
                copy.write_all_at(&at.to_le_bytes(), *place)?;
            }
        }
        let added = Added::behind(&self.segments, copy).ok_or_else(malformed)?;
        let spare = spare_segment(&self.segments);
        let table_size = match spare {
            Some(_) => 0,
            None => (self.segments.len() + 1) * SEGMENT_SIZE,
        };
        let entries = self.entries.iter().map(|(tag, value)| {
            let new = match *tag {
                DT_NEEDED => renamed(*value),
                DT_RUNPATH | DT_RPATH => directories,
                DT_STRTAB => Some(added.address + table_size as u64),
                DT_STRSZ => Some(strings.len() as u64),
                _ => None,
            };
            (*tag, new.unwrap_or(*value))
        });
        let section: Vec<u8> =
            entries.flat_map(|(tag, value)| [tag, value]).flat_map(u64::to_le_bytes).collect();
        copy.write_all_at(&section, self.section_at)?;

        if let Some(spare) = spare {
            self.segments.remove(spare);
        }
        let last = self.segments.iter().rposition(|segment| segment.kind == LOAD);
        let segment = added.segment((table_size + strings.len()) as u64);
        self.segments.insert(last.map_or(0, |last| last + 1), segment);
        let table: Vec<u8> = self.segments.iter().flat_map(Segment::bytes).collect();
        if spare.is_some() {
            copy.write_all_at(&table, self.table_at)?;
        } else {
            let count = u16::try_from(self.segments.len()).map_err(|_| malformed())?;
            copy.write_all_at(&table, added.at)?;
            copy.write_all_at(&added.at.to_le_bytes(), 32)?;
            copy.write_all_at(&count.to_le_bytes(), 56)?;
        }
        let (at, address) = (added.at + table_size as u64, added.address + table_size as u64);
        if let Some(header) = self.strings_header {
            // The linker does not need it, but debuggers refuse a file whose strings are outside of their section.
            let section = [address, at, strings.len() as u64];
            let section: Vec<u8> = section.into_iter().flat_map(u64::to_le_bytes).collect();
            copy.write_all_at(&section, header + 16)?;
        }
        copy.write_all_at(&strings, at)
    }
}

/// Where a segment is added to a file.
struct Added {
    at: u64,
    address: u64,
    align: u64,
}

impl Added {
    fn behind(segments: &[Segment], file: &File) -> Option<Self> {
        let loaded = || segments.iter().filter(|segment| segment.kind == LOAD);
        let align = loaded().map(|segment| segment.align).max()?.max(PAGE);
        let ends = loaded().map(|segment| segment.address.checked_add(segment.memory_size));
        let end = ends.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
        let at = file.metadata().ok()?.len().checked_next_multiple_of(align)?;
        let address = end.checked_next_multiple_of(align)?;
        let is_possible = align.is_power_of_two() && at.max(address) < ADDRESS_MAX;
        is_possible.then_some(Self { at, address, align })
    }

    fn segment(&self, size: u64) -> Segment {
        Segment {
            kind: LOAD,
            flags: READABLE,
            offset: self.at,
            address: self.address,
            file_size: size,
            memory_size: size,
            align: self.align,
        }
    }
}

/// Finds an entry without which a library is loaded just as well: an unused one; the table's own, which the linker finds
/// in the header; or notes that another entry covers.
fn spare_segment(segments: &[Segment]) -> Option<usize> {
    let of_kind = |kind| segments.iter().position(|segment| segment.kind == kind);
    let property = segments.iter().find(|segment| segment.kind == GNU_PROPERTY);
    let is_covered = |segment: &Segment| {
        let same = |other: &Segment| {
            (other.offset, other.file_size) == (segment.offset, segment.file_size)
        };
        segment.kind == NOTE && property.is_some_and(same)
    };
    of_kind(NULL).or_else(|| of_kind(PHDR)).or_else(|| segments.iter().position(is_covered))
}

/// Returns where in the file the byte with this address is.
fn offset_of(segments: &[Segment], address: u64) -> Option<u64> {
    segments.iter().filter(|segment| segment.kind == LOAD).find_map(|segment| {
        let within = address.checked_sub(segment.address)?;
        (within < segment.file_size).then(|| segment.offset.checked_add(within)).flatten()
    })
}

/// Finds the section header of the string table with this address.
fn find_section(file: &File, header: &[u8], address: u64) -> Option<u64> {
    let (at, size) = (number(header, 40, 8)?, number(header, 58, 2)?);
    let table = read_at(file, at, number(header, 60, 2)?.checked_mul(size)?)?;
    let mut sections = table.chunks(usize::try_from(size).ok()?.max(1));
    let index = sections.position(|section| {
        number(section, 4, 4) == Some(STRING_TABLE) && number(section, 16, 8) == Some(address)
    });
    Some(at + index? as u64 * size)
}

/// Reads which libraries' symbol versions are needed (`Elf64_Verneed` in elf.h).
fn read_versions(file: &File, mut at: u64, count: u64) -> Option<Vec<(u64, u64)>> {
    let mut versions = Vec::new();
    for _ in 0..count {
        let record = read_at(file, at, 16)?;
        versions.push((at + 4, number(&record, 4, 4)?));
        match number(&record, 12, 4)? {
            0 => break,
            next => at = at.checked_add(next)?,
        }
    }
    Some(versions)
}

/// Returns the value of the last entry with this tag: the dynamic linker uses the last one.
fn value(entries: &[(u64, u64)], tag: u64) -> Option<u64> {
    entries.iter().rfind(|entry| entry.0 == tag).map(|entry| entry.1)
}

/// The smallest page of the machines that run this program.
const PAGE: u64 = 4096;
/// No machine maps a library there.
const ADDRESS_MAX: u64 = 1 << 56;

// Kinds of segments.
const NULL: u32 = 0;
const DYNAMIC: u32 = 2;
const PHDR: u32 = 6;
const GNU_PROPERTY: u32 = 0x6474_e553;
/// `PF_R`
const READABLE: u32 = 4;
/// `SHT_STRTAB`
const STRING_TABLE: u64 = 3;

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_SONAME: u64 = 14;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const DT_VERNEED: u64 = 0x6fff_fffe;
const DT_VERNEEDNUM: u64 = 0x6fff_ffff;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::build_id::BuildId;
    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// The test program: its dynamic section is like that of a library.
    fn own_program() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    fn replace_first(file: &File) -> Dynamic {
        let before = Dynamic::read(file).unwrap();
        let mut needed = before.needed();
        let (first, path) = (needed[0].clone(), b"/proc/123/fd/45".to_vec());
        needed[0].clone_from(&path);
        let soname = before.soname().map(<[u8]>::to_vec);
        let id = BuildId::of(file);
        before.rewrite(file, &[(first, path)].into(), None).unwrap();
        let after = Dynamic::read(file).unwrap();
        assert_eq!((after.needed(), after.soname()), (needed, soname.as_deref()));
        assert_eq!(BuildId::of(file), id);
        after
    }

    #[test]
    fn a_needed_library_is_replaced() {
        let file = file_of(&own_program());
        let table_at = Dynamic::read(&file).unwrap().table_at;
        assert_eq!(replace_first(&file).table_at, table_at);
    }

    #[test]
    fn the_table_of_segments_moves_if_there_is_no_room() {
        let file = file_of(&own_program());
        let before = Dynamic::read(&file).unwrap();
        let spares = (0..before.segments.len())
            .filter(|index| [NULL, PHDR, GNU_PROPERTY].contains(&before.segments[*index].kind));
        for index in spares {
            let at = before.table_at + (index * SEGMENT_SIZE) as u64;
            file.write_all_at(&0x6fff_fff0_u32.to_le_bytes(), at).unwrap();
        }
        let after = replace_first(&file);
        assert!(after.table_at > before.table_at);
        assert_eq!(after.segments.len(), before.segments.len() + 1);
    }

    #[test]
    fn no_content_makes_it_panic() {
        let bytes = own_program();
        let file = file_of(&bytes);
        let dynamic = Dynamic::read(&file).unwrap();
        let table = dynamic.table_at..dynamic.table_at + 56 * dynamic.segments.len() as u64;
        let section = dynamic.section_at..dynamic.section_at + 16 * dynamic.entries.len() as u64;
        for at in (0..HEADER_SIZE as u64).chain(table).chain(section) {
            for value in [0, 1, 0x7f, 0xff] {
                file.write_all_at(&[value], at).unwrap();
                if let Some(dynamic) = Dynamic::read(&file) {
                    let _ =
                        (dynamic.needed(), dynamic.soname(), dynamic.runpath(), dynamic.rpath());
                    let _ = Added::behind(&dynamic.segments, &file);
                }
            }
            file.write_all_at(&bytes[at as usize..][..1], at).unwrap();
        }
    }
}
