//! Settings of a `gunicorn.conf.py`. The file is a program: Python evaluates it in another process (`evaluation.rs`
//! of this crate), and this module makes settings of the values, or a `host.toml` with what TOML can express.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::classes;
use super::declare::Setting;
use super::error::{Origin, Problem};
use super::file::FileSettings;
use super::index_of;
use super::table::TABLE;
use super::unknown::unknown_key;
use super::unsupported;
use super::value::{Kind, Value, is_library};
use crate::hooks;

/// What Python reports about a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The names that it defines.
    Evaluated(Evaluated),
    /// It raised an exception.
    Failed {
        /// The file, or that of the exception's innermost known line.
        file: PathBuf,
        /// Line in it; 0 if unknown.
        line: usize,
        /// The exception.
        reason: String,
    },
}

/// An evaluated file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The file.
    pub file: PathBuf,
    /// Its names, in order.
    pub names: Vec<Name>,
    /// Environment variables that it has read.
    pub environment: Vec<String>,
    /// Files of the modules that it has imported, without those of the standard library.
    pub imports: Vec<PathBuf>,
}

/// A name in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
    /// Its value.
    pub found: Found,
    /// Line that has set it; 0 if several may have.
    pub line: usize,
}

/// Value of a name in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// A plain value.
    Value(Json),
    /// The names of a class and of those that it is derived from, the nearest first.
    Class(Vec<String>),
    /// A function.
    Function,
    /// Another value that only Python has, as `repr()` shows it.
    Other(String),
}

/// Result of converting a file to TOML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converted {
    /// Settings as lines of TOML.
    pub lines: Vec<String>,
    /// One line for each setting that could not be converted, with the reason.
    pub left: Vec<String>,
    /// One line for each difference in meaning between the file and the result.
    pub warnings: Vec<String>,
}

