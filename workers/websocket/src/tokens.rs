//! Tokens and lists in headers (RFC 9110 5.6).

/// Returns whether this is a token (RFC 9110 5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_char(*byte))
}

/// Returns whether the byte may occur in a token.
pub(super) const fn is_token_char(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// Returns the elements of a comma-separated list without the white space around them, and without empty ones
/// (RFC 9110 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_skip_what_is_empty() {
        let elements: Vec<&[u8]> = list(b" a ,, b,\tc d ,").collect();
        assert_eq!(elements, [&b"a"[..], b"b", b"c d"]);
    }

    #[test]
    fn tokens() {
        assert!(is_token(b"graphql-ws") && is_token(b"v1.x~y!"));
        for text in [&b""[..], b"a b", b"a/b", b"a\"", b"\xc3\xa9", b"(a)", b"a="] {
            assert!(!is_token(text), "{text:?}");
        }
    }
}
