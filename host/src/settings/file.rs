//! Reading the settings file: TOML whose keys are settings, and the tables of the plugins.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::DeTable;

use super::{
    error::{Origin, Problem},
    table::TABLE,
    value::Value,
};

/// The tables of the file that mean something to plugins only.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sections {
    /// `[class.NAME]`: what the worker class of that name reads.
    pub class: toml::Table,
    /// `[application]`: what the application reads.
    pub application: toml::Table,
    /// `[hooks]`: commands and options of hooks.
    pub hooks: toml::Table,
}

/// What a file said: values with the index of their setting in [`TABLE`] and the line.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    pub(super) values: Vec<(usize, Value, Origin)>,
    pub(super) sections: Sections,
    /// Keys that are accepted and have no effect.
    pub(super) ignored: Vec<Problem>,
}

/// Reads a file's text; every key that is wrong becomes one problem.
pub(super) fn parse(path: &Path, text: &str) -> Result<FileSettings, Vec<Problem>> {
    let path = Arc::new(path.to_owned());
    let origin = |span: Range<usize>| Origin::File(Arc::clone(&path), line_of(text, span.start));
    let table = DeTable::parse(text).map_err(|error| {
        let message = format!("not TOML: {}", error.message().replace('\n', " "));
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
        let Some(index) = TABLE.iter().position(|setting| setting.name == name) else {
            problems.push(Problem::unknown(&origin, name));
            continue;
        };
        match TABLE[index].read_toml(value.get_ref()) {
            Ok(value) => file.values.push((index, value, origin)),
            Err(expected) => problems.push(Problem::value(&origin, name, &expected, found)),
        }
    }
    if problems.is_empty() {
        file.sections = read_sections(text);
        return Ok(file);
    }
    // Keys come in alphabetical order; people read from the top.
    problems.sort_by_key(Problem::line);
    Err(problems)
}

fn not_a_table(origin: &Origin, name: &str, found: &str) -> Problem {
    Problem::value(origin, name, &format!("expected a table [{name}]"), found)
}

/// The plugins' tables of a text that has been found to be in order.
fn read_sections(text: &str) -> Sections {
    let mut table = text.parse::<toml::Table>().unwrap_or_default();
    let mut take = |name: &str| match table.remove(name) {
        Some(toml::Value::Table(section)) => section,
        _ => toml::Table::new(),
    };
    Sections { class: take(CLASS), application: take(SECTIONS[1]), hooks: take(SECTIONS[2]) }
}

/// Reads `path`; the error is one problem.
pub(super) fn load(path: &Path) -> Result<FileSettings, Vec<Problem>> {
    let text = read(path)
        .map_err(|error| vec![Problem::file(path, format!("cannot be read: {error}"))])?;
    parse(path, &text)
}

/// The text of a regular file. A pipe, which the arbiter would wait for at a reload, is none.
fn read(path: &Path) -> io::Result<String> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Where the file is when nobody names it.
pub(super) fn default_path(directory: &Path) -> Option<PathBuf> {
    let path = directory.join(FILE_DEFAULT);
    path.exists().then_some(path)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

const FILE_DEFAULT: &str = "host.toml";

/// The tables that are handed to plugins as they are.
const SECTIONS: [&str; 3] = [CLASS, "application", "hooks"];

/// The table of tables: one for each worker class.
const CLASS: &str = "class";
