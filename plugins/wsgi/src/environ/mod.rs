//! The environ of a request, as specified by PEP 3333 and gunicorn.
//!
//! It is built from cached parts: a prepared dict is copied, keys are interned once, and a value that is equal to
//! the previous one (browsers send the same dozen headers repeatedly) reuses the same object.

mod headers;
mod keys;

mod prototype;

mod tls;

use std::sync::OnceLock;

use worker_api::{Failure, RequestHead};

use python::fault::Fault;
use python::{GlobalRef, Object, PyResult, Python};

use headers::Fields;
use keys::Keys;
use prototype::Prototype;
use python::path::percent_decoded;
use python::remembered::Remembered;
use tls::set_tls;

/// Values that are the same in all requests.
pub(crate) struct Constants {
    /// `wsgi.multithread`.
    pub(crate) multithread: bool,
    /// `GATEWAY_INTERFACE`, in the environ of gevent's pywsgi.
    pub(crate) gateway_interface: Option<&'static str>,
    /// `wsgi.multiprocess`.
    pub(crate) multiprocess: bool,
    /// `SERVER_SOFTWARE`.
    pub(crate) software: String,
    /// `wsgi.errors`.
    pub(crate) errors: GlobalRef,
    /// `wsgi.file_wrapper`.
    pub(crate) file_wrapper: GlobalRef,
    /// See [`Constants::script_name`].
    pub(crate) script_name: OnceLock<String>,
}

impl Constants {
    /// Returns the environment variable `SCRIPT_NAME`: where the application is mounted. It is read at the
    /// first request, because the application may set it at import.
    fn script_name(&self) -> &str {
        self.script_name.get_or_init(|| std::env::var("SCRIPT_NAME").unwrap_or_default())
    }
}

/// Objects through which the application uses its request.
pub(crate) struct Handles<'a, 'py> {
    /// `wsgi.input`.
    pub(crate) input: &'a Object<'py>,
    /// `wsgi.early_hints`.
    pub(crate) early_hints: &'a Object<'py>,
    /// `gunicorn.socket`.
    pub(crate) socket: &'a Object<'py>,
    /// Whether the addresses of the connection come from a PROXY header.
    pub(crate) proxied: bool,
}

/// Builds environs from cached parts.
pub(crate) struct EnvironBuilder {
    keys: Keys,
    prototypes: Vec<Prototype>,
    fields: Fields,
    path: Remembered,
}

