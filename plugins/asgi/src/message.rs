//! The parts of a message that the application sends.

use python::{Exception, GlobalRef, Object, PyErrSet, PyResult, Python, required};

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

    /// Returns the type.
    pub(crate) fn kind(&self) -> PyResult<Object<'py>> {
        self.item(&self.names.kind)?
            .ok_or_else(|| PyErrSet::new(self.py(), Exception::Value, "the message has no type"))
    }

    /// Returns whether an item is true.
    pub(crate) fn flag(&self, name: &GlobalRef) -> PyResult<bool> {
        Ok(self.item(name)?.is_some_and(|flag| flag.is_true()))
    }

    /// Returns `status` and `headers`.
    pub(crate) fn head(&self) -> PyResult<Head> {
        let status = self.item(&self.names.status)?;
        let status = required(self.py(), status, "status")?.as_number()?;
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
