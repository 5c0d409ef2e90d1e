//! The module `jimu`: `jimu.py`, and the functions that it gets from the server.

use worker_api::LogLevel;
use worker_api::raw::Value;

use crate::drain;
use crate::function;
use crate::python::{Arguments, Exception, Function, Object, PyErrSet, PyResult, Python, required};
use crate::runtime::PythonRuntime;

/// Creates the module.
pub(crate) fn module(py: Python<'_>) -> PyResult<Object<'_>> {
    let [is_draining, watch_drain] = drain::NATIVES;
    let natives = [
        Function { name: c"_log", entry: function!(log) },
        Function { name: c"_write", entry: function!(write_log) },
        Function { name: c"_setting", entry: function!(setting) },
        is_draining,
        watch_drain,
    ];
    py.module("jimu", include_str!("jimu.py"), &natives)
}

/// `_log(level, target, message)`. The level is a number of the module `logging`.
fn log<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
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
    let Some(runtime) = PythonRuntime::installed() else {
        return Err(PyErrSet::new(py, Exception::Runtime, "the log is not yet available"));
    };
    runtime.host.log(level, target.as_str()?, message.as_str()?);
    Ok(py.none())
}

/// `_write(target, text)`: writes `text`, which is `bytes`, to the error log unchanged.
fn write_log<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [target, text] = arguments.take(["target", "text"])?;
    let (target, text) = (required(py, target, "target")?, required(py, text, "text")?);
    let (Some(runtime), Some(text)) = (PythonRuntime::installed(), text.as_bytes()) else {
        return Err(PyErrSet::new(py, Exception::Type, "_write() takes bytes"));
    };
    runtime.host.write_log(target.as_str()?, text);
    Ok(py.none())
}

/// `_setting(name)`: returns the value of a setting; `None` if it is not set.
fn setting<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [name] = arguments.take(["name"])?;
    let name = required(py, name, "name")?;
    let value =
        PythonRuntime::installed().and_then(|runtime| runtime.host.setting(name.as_str().ok()?));
    match value {
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
