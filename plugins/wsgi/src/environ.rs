//! The environ of a request, as specified by PEP 3333 and gunicorn.
//!
//! It is built from cached parts: a prepared dict is copied, keys are interned once, and a value that is equal to
//! the previous one (browsers send the same dozen headers repeatedly) reuses the same object.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use worker_api::{Failure, RequestHead, TlsFacts};

use crate::errors::Fault;
use crate::python::{GlobalRef, Object, PyResult, Python};

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

/// Prototype of the environs of a listener: the values that are the same in all of them, and those of the last
/// request.
struct Prototype {
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

impl Prototype {
    /// Creates the prototype for the listener of a request. It contains all keys that every request sets, so
    /// that a copy has room for them and does not grow.
    fn new(
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

    fn fits(&self, head: &RequestHead<'_>) -> bool {
        self.local_port == head.local.port
            && self.remote_port.is_some() == (head.peer.port != 0)
            && self.https == (head.scheme.as_str() == "https")
            && self.local_host == head.local.host.as_str()
    }

    /// Creates an environ with everything except the headers. Values that equal those of the previous
    /// request, as most do, are already in the prototype.
    fn copy<'py>(
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

    fn release(self, py: Python<'_>) {
        let values = [self.method, self.protocol, self.target, self.query, self.remote_address];
        let values = values.into_iter().chain(self.remote_port);
        values.for_each(|value| drop(value.object.take(py)));
        drop(self.dict.take(py));
    }
}

/// The headers of a request, as `HTTP_*`.
#[derive(Default)]
struct Fields {
    /// Index in `known` of each header name, as sent by clients.
    places: HashMap<Box<[u8]>, usize, BuildHasherDefault<NameHasher>>,
    known: Vec<Field>,
    /// Number of the current request, to detect a repeated header.
    request: u64,
    /// Value of a `SCRIPT_NAME` header, which only a trusted peer can send.
    script_name: Option<Vec<u8>>,
    /// Whether the request asks for an upgrade.
    upgrade: bool,
}

/// A known header. Names that differ only in case or punctuation have the same key and are one header.
struct Field {
    key: GlobalRef,
    name: String,
    last: Remembered,
    /// The request in which it occurred last.
    request: u64,
    is_upgrade: bool,
}

impl Fields {
    fn set<'py>(
        &mut self,
        py: Python<'py>,
        environ: &Object<'py>,
        head: &RequestHead<'_>,
    ) -> PyResult<()> {
        self.request += 1;
        self.script_name = None;
        self.upgrade = false;
        // Whether an unknown name has occurred: its key may be that of a known header.
        let mut unknown = false;
        for header in head.headers.as_slice() {
            let (name, value) = (header.name.as_bytes(), header.value.as_slice());
            if name.len() == SCRIPT_NAME.len() && name.eq_ignore_ascii_case(SCRIPT_NAME) {
                self.script_name = Some(value.to_vec());
            }
            let place = match self.places.get(name) {
                Some(place) => Some(*place),
                None => self.learn(py, name)?,
            };
            let Some(place) = place else {
                unknown = true;
                if let Some(key) = environ_key(name) {
                    add(environ, &py.latin1(key.as_bytes())?, &py.latin1(value)?)?;
                }
                continue;
            };
            let Some(field) = self.known.get_mut(place) else { continue };
            self.upgrade |= field.is_upgrade;
            let key = field.key.get(py);
            let value = field.last.value(py, value)?;
            let before = std::mem::replace(&mut field.request, self.request);
            if before == self.request || unknown {
                add(environ, &key, &value)?;
            } else {
                environ.set_item(&key, &value)?;
            }
        }
        Ok(())
    }

