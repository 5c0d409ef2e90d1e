//! The headers of a request in its environ.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use worker_api::RequestHead;

use python::remembered::{REMEMBERED_MAX, Remembered};
use python::{GlobalRef, Object, PyResult, Python};

/// The headers of a request, as `HTTP_*`.
#[derive(Default)]
pub(super) struct Fields {
    /// Index in `known` of each header name, as sent by clients.
    places: HashMap<Box<[u8]>, usize, BuildHasherDefault<NameHasher>>,
    known: Vec<Field>,
    /// Number of the current request, to detect a repeated header.
    request: u64,
    /// Value of a `SCRIPT_NAME` header, which only a trusted peer can send.
    pub(super) script_name: Option<Vec<u8>>,
    /// Whether the request asks for an upgrade.
    pub(super) upgrade: bool,
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
    /// Sets the variables of a request's headers.
    pub(super) fn set<'py>(
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
/// Maximum number of remembered header names.
const FIELDS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_keys_of_cgi() {
        assert_eq!(environ_key(b"X-Forwarded-For").as_deref(), Some("HTTP_X_FORWARDED_FOR"));
        assert_eq!(environ_key(b"content-type").as_deref(), Some("CONTENT_TYPE"));
        assert_eq!(environ_key(b"Content_Length").as_deref(), Some("HTTP_CONTENT_LENGTH"));
        assert_eq!(environ_key(b"Proxy"), None);
    }
}
