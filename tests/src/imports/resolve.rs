//! The modules of a crate, and the way from a path to the file that defines the item.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::items::{self, Module, Name};
use super::tokens::tokens;

/// The modules of a crate, by index; 0 is the root.
pub(super) struct Modules {
    nodes: Vec<Node>,
    /// Modules that define macros that the root of the crate exports.
    macros: BTreeMap<String, usize>,
}

/// A file of a crate, and its module.
pub(super) struct File {
    /// Path of the file.
    pub(super) path: PathBuf,
    /// Path of the module, from the root of the crate.
    pub(super) module: Vec<String>,
}

struct Node {
    module: Module,
    path: Vec<String>,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// The file: the path of the first module in it, which is that of the file.
    file: usize,
    source: PathBuf,
}

/// What a path names.
#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    /// An item that this module defines.
    Item(usize),
}

impl Modules {
    /// Reads the crate whose root is this file.
    pub(super) fn read(root: &Path, read: &impl Fn(&Path) -> Option<String>) -> Self {
        let mut modules = Self { nodes: Vec::new(), macros: BTreeMap::new() };
        if let Some(text) = read(root) {
            let directory = root.parent().unwrap_or(Path::new("")).to_owned();
            let module = items::module(&tokens(&text));
            modules.add(None, "", module, root, &directory, read);
        }
        modules
    }

    /// Adds a module and its descendants. `directory` has the files of its children.
    fn add(
        &mut self,
        parent: Option<(usize, bool)>,
        name: &str,
        mut module: Module,
        source: &Path,
        directory: &Path,
        read: &impl Fn(&Path) -> Option<String>,
    ) -> usize {
        let index = self.nodes.len();
        let (files, blocks) =
            (std::mem::take(&mut module.files), std::mem::take(&mut module.blocks));
        self.macros.extend(module.macros.drain(..).map(|name| (name, index)));
        let (mut path, mut file) = (Vec::new(), index);
        if let Some((parent, is_block)) = parent {
            path.clone_from(&self.nodes[parent].path);
            path.push(name.to_owned());
            if is_block {
                file = self.nodes[parent].file;
            }
        }
        self.nodes.push(Node {
            module,
            path,
            parent: parent.map(|(parent, _)| parent),
            children: BTreeMap::new(),
            file,
            source: source.to_owned(),
        });
        for (name, block) in blocks {
            let below = directory.join(&name);
            let child = self.add(Some((index, true)), &name, block, source, &below, read);
            self.nodes[index].children.insert(name, child);
        }
        for name in files {
            let below = directory.join(&name);
            let places = [below.with_extension("rs"), below.join("mod.rs")];
            let found = places.into_iter().find_map(|place| Some((read(&place)?, place)));
            let Some((text, source)) = found else { continue };
            let module = items::module(&tokens(&text));
            let child = self.add(Some((index, false)), &name, module, &source, &below, read);
            self.nodes[index].children.insert(name, child);
        }
        index
    }

    /// Returns the files, by the indices of [`Modules::imports`].
    pub(super) fn files(&self) -> BTreeMap<usize, File> {
        let files = self.nodes.iter().enumerate().filter(|(index, node)| *index == node.file);
        files
            .map(|(index, node)| {
                (index, File { path: node.source.clone(), module: node.path.clone() })
            })
            .collect()
    }

    /// Returns the imports: the importing file, the imported one, and the line.
    pub(super) fn imports(&self) -> Vec<(usize, usize, usize)> {
        let mut imports = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let mut import = |path: &[String], is_public: bool, is_glob: bool, line| {
                let to = match self.resolve(index, path, DEPTH_MAX) {
                    Some(Target::Item(to)) => to,
                    Some(Target::Module(to)) if is_glob => to,
                    _ => return,
                };
                let is_descendant = self.nodes[to].path.starts_with(&node.path);
                let (from, to) = (node.file, self.nodes[to].file);
                // A module re-exports the items of its descendants without using them.
                if from != to && !(is_public && is_descendant) {
                    imports.push((from, to, line));
                }
            };
            for leaf in &node.module.uses {
                import(&leaf.path, leaf.is_public, leaf.name == Name::Glob, leaf.line);
            }
            for (path, line) in &node.module.paths {
                import(path, false, false, *line);
            }
        }
        imports
    }

    /// Returns what a path in a module names; `None` if it is in another crate, or a local name.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => 0,
            "self" => from,
            "super" => self.nodes[from].parent?,
            _ => {
                let start = self.name(from, first, rest.is_empty(), depth)?;
                return self.walk(start, rest, depth);
            }
        };
        while let Some((_, after)) = rest.split_first().filter(|(name, _)| *name == "super") {
            (at, rest) = (self.nodes[at].parent?, after);
        }
        self.walk(Target::Module(at), rest, depth)
    }

    fn walk(&self, start: Target, path: &[String], depth: usize) -> Option<Target> {
        let mut at = start;
        for (place, name) in path.iter().enumerate() {
            let Target::Module(module) = at else { break };
            let is_last = place + 1 == path.len();
            at = match self.name(module, name, is_last, depth) {
                Some(target) => target,
                None if self.imports_name(module, name) => return None,
                // Created by a macro.
                None => Target::Item(module),
            };
        }
        Some(at)
    }

    /// Returns what a name in a module names. The last name of a path is an item rather than a module if there is one
    /// of each.
    fn name(&self, module: usize, name: &str, is_last: bool, depth: usize) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let node = &self.nodes[module];
        let child = node.children.get(name).map(|child| Target::Module(*child));
        if child.is_some() && !is_last {
            return child;
        }
        if node.module.defined.contains(name) {
            return Some(Target::Item(module));
        }
        let mut uses = node.module.uses.iter();
        let named = uses
            .find(|leaf| matches!(&leaf.name, Name::Is(is) if is == name))
            .and_then(|leaf| self.resolve(module, &leaf.path, depth));
        let exported =
            || self.macros.get(name).filter(|_| module == 0).map(|module| Target::Item(*module));
        let globs = || {
            let mut globs = node.module.uses.iter().filter(|leaf| leaf.name == Name::Glob);
            globs.find_map(|glob| match self.resolve(module, &glob.path, depth)? {
                Target::Module(other) if other != module => self.name(other, name, is_last, depth),
                _ => None,
            })
        };
        named.or(child).or_else(exported).or_else(globs)
    }

    /// Returns whether a `use` item of the module imports the name.
    fn imports_name(&self, module: usize, name: &str) -> bool {
        let mut uses = self.nodes[module].module.uses.iter();
        uses.any(|leaf| matches!(&leaf.name, Name::Is(is) if is == name))
    }
}

/// Maximum number of imports that lead from one to the next.
const DEPTH_MAX: usize = 32;
