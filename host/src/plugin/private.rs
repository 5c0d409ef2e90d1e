//! Private libraries: those that a plugin brings along and finds by `$ORIGIN`, the directory that it is in.
//!
//! A plugin is loaded from a copy ([`super::copy`]), beside which is nothing. So what it would find by `$ORIGIN` is found
//! here, in the order of ld.so(8), and copied as well. In each copy the names of these libraries are replaced by the
//! paths of their copies ([`super::dynamic`]). The dynamic linker identifies a library that is needed by path by nothing
//! else, so two plugins can bring different versions of one library, and loads it in the same order, and with the same
//! scope, as if it had found it by name.
//!
//! Everything else is left to the dynamic linker: libraries that the host has loaded, that are found by other means, or
//! not at all. It still finds what a plugin opens while it runs: `$ORIGIN` is replaced in the list of directories.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::copy::{Draft, SealedCopy};
use super::dynamic::Dynamic;
use super::elf::{self, NotALibrary};
use super::resident::is_resident;

/// A plugin and its private libraries: the plugin first, then in the order in which the dynamic linker loads them.
#[derive(Debug)]
pub struct Tree {
    members: Vec<Member>,
    missing: Vec<Missing>,
}

/// The copy of a library.
#[derive(Debug)]
pub struct LibraryCopy {
    /// The original.
    pub path: PathBuf,
    /// What the original was when it was copied.
    pub metadata: Metadata,
    /// The copy.
    pub copy: SealedCopy,
}

/// A library that a plugin needs, expects beside it, and does not find there.
#[derive(Debug)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The directories that were searched.
    pub directories: Vec<PathBuf>,
}

/// Why there is no tree.
#[derive(Debug)]
pub enum Unusable {
    /// A library cannot be copied.
    Copy(io::Error),
    /// A file cannot be loaded, for this reason.
    Library(PathBuf, NotALibrary),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Copy(error)
    }
}

#[derive(Debug)]
struct Member {
    path: PathBuf,
    metadata: Metadata,
    draft: Draft,
    dynamic: Option<Dynamic>,
    /// The member that needs it.
    loader: Option<usize>,
    /// What `$ORIGIN` stands for: the directory of the path by which it is opened; and, if the file is not there, the
    /// directory to which symbolic links lead.
    origins: Vec<PathBuf>,
    /// The names by which it is needed.
    names: Vec<Vec<u8>>,
    /// What it needs of the tree.
    private: HashMap<Vec<u8>, usize>,
}

impl Member {
    fn new(path: PathBuf, metadata: Metadata, draft: Draft, loader: Option<usize>) -> Self {
        let dynamic = Dynamic::read(draft.file());
        let resolved = path.canonicalize().ok();
        let paths = std::path::absolute(&path).into_iter().chain(resolved);
        let mut origins: Vec<PathBuf> =
            paths.filter_map(|path| Some(path.parent()?.to_owned())).collect();
        origins.dedup();
        let soname = dynamic.as_ref().and_then(|dynamic| dynamic.soname());
        let names = soname.map(<[u8]>::to_vec).into_iter().collect();
        Self { path, metadata, draft, dynamic, loader, origins, names, private: HashMap::new() }
    }

    /// Replaces names of libraries by the paths of their copies.
    fn rewrite(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        let Some(dynamic) = self.dynamic.take() else { return Ok(()) };
        let directories = dynamic.runpath().or(dynamic.rpath());
        let directories = directories.filter(|list| has_origin(list));
        // Such a directory cannot be written into a list.
        let origin = self.origins.first().map(|origin| origin.as_os_str().as_bytes());
        let origin = origin.filter(|origin| !origin.contains(&b':') && !origin.contains(&b'$'));
        let directories = directories.and_then(|list| Some(expand(list, origin?)));
        let path_of = |index: usize| paths[index].as_os_str().as_bytes().to_vec();
        let needed: HashMap<_, _> =
            self.private.drain().map(|(name, index)| (name, path_of(index))).collect();
        if needed.is_empty() && directories.is_none() {
            return Ok(());
        }
        dynamic.rewrite(self.draft.writer(), &needed, directories.as_deref())
    }
}

impl Tree {
    /// Finds and copies the private libraries of a plugin that was copied from `path`.
    pub fn of(path: &Path, metadata: Metadata, draft: Draft) -> Result<Self, Unusable> {
        let plugin = Member::new(path.to_owned(), metadata, draft, None);
        let mut tree = Self { members: vec![plugin], missing: Vec::new() };
        let mut next = 0;
        while next < tree.members.len() {
            tree.resolve(next)?;
            next += 1;
        }
        let paths: Vec<PathBuf> = tree.members.iter().map(|member| member.draft.path()).collect();
        for member in &mut tree.members {
            member.rewrite(&paths)?;
        }
        Ok(tree)
    }

    /// Seals the copies.
    pub fn seal(self) -> io::Result<(Vec<LibraryCopy>, Vec<Missing>)> {
        let copies = self.members.into_iter().map(|member| {
            let Member { path, metadata, draft, .. } = member;
            Ok(LibraryCopy { path, metadata, copy: draft.seal()? })
        });
        Ok((copies.collect::<io::Result<_>>()?, self.missing))
    }

    /// Finds what a member needs.
    fn resolve(&mut self, at: usize) -> Result<(), Unusable> {
        let needed = self.members[at].dynamic.as_ref().map(Dynamic::needed).unwrap_or_default();
        for name in needed {
            if is_resident(&name) {
                continue;
            }
            let known = self.members.iter().position(|member| member.names.contains(&name));
            let found = match known {
                Some(index) => Some(index),
                None => match self.search(at, &name) {
                    Some(path) => Some(self.add(path, at)?),
                    None => None,
                },
            };
            if let Some(index) = found {
                let names = &mut self.members[index].names;
                if !names.contains(&name) {
                    names.push(name.clone());
                }
                self.members[at].private.insert(name, index);
            }
        }
        Ok(())
    }

