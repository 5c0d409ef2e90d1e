//! The part of an environ that does not change, or rarely, from request to request.

use worker_api::RequestHead;

use super::Constants;
use super::keys::Keys;
use python::remembered::{REMEMBERED_MAX, Remembered, is_same};
use python::{GlobalRef, Object, PyResult, Python};

/// Prototype of the environs of a listener: the values that are the same in all of them, and those of the last
/// request.
pub(super) struct Prototype {
    https: bool,
    local_host: String,
    local_port: u16,
    dict: GlobalRef,
    method: Remembered,
    protocol: Remembered,
    target: Remembered,
    query: Remembered,
    remote_address: Remembered,
    /// `None` if clients of the listener have no ports, as on a unix socket.
    remote_port: Option<Remembered>,
}

impl Prototype {
    /// Creates the prototype for the listener of a request. It contains all keys that every request sets, so
    /// that a copy has room for them and does not grow.
    pub(super) fn new(
        py: Python<'_>,
        constants: &Constants,
        keys: &Keys,
        head: &RequestHead<'_>,
    ) -> PyResult<Self> {
        let dict = py.dict()?;
        let set = |key: &str, value: Object<'_>| dict.set_item(&py.name(key.as_bytes())?, &value);
        set("wsgi.version", py.tuple([py.number(1)?, py.number(0)?])?)?;
        set("wsgi.url_scheme", py.name(head.scheme.as_bytes())?)?;
        set("wsgi.errors", constants.errors.get(py).clone())?;
        set("wsgi.multithread", py.truth(constants.multithread)?)?;
        set("wsgi.multiprocess", py.truth(constants.multiprocess)?)?;
        set("wsgi.run_once", py.truth(false)?)?;
        set("wsgi.input_terminated", py.truth(true)?)?;
        set("wsgi.file_wrapper", constants.file_wrapper.get(py).clone())?;
        set("SERVER_SOFTWARE", py.name(constants.software.as_bytes())?)?;
        set("SERVER_NAME", py.latin1(head.local.host.as_bytes())?)?;
        let port = head.local.port;
        let digits = if port == 0 { String::new() } else { port.to_string() };
        set("SERVER_PORT", py.latin1(digits.as_bytes())?)?;
        set("SCRIPT_NAME", py.latin1(constants.script_name().as_bytes())?)?;
        if let Some(interface) = constants.gateway_interface {
            set("GATEWAY_INTERFACE", py.name(interface.as_bytes())?)?;
        }
        for key in [&keys.input, &keys.early_hints, &keys.socket, &keys.path_info] {
            dict.set_item(&key.get(py), &py.none())?;
        }
        let known = |key: &GlobalRef| -> PyResult<Remembered> {
            let empty = Remembered::new(py)?;
            dict.set_item(&key.get(py), &empty.object.get(py))?;
            Ok(empty)
        };
        Ok(Self {
            https: head.scheme.as_str() == "https",
            local_host: head.local.host.to_string(),
            local_port: port,
            method: known(&keys.request_method)?,
            protocol: known(&keys.server_protocol)?,
            target: known(&keys.raw_uri)?,
            query: known(&keys.query_string)?,
            remote_address: known(&keys.remote_addr)?,
            remote_port: (head.peer.port != 0).then(|| known(&keys.remote_port)).transpose()?,
            dict: dict.store(),
        })
    }

    /// Returns whether the prototype is that of the request's listener.
    pub(super) fn fits(&self, head: &RequestHead<'_>) -> bool {
        self.local_port == head.local.port
            && self.remote_port.is_some() == (head.peer.port != 0)
            && self.https == (head.scheme.as_str() == "https")
            && self.local_host == head.local.host.as_str()
    }

    /// Creates an environ with everything except the headers. Values that equal those of the previous
    /// request, as most do, are already in the prototype.
    pub(super) fn copy<'py>(
        &mut self,
        py: Python<'py>,
        keys: &Keys,
        head: &RequestHead<'_>,
    ) -> PyResult<Object<'py>> {
        let dict = self.dict.get(py);
        let mut digits = itoa::Buffer::new();
        let port = digits.format(head.peer.port).as_bytes();
        let values = [
            (&keys.request_method, Some(&mut self.method), head.method.as_bytes()),
            (&keys.server_protocol, Some(&mut self.protocol), head.version.name().as_bytes()),
            (&keys.query_string, Some(&mut self.query), head.query.as_slice()),
            (&keys.raw_uri, Some(&mut self.target), head.target.as_slice()),
            (&keys.remote_addr, Some(&mut self.remote_address), head.peer.host.as_bytes()),
            (&keys.remote_port, self.remote_port.as_mut(), port),
        ];
        let mut long = Vec::new();
        for (key, remembered, bytes) in values {
            let Some(remembered) = remembered.filter(|known| !is_same(&known.bytes, bytes)) else {
                continue;
            };
            let value = py.latin1(bytes)?;
            if bytes.len() <= REMEMBERED_MAX {
                dict.set_item(&key.get(py), &value)?;
                remembered.replace(bytes, value);
            } else {
                long.push((key, value));
            }
        }
        let environ = dict.dict_copy()?;
        for (key, value) in long {
            environ.set_item(&key.get(py), &value)?;
        }
        Ok(environ)
    }

    /// Drops the references.
    pub(super) fn release(self, py: Python<'_>) {
        let values = [self.method, self.protocol, self.target, self.query, self.remote_address];
        let values = values.into_iter().chain(self.remote_port);
        values.for_each(|value| drop(value.object.take(py)));
        drop(self.dict.take(py));
    }
}
