//! Values of settings before they are typed: the kinds of values, and how each is parsed from a flag or a TOML
//! value and written as TOML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use crate::capacity;

/// Kind of values of a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// true or false.
    Bool,
    /// An integer.
    Int {
        /// Minimum.
        min: i64,
        /// Maximum.
        max: i64,
    },
    /// An integer, or `auto` for the number of workers that this machine or container has room for.
    Workers {
        /// Maximum.
        max: i64,
    },
    /// A time in seconds, with or without a fraction.
    Seconds {
        /// Maximum.
        max: f64,
    },
    /// A number of bytes; text may end in k, M or G (powers of 1024).
    Bytes {
        /// Minimum (0 is always allowed if it means "off").
        min: i64,
        /// Maximum.
        max: i64,
    },
    /// File permission bits, octal as text.
    Mode,
    /// Any text.
    Text,
    /// A choice of words.
    Choice(&'static [&'static str]),
    /// A path, made absolute from `chdir`.
    Path,
    /// A path, or `-` for a standard stream.
    Output,
    /// A name to look up, or a path if it contains a slash or ends in `.so`.
    Name,
    /// An application: a path if it ends in `.so`, otherwise a name for a plugin.
    Application,
    /// Strings; the flag is repeated.
    List,
    /// Strings; separated by commas if written as one string.
    CommaList,
    /// Paths; the flag is repeated.
    Paths,
    /// Socket addresses; the flag is repeated.
    Addresses,
    /// Names with values, as one string `name=value,name=value`.
    Map,
}

/// A value of one of these kinds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Unset, without a default.
    Unset,
    /// true or false.
    Bool(bool),
    /// An integer, a number of bytes or permission bits.
    Int(i64),
    /// A time in seconds.
    Seconds(f64),
    /// A string, a path or a choice.
    Text(String),
    /// A list of any kind.
    List(Vec<String>),
    /// Names with values, in the order of the names.
    Map(Vec<(String, String)>),
}

impl Value {
    /// Returns the string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Returns the integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// Returns the boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// Returns the seconds, or the integer, as a float.
    #[expect(clippy::cast_precision_loss, reason = "settings stay far below 2^52")]
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Seconds(seconds) => Some(*seconds),
            Self::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// Returns the items, if it is a list; a map yields `name=value`.
    pub fn to_list(&self) -> Option<Vec<String>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Map(pairs) => Some(pairs.iter().map(|(k, v)| format!("{k}={v}")).collect()),
            _ => None,
        }
    }
}