impl EnvironBuilder {
    /// Creates the builder.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        Ok(Self {
            keys: Keys::new(py)?,
            prototypes: Vec::new(),
            fields: Fields::default(),
            path: Remembered::new(py)?,
        })
    }

    /// Returns whether the request for which an environ was built last asks for an upgrade.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.fields.upgrade
    }

    /// Builds the environ of a request; fails if its path is outside of `SCRIPT_NAME`.
    pub(crate) fn make<'py>(
        &mut self,
        py: Python<'py>,
        constants: &Constants,
        head: &RequestHead<'_>,
        handles: &Handles<'_, 'py>,
    ) -> Result<Object<'py>, Fault> {
        let place = self.prototype(py, constants, head)?;
        let environ = self.prototypes[place].copy(py, &self.keys, head)?;
        let keys = &self.keys;
        let set = |key: &GlobalRef, value: &Object<'py>| environ.set_item(&key.get(py), value);
        set(&keys.input, handles.input)?;
        set(&keys.early_hints, handles.early_hints)?;
        set(&keys.socket, handles.socket)?;
        if constants.gateway_interface.is_some() {
            set(&keys.sock, handles.socket)?;
        }
        self.fields.set(py, &environ, head)?;
        self.set_place(py, &environ, head)?;
        if let Some(tls) = head.tls.into_option() {
            set_tls(py, &environ, tls)?;
        }
        if handles.proxied {
            set_proxy(py, &environ, head)?;
        }
        self.set_path(py, constants, &environ, head)?;
        Ok(environ)
    }

    /// Returns the index of the prototype that fits the request.
    fn prototype(
        &mut self,
        py: Python<'_>,
        constants: &Constants,
        head: &RequestHead<'_>,
    ) -> PyResult<usize> {
        if let Some(place) = self.prototypes.iter().position(|prototype| prototype.fits(head)) {
            return Ok(place);
        }
        let prototype = Prototype::new(py, constants, &self.keys, head)?;
        if self.prototypes.len() >= PROTOTYPES_MAX {
            self.prototypes.swap_remove(0).release(py);
        }
        self.prototypes.push(prototype);
        Ok(self.prototypes.len() - 1)
    }

    /// Sets the variables that depend on the authority: the Host of an absolute target (RFC 9112 3.2.2), and,
    /// as in gunicorn, the server's name if the listener has none (a unix socket).
    fn set_place<'py>(
        &self,
        py: Python<'py>,
        environ: &Object<'py>,
        head: &RequestHead<'_>,
    ) -> PyResult<()> {
        let authority = head.authority.as_str();
        let absolute = !matches!(head.target.first(), Some(b'/' | b'*') | None);
        if absolute && !authority.is_empty() {
            environ.set_item(&self.keys.http_host.get(py), &py.latin1(authority.as_bytes())?)?;
        }
        if head.local.port == 0 && !authority.is_empty() {
            let https = head.scheme.as_str() == "https";
            let (name, port) = authority
                .rsplit_once(':')
                .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
                .unwrap_or((authority, if https { "443" } else { "80" }));
            environ.set_item(&py.name(b"SERVER_NAME")?, &py.latin1(name.as_bytes())?)?;
            environ.set_item(&py.name(b"SERVER_PORT")?, &py.latin1(port.as_bytes())?)?;
        }
        Ok(())
    }

    /// Sets `PATH_INFO`, without the part that belongs to `SCRIPT_NAME`.
    fn set_path<'py>(
        &mut self,
        py: Python<'py>,
        constants: &Constants,
        environ: &Object<'py>,
        head: &RequestHead<'_>,
    ) -> Result<(), Fault> {
        let mut path = head.path.as_slice();
        let from_header = self.fields.script_name.take();
        let mount = from_header.as_deref().unwrap_or(constants.script_name().as_bytes());
        if !mount.is_empty() {
            let Some(rest) = path.strip_prefix(mount) else {
                let message = format!(
                    "the request's path {:?} does not start with SCRIPT_NAME {:?}",
                    String::from_utf8_lossy(path),
                    String::from_utf8_lossy(mount),
                );
                return Err(Failure::config(message).with_status(500).into());
            };
            path = rest;
        }
        if let Some(from_header) = &from_header {
            environ.set_item(&py.name(b"SCRIPT_NAME")?, &py.latin1(from_header)?)?;
        }
        let decoded = percent_decoded(path);
        let decoded = decoded.as_deref().unwrap_or(path);
        environ.set_item(&self.keys.path_info.get(py), &self.path.value(py, decoded)?)?;
        Ok(())
    }
}

/// Sets the variables that gunicorn derives from a PROXY header: the client's address in `REMOTE_*`, the proxy's
/// in `PROXY_*`.
fn set_proxy(py: Python<'_>, environ: &Object<'_>, head: &RequestHead<'_>) -> PyResult<()> {
    let protocol = if head.local.host.as_str().contains(':') { "TCP6" } else { "TCP4" };
    let mut digits = itoa::Buffer::new();
    for (key, value) in [
        ("PROXY_PROTOCOL", protocol),
        ("PROXY_ADDR", head.local.host.as_str()),
        ("PROXY_PORT", digits.format(head.local.port)),
    ] {
        environ.set_item(&py.name(key.as_bytes())?, &py.latin1(value.as_bytes())?)?;
    }
    Ok(())
}

/// Maximum number of listeners with a prepared environ.
const PROTOTYPES_MAX: usize = 16;
