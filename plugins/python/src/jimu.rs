//! The module `jimu`: `jimu.py`, and the functions that it gets from the server.

use worker_api::LogLevel;
use worker_api::raw::Value;

use crate::drain;
use crate::method;
use crate::server::{Server, natives};
use crate::{Arguments, Exception, Method, Object, PyErrSet, PyResult, Python, required};

/// Functions of the module.
pub const METHODS: &[Method<Server>] = &[
    Method { name: c"_log", entry: method!(log) },
    Method { name: c"_write", entry: method!(write_log) },
    Method { name: c"_setting", entry: method!(setting) },
];

/// Creates the module, whose functions are methods of the server's object. `target` names the plugin in the log.
pub fn module<'py>(server: &Object<'py>, target: &str) -> PyResult<Object<'py>> {
    let py = server.py();
    let mut natives = natives(server, &[METHODS, drain::METHODS])?;
    natives.push((c"_target", py.text(target)?));
    py.module("jimu", include_str!("jimu.py"), &natives)
}

/// `_log(level, target, message)`. The level is a number of the module `logging`.
fn log<'py>(
    py: Python<'py>,
    server: &Server,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [level, target, message] = arguments.take(["level", "target", "message"])?;
    let level = match required(py, level, "level")?.as_number()? {
        50.. => LogLevel::CRITICAL,
        40..50 => LogLevel::ERROR,
        30..40 => LogLevel::WARNING,
        20..30 => LogLevel::INFO,
        _ => LogLevel::DEBUG,
    };
    let (target, message) = (required(py, target, "target")?, required(py, message, "message")?);
    server.host.log(level, target.as_str()?, message.as_str()?);
    Ok(py.none())
}

/// `_write(target, text)`: writes `text`, which is `bytes`, to the error log unchanged.
fn write_log<'py>(
    py: Python<'py>,
    server: &Server,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [target, text] = arguments.take(["target", "text"])?;
    let (target, text) = (required(py, target, "target")?, required(py, text, "text")?);
    let Some(text) = text.as_bytes() else {
        return Err(PyErrSet::new(py, Exception::Type, "_write() takes bytes"));
    };
    server.host.write_log(target.as_str()?, text);
    Ok(py.none())
}

/// `_setting(name)`: returns the value of a setting; `None` if it is not set.
fn setting<'py>(
    py: Python<'py>,
    server: &Server,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [name] = arguments.take(["name"])?;
    let name = required(py, name, "name")?;
    match server.host.setting(name.as_str()?) {
        None => Ok(py.none()),
        Some(Value::Bool(truth)) => py.truth(truth),
        Some(Value::Int(number)) => py.number(number),
        Some(Value::Text(text)) => py.text(&text),
        // Times are integers in gunicorn.
        Some(Value::Float(number)) if number.fract() == 0.0 => py.number(number as i64),
        Some(Value::Float(number)) => {
            let text = py.text(&number.to_string())?;
            py.import("builtins")?.call_method("float", [&text])
        }
        Some(Value::List(items)) => {
            let items = items.iter().map(|item| py.text(item)).collect::<PyResult<Vec<_>>>()?;
            py.list(items)
        }
    }
}
