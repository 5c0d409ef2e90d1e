//! The scope of a connection, as specified by ASGI 3.0 with the HTTP specification 2.5.
//!
//! It is built from cached parts, as the environ of the plugin `wsgi` is: a prepared dict is copied, and values that are
//! equal to those of the previous request are the same objects.

use std::collections::HashMap;

use python::path::percent_decoded;
use python::remembered::{REMEMBERED_MAX, Remembered, is_same};
use python::{GlobalRef, Object, PyResult, Python};
use worker_api::{Address, RequestHead, TlsFacts};

use crate::names::Names;

/// Builds scopes.
pub(crate) struct Scopes {
    prototypes: Vec<Prototype>,
    fields: Fields,
    root_path: String,
    /// `asgi` of HTTP scopes.
    versions: GlobalRef,
    /// The protocol's extensions, without those of a TLS session.
    extensions: GlobalRef,
    /// `extensions` of WebSocket scopes, without those of a TLS session.
    websocket_extensions: GlobalRef,
    /// `state` of the lifespan scope; `None` without the lifespan protocol.
    state: Option<GlobalRef>,
    path: Option<Same>,
    /// The host of the last client.
    peer: Remembered,
    empty: GlobalRef,
}

/// The part of a scope that requests of one listener usually have in common.
struct Prototype {
    dict: GlobalRef,
    method: String,
    scheme: String,
    version: u8,
    local: (String, u16),
}

/// A path, and the objects that were made of it.
struct Same {
    bytes: Vec<u8>,
    path: GlobalRef,
    raw_path: GlobalRef,
}

impl Scopes {
    /// Creates the builder. `root_path` is where the application is mounted.
    pub(crate) fn new(py: Python<'_>, root_path: String) -> PyResult<Self> {
        let versions = py.dict()?;
        versions.set_item(&py.name(b"version")?, &py.name(b"3.0")?)?;
        versions.set_item(&py.name(b"spec_version")?, &py.name(b"2.5")?)?;
        let extensions = py.dict()?;
        for name in EXTENSIONS {
            extensions.set_item(&py.name(name.as_bytes())?, &py.dict()?)?;
        }
        let websocket_extensions = py.dict()?;
        websocket_extensions.set_item(&py.name(b"websocket.http.response")?, &py.dict()?)?;
        Ok(Self {
            websocket_extensions: websocket_extensions.store(),
            prototypes: Vec::new(),
            fields: Fields::default(),
            root_path,
            versions: versions.store(),
            extensions: extensions.store(),
            state: None,
            path: None,
            peer: Remembered::new(py)?,
            empty: py.bytes(b"")?.store(),
        })
    }

    /// Sets the state that the application's lifespan has left: each scope gets a copy.
    pub(crate) fn set_state(&mut self, state: Object<'_>) {
        self.state = Some(state.store());
    }