impl Kind {
    /// Parses the text after a flag. The error says what was expected.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let unexpected = || self.expected();
        match self {
            Self::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "y" | "on" | "1" => Ok(Value::Bool(true)),
                "false" | "no" | "n" | "off" | "0" => Ok(Value::Bool(false)),
                _ => Err(unexpected()),
            },
            Self::Workers { .. } if text.trim().eq_ignore_ascii_case(AUTO) => {
                self.int(i64::try_from(capacity::workers()).map_err(|_| unexpected())?)
            }
            Self::Int { .. } | Self::Workers { .. } => {
                self.int(text.trim().parse().map_err(|_| unexpected())?)
            }
            Self::Bytes { .. } => self.int(parse_bytes(text.trim()).ok_or_else(unexpected)?),
            Self::Mode => self.int(parse_mode(text.trim()).ok_or_else(unexpected)?),
            Self::Seconds { .. } => self.seconds(text.trim().parse().map_err(|_| unexpected())?),
            Self::Choice(_) => self.text(&text.trim().to_ascii_lowercase()),
            Self::Text | Self::Path | Self::Output | Self::Name | Self::Application => {
                self.text(text)
            }
            Self::List | Self::Paths | Self::Addresses => Ok(Value::List(vec![text.to_owned()])),
            Self::CommaList => Ok(Value::List(split_commas(text))),
            Self::Map => {
                let pair = |item: String| {
                    let (name, value) = item.split_once('=').ok_or_else(unexpected)?;
                    Ok((name.to_owned(), value.to_owned()))
                };
                let pairs: Result<Vec<_>, String> =
                    split_commas(text).into_iter().map(pair).collect();
                Ok(Value::Map(sorted(pairs?)))
            }
        }
    }

    /// Converts a value of the file. The error says what was expected.
    pub(super) fn read_toml(self, value: &DeValue<'_>) -> Result<Value, String> {
        match (self, value) {
            (Self::Bool, DeValue::Boolean(flag)) => Ok(Value::Bool(*flag)),
            (
                Self::Int { .. } | Self::Workers { .. } | Self::Bytes { .. } | Self::Mode,
                DeValue::Integer(number),
            ) => self.int(toml_int(number).ok_or_else(|| self.expected())?),
            #[expect(clippy::cast_precision_loss, reason = "the range is checked next")]
            (Self::Seconds { .. }, DeValue::Integer(number)) => {
                self.seconds(toml_int(number).ok_or_else(|| self.expected())? as f64)
            }
            (Self::Seconds { .. }, DeValue::Float(number)) => {
                self.seconds(number.as_str().parse().map_err(|_| self.expected())?)
            }
            (Self::Bool | Self::Int { .. } | Self::Seconds { .. }, _) => Err(self.expected()),
            (_, DeValue::String(text)) => self.parse(text),
            (kind, DeValue::Array(items)) if kind.is_list() => {
                let text = |item: &DeValue<'_>| item.as_str().map(str::to_owned);
                let items: Option<Vec<_>> = items.iter().map(|item| text(item.get_ref())).collect();
                items.map(Value::List).ok_or_else(|| self.expected())
            }
            (Self::Map, DeValue::Table(table)) => {
                let pair = |(name, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                    let name: &std::borrow::Cow<'_, str> = name.get_ref();
                    Some((name.to_string(), value.get_ref().as_str()?.to_owned()))
                };
                let pairs: Option<Vec<_>> = table.iter().map(pair).collect();
                pairs.map(|pairs| Value::Map(sorted(pairs))).ok_or_else(|| self.expected())
            }
            _ => Err(self.expected()),
        }
    }

    /// Returns whether repeated flags are combined into one value.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::List | Self::CommaList | Self::Paths | Self::Addresses)
    }

    /// Writes a value so that [`Kind::read_toml`] reads it back; `None` for an unset one.
    pub(super) fn write_toml(self, value: &Value) -> Option<String> {
        let quote = |text: &str| toml::Value::from(text).to_string();
        Some(match value {
            Value::Unset => return None,
            Value::Bool(flag) => flag.to_string(),
            Value::Int(number) if self == Self::Mode => format!("0o{number:o}"),
            Value::Int(number) => number.to_string(),
            Value::Seconds(seconds) => seconds.to_string(),
            Value::Text(text) => quote(text),
            Value::List(items) => {
                format!("[{}]", items.iter().map(|item| quote(item)).collect::<Vec<_>>().join(", "))
            }
            Value::Map(pairs) => {
                let pair = |(name, value): &(String, String)| {
                    format!("{} = {}", quote(name), quote(value))
                };
                format!("{{ {} }}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
            }
        })
    }

    /// Makes the paths in a value absolute.
    pub(super) fn resolve(self, value: &mut Value, base: &Path) {
        let is_path = |text: &str| match self {
            Self::Path | Self::Paths => !text.is_empty(),
            Self::Output => !text.is_empty() && text != "-",
            Self::Name => text.contains('/') || is_library(text),
            Self::Application => is_library(text),
            _ => false,
        };
        let absolute = |text: &mut String| {
            if self == Self::Addresses {
                if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.starts_with('@'))
                {
                    *text = format!("unix:{}", normal(&base.join(path)));
                }
            } else if is_path(text) {
                *text = normal(&base.join(text.as_str()));
            }
        };
        match value {
            Value::Text(text) => absolute(text),
            Value::List(items) => items.iter_mut().for_each(absolute),
            _ => {}
        }
    }

    /// Describes the values of this kind, for messages.
    pub fn expected(self) -> String {
        match self {
            Self::Bool => "expected true or false".to_owned(),
            Self::Int { min, max: i64::MAX } => format!("expected a whole number from {min}"),
            Self::Int { min, max } => format!("expected a whole number from {min} to {max}"),
            Self::Workers { max } => format!("expected a whole number from 1 to {max}, or {AUTO}"),
            Self::Seconds { max } => format!("expected seconds from 0 to {max}"),
            Self::Bytes { min, max } => {
                let range = if max == i64::MAX { String::new() } else { format!(" to {max}") };
                format!("expected a number of bytes from {min}{range}, such as 65536, 64k or 10M")
            }
            Self::Mode => "expected permission bits such as 0o660 or \"0660\"".to_owned(),
            Self::Choice(words) => format!("expected one of {}", words.join(", ")),
            Self::Text | Self::Name | Self::Application => "expected a string".to_owned(),
            Self::Path => "expected a path".to_owned(),
            Self::Output => "expected a path, or \"-\"".to_owned(),
            Self::List | Self::CommaList => "expected a string or a list of strings".to_owned(),
            Self::Paths => "expected a path or a list of paths".to_owned(),
            Self::Addresses => "expected an address or a list of addresses".to_owned(),
            Self::Map => "expected a table of strings, or \"name=value,name=value\"".to_owned(),
        }
    }

    /// Returns the placeholder for a value in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int { .. } => "INT",
            Self::Workers { .. } => "INT|auto",
            Self::Seconds { .. } => "SECONDS",
            Self::Bytes { .. } => "BYTES",
            Self::Mode => "MODE",
            Self::Text => "TEXT",
            Self::Choice(_) => "CHOICE",
            Self::Path | Self::Paths => "PATH",
            Self::Output => "FILE",
            Self::Name | Self::Application => "NAME|PATH",
            Self::List => "ITEM",
            Self::CommaList => "LIST",
            Self::Addresses => "ADDRESS",
            Self::Map => "MAP",
        }
    }

    fn int(self, number: i64) -> Result<Value, String> {
        let in_range = match self {
            Self::Int { min, max } | Self::Bytes { min, max } => (min..=max).contains(&number),
            Self::Workers { max } => (1..=max).contains(&number),
            Self::Mode => (0..=0o7777).contains(&number),
            _ => false,
        };
        if in_range { Ok(Value::Int(number)) } else { Err(self.expected()) }
    }

    fn seconds(self, seconds: f64) -> Result<Value, String> {
        match self {
            // `+ 0.0` turns a negative zero into the ordinary one.
            Self::Seconds { max } if (0.0..=max).contains(&seconds) => {
                Ok(Value::Seconds(seconds + 0.0))
            }
            _ => Err(self.expected()),
        }
    }

    fn text(self, text: &str) -> Result<Value, String> {
        let fits = match self {
            Self::Choice(words) => words.contains(&text),
            Self::Path | Self::Output => !text.contains('\0'),
            _ => true,
        };
        if fits { Ok(Value::Text(text.to_owned())) } else { Err(self.expected()) }
    }
}

/// As many workers as there is room for.
const AUTO: &str = "auto";

/// Returns `number` times the unit given by its last letter.
fn parse_bytes(text: &str) -> Option<i64> {
    let shift = match text.chars().last()? {
        'k' | 'K' => 10,
        'm' | 'M' => 20,
        'g' | 'G' => 30,
        _ => return text.parse().ok(),
    };
    text[..text.len() - 1].parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// Octal with or without a leading zero or `0o`: modes are not written in decimal.
fn parse_mode(text: &str) -> Option<i64> {
    i64::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok()
}

fn toml_int(number: &toml::de::DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

pub(super) fn is_library(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|extension| extension == "so")
}

fn split_commas(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Sorts by name and removes duplicates: the last value counts, as in a Python dict.
fn sorted(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    pairs.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// Returns the path without `.` components; paths from UTF-8 strings stay UTF-8.
fn normal(path: &Path) -> String {
    path.components().collect::<PathBuf>().to_string_lossy().into_owned()
}
