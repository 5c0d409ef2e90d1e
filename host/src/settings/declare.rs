//! The declaration of a setting: the type of one item of the table, and the macro that generates the table,
//! [`Settings`](super::Settings) and the conversion between them from one list.
//!
//! The list is in `table.rs`; flags, file and page have their own modules.

use toml::de::DeValue;

use super::value::{Kind, Value};

/// One setting, with everything that flags, file, help and the reference page need.
#[derive(Debug)]
pub struct Setting {
    /// Name: gunicorn's if gunicorn has the setting. Also the TOML key and the field of `Settings`.
    pub name: &'static str,
    /// Heading in `--help` and on the reference page.
    pub section: &'static str,
    /// Lines of text; the first paragraph is the summary. Blank lines separate paragraphs.
    pub doc: &'static [&'static str],
    /// Summary of the flag, if it differs from the setting's because the flag turns the setting off.
    pub flag_summary: Option<&'static str>,
    /// Kind of values.
    pub kind: Kind,
    /// Default as written after the flag; `None` if unset.
    pub default: Option<&'static str>,
    /// Long flag without its dashes; `None` if the setting exists only in the file.
    pub long: Option<&'static str>,
    /// Other long flags with the same meaning.
    pub aliases: &'static [&'static str],
    /// Short flag.
    pub short: Option<char>,
    /// Value of the flag when it is given without one.
    pub bare: Option<&'static str>,
    /// Whether the flag also accepts a value if `bare` is set.
    pub bare_or_value: bool,
    /// Environment variable that replaces the default.
    pub variable: Option<Variable>,
    /// When a changed value takes effect.
    pub effect: Effect,
    /// Checks whether a value has the field's type; the error says what was expected.
    pub check: fn(&Value) -> Result<(), String>,
}

/// An environment variable that replaces a default.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Name of the variable.
    pub name: &'static str,
    /// Text put before its value, such as the address before a port.
    pub prefix: &'static str,
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// While the generation runs (changed by a signal or `hostctl`), and at a reload.
    Live,
    /// With the next generation, at a reload.
    Reload,
    /// When the server is restarted.
    Restart,
}

impl Setting {
    /// Base of all declarations.
    pub(super) const BLANK: Self = Self {
        name: "",
        section: "",
        doc: &[],
        flag_summary: None,
        kind: Kind::Text,
        default: None,
        long: None,
        aliases: &[],
        short: None,
        bare: None,
        bare_or_value: false,
        variable: None,
        effect: Effect::Reload,
        check: |_| Ok(()),
    };

    /// Parses a value from a flag or the environment.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = self.kind.parse(text)?;
        (self.check)(&value)?;
        Ok(value)
    }

    /// Converts a value of the file. The error says what was expected.
    pub(super) fn read_toml(&self, toml: &DeValue<'_>) -> Result<Value, String> {
        let bare = self.bare.filter(|_| self.bare_or_value);
        let value = match (toml, bare, self.default) {
            // For a flag that can be given without a value, the file accepts true and false.
            (DeValue::Boolean(true), Some(bare), _) => self.kind.parse(bare)?,
            (DeValue::Boolean(false), Some(_), Some(default)) => self.kind.parse(default)?,
            _ => self.kind.read_toml(toml)?,
        };
        (self.check)(&value)?;
        Ok(value)
    }

    /// Returns the first paragraph of the text on one line.
    pub fn summary(&self) -> String {
        self.paragraphs().into_iter().next().unwrap_or_default()
    }

    /// Returns the text, one line per paragraph.
    pub fn paragraphs(&self) -> Vec<String> {
        self.doc
            .split(|line| line.trim().is_empty())
            .map(|lines| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "))
            .filter(|paragraph| !paragraph.is_empty())
            .collect()
    }
}

impl Effect {
    /// Describes the effect for the reference page.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Live => "at once, and at a reload",
            Self::Reload => "at a reload",
            Self::Restart => "at a restart",
        }
    }
}

/// Generates `TABLE`, the struct `Settings` and the conversion between them.
///
/// An item is `name: Type { field of Setting: value, … }` under its doc comment. The type's
/// [`Field`](super::types::Field) implementation converts the checked value to the field.
macro_rules! settings {
    ($( $section:literal { $(
        $(#[doc = $doc:literal])*
        $name:ident: $type:ty { $($key:ident: $value:expr),* $(,)? }
    )* } )*) => {
        /// All settings, in the order of `--help` and of the reference page.
        pub static TABLE: &[Setting] = &[$($(
            Setting {
                name: stringify!($name),
                section: $section,
                doc: &[$($doc),*],
                check: |value| <$type as Field>::read(value).map(drop),
                $($key: $value,)*
                ..Setting::BLANK
            },
        )*)*];

        /// The effective settings: checked, typed, with all paths absolute. Share them as an `Arc`.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $($(
                $(#[doc = $doc])*
                pub $name: $type,
            )*)*
            /// Tables for plugins.
            pub sections: Sections,
            /// Settings and flags of gunicorn that were given and have no effect; each is logged as a
            /// warning.
            pub ignored: Vec<Problem>,
            /// Settings file that was read.
            pub file: Option<PathBuf>,
            /// Files of the modules that a settings file in Python imports.
            pub file_imports: Vec<PathBuf>,
            /// Directory in which the server was started.
            pub start_directory: PathBuf,
            /// Name of the program as it was called.
            pub program: std::ffi::OsString,
            /// Command line without the program's name.
            pub arguments: Vec<std::ffi::OsString>,
            /// Whether there is an application to serve: a named one or a Django project.
            pub has_application: bool,
            pub(super) values: Vec<Value>,
            pub(super) origins: Vec<Origin>,
        }

        impl Settings {
            /// Converts values in the order of [`TABLE`].
            pub(super) fn assemble(
                values: Vec<Value>,
                origins: Vec<Origin>,
                sections: Sections,
                ignored: Vec<Problem>,
            ) -> Result<Self, Problem> {
                let mut index = 0;
                $($(
                    let $name = <$type as Field>::read(&values[index]).map_err(|expected| {
                        Problem::value(
                            &origins[index],
                            stringify!($name),
                            &expected,
                            &TABLE[index].kind.write_toml(&values[index]).unwrap_or_default(),
                        )
                    })?;
                    index += 1;
                )*)*
                debug_assert_eq!(index, TABLE.len());
                Ok(Self {
                    $($($name,)*)*
                    sections,
                    ignored,
                    file: None,
                    file_imports: Vec::new(),
                    start_directory: PathBuf::new(),
                    program: std::ffi::OsString::new(),
                    arguments: Vec::new(),
                    has_application: false,
                    values,
                    origins,
                })
            }
        }
    };
}
pub(super) use settings;