    /// Builds the scope of an HTTP request.
    pub(crate) fn http<'py>(
        &mut self,
        py: Python<'py>,
        names: &Names,
        head: &RequestHead<'_>,
    ) -> PyResult<Object<'py>> {
        let place = self.prototype(py, head)?;
        let scope = self.prototypes[place].dict.get(py).dict_copy()?;
        self.set_path(py, &scope, names, head.path.as_slice())?;
        if !head.peer.host.is_empty() {
            let host = self.peer.value(py, head.peer.host.as_bytes())?;
            let client = py.tuple([host, py.number(head.peer.port.into())?])?;
            scope.set_item(&names.client.get(py), &client)?;
        }
        let query = head.query.as_slice();
        if !query.is_empty() {
            scope.set_item(&names.query_string.get(py), &py.bytes(query)?)?;
        }
        scope.set_item(&names.headers.get(py), &self.fields.list(py, head)?)?;
        if let Some(tls) = head.tls.into_option() {
            let extensions = self.extensions.get(py).dict_copy()?;
            extensions.set_item(&py.name(b"tls")?, &tls_extension(py, tls)?)?;
            scope.set_item(&names.extensions.get(py), &extensions)?;
        }
        if let Some(state) = &self.state {
            scope.set_item(&names.state.get(py), &state.get(py).dict_copy()?)?;
        }
        Ok(scope)
    }

    /// Builds the scope of a WebSocket: that of its request, with what differs.
    pub(crate) fn websocket<'py>(
        &mut self,
        py: Python<'py>,
        names: &Names,
        head: &RequestHead<'_>,
    ) -> PyResult<Object<'py>> {
        let scope = self.http(py, names, head)?;
        scope.del_item(&names.method.get(py))?;
        scope.set_item(&names.kind.get(py), &names.websocket.get(py))?;
        let scheme = if head.scheme.as_str() == "https" { &names.wss } else { &names.ws };
        scope.set_item(&names.scheme.get(py), &scheme.get(py))?;
        let mut extensions = self.websocket_extensions.get(py).clone();
        if let Some(tls) = head.tls.into_option() {
            extensions = extensions.dict_copy()?;
            extensions.set_item(&py.name(b"tls")?, &tls_extension(py, tls)?)?;
        }
        scope.set_item(&names.extensions.get(py), &extensions)?;
        let subprotocols = py.list([])?;
        for value in head.header_all("sec-websocket-protocol") {
            for name in value.split(|byte| *byte == b',') {
                subprotocols.append(&py.latin1(name.trim_ascii())?)?;
            }
        }
        scope.set_item(&names.subprotocols.get(py), &subprotocols)?;
        Ok(scope)
    }

    /// Sets `path`, decoded, and `raw_path`, as sent. Both begin with the root path, as under uvicorn.
    fn set_path<'py>(
        &mut self,
        py: Python<'py>,
        scope: &Object<'py>,
        names: &Names,
        path: &[u8],
    ) -> PyResult<()> {
        if !self.path.as_ref().is_some_and(|same| is_same(&same.bytes, path)) {
            let raw = [self.root_path.as_bytes(), path].concat();
            let decoded = percent_decoded(&raw);
            let decoded = String::from_utf8_lossy(decoded.as_deref().unwrap_or(&raw)).into_owned();
            let next = Same {
                bytes: path.to_vec(),
                path: py.text(&decoded)?.store(),
                raw_path: py.bytes(&raw)?.store(),
            };
            if let Some(last) = self.path.replace(next) {
                drop((last.path.take(py), last.raw_path.take(py)));
            }
        }
        let Some(same) = &self.path else { return Ok(()) };
        scope.set_item(&names.path.get(py), &same.path.get(py))?;
        scope.set_item(&names.raw_path.get(py), &same.raw_path.get(py))
    }

    /// Returns the index of the prototype that fits the request.
    fn prototype(&mut self, py: Python<'_>, head: &RequestHead<'_>) -> PyResult<usize> {
        if let Some(place) = self.prototypes.iter().position(|prototype| prototype.fits(head)) {
            return Ok(place);
        }
        let prototype = self.new_prototype(py, head)?;
        if self.prototypes.len() >= PROTOTYPES_MAX {
            drop(self.prototypes.remove(0).dict.take(py));
        }
        self.prototypes.push(prototype);
        Ok(self.prototypes.len() - 1)
    }

    fn new_prototype(&self, py: Python<'_>, head: &RequestHead<'_>) -> PyResult<Prototype> {
        let dict = py.dict()?;
        let set = |name: &str, value: &Object<'_>| dict.set_item(&py.name(name.as_bytes())?, value);
        set("type", &py.name(b"http")?)?;
        set("asgi", &self.versions.get(py))?;
        let version = head.version.name();
        set("http_version", &py.text(version.strip_prefix("HTTP/").unwrap_or(version))?)?;
        set("method", &py.name(head.method.as_bytes())?)?;
        set("scheme", &py.text(head.scheme.as_str())?)?;
        set("path", &py.text("")?)?;
        set("raw_path", &self.empty.get(py))?;
        set("query_string", &self.empty.get(py))?;
        set("root_path", &py.text(&self.root_path)?)?;
        set("headers", &py.none())?;
        set("client", &py.none())?;
        set("server", &server(py, &head.local)?)?;
        set("extensions", &self.extensions.get(py))?;
        Ok(Prototype {
            dict: dict.store(),
            method: head.method.to_string(),
            scheme: head.scheme.to_string(),
            version: head.version.0,
            local: (head.local.host.to_string(), head.local.port),
        })
    }
}

impl Prototype {
    fn fits(&self, head: &RequestHead<'_>) -> bool {
        self.version == head.version.0
            && self.local.1 == head.local.port
            && self.local.0 == head.local.host.as_str()
            && self.method == head.method.as_str()
            && self.scheme == head.scheme.as_str()
    }
}

/// The headers of requests: names in lower case and values, as `bytes`.
#[derive(Default)]
struct Fields {
    /// The object for each name, as sent by clients, and that of its last value.
    known: HashMap<Box<[u8]>, Field>,
}

struct Field {
    name: GlobalRef,
    value: Vec<u8>,
    /// The pair of the name and the value.
    pair: GlobalRef,
}

