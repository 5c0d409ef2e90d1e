//! Finds the end of a chunked body (RFC 9112, section 7.1).

use std::io;

use super::invalid;

/// Position in a chunked body.
#[derive(Clone, Copy)]
pub(super) enum Chunked {
    /// In a chunk's size, of which these digits were received.
    Size(Option<u64>),
    /// Behind the size, in the same line.
    Extension(u64),
    /// In a chunk's data; this number of bytes is missing, with the line end behind the data.
    Data(u64),
    /// In the trailer section.
    Trailer {
        /// Whether the line has no bytes so far.
        empty: bool,
    },
    /// Behind the body.
    End,
}

impl Chunked {
    /// Processes a part of the body. Returns the number of bytes that belong to the body.
    pub(super) fn take(&mut self, part: &[u8]) -> io::Result<usize> {
        let mut left = part;
        while !left.is_empty() && !self.is_complete() {
            if let Self::Data(missing) = self {
                let bytes = left.len().min(usize::try_from(*missing).unwrap_or(usize::MAX));
                *missing -= bytes as u64;
                if *missing == 0 {
                    *self = Self::Size(None);
                }
                left = &left[bytes..];
            } else {
                *self = self.after(left[0])?;
                left = &left[1..];
            }
        }
        Ok(part.len() - left.len())
    }

    /// Returns whether the body is complete.
    pub(super) fn is_complete(self) -> bool {
        matches!(self, Self::End)
    }

    fn after(self, byte: u8) -> io::Result<Self> {
        Ok(match (self, byte) {
            (Self::Size(Some(0)) | Self::Extension(0), b'\n') => Self::Trailer { empty: true },
            (Self::Size(Some(bytes)) | Self::Extension(bytes), b'\n') => Self::Data(bytes + 2),
            (Self::Size(Some(bytes)), b';' | b'\r') => Self::Extension(bytes),
            (Self::Size(digits), _) => Self::Size(Some(with_digit(digits, byte)?)),
            (Self::Trailer { empty: true }, b'\n') => Self::End,
            (Self::Trailer { empty }, b'\r') => Self::Trailer { empty },
            (Self::Trailer { .. }, _) => Self::Trailer { empty: byte == b'\n' },
            (Self::Extension(_) | Self::Data(_) | Self::End, _) => self,
        })
    }
}

fn with_digit(digits: Option<u64>, byte: u8) -> io::Result<u64> {
    let digit = char::from(byte).to_digit(16).ok_or_else(|| invalid("a strange chunk size"))?;
    let size = digits.unwrap_or_default().checked_mul(16).filter(|size| *size <= SIZE_MAX);
    Ok(size.ok_or_else(|| invalid("a chunk too large"))? + u64::from(digit))
}

const SIZE_MAX: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_behind_its_trailer_however_it_is_cut() {
        for body in [
            &b"5\r\nHello\r\n0\r\n\r\n"[..],
            b"a;note=\"x\"\r\n0\r\n\r\n12345\r\n0\r\nSum: 1\r\nOther: 2\r\n\r\n",
            b"0\r\n\r\n",
        ] {
            for cut in 1..body.len() {
                let mut chunked = Chunked::Size(None);
                assert_eq!(chunked.take(&body[..cut]).unwrap(), cut);
                assert!(!chunked.is_complete(), "cut at {cut}");
                assert_eq!(chunked.take(&body[cut..]).unwrap(), body.len() - cut);
                assert!(chunked.is_complete(), "cut at {cut}");
            }
            let longer = [body, b"x"].concat();
            assert_eq!(Chunked::Size(None).take(&longer).unwrap(), body.len());
        }
    }

    #[test]
    fn a_size_without_digits_or_too_large_is_an_error() {
        for body in [&b"\r\n"[..], b"x\r\n", b"ffffffffffffffff\r\n"] {
            assert!(Chunked::Size(None).take(body).is_err());
        }
    }
}
