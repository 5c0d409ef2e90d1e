//! The tables of the settings file that only plugins interpret.

/// Tables of the file that only plugins interpret.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sections {
    /// `[class.NAME]`: for the worker class with this name.
    pub class: toml::Table,
    /// `[application]`: for the application.
    pub application: toml::Table,
    /// `[hooks]`: commands, and options of hooks.
    pub hooks: toml::Table,
}

impl Sections {
    /// Reads the tables of a text that has been checked.
    pub(super) fn read(text: &str) -> Self {
        let mut table = text.parse::<toml::Table>().unwrap_or_default();
        let mut take = |name: &str| match table.remove(name) {
            Some(toml::Value::Table(section)) => section,
            _ => toml::Table::new(),
        };
        Self { class: take(CLASS), application: take(SECTIONS[1]), hooks: take(SECTIONS[2]) }
    }
}

/// Names of the tables.
pub(super) const SECTIONS: [&str; 3] = [CLASS, "application", "hooks"];

/// Table of tables: one for each worker class.
pub(super) const CLASS: &str = "class";
