//! Character classes and small grammars shared by several modules (RFC 9110 5.5, 5.6).

/// Returns whether the byte may occur in a token (RFC 9110 5.6.2).
pub(super) const fn is_token_char(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// Returns whether this is a token: at least one character, all permitted.
pub(super) fn is_token(text: &[u8]) -> bool {
    // Without an early exit: tokens are short and nearly always valid.
    !text.is_empty() && text.iter().fold(true, |all, byte| all & is_token_char(*byte))
}

/// Returns whether the byte may occur in a header value: visible, space, tab, or above ASCII (RFC 9110 5.5).
pub(super) const fn is_value_char(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Returns whether the text is a valid header value; see [`is_value_char`]. Eight bytes at a time, because it is
/// called for every response header.
pub(super) fn is_value(text: &[u8]) -> bool {
    let (Some(last), (words, _)) = (text.last_chunk::<8>(), text.as_chunks::<8>()) else {
        return text.iter().all(|byte| is_value_char(*byte));
    };
    // The last word overlaps the previous one. A suspect may be a tab, or follow a byte that borrowed.
    let suspects = words.iter().fold(suspects(*last), |all, word| all | suspects(*word));
    suspects == 0 || text.iter().all(|byte| is_value_char(*byte))
}

/// Returns a non-zero value if one of the bytes is a control character.
fn suspects(bytes: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(bytes);
    let delete = word ^ (ONES * 0x7f);
    let low = word.wrapping_sub(ONES * 0x20) & !word;
    let deleted = delete.wrapping_sub(ONES) & !delete;
    (low | deleted) & (ONES * 0x80)
}

/// Returns whether the byte may occur unescaped in a host name: `unreserved` and `sub-delims` (RFC 3986 2.2,
/// 2.3).
pub(super) const fn is_host_char(byte: u8) -> bool {
    CLASSES[byte as usize] & HOST != 0
}

/// Returns whether all bytes may; true for an empty name.
#[inline]
pub(super) fn is_host_name(text: &[u8]) -> bool {
    // Without an early exit, and eight per iteration: the loop has no other branch.
    let class = |all: u8, byte: &u8| all & CLASSES[*byte as usize];
    let (words, rest) = text.as_chunks::<8>();
    let all = words.iter().fold(HOST, |all, word| word.iter().fold(all, class));
    rest.iter().fold(all, class) & HOST != 0
}

/// Returns whether a header name contains an underscore.
pub(super) fn has_underscore(name: &[u8]) -> bool {
    underscores(name) != 0
}

/// Returns a non-zero value if a header name contains an underscore. Eight bytes at a time, because it is called
/// for every header.
#[inline]
pub(super) fn underscores(name: &[u8]) -> u64 {
    // Of all token characters only the underscore has its five lower bits set: adding one carries into the
    // sixth.
    let carry = |word: u64| (word & (ONES * 0x1f)) + ONES;
    let carried = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            let ends = carry(u64::from_le_bytes(*first)) | carry(u64::from_le_bytes(*last));
            if name.len() <= 16 {
                ends
            } else {
                let words = name.as_chunks::<8>().0;
                words.iter().fold(ends, |all, word| all | carry(u64::from_le_bytes(*word)))
            }
        }
        _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                let halves = [u32::from_le_bytes(*first), u32::from_le_bytes(*last)];
                carry(u64::from(halves[0]) | u64::from(halves[1]) << 32)
            }
            _ => return u64::from(name.contains(&b'_')),
        },
    };
    carried & (ONES * 0x20)
}

/// Trims spaces and tabs: no other byte counts as white space (RFC 9110 5.6.3).
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Parses a decimal number; `None` if it is malformed, `u64::MAX` if it is too large.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add))
}

/// One in each byte.
const ONES: u64 = u64::from_le_bytes([1; 8]);
const TOKEN: u8 = 1;
const HOST: u8 = 2;

/// Character classes of each byte.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let alphanumeric = (byte as u8).is_ascii_alphanumeric();
        let both = matches!(
            byte as u8,
            b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'_' | b'~'
        );
        let token = matches!(byte as u8, b'#' | b'%' | b'^' | b'`' | b'|');
        let host = matches!(byte as u8, b'(' | b')' | b',' | b';' | b'=');
        if alphanumeric || both || token {
            classes[byte] |= TOKEN;
        }
        if alphanumeric || both || host {
            classes[byte] |= HOST;
        }
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_are_those_of_the_grammars() {
        let text = |class: fn(u8) -> bool| -> String {
            (0..=255)
                .filter(|byte| class(*byte) && !byte.is_ascii_alphanumeric())
                .map(char::from)
                .collect()
        };
        assert_eq!(text(is_token_char), "!#$%&'*+-.^_`|~");
        assert_eq!(text(is_host_char), "!$&'()*+,-.;=_~");
        assert!(
            (b'a'..=b'z')
                .chain(b'A'..=b'Z')
                .chain(b'0'..=b'9')
                .all(|o| is_token_char(o) && is_host_char(o))
        );
    }

    #[test]
    fn a_control_character_is_found_wherever_it_stands() {
        for len in 0..27 {
            let mut value = vec![b'~'; len];
            assert!(is_value(&value));
            for at in 0..len {
                for byte in 0..=255 {
                    value[at] = byte;
                    assert_eq!(is_value(&value), is_value_char(byte), "{byte:#x} at {at} of {len}");
                }
                value[at] = b"\t\x80 \xff"[at % 4];
            }
        }
    }

    #[test]
    fn an_underscore_is_found_wherever_it_stands() {
        for len in 0..40 {
            let mut name = vec![b'-'; len];
            assert!(!has_underscore(&name));
            for at in 0..len {
                name[at] = b'_';
                assert!(has_underscore(&name), "{len} {at}");
                // Characters that differ from it in one bit.
                name[at] = [b'^', b'W', b'O'][at % 3];
                assert!(!has_underscore(&name), "{len} {at}");
                name[at] = b'-';
            }
        }
    }

    #[test]
    fn no_other_character_of_tokens_looks_like_an_underscore() {
        for byte in (0..=255).filter(|byte| is_token_char(*byte)) {
            for len in [1, 5, 9, 17] {
                assert_eq!(has_underscore(&vec![byte; len]), byte == b'_', "{byte}");
            }
        }
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), Some(u64::MAX));
        for text in [&b""[..], b"+1", b"-0", b"1 2", b"0x5", b"1_0", b"5.0", b"\xb2"] {
            assert_eq!(decimal(text), None, "{}", text.escape_ascii());
        }
    }
}
