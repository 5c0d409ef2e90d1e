//! Escaping of untrusted bytes in log lines.

/// Appends `bytes` to a text line: quotes and backslashes are escaped, and anything but printable ASCII becomes
/// `\xNN`, so that no input can end a line or a quoted value, or send commands to a terminal.
pub(super) fn text(line: &mut Vec<u8>, bytes: &[u8]) {
    if all_plain(bytes) {
        line.extend_from_slice(bytes);
        return;
    }
    for byte in bytes {
        match *byte {
            quoted @ (b'"' | b'\\') => line.extend_from_slice(&[b'\\', quoted]),
            byte if is_plain(byte) => line.push(byte),
            byte => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                line.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

/// Appends `bytes` as a quoted JSON string; invalid UTF-8 becomes U+FFFD.
pub(super) fn json(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    if all_plain(bytes) {
        line.extend_from_slice(bytes);
    } else {
        for c in String::from_utf8_lossy(bytes).chars() {
            match c {
                '"' | '\\' => line.extend_from_slice(&[b'\\', c as u8]),
                '\n' => line.extend_from_slice(b"\\n"),
                '\t' => line.extend_from_slice(b"\\t"),
                c if c.is_control() => {
                    line.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                }
                c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    line.push(b'"');
}

/// Appends a message of the error log: line ends and tabs stay (tracebacks have them), other control characters
/// become `\xNN`. `after_newline` starts each further line.
pub(super) fn message(line: &mut Vec<u8>, text: &str, after_newline: &str) {
    for c in text.chars() {
        match c {
            '\n' => {
                line.push(b'\n');
                line.extend_from_slice(after_newline.as_bytes());
            }
            c if c.is_control() && c != '\t' => {
                line.extend_from_slice(format!("\\x{:02x}", u32::from(c)).as_bytes());
            }
            c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Returns whether no byte needs escaping. It has no branch inside, so that it becomes vector code: nearly all
/// values are plain, and this reads each byte of the log.
fn all_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, byte| plain & is_plain(*byte))
}

/// Returns whether a byte needs no escaping: printable ASCII except quotes and backslashes.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "lazy operators would keep it from being vector code"
)]
const fn is_plain(byte: u8) -> bool {
    (byte.wrapping_sub(0x20) < 0x5f) & (byte != b'"') & (byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_stay_inside_their_field() {
        let mut line = Vec::new();
        text(&mut line, b"a\"b\\c\r\n\x1b[2J\x00\xc3\xa9 d");
        assert_eq!(line, br#"a\"b\\c\x0d\x0a\x1b[2J\x00\xc3\xa9 d"#);
    }

    #[test]
    fn json_strings_read_back() {
        for bytes in [&b"plain"[..], b"q\"\\\n\t\x00\x1b\x7f", "\u{85}é☃".as_bytes()] {
            let mut line = Vec::new();
            json(&mut line, bytes);
            let read: String = serde_json::from_slice(&line).unwrap();
            assert_eq!(read.as_bytes(), bytes);
        }
        let mut line = Vec::new();
        json(&mut line, b"\xff");
        assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), "\u{fffd}");
    }

    #[test]
    fn messages_keep_their_lines_and_lose_their_control_characters() {
        let mut line = Vec::new();
        message(&mut line, "one\n\ttwo\x1b[0m\r", "<3>");
        assert_eq!(line, b"one\n<3>\ttwo\\x1b[0m\\x0d");
    }
}
