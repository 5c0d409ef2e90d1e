//! The parts of a message that the application sends.

use python::{Exception, GlobalRef, Object, PyErrSet, PyResult, Python};

use crate::head::Head;
use crate::names::Names;

/// A message of the application: a dict.
pub(crate) struct Sent<'a, 'py> {
    pub(crate) dict: &'a Object<'py>,
    pub(crate) names: &'a Names,
}

impl<'py> Sent<'_, 'py> {
    fn py(&self) -> Python<'py> {
        self.dict.py()
    }

    /// Returns an item; `None` if it is missing.
    pub(crate) fn item(&self, name: &GlobalRef) -> PyResult<Option<Object<'py>>> {
        self.dict.dict_item(&name.get(self.py()))
    }

    /// Returns an item that may also be Python's `None`, which means the same as a missing one.
    pub(crate) fn optional(&self, name: &GlobalRef) -> PyResult<Option<Object<'py>>> {
        Ok(self.item(name)?.filter(|item| !item.is_none()))
    }

    /// Returns an item that must not be missing.
    pub(crate) fn required(&self, name: &GlobalRef) -> PyResult<Object<'py>> {
        self.item(name)?.ok_or_else(|| {
            let name = name.get(self.py()).to_text();
            PyErrSet::new(self.py(), Exception::Value, &format!("the message has no {name}"))
        })
    }

    /// Returns the type.
    pub(crate) fn kind(&self) -> PyResult<Object<'py>> {
        self.required(&self.names.kind)
    }

    /// Returns whether an item is true.
    pub(crate) fn flag(&self, name: &GlobalRef) -> PyResult<bool> {
        Ok(self.item(name)?.is_some_and(|flag| flag.is_true()))
    }

    /// Returns `status` and `headers`.
    pub(crate) fn head(&self) -> PyResult<Head> {
        let status = self.required(&self.names.status)?.as_number()?;
        let headers = self.item(&self.names.headers)?;
        // The exchange refuses the status 0.
        Head::new(u16::try_from(status).unwrap_or_default(), headers.as_ref())
    }

    /// Returns `body`, and whether more of it follows.
    pub(crate) fn body(&self) -> PyResult<(Object<'py>, bool)> {
        let data = match self.item(&self.names.body)? {
            Some(body) => to_bytes(&body)?,
            None => self.py().bytes(b"")?,
        };
        Ok((data, self.flag(&self.names.more_body)?))
    }
}

/// Returns a message as a dict: a copy if it is of another type, such as a mapping of the application's.
pub(crate) fn to_dict<'py>(py: Python<'py>, message: Object<'py>) -> PyResult<Object<'py>> {
    if message.is_exact_dict() {
        return Ok(message);
    }
    py.import("builtins")?.attr_named("dict")?.call([&message]).map_err(|raised| {
        raised.clear(py);
        let message = format!("a message must be a dict, not {}", message.type_name());
        PyErrSet::new(py, Exception::Type, &message)
    })
}

/// Returns the `bytes` of an object with a buffer.
pub(crate) fn to_bytes<'py>(data: &Object<'py>) -> PyResult<Object<'py>> {
    if data.as_bytes().is_some() {
        return Ok(data.clone());
    }
    if data.is_exact_str() {
        let message = "the body of a message must be bytes, not str";
        return Err(PyErrSet::new(data.py(), Exception::Type, message));
    }
    data.to_bytes()
}
