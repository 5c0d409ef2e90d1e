//! Values that are reused in the next environ if they are equal.

use crate::{GlobalRef, Object, PyResult, Python};

/// A cached value and the `str` created from it.
pub struct Remembered {
    /// The value.
    pub bytes: Vec<u8>,
    /// The `str`.
    pub object: GlobalRef,
}

impl Remembered {
    /// Remembers the empty string.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        Ok(Self { bytes: Vec::new(), object: py.latin1(b"")?.store() })
    }

    /// Returns the `str` of these bytes, from the cache if they are the same.
    #[inline]
    pub fn value<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Object<'py>> {
        if is_same(&self.bytes, bytes) {
            return Ok(self.object.get(py).clone());
        }
        let object = py.latin1(bytes)?;
        if bytes.len() <= REMEMBERED_MAX {
            self.replace(bytes, object.clone());
        }
        Ok(object)
    }

    /// Remembers another value.
    pub fn replace(&mut self, bytes: &[u8], object: Object<'_>) {
        let py = object.py();
        drop(std::mem::replace(&mut self.object, object.store()).take(py));
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

/// Compares two byte strings. They are usually short, and calling `memcmp` about ten times per request costs more
/// than comparing inline. Up to 32 bytes, the first and the last chunk are compared, which may overlap.
#[inline]
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
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

/// Maximum length of a remembered name or value.
pub const REMEMBERED_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

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
}