    /// Remembers a header name if there is room: names come from clients, so their number is bounded.
    #[cold]
    fn learn(&mut self, py: Python<'_>, name: &[u8]) -> PyResult<Option<usize>> {
        if self.places.len() >= FIELDS_MAX || name.len() > REMEMBERED_MAX {
            return Ok(None);
        }
        let Some(key) = environ_key(name) else {
            self.places.insert(name.into(), usize::MAX);
            return Ok(Some(usize::MAX));
        };
        let known = self.known.iter().position(|field| field.name == key);
        let place = if let Some(place) = known {
            place
        } else {
            let object = py.name(key.as_bytes())?.store();
            let last = Remembered::new(py)?;
            let is_upgrade = key == "HTTP_UPGRADE";
            self.known.push(Field { key: object, name: key, last, request: 0, is_upgrade });
            self.known.len() - 1
        };
        self.places.insert(name.into(), place);
        Ok(Some(place))
    }
}

/// Sets an item, or appends to its value: with a comma, as gunicorn does, and cookies with a semicolon (RFC 6265
/// 4.2.1).
#[cold]
fn add<'py>(environ: &Object<'py>, key: &Object<'py>, value: &Object<'py>) -> PyResult<()> {
    let py = environ.py();
    let Some(before) = environ.dict_item(key)? else {
        return environ.set_item(key, value);
    };
    let separator = if key.as_str()? == "HTTP_COOKIE" { "; " } else { "," };
    let mut both = before.as_latin1()?.bytes().to_vec();
    both.extend_from_slice(separator.as_bytes());
    both.extend_from_slice(value.as_latin1()?.bytes());
    environ.set_item(key, &py.latin1(&both)?)
}

/// Returns the environ key of a header; `None` for `Proxy`, because programs mistake `HTTP_PROXY` for the
/// environment variable (CVE-2016-5385).
fn environ_key(name: &[u8]) -> Option<String> {
    let upper: String = name
        .iter()
        .map(|b| if *b == b'-' { '_' } else { char::from(b.to_ascii_uppercase()) })
        .collect();
    match upper.as_str() {
        "PROXY" => None,
        "CONTENT_TYPE" | "CONTENT_LENGTH" if name.contains(&b'-') => Some(upper),
        _ => Some(format!("HTTP_{upper}")),
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

/// Sets the TLS session's properties under the names of Apache's `mod_ssl`.
#[cold]
fn set_tls<'py>(py: Python<'py>, environ: &Object<'py>, tls: &TlsFacts<'_>) -> PyResult<()> {
    let set =
        |key: &str, value: &[u8]| environ.set_item(&py.name(key.as_bytes())?, &py.latin1(value)?);
    set("HTTPS", b"on")?;
    set("SSL_PROTOCOL", tls.protocol.as_bytes())?;
    set("SSL_CIPHER", tls.cipher.as_bytes())?;
    if !tls.server_name.is_empty() {
        set("SSL_TLS_SNI", tls.server_name.as_bytes())?;
    }
    let certificate = tls.client_certificate.as_slice();
    if certificate.is_empty() {
        return set("SSL_CLIENT_VERIFY", b"NONE");
    }
    set("SSL_CLIENT_VERIFY", b"SUCCESS")?;
    set("SSL_CLIENT_CERT", pem(certificate).as_bytes())
}

fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    // 48 bytes make a line of 64 characters (RFC 7468).
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b))
                << (8 * (3 - group.len()));
            for place in 0..4 {
                let character = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= group.len() { char::from(character) } else { '=' });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Decodes the percent escapes of a path; `None` if it contains no `%`. Invalid escapes are kept.
fn percent_decoded(path: &[u8]) -> Option<Vec<u8>> {
    let first = memchr::memchr(b'%', path)?;
    let mut decoded = path[..first].to_vec();
    let mut rest = &path[first..];
    while let Some((byte, after)) = rest.split_first() {
        let escape = (*byte == b'%').then(|| Some((hex(*after.first()?)?, hex(*after.get(1)?)?)));
        if let Some(Some((high, low))) = escape {
            decoded.push(high << 4 | low);
            rest = &after[2..];
        } else {
            decoded.push(*byte);
            rest = after;
        }
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// A cached value and the `str` created from it.
struct Remembered {
    bytes: Vec<u8>,
    object: GlobalRef,
}

impl Remembered {
    fn new(py: Python<'_>) -> PyResult<Self> {
        Ok(Self { bytes: Vec::new(), object: py.latin1(b"")?.store() })
    }

    /// Returns the `str` of these bytes, from the cache if they are the same.
    #[inline]
    fn value<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Object<'py>> {
        if is_same(&self.bytes, bytes) {
            return Ok(self.object.get(py).clone());
        }
        let object = py.latin1(bytes)?;
        if bytes.len() <= REMEMBERED_MAX {
            self.replace(bytes, object.clone());
        }
        Ok(object)
    }

    fn replace(&mut self, bytes: &[u8], object: Object<'_>) {
        let py = object.py();
        drop(std::mem::replace(&mut self.object, object.store()).take(py));
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

/// Compares two byte strings. They are usually short, and calling `memcmp` about ten times per request costs more
/// than comparing inline. Up to 32 bytes, the first and the last chunk are compared, which may overlap.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    fn ends<const N: usize>(text: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        text.first_chunk().zip(text.last_chunk())
    }
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        0..4 => one.iter().eq(other),
        4..8 => ends::<4>(one) == ends::<4>(other),
        8..=16 => ends::<8>(one) == ends::<8>(other),
        17..=32 => ends::<16>(one) == ends::<16>(other),
        _ => one == other,
    }
}

