//! Reads the settings file: TOML whose keys are settings, and tables for plugins.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use toml::de::DeTable;

use super::{
    error::{Origin, Problem},
    index_of,
    sections::{CLASS, SECTIONS, Sections},
    table::TABLE,
    unknown::unknown_key,
    value::Value,
};

/// Contents of a file: values with the index of their setting in [`TABLE`] and their line.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    pub(super) values: Vec<(usize, Value, Origin)>,
    pub(super) sections: Sections,
    /// Keys that are accepted and have no effect.
    pub(super) ignored: Vec<Problem>,
}

/// Parses a file's text; every invalid key becomes one problem.
pub(super) fn parse(path: &Path, text: &str) -> Result<FileSettings, Vec<Problem>> {
    let path = Arc::new(path.to_owned());
    let origin = |span: Range<usize>| Origin::File(Arc::clone(&path), line_of(text, span.start));
    let table = DeTable::parse(text).map_err(|error| {
        let message = format!("invalid TOML: {}", error.message().replace('\n', " "));
        vec![Problem::at(&origin(error.span().unwrap_or(0..0)), message)]
    })?;
    let mut file = FileSettings::default();
    let mut problems = Vec::new();
    for (key, value) in table.get_ref() {
        let origin = origin(key.span());
        let name: &str = key.get_ref();
        let found = text.get(value.span()).unwrap_or_default();
        if SECTIONS.contains(&name) {
            let Some(section) = value.get_ref().as_table() else {
                problems.push(not_a_table(&origin, name, found));
                continue;
            };
            let entries = section.iter().filter(|_| name == CLASS);
            for (key, value) in entries.filter(|(_, value)| !value.get_ref().is_table()) {
                let line = Origin::File(Arc::clone(&path), line_of(text, key.span().start));
                let found = text.get(value.span()).unwrap_or_default();
                problems.push(not_a_table(&line, &format!("{CLASS}.{}", key.get_ref()), found));
            }
            continue;
        }
        if let Some(ignored) = Problem::ignored(&origin, name) {
            file.ignored.push(ignored);
            continue;
        }
        let Some(index) = index_of(name) else {
            problems.push(unknown_key(&origin, name));
            continue;
        };
        match TABLE[index].read_toml(value.get_ref()) {
            Ok(value) => file.values.push((index, value, origin)),
            Err(expected) => problems.push(Problem::value(&origin, name, &expected, found)),
        }
    }
    if problems.is_empty() {
        file.sections = Sections::read(text);
        return Ok(file);
    }
    // Keys come in alphabetical order; report them in the order of the file.
    problems.sort_by_key(Problem::line);
    Err(problems)
}

fn not_a_table(origin: &Origin, name: &str, found: &str) -> Problem {
    Problem::value(origin, name, &format!("expected a table [{name}]"), found)
}

/// Reads `path`; an error becomes one problem.
pub(super) fn load(path: &Path) -> Result<FileSettings, Vec<Problem>> {
    let text = read(path)
        .map_err(|error| vec![Problem::file(path, format!("cannot be read: {error}"))])?;
    parse(path, &text)
}

fn read(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|_| io::Error::other("not valid UTF-8"))
}

/// Reads a regular file. A pipe is refused because the arbiter would wait for it at a reload.
pub(super) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}
