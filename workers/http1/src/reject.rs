//! Rejections of invalid requests, and error responses.

use std::borrow::Cow;

use worker_api::Header;

use super::response::{self, ResponseContext};

/// A rejected request. The connection is closed after the response: the end of the message is unknown, so nothing
/// after it may be parsed as a request (RFC 9112 9.6, 11.2).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Reject {
    /// Status to send if a response is still possible.
    pub status: u16,
    /// Reason for the log; sent to the peer only if a debug setting asks for it.
    pub reason: Cow<'static, str>,
}

impl Reject {
    /// Creates a rejection with this status.
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason: Cow::Borrowed(reason) }
    }

    /// Creates a rejection of a malformed message: 400.
    pub(super) const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }

    /// Appends the bytes that caused the rejection, escaped and truncated.
    #[cold]
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        let shown = &bytes[..bytes.len().min(SHOWN_MAX)];
        let more = if bytes.len() > SHOWN_MAX { "…" } else { "" };
        let reason = format!("{}: \"{}\"{more}", self.reason, shown.escape_ascii());
        Self { status: self.status, reason: Cow::Owned(reason) }
    }
}

/// Returns a complete error response in the style of the class, with `detail` if the debug setting asks for it.
/// The response to a HEAD has the length but no body.
pub fn error_answer(ctx: &ResponseContext<'_>, status: u16, detail: Option<&str>) -> Vec<u8> {
    let status = if (400..=599).contains(&status) { status } else { 500 };
    let page = (ctx.style.error_page)(status, detail);
    let length = page.body.len().to_string();
    let mut headers = Vec::with_capacity(3);
    if let Some(content_type) = page.content_type {
        headers.push(Header::new("Content-Type", content_type));
    }
    headers.push(Header::new("Content-Length", &length));
    if status == 405 {
        headers.push(Header::new("Allow", ALLOW));
    }
    let mut answer = Vec::with_capacity(256 + page.body.len());
    let plan = response::encode_head(&mut answer, ctx, status, page.reason, &headers);
    debug_assert!(plan.is_ok(), "names are tokens, values visible ASCII, the status is an error's");
    if !ctx.head_method {
        answer.extend_from_slice(page.body.as_bytes());
    }
    answer
}

/// Maximum number of bytes shown in a reason.
const SHOWN_MAX: usize = 80;
/// Value of Allow when the server itself rejects a method: the methods of RFC 9110 9 and RFC 5789.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn answer(head_method: bool, status: u16, detail: Option<&str>) -> (String, String) {
        let ctx = ResponseContext { head_method, ..ResponseContext::refusal(None, DATE) };
        let text = String::from_utf8(error_answer(&ctx, status, detail)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn an_error_is_answered_with_a_small_page_and_closes() {
        let (head, body) = answer(false, 400, None);
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        assert!(body.contains("<h1>Bad Request</h1>") && body.len() < 200, "{body}");
    }

    #[test]
    fn a_head_request_gets_the_same_head_and_no_page() {
        let (head, body) = answer(true, 404, None);
        assert_eq!((head, body.as_str()), (answer(false, 404, None).0, ""));
    }

    #[test]
    fn a_detail_is_shown_as_text() {
        let (_, body) = answer(false, 500, Some("<script>&\0"));
        assert!(body.contains("&lt;script&gt;&amp;"), "{body}");
    }

    #[test]
    fn a_status_that_is_no_error_becomes_one() {
        for status in [0, 200, 399, 600] {
            assert!(answer(false, status, None).0.starts_with("HTTP/1.1 500 "), "{status}");
        }
    }

    #[test]
    fn a_method_that_is_not_allowed_is_told_which_are() {
        assert!(answer(false, 405, None).0.contains("\r\nAllow: GET, HEAD, POST"));
    }

    #[test]
    fn a_reason_shows_what_caused_it_escaped_and_cut() {
        let reject = Reject::bad("bad").with(&[b'\n'; 1000]);
        assert!(reject.reason.starts_with("bad: \"\\n\\n"), "{}", reject.reason);
        assert!(reject.reason.chars().count() < 200, "{}", reject.reason);
    }
}
