//! Reads the table that a plugin of `jimu.h` exports, from its file: what is refused runs no code, not even constructors.

use std::fs::File;

use c_api::from_c::module::{Numbers, SYMBOL};
use c_api::from_c::table::Misfit;
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, ReadCache, ReadRef, SymbolKind};

/// Returns the checked numbers of the exported table, or `None` if the file exports none.
///
/// A table whose numbers are not in the file (in `.bss`) is read as zeros, as the dynamic linker would make them.
pub fn numbers_of(file: &File) -> Option<Result<Numbers, Misfit>> {
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<object::Endianness, _>::parse(&cache).ok()?;
    let is_exported = |symbol: &object::read::elf::ElfSymbol64<'_, '_, _, _>| {
        symbol.name_bytes() == Ok(SYMBOL.as_bytes()) && symbol.is_definition()
    };
    let symbol = elf.dynamic_symbols().find(is_exported)?;
    if symbol.kind() == SymbolKind::Text {
        return Some(Err(Misfit::Function));
    }
    let bytes = at(&elf, symbol.address()).unwrap_or([0; Numbers::LENGTH]);
    Some(Numbers::check(&bytes, symbol.size()))
}

/// Returns whether the file exports a symbol of this name.
pub fn exports(file: &File, name: &str) -> bool {
    let cache = ReadCache::new(file);
    ElfFile64::<object::Endianness, _>::parse(&cache).is_ok_and(|elf| {
        elf.dynamic_symbols()
            .any(|symbol| symbol.is_definition() && symbol.name_bytes() == Ok(name.as_bytes()))
    })
}

/// Returns the bytes at an address, as far as they are in the file.
fn at<'data, R: ReadRef<'data>>(
    elf: &ElfFile64<'data, object::Endianness, R>,
    address: u64,
) -> Option<[u8; Numbers::LENGTH]> {
    elf.segments().find_map(|segment| {
        let offset = address.checked_sub(segment.address())?;
        let data = segment.data().ok()?;
        let start = usize::try_from(offset).ok()?;
        data.get(start..start.checked_add(Numbers::LENGTH)?)?.try_into().ok()
    })
}
