//! The path of a request.

/// Decodes the percent escapes of a path; `None` if it contains no `%`. Invalid escapes are kept.
pub fn percent_decoded(path: &[u8]) -> Option<Vec<u8>> {
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
}
