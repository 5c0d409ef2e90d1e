//! Reading the settings file: TOML whose keys are settings, and the tables of the plugins.

use std::{ops::Range, path::Path, path::PathBuf, sync::Arc};

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
            if value.get_ref().as_table().is_none() {
                problems.push(Problem::value(
                    &origin,
                    name,
                    &format!("expected a table [{name}]"),
                    found,
                ));
            }
            continue;
        }
        let Some(index) = TABLE.iter().position(|setting| setting.name == name) else {
            problems.push(Problem::unknown(&origin, name));
            continue;
        };
        let setting = &TABLE[index];
        let read = setting.read_toml(value.get_ref());
        match read {
            Ok(value) => file.values.push((index, value, origin)),
            Err(expected) => problems.push(Problem::value(&origin, name, &expected, found)),
        }
    }
    if problems.is_empty() {
        file.sections = read_sections(text).map_err(|name| {
            vec![Problem::file(&path, format!("{name}: expected tables [class.NAME]"))]
        })?;
        return Ok(file);
    }
    // Keys come in alphabetical order; people read from the top.
    problems.sort_by_key(Problem::line);
    Err(problems)
}

/// The plugins' tables; the error is the name of one that does not look right.
fn read_sections(text: &str) -> Result<Sections, String> {
    let mut table = text.parse::<toml::Table>().unwrap_or_default();
    let mut take = |name: &str| match table.remove(name) {
        Some(toml::Value::Table(section)) => section,
        _ => toml::Table::new(),
    };
    let sections = Sections {
        class: take(SECTIONS[0]),
        application: take(SECTIONS[1]),
        hooks: take(SECTIONS[2]),
    };
    match sections.class.iter().find(|(_, value)| !value.is_table()) {
        Some((name, _)) => Err(format!("class.{name}")),
        None => Ok(sections),
    }
}

/// Reads `path`; the error is one problem.
pub(super) fn load(path: &Path) -> Result<FileSettings, Vec<Problem>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![Problem::file(path, format!("cannot be read: {error}"))])?;
    parse(path, &text)
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
const SECTIONS: [&str; 3] = ["class", "application", "hooks"];