macro_rules! keys {
    ($($field:ident: $name:literal,)*) => {
        /// Interned keys of the values that differ between requests.
        struct Keys { $($field: GlobalRef,)* }

        impl Keys {
            fn new(py: Python<'_>) -> PyResult<Self> {
                Ok(Self { $($field: py.name($name)?.store(),)* })
            }
        }
    };
}

keys! {
    input: b"wsgi.input",
    early_hints: b"wsgi.early_hints",
    socket: b"gunicorn.socket",
    sock: b"gunicorn.sock",
    request_method: b"REQUEST_METHOD",
    server_protocol: b"SERVER_PROTOCOL",
    query_string: b"QUERY_STRING",
    raw_uri: b"RAW_URI",
    path_info: b"PATH_INFO",
    remote_addr: b"REMOTE_ADDR",
    remote_port: b"REMOTE_PORT",
    http_host: b"HTTP_HOST",
}

/// Hashes header names. They are short, and at most [`FIELDS_MAX`] of them are kept, so an attacker gains nothing
/// from collisions.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut parts = bytes.chunks_exact(8);
        for part in &mut parts {
            self.mix(u64::from_le_bytes(part.try_into().unwrap_or_default()));
        }
        self.mix(parts.remainder().iter().fold(0, |word, b| word << 8 | u64::from(*b)));
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

impl NameHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Header in which a trusted peer sends where the application is mounted.
const SCRIPT_NAME: &[u8] = b"SCRIPT_NAME";
/// Maximum number of listeners with a prepared environ.
const PROTOTYPES_MAX: usize = 16;
/// Maximum number of remembered header names.
const FIELDS_MAX: usize = 512;
/// Maximum length of a remembered name or value.
const REMEMBERED_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_what_is_none_stays() {
        assert_eq!(percent_decoded(b"/a/b"), None);
        assert_eq!(percent_decoded(b"/a%20b%2Fc").as_deref(), Some(&b"/a b/c"[..]));
        assert_eq!(percent_decoded(b"/%zz%4").as_deref(), Some(&b"/%zz%4"[..]));
        assert_eq!(percent_decoded(b"%C3%BC%25").as_deref(), Some(&b"\xC3\xBC%"[..]));
    }

    #[test]
    fn bytes_are_the_same_where_none_differs() {
        for len in 0..40 {
            let bytes: Vec<u8> = (0..len).collect();
            assert!(is_same(&bytes, &bytes.clone()), "{len}");
            assert!(!is_same(&bytes, &[&bytes[..], b"x"].concat()), "{len}");
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert!(!is_same(&bytes, &other), "{at} of {len}");
            }
        }
    }

    #[test]
    fn fields_have_the_keys_of_cgi() {
        assert_eq!(environ_key(b"X-Forwarded-For").as_deref(), Some("HTTP_X_FORWARDED_FOR"));
        assert_eq!(environ_key(b"content-type").as_deref(), Some("CONTENT_TYPE"));
        assert_eq!(environ_key(b"Content_Length").as_deref(), Some("HTTP_CONTENT_LENGTH"));
        assert_eq!(environ_key(b"Proxy"), None);
    }

    #[test]
    fn a_certificate_is_written_as_pem() {
        let text = pem(&[0, 1, 2, 0xFF]);
        assert!(text.contains("\nAAEC/w==\n"), "{text}");
    }
}
