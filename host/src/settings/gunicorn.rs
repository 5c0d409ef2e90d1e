//! Converts a `gunicorn.conf.py` to a `host.toml`. Python has evaluated the file; this module writes what TOML
//! can express and gives a reason for the rest.

use serde_json::Value as Json;

use super::declare::Setting;
use super::index_of;
use super::table::TABLE;
use super::unsupported;
use super::value::{Kind, Value};
use crate::hooks;

/// Value of a name in the file.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// A plain value.
    Value(Json),
    /// A value that only Python has, described in words: "a function".
    Other(String),
}

/// Result of converting a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converted {
    /// Settings as lines of TOML.
    pub lines: Vec<String>,
    /// One line for each setting that could not be converted, with the reason.
    pub left: Vec<String>,
}

impl Converted {
    /// Returns the text of the file: the settings, and the rest as comments.
    pub fn to_toml(&self) -> String {
        let mut lines = self.lines.clone();
        if !self.left.is_empty() {
            lines.extend([String::new(), "# Not converted:".to_owned()]);
            lines.extend(self.left.iter().map(|line| format!("# {}", line.replace('\n', " "))));
        }
        lines.join("\n") + "\n"
    }
}

/// Converts the settings of a file, in order. Other names are ignored, as by gunicorn.
pub fn convert(found: &[(String, Found)]) -> Converted {
    let mut converted = Converted::default();
    for (name, found) in found {
        let setting = index_of(name).map(|index| &TABLE[index]);
        match (setting, found, unsupported::reason(name)) {
            (_, Found::Value(Json::Null), _) | (None, _, None) => {}
            (_, Found::Other(what), _) if what == FUNCTION && hooks::is_event(name) => {
                converted.left.push(format!(
                    "{name}: a function; move it to a module and set hooks_module to its name"
                ));
            }
            (None, _, Some(reason)) => converted.left.push(format!("{name}: {reason}")),
            (Some(_), Found::Other(what), _) => {
                converted.left.push(format!("{name}: {what}, which a TOML file cannot contain"));
            }
            (Some(setting), Found::Value(value), _) => match read(setting, value) {
                Ok(text) => converted.lines.push(format!("{name} = {text}")),
                Err(reason) => converted.left.push(format!("{name} = {value}: {reason}")),
            },
        }
    }
    converted
}

/// Converts a value to TOML.
fn read(setting: &Setting, json: &Json) -> Result<String, String> {
    let value = match (setting.name, json) {
        ("worker_class", Json::String(class)) => Value::Text(class_of(class)?.to_owned()),
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
    setting.kind.write_toml(&value).ok_or_else(|| "it is empty".to_owned())
}

/// Converts the name of a worker class.
fn class_of(name: &str) -> Result<&'static str, String> {
    class_alias(name).ok_or_else(|| {
        "a worker class is a shared library here, and none replaces this one".to_owned()
    })
}

/// Returns the worker class that corresponds to one of gunicorn's, by any name that gunicorn accepts.
pub fn class_alias(name: &str) -> Option<&'static str> {
    match name {
        "sync" | "gunicorn.workers.sync.SyncWorker" => Some("sync"),
        "gthread" | "gunicorn.workers.gthread.ThreadWorker" => Some("gthread"),
        "eventlet" | "gunicorn.workers.geventlet.EventletWorker" => Some("eventlet"),
        "gevent" | "gunicorn.workers.ggevent.GeventWorker" => Some("gevent"),
        "gevent_pywsgi"
        | "gevent_wsgi"
        | "gunicorn.workers.ggevent.GeventPyWSGIWorker"
        | "geventwebsocket.gunicorn.workers.GeventWebSocketWorker" => Some("pywsgi"),
        _ => None,
    }
}

/// Description of a function by Python.
const FUNCTION: &str = "a function";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn converted(name: &str, value: Json) -> Converted {
        convert(&[(name.to_owned(), Found::Value(value))])
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
            ("worker_class", json!("uvicorn.workers.UvicornWorker"), "shared library"),
            ("workers", json!("many"), "expected"),
            ("worker_tmp_dir", json!("/dev/shm"), "shared memory"),
        ] {
            let converted = converted(name, value);
            assert_eq!(converted.lines, Vec::<String>::new());
            assert!(converted.left[0].starts_with(name) && converted.left[0].contains(reason));
        }
        for hook in ["post_fork", "pre_exec"] {
            let hook = convert(&[(hook.to_owned(), Found::Other(FUNCTION.to_owned()))]);
            assert!(hook.left[0].contains("hooks_module"));
        }
    }

    #[test]
    fn unknown_and_unset_names_are_ignored() {
        assert_eq!(converted("my_own", json!(1)), Converted::default());
        assert_eq!(converted("certfile", Json::Null), Converted::default());
    }
}
