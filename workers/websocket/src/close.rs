//! The payload of a Close frame (RFC 6455 5.5.1).

use super::code::CloseCode;
use super::error::ProtocolError;

/// Content of a Close frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Close<'r> {
    /// The code, or `None` if the frame is empty.
    pub code: Option<CloseCode>,
    /// The reason, which may be empty.
    pub reason: &'r str,
}

impl<'r> Close<'r> {
    /// Parses the payload of a Close frame: nothing, or a valid code and a reason in UTF-8.
    pub(super) fn parse(payload: &'r [u8]) -> Result<Self, ProtocolError> {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return if payload.is_empty() {
                Ok(Self { code: None, reason: "" })
            } else {
                Err(ProtocolError::TruncatedCloseCode)
            };
        };
        let code = CloseCode(u16::from_be_bytes(*code));
        if !code.is_sendable() {
            return Err(ProtocolError::InvalidCloseCode(code));
        }
        let reason = str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
        Ok(Self { code: Some(code), reason })
    }
}

/// Returns the longest prefix of a reason that fits into a Close frame and ends at a character.
pub(super) fn fit_reason(reason: &str) -> &str {
    let fits = (0..=REASON_MAX).rev().find(|len| reason.is_char_boundary(*len));
    if reason.len() <= REASON_MAX { reason } else { &reason[..fits.unwrap_or(0)] }
}

/// Maximum number of bytes in a reason: a control frame's 125 without the code.
const REASON_MAX: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads() {
        type Case<'r> = (&'r [u8], Result<(Option<u16>, &'r str), ProtocolError>);
        let invalid = |code| Err(ProtocolError::InvalidCloseCode(CloseCode(code)));
        let cases: &[Case<'_>] = &[
            (b"", Ok((None, ""))),
            (b"\x03", Err(ProtocolError::TruncatedCloseCode)),
            (b"\x03\xe8", Ok((Some(1000), ""))),
            (b"\x03\xe8bye", Ok((Some(1000), "bye"))),
            (b"\x0f\xa0\xe7\xa7\xaf", Ok((Some(4000), "积"))),
            (b"\x03\xe8\xe7\xa7", Err(ProtocolError::InvalidUtf8)),
            (b"\x03\xed", invalid(1005)),
            (b"\x03\xed\xff", invalid(1005)),
        ];
        for (payload, expected) in cases {
            let parsed = Close::parse(payload).map(|close| (close.code.map(|c| c.0), close.reason));
            assert_eq!(&parsed, expected, "{payload:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        assert_eq!(fit_reason("short"), "short");
        assert_eq!(fit_reason(&"x".repeat(200)).len(), 123);
        assert_eq!(fit_reason(&"é".repeat(100)).len(), 122);
    }
}