    /// Returns the file that the dynamic linker would take, if it is a private one.
    fn search(&mut self, at: usize, name: &[u8]) -> Option<PathBuf> {
        if name.contains(&b'/') {
            let origins = &self.members[at].origins;
            let paths = origins.iter().map(|origin| expand(name, origin.as_os_str().as_bytes()));
            let mut paths = paths.map(|path| PathBuf::from(OsString::from_vec(path)));
            return paths.find(|path| has_origin(name) && is_candidate(path));
        }
        let mut searched = Vec::new();
        for (directory, is_private) in self.directories(at, name) {
            let path = directory.join(OsStr::from_bytes(name));
            if is_candidate(&path) {
                return is_private.then_some(path);
            }
            if is_private {
                searched.push(directory);
            }
        }
        if !searched.is_empty() {
            let name = String::from_utf8_lossy(name).into_owned();
            self.missing.push(Missing { name, directories: searched });
        }
        None
    }

    /// Returns the directories in which a member's library is searched first, and whether a library in there is private.
    fn directories(&self, at: usize, name: &[u8]) -> Vec<(PathBuf, bool)> {
        let mut directories = Vec::new();
        let mut next = Some(at);
        while let Some(index) = next {
            let member = &self.members[index];
            let (runpath, rpath) = member
                .dynamic
                .as_ref()
                .map_or((None, None), |dynamic| (dynamic.runpath(), dynamic.rpath()));
            if let (Some(runpath), true) = (runpath, index == at) {
                if let Some(directory) = in_library_path(name) {
                    directories.push((directory, false));
                }
                directories.extend(self.expanded(runpath, member));
                return directories;
            }
            directories.extend(rpath.into_iter().flat_map(|rpath| self.expanded(rpath, member)));
            next = member.loader;
        }
        directories
    }

    fn expanded(&self, list: &[u8], member: &Member) -> Vec<(PathBuf, bool)> {
        let plugin = self.members[0].origins.first();
        let mut directories = Vec::new();
        for entry in list.split(|byte| *byte == b':').filter(|entry| !entry.is_empty()) {
            for origin in &member.origins {
                let directory = expand(entry, origin.as_os_str().as_bytes());
                // What the dynamic linker makes of other tokens is not known here.
                if !directory.contains(&b'$') {
                    let directory = PathBuf::from(OsString::from_vec(directory));
                    let is_inside = plugin.is_some_and(|plugin| directory.starts_with(plugin));
                    let entry = (directory, is_inside || has_origin(entry));
                    if !directories.contains(&entry) {
                        directories.push(entry);
                    }
                }
            }
        }
        directories
    }

    /// Adds a library, unless it is there under another name.
    fn add(&mut self, path: PathBuf, loader: usize) -> Result<usize, Unusable> {
        let mut file = File::open(&path)?;
        let metadata = file.metadata()?;
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        let is_same = |member: &Member| identity(&member.metadata) == identity(&metadata);
        if let Some(index) = self.members.iter().position(is_same) {
            return Ok(index);
        }
        if self.members.len() == MEMBERS_MAX {
            return Err(io::Error::other("too many private libraries").into());
        }
        let draft = Draft::new(&path, &mut file)?;
        if let Err(reason) = elf::check(draft.file())? {
            return Err(Unusable::Library(path, reason));
        }
        self.members.push(Member::new(path, metadata, draft, Some(loader)));
        Ok(self.members.len() - 1)
    }
}

/// Returns whether the dynamic linker would take this file: it continues to search if a file cannot be read, or was
/// built for another machine.
fn is_candidate(path: &Path) -> bool {
    let start = || elf::start_of(&File::open(path)?, elf::HEADER_SIZE);
    path.is_file()
        && start().is_ok_and(|start| {
            !matches!(elf::check_header(&start), Err(NotALibrary::Machine { .. }))
        })
}

/// Returns the directory of `LD_LIBRARY_PATH` that has a library of this name: it is searched before runpaths.
fn in_library_path(name: &[u8]) -> Option<PathBuf> {
    let variable = std::env::var_os("LD_LIBRARY_PATH")?;
    let directories = variable.as_bytes().split(|byte| b":;".contains(byte));
    let mut directories = directories.map(|directory| PathBuf::from(OsStr::from_bytes(directory)));
    directories.find(|directory| is_candidate(&directory.join(OsStr::from_bytes(name))))
}

fn has_origin(text: &[u8]) -> bool {
    TOKENS.iter().any(|token| text.windows(token.len()).any(|part| part == *token))
}

/// Replaces `$ORIGIN`.
fn expand(text: &[u8], origin: &[u8]) -> Vec<u8> {
    let mut expanded = Vec::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if let Some(token) = TOKENS.iter().find(|token| rest.starts_with(token)) {
            expanded.extend(origin);
            rest = &rest[token.len()..];
        } else {
            expanded.push(*first);
            rest = tail;
        }
    }
    expanded
}

const TOKENS: [&[u8]; 2] = [b"$ORIGIN", b"${ORIGIN}"];
/// Each library occupies a descriptor in every worker.
const MEMBERS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_replaced_in_both_spellings() {
        assert_eq!(expand(b"/x:$ORIGIN/lib:${ORIGIN}", b"/srv"), b"/x:/srv/lib:/srv");
        assert_eq!(expand(b"$LIB/$ORIGI", b"/srv"), b"$LIB/$ORIGI");
        assert!(has_origin(b"/x:${ORIGIN}/..") && !has_origin(b"/ORIGIN:$PLATFORM"));
    }
}
