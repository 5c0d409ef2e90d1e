//! What a setting is: the type of one item of the table, and the macro that makes the table,
//! [`Settings`](super::Settings) and their connection from one list.
//!
//! Not here: the list itself (`table.rs`) and what becomes of it (flags, file, page).

use toml::de::DeValue;

use super::value::{Kind, Value};

/// One setting: everything that flags, file, help and the reference page say about it.
#[derive(Debug)]
pub struct Setting {
    /// gunicorn's name where gunicorn has the setting; the TOML key and the field of `Settings`.
    pub name: &'static str,
    /// The heading it stands under in `--help` and on the reference page.
    pub section: &'static str,
    /// Lines of text; the first paragraph is the summary, blank lines part paragraphs.
    pub doc: &'static [&'static str],
    /// What values it takes.
    pub kind: Kind,
    /// The default as one would write it after the flag; `None`: unset.
    pub default: Option<&'static str>,
    /// The long flag without its dashes; `None`: only in the file.
    pub long: Option<&'static str>,
    /// Other long flags with the same meaning.
    pub aliases: &'static [&'static str],
    /// The short flag.
    pub short: Option<char>,
    /// What the flag sets when it is given without a value.
    pub bare: Option<&'static str>,
    /// Whether the flag may also take a value where `bare` is set.
    pub bare_or_value: bool,
    /// An environment variable that replaces the default.
    pub variable: Option<Variable>,
    /// When a changed value takes effect.
    pub effect: Effect,
    /// Whether a value has the field's type; the text says what was expected instead.
    pub check: fn(&Value) -> Result<(), String>,
}

/// An environment variable that stands for a default.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The variable's name.
    pub name: &'static str,
    /// What is put before its text, e.g. the address before a port.
    pub prefix: &'static str,
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// While the generation runs (a signal or `hostctl` changes it), and at a reload.
    Live,
    /// With the next generation: at a reload.
    Reload,
    /// When the server is started anew.
    Restart,
}

impl Setting {
    /// The item from which every declaration starts.
    pub(super) const BLANK: Self = Self {
        name: "",
        section: "",
        doc: &[],
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

    /// Reads a value as it stands after a flag or in the environment.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = self.kind.parse(text)?;
        (self.check)(&value)?;
        Ok(value)
    }

    /// Reads a value of the file. The error says what was expected.
    pub(super) fn read_toml(&self, toml: &DeValue<'_>) -> Result<Value, String> {
        let bare = self.bare.filter(|_| self.bare_or_value);
        let value = match (toml, bare, self.default) {
            // Where a flag may stand alone, the file may say true or false.
            (DeValue::Boolean(true), Some(bare), _) => self.kind.parse(bare)?,
            (DeValue::Boolean(false), Some(_), Some(default)) => self.kind.parse(default)?,
            _ => self.kind.read_toml(toml)?,
        };
        (self.check)(&value)?;
        Ok(value)
    }

    /// The first paragraph of the text, on one line.
    pub fn summary(&self) -> String {
        self.paragraphs().into_iter().next().unwrap_or_default()
    }

    /// The text, one line a paragraph.
    pub fn paragraphs(&self) -> Vec<String> {
        self.doc
            .split(|line| line.trim().is_empty())
            .map(|lines| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "))
            .filter(|paragraph| !paragraph.is_empty())
            .collect()
    }
}

impl Effect {
    /// How the reference page says it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Live => "at once, and at a reload",
            Self::Reload => "at a reload",
            Self::Restart => "at a restart",
        }
    }
}

/// Makes `TABLE`, the struct `Settings` and the way from the one to the other.
///
/// An item is `name: Type { field of Setting: value, … }` under its doc comment; the type's
/// [`Field`](super::types::Field) implementation turns the checked value into the field.
macro_rules! settings {
    ($( $section:literal { $(
        $(#[doc = $doc:literal])*
        $name:ident: $type:ty { $($key:ident: $value:expr),* $(,)? }
    )* } )*) => {
        /// Every setting, in the order of `--help` and of the reference page.
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

        /// The settings in force: checked, typed, with all paths absolute. Share it as an `Arc`.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $($(
                $(#[doc = $doc])*
                pub $name: $type,
            )*)*
            /// The tables that belong to plugins.
            pub sections: Sections,
            /// Keys and flags of gunicorn's that were given and have no effect: a warning each.
            pub ignored: Vec<Problem>,
            /// The settings file that was read.
            pub file: Option<PathBuf>,
            /// The directory that the server was started in.
            pub start_directory: PathBuf,
            /// The program's name as it was called.
            pub program: std::ffi::OsString,
            /// Whether there is an application to serve: one that is named, or a Django project.
            pub has_application: bool,
            pub(super) values: Vec<Value>,
            pub(super) origins: Vec<Origin>,
        }

        impl Settings {
            /// Types values that stand in the order of [`TABLE`].
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
                    start_directory: PathBuf::new(),
                    program: std::ffi::OsString::new(),
                    has_application: false,
                    values,
                    origins,
                })
            }
        }
    };
}
pub(super) use settings;