impl Fields {
    /// Returns the list of a request's headers.
    fn list<'py>(&mut self, py: Python<'py>, head: &RequestHead<'_>) -> PyResult<Object<'py>> {
        let list = py.list([])?;
        // The authority of an absolute target replaces that of the header (RFC 9112 3.2.2).
        let is_absolute = !matches!(head.target.first(), Some(b'/' | b'*') | None);
        let mut has_host = false;
        for header in head.headers.as_slice() {
            let (name, mut value) = (header.name.as_bytes(), header.value.as_slice());
            if is_absolute && header.is("host") {
                value = head.authority.as_bytes();
                has_host = true;
            }
            list.append(&self.pair(py, name, value)?)?;
        }
        if is_absolute && !has_host && !head.authority.is_empty() {
            list.append(&self.pair(py, b"host", head.authority.as_bytes())?)?;
        }
        Ok(list)
    }

    fn pair<'py>(&mut self, py: Python<'py>, name: &[u8], value: &[u8]) -> PyResult<Object<'py>> {
        if let Some(field) = self.known.get_mut(name) {
            if is_same(&field.value, value) {
                return Ok(field.pair.get(py).clone());
            }
            let pair = py.tuple([field.name.get(py).clone(), py.bytes(value)?])?;
            if value.len() <= REMEMBERED_MAX {
                field.value.clear();
                field.value.extend_from_slice(value);
                drop(std::mem::replace(&mut field.pair, pair.clone().store()).take(py));
            }
            return Ok(pair);
        }
        let lower = py.bytes(&name.to_ascii_lowercase())?;
        let pair = py.tuple([lower.clone(), py.bytes(value)?])?;
        // Names come from clients, so their number is bounded.
        if self.known.len() < NAMES_MAX && name.len() + value.len() <= REMEMBERED_MAX {
            let field =
                Field { name: lower.store(), value: value.to_vec(), pair: pair.clone().store() };
            self.known.insert(name.into(), field);
        }
        Ok(pair)
    }
}

/// `server`: host and port, or the path of a unix socket and `None`.
fn server<'py>(py: Python<'py>, local: &Address<'_>) -> PyResult<Object<'py>> {
    let host = py.text(local.host.as_str())?;
    if local.port == 0 {
        return py.tuple([host, py.none()]);
    }
    py.tuple([host, py.number(local.port.into())?])
}

/// The extension `tls`, and with it the name that the client asked for.
fn tls_extension<'py>(py: Python<'py>, tls: &TlsFacts<'_>) -> PyResult<Object<'py>> {
    let dict = py.dict()?;
    let set = |name: &str, value: &Object<'py>| dict.set_item(&py.name(name.as_bytes())?, value);
    let version = match tls.protocol.as_str() {
        "TLSv1.2" => py.number(0x0303)?,
        "TLSv1.3" => py.number(0x0304)?,
        _ => py.none(),
    };
    set("tls_version", &version)?;
    set("server_cert", &py.none())?;
    let suite = SUITES.iter().find(|(name, _)| *name == tls.cipher.as_str());
    set("cipher_suite", &suite.map_or_else(|| Ok(py.none()), |(_, number)| py.number(*number))?)?;
    set("server_name", &py.text(tls.server_name.as_str())?)?;
    let certificate = tls.client_certificate.as_slice();
    let chain = if certificate.is_empty() { None } else { Some(pem(py, certificate)?) };
    set("client_cert_chain", &py.list(chain)?)?;
    set("client_cert_name", &py.none())?;
    set("client_cert_error", &py.none())?;
    Ok(dict)
}

/// Converts a certificate to PEM.
fn pem<'py>(py: Python<'py>, der: &[u8]) -> PyResult<Object<'py>> {
    py.import("ssl")?.call_method("DER_cert_to_PEM_cert", [&py.bytes(der)?])
}

/// The extensions that every HTTP scope offers.
const EXTENSIONS: [&str; 5] = [
    "http.response.debug",
    "http.response.early_hint",
    "http.response.pathsend",
    "http.response.trailers",
    "http.response.zerocopysend",
];
/// Cipher suites of TLS 1.2 and 1.3 by their IANA names and numbers.
const SUITES: [(&str, i64); 9] = [
    ("TLS13_AES_128_GCM_SHA256", 0x1301),
    ("TLS13_AES_256_GCM_SHA384", 0x1302),
    ("TLS13_CHACHA20_POLY1305_SHA256", 0x1303),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xC02B),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xC02C),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xC02F),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xC030),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xCCA8),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xCCA9),
];
/// Maximum number of prepared dicts: there is one per listener, method, scheme and version.
const PROTOTYPES_MAX: usize = 32;
/// Maximum number of header names that are remembered.
const NAMES_MAX: usize = 256;
