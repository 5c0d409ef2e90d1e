//! Finds the modules of a file, and in each of them the definitions, the imports and the paths.

use std::collections::BTreeSet;

use super::tokens::Token;

/// A module: a file, or a block in one.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// Names of the items that are defined here.
    pub(super) defined: BTreeSet<String>,
    /// Leaves of the `use` items, also of those in functions.
    pub(super) uses: Vec<Use>,
    /// Paths of at least two names elsewhere.
    pub(super) paths: Vec<(Vec<String>, usize)>,
    /// Names of the child modules that are separate files.
    pub(super) files: Vec<String>,
    /// Child modules that are blocks.
    pub(super) blocks: Vec<(String, Module)>,
    /// Macros that are exported from the root of the crate.
    pub(super) macros: Vec<String>,
}

/// A leaf of a `use` item.
#[derive(Debug)]
pub(super) struct Use {
    /// Path of what is imported; for a glob, that of its module.
    pub(super) path: Vec<String>,
    /// Name under which it is imported.
    pub(super) name: Name,
    /// Whether it is a re-export.
    pub(super) is_public: bool,
    /// Line of its last name.
    pub(super) line: usize,
}

/// Name of an import.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// This name; `_` for none.
    Is(String),
    /// All names of a module.
    Glob,
}

/// Returns the module that the tokens of a file define.
pub(super) fn module(tokens: &[Token<'_>]) -> Module {
    let mut reader = Reader { tokens, at: 0 };
    reader.module()
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads a module up to its closing brace.
    fn module(&mut self) -> Module {
        let mut module = Module::default();
        let (mut depth, mut is_public, mut is_exported) = (0, false, false);
        while let Some(token) = self.peek(0) {
            match token.text {
                "#" => match self.attribute() {
                    Attribute::TestOnly => self.skip_item(),
                    Attribute::Exports => is_exported = true,
                    Attribute::Other => {}
                },
                "{" => (self.at, depth) = (self.at + 1, depth + 1),
                "}" => {
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                    depth -= 1;
                }
                "pub" => {
                    is_public = true;
                    self.visibility();
                }
                "use" => {
                    self.at += 1;
                    if self.text(0) != "<" {
                        self.use_tree(&mut Vec::new(), is_public, &mut module.uses);
                    }
                    is_public = false;
                }
                "mod" if self.peek(1).is_some_and(|name| name.is_word()) => {
                    let name = self.text(1).to_owned();
                    let is_block = self.text(2) == "{";
                    self.at += 3;
                    if is_block {
                        module.blocks.push((name, self.module()));
                    } else {
                        module.files.push(name);
                    }
                    is_public = false;
                }
                "macro_rules" => {
                    let name = self.text(2).to_owned();
                    self.at += 3;
                    if std::mem::take(&mut is_exported) {
                        module.macros.push(name);
                    }
                }
                word if depth == 0 && DEFINES.contains(&word) => {
                    self.at += 1;
                    let name = if self.text(0) == "mut" { self.text(1) } else { self.text(0) };
                    module.defined.insert(name.to_owned());
                    is_public = false;
                }
                _ if token.is_word() => {
                    let path = self.path();
                    if path.len() > 1 {
                        module.paths.push((path, token.line));
                    }
                }
                // The rest of a path whose start is a type, or in another crate.
                "::" if self.peek(1).is_some_and(|next| next.is_word()) => {
                    self.at += 1;
                    self.path();
                }
                _ => self.at += 1,
            }
        }
        module
    }

    fn peek(&self, ahead: usize) -> Option<Token<'a>> {
        self.tokens.get(self.at + ahead).copied()
    }

    fn text(&self, ahead: usize) -> &'a str {
        self.peek(ahead).map_or("", |token| token.text)
    }

    /// Reads names that are joined by `::`.
    fn path(&mut self) -> Vec<String> {
        let mut path = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::" && self.peek(1).is_some_and(|next| next.is_word()) {
            path.push(self.text(1).to_owned());
            self.at += 2;
        }
        path
    }

    /// Reads `pub`, `pub(crate)`, `pub(in path)`.
    fn visibility(&mut self) {
        self.at += 1;
        if self.text(0) == "(" && ["crate", "self", "super", "in"].contains(&self.text(1)) {
            self.group();
        }
    }

    /// Reads an attribute.
    fn attribute(&mut self) -> Attribute {
        let start = self.at;
        self.at += 1;
        if self.text(0) == "!" {
            self.at += 1;
        }
        self.group();
        let has = |word| self.tokens[start..self.at].iter().any(|token| token.text == word);
        match () {
            () if has("cfg") && has("test") && !has("not") => Attribute::TestOnly,
            () if has("macro_export") => Attribute::Exports,
            () => Attribute::Other,
        }
    }

    /// Skips a group in brackets, with the groups in it.
    fn group(&mut self) {
        let mut depth = 0;
        while let Some(token) = self.peek(0) {
            self.at += 1;
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }

    /// Skips the item, field or statement after an attribute.
    fn skip_item(&mut self) {
        while self.text(0) == "#" {
            self.attribute();
        }
        if self.text(0) == "pub" {
            self.visibility();
        }
        let is_field = self.text(1) == ":";
        loop {
            match self.text(0) {
                "" | "}" => return,
                ";" => break,
                "," if is_field => break,
                "{" => return self.group(),
                "(" | "[" => self.group(),
                _ => self.at += 1,
            }
        }
        self.at += 1;
    }

    /// Reads a tree of a `use` item after the names in `prefix`.
    fn use_tree(&mut self, prefix: &mut Vec<String>, is_public: bool, leaves: &mut Vec<Use>) {
        let len = prefix.len();
        let mut line = 0;
        loop {
            match self.text(0) {
                "{" => {
                    self.at += 1;
                    while !["}", ""].contains(&self.text(0)) {
                        self.use_tree(prefix, is_public, leaves);
                    }
                    self.at += 1;
                    break;
                }
                "*" => {
                    let line = self.peek(0).map_or(0, |token| token.line);
                    self.at += 1;
                    leaves.push(Use { path: prefix.clone(), name: Name::Glob, is_public, line });
                    break;
                }
                "::" => self.at += 1,
                "," | ";" | "}" | "" => {
                    leaves.extend(leaf(prefix, None, is_public, line));
                    break;
                }
                "as" => {
                    leaves.extend(leaf(prefix, Some(self.text(1)), is_public, line));
                    self.at += 2;
                    break;
                }
                name => {
                    line = self.peek(0).map_or(0, |token| token.line);
                    prefix.push(name.to_owned());
                    self.at += 1;
                }
            }
        }
        if [",", ";"].contains(&self.text(0)) {
            self.at += 1;
        }
        prefix.truncate(len);
    }
}

enum Attribute {
    /// What follows is only compiled for tests.
    TestOnly,
    /// The macro that follows is exported.
    Exports,
    Other,
}

fn leaf(path: &[String], name: Option<&str>, is_public: bool, line: usize) -> Option<Use> {
    let mut path = path.to_vec();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = name.map_or_else(|| path.last().cloned(), |name| Some(name.to_owned()))?;
    Some(Use { path, name: Name::Is(name), is_public, line })
}

/// Keywords that a name of an item follows. A `const fn` defines `fn` too, which harms nothing.
const DEFINES: [&str; 8] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];
