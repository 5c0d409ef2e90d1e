//! Which file of a crate imports which other one, and cycles among these imports.
//!
//! An import is a path that names an item, in a `use` or anywhere else in the code, also within a macro. It counts for
//! the file that defines the item, even if other modules re-export it. Code for tests does not count. The source is
//! read as tokens, without the types: a method of a type of another file is not seen, its name in the path is.
//!
//! | module | purpose |
//! | --- | --- |
//! | `tokens` | splits a file into tokens with their lines |
//! | `items` | finds the modules, definitions, imports and paths among the tokens |
//! | `resolve` | follows a path to the file that defines the item |
//! | `cycles` | finds the cycles among the files |

mod cycles;
mod items;
mod resolve;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use resolve::Modules;

/// A cycle: each file imports from the next one, the last one from the first.
#[derive(Debug, PartialEq, Eq)]
pub struct Cycle(Vec<Import>);

/// A file, and the line in it that imports from the next file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Import {
    file: PathBuf,
    line: usize,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Import { file, line } in &self.0 {
            write!(f, "{}:{line} -> ", file.display())?;
        }
        write!(f, "{}", self.0.first().map_or(Path::new(""), |first| &first.file).display())
    }
}

/// Returns the cycles among the files of the crate whose root is the file `root`. A cycle is permitted if one of its
/// files is a parent module of all others: a `mod.rs` and its children. `read` returns the text of a file, if it
/// exists.
pub fn find_cycles(root: &Path, read: impl Fn(&Path) -> Option<String>) -> Vec<Cycle> {
    let modules = Modules::read(root, &read);
    let mut imports: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (from, to, line) in modules.imports() {
        let first = imports.entry((from, to)).or_insert(line);
        *first = line.min(*first);
    }
    cycles::find(&modules.files(), &imports)
}