impl Converted {
    /// Returns the text of the file: the settings, and the rest as comments.
    pub fn to_toml(&self) -> String {
        let mut lines = self.lines.clone();
        for (heading, comments) in [("Not converted", &self.left), ("Note", &self.warnings)] {
            if !comments.is_empty() {
                lines.extend([String::new(), format!("# {heading}:")]);
                lines.extend(comments.iter().map(|line| format!("# {}", line.replace('\n', " "))));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// Converts the settings of a file, in order. Other names are ignored, as by gunicorn. Fails for a worker class that
/// has no counterpart: without it the result would serve in another way.
pub fn convert(evaluated: &Evaluated) -> Result<Converted, String> {
    let mut converted = Converted::default();
    for Name { name, found, .. } in &evaluated.names {
        let setting = index_of(name).map(|index| &TABLE[index]);
        match (setting, found, unsupported::reason(name)) {
            (_, Found::Value(Json::Null), _) | (None, _, None) => {}
            (_, Found::Function, _) if hooks::is_event(name) => {
                converted.left.push(format!(
                    "{name}: a function; move it to a module and set hooks_module to its name"
                ));
            }
            (None, _, Some(reason)) => converted.left.push(format!("{name}: {reason}")),
            (Some(setting), found, _) => match read(setting, found) {
                Ok((value, warning)) => {
                    if let Some(text) = setting.kind.write_toml(&value) {
                        converted.lines.push(format!("{name} = {text}"));
                    }
                    converted.warnings.extend(warning);
                }
                Err(reason) if setting.name == WORKER_CLASS => {
                    return Err(format!("{name} = {}: {reason}", found.shown()));
                }
                Err(reason) => {
                    converted.left.push(format!("{name} = {}: {reason}", found.shown()));
                }
            },
        }
    }
    converted.warnings.extend(evaluated.environment.iter().map(|variable| {
        format!("the file reads the environment variable {variable}; the result has what follows from its value now")
    }));
    Ok(converted)
}

/// Returns the settings of a file. Other names are ignored, as by gunicorn; every setting that is invalid or not
/// supported becomes one problem.
pub(super) fn settings(evaluated: &Evaluated) -> Result<FileSettings, Vec<Problem>> {
    let path = Arc::new(evaluated.file.clone());
    let mut settings = FileSettings::default();
    let mut problems = Vec::new();
    for Name { name, found, line } in &evaluated.names {
        let origin = Origin::File(Arc::clone(&path), *line);
        let Some(index) = index_of(name) else {
            if let Some(ignored) = Problem::ignored(&origin, name).filter(|_| found.is_set()) {
                settings.ignored.push(ignored);
            } else if unsupported::is_unsupported(name) && found.is_set() {
                problems.push(unknown_key(&origin, name));
            }
            continue;
        };
        if *found == Found::Value(Json::Null) {
            continue;
        }
        match read(&TABLE[index], found) {
            Ok((value, warning)) => {
                settings.values.push((index, value, origin.clone()));
                let warning = warning.map(|warning| Problem::at(&origin, warning));
                settings.ignored.extend(warning);
            }
            Err(expected) => {
                problems.push(Problem::value(&origin, name, &expected, &found.shown()));
            }
        }
    }
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// Returns the names that mean something in a file.
pub fn known_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|setting| setting.name).chain(unsupported::names())
}

impl Evaluated {
    /// Returns whether it has functions that are hooks.
    pub(super) fn has_hooks(&self) -> bool {
        let is_hook = |name: &Name| name.found == Found::Function && hooks::is_event(&name.name);
        self.names.iter().any(is_hook)
    }
}

impl Found {
    /// Returns whether the value is one that turns something on.
    fn is_set(&self) -> bool {
        match self {
            Self::Value(Json::Null | Json::Bool(false)) => false,
            Self::Value(Json::String(text)) => !text.is_empty(),
            Self::Value(Json::Array(items)) => !items.is_empty(),
            Self::Value(Json::Object(items)) => !items.is_empty(),
            Self::Value(Json::Number(number)) => number.as_f64() != Some(0.0),
            Self::Value(Json::Bool(true)) | Self::Class(_) | Self::Function | Self::Other(_) => {
                true
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Value(value) => value.to_string(),
            Self::Class(names) => names.first().cloned().unwrap_or_default(),
            Self::Function => "a function".to_owned(),
            Self::Other(text) => text.clone(),
        }
    }
}

/// Converts a value that Python has found; also returns what the user should know about the result.
fn read(setting: &Setting, found: &Found) -> Result<(Value, Option<String>), String> {
    let json = match found {
        Found::Class(names) if setting.name == WORKER_CLASS => {
            let (class, warning) = classes::resolve(names)?;
            return Ok((Value::Text(class.to_owned()), warning));
        }
        Found::Value(json) => json,
        _ => return Err(setting.kind.expected()),
    };
    let value = match (setting.name, json) {
        (WORKER_CLASS, Json::String(name)) => read_class(name)?,
        (_, Json::String(text)) if setting.kind == Kind::Addresses => {
            Value::List(text.split(',').map(|address| address.trim().to_owned()).collect())
        }
        (_, Json::String(text)) => setting.parse(text)?,
        // A user or a group may be a number.
        (_, Json::Number(number)) if setting.kind == Kind::Text => {
            setting.parse(&number.to_string())?
        }
        _ => {
            let literal =
                toml::Value::try_from(json).map_err(|error| error.to_string())?.to_string();
            let literal = toml::de::DeValue::parse(&literal).map_err(|error| error.to_string())?;
            setting.read_toml(literal.get_ref())?
        }
    };
    (setting.check)(&value)?;
    Ok((value, None))
}

/// Reads the name of a worker class: one of gunicorn's, the path of a library, or a short name.
fn read_class(name: &str) -> Result<Value, String> {
    let is_own = name.contains('/') || is_library(name) || !name.contains(['.', ':']);
    let class = match classes::resolve(&[name.to_owned()]) {
        Ok((class, _)) => class,
        Err(_) if is_own && classes::class_advice(name).is_none() => name,
        Err(reason) => return Err(reason),
    };
    Ok(Value::Text(class.to_owned()))
}

/// The setting whose value may be a class.
const WORKER_CLASS: &str = "worker_class";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evaluated(name: &str, found: Found) -> Evaluated {
        let names = vec![Name { name: name.to_owned(), found, line: 7 }];
        Evaluated {
            file: "/gunicorn.conf.py".into(),
            names,
            environment: Vec::new(),
            imports: Vec::new(),
        }
    }

    fn converted(name: &str, value: Json) -> Converted {
        convert(&evaluated(name, Found::Value(value))).unwrap()
    }

    #[test]
    fn values_are_written_as_this_server_reads_them() {
        for (name, value, line) in [
            ("workers", json!(4), "workers = 4"),
            ("workers", json!("4"), "workers = 4"),
            ("timeout", json!(30), "timeout = 30"),
            ("bind", json!("127.0.0.1:1, unix:/x"), r#"bind = ["127.0.0.1:1", "unix:/x"]"#),
            ("bind", json!(["127.0.0.1:1"]), r#"bind = ["127.0.0.1:1"]"#),
            ("umask", json!(0o22), "umask = 0o22"),
            ("preload_app", json!(true), "preload_app = true"),
            ("worker_class", json!("gevent_pywsgi"), r#"worker_class = "pywsgi""#),
            (
                "worker_class",
                json!("geventwebsocket.gunicorn.workers.GeventWebSocketWorker"),
                r#"worker_class = "pywsgi""#,
            ),
            ("errorlog", json!("-"), r#"errorlog = "-""#),
            ("cert_reqs", json!(2), "cert_reqs = 2"),
            (
                "secure_scheme_headers",
                json!({"X-SSL": "on"}),
                r#"secure_scheme_headers = { "X-SSL" = "on" }"#,
            ),
        ] {
            let converted = converted(name, value);
            assert_eq!((converted.lines, converted.left), (vec![line.to_owned()], vec![]));
        }
    }

    #[test]
    fn unconverted_settings_have_a_reason() {
        for (name, value, reason) in [
            ("workers", json!("many"), "expected"),
            ("worker_tmp_dir", json!("/dev/shm"), "shared memory"),
        ] {
            let converted = converted(name, value);
            assert_eq!(converted.lines, Vec::<String>::new());
            assert!(converted.left[0].starts_with(name) && converted.left[0].contains(reason));
        }
        for hook in ["post_fork", "pre_exec"] {
            let hook = convert(&evaluated(hook, Found::Function)).unwrap();
            assert!(hook.left[0].contains("hooks_module"));
        }
    }

    #[test]
    fn a_derived_class_is_converted_with_a_warning_and_an_unknown_one_is_refused() {
        let class = |names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            convert(&evaluated("worker_class", Found::Class(names)))
        };
        let derived = class(&["own.Worker", "gunicorn.workers.ggevent.GeventWorker"]).unwrap();
        assert_eq!(derived.lines, [r#"worker_class = "gevent""#]);
        assert!(derived.to_toml().contains("own.Worker is derived from"), "{derived:?}");
        let unknown = class(&["own.Worker", "object"]).unwrap_err();
        assert!(unknown.starts_with("worker_class = own.Worker: a worker class is a shared "));
        let refused =
            convert(&evaluated("worker_class", Found::Value(json!("hypercorn.workers.Worker"))));
        assert!(refused.unwrap_err().contains("asgi"));
    }

    #[test]
    fn variables_that_were_read_are_named() {
        let mut evaluated = evaluated("workers", Found::Value(json!(2)));
        evaluated.environment = vec!["POOL".to_owned()];
        let converted = convert(&evaluated).unwrap();
        assert!(converted.warnings[0].contains("environment variable POOL"), "{converted:?}");
    }

    #[test]
    fn settings_have_their_lines_and_every_wrong_one_is_a_problem() {
        let read = |name, found| settings(&evaluated(name, found));
        let workers = read("workers", Found::Value(json!(3))).unwrap();
        let origin = Origin::File(Arc::new("/gunicorn.conf.py".into()), 7);
        assert_eq!(workers.values, [(index_of("workers").unwrap(), Value::Int(3), origin)]);
        for (name, value, words) in [
            ("workers", json!("many"), "/gunicorn.conf.py:7: workers: expected "),
            ("protocol", json!("uwsgi"), "uwsgi protocol is not supported"),
            ("worker_class", json!("tornado"), "use gthread"),
        ] {
            let problems = read(name, Found::Value(value)).unwrap_err();
            assert!(problems[0].to_string().contains(words), "{problems:?}");
        }
        for (name, value) in
            [("uwsgi_allow_ips", json!("")), ("my_own", json!(1)), ("user", Json::Null)]
        {
            let settings = read(name, Found::Value(value)).unwrap();
            assert!(settings.values.is_empty() && settings.ignored.is_empty(), "{name}");
        }
        let ignored = read("logger_class", Found::Class(vec!["own.Logger".to_owned()])).unwrap();
        assert!(ignored.ignored[0].to_string().contains("has no effect"));
    }

    #[test]
    fn unknown_and_unset_names_are_ignored() {
        assert_eq!(converted("my_own", json!(1)), Converted::default());
        assert_eq!(converted("certfile", Json::Null), Converted::default());
    }
}
