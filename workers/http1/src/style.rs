//! The style of responses that the server generates: gunicorn's unless the class has another. Does not affect
//! framing.

use std::borrow::Cow;
use std::fmt;

use super::response::reason_phrase;

/// Style of generated responses.
#[derive(Clone, Copy, Debug)]
pub struct ResponseStyle {
    /// Whether responses name the server, unless the settings forbid it.
    pub names_server: bool,
    /// Whether a response to an HTTP/1.1 client states that the connection is kept open, which is the default
    /// (RFC 9112 9.3).
    pub says_keep_alive: bool,
    /// Generates the page for a failed request from the status and, if the debug setting asks for it,
    /// details.
    pub error_page: fn(u16, Option<&str>) -> ErrorPage,
}

/// An error page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// Reason phrase; empty for the standard one.
    pub reason: &'static str,
    /// Content type of the body; `None` if there is no body.
    pub content_type: Option<&'static str>,
    /// Body.
    pub body: Cow<'static, str>,
}

impl ResponseStyle {
    /// gunicorn's style: names the server, always states the fate of the connection, sends small HTML error
    /// pages.
    pub const GUNICORN: Self =
        Self { names_server: true, says_keep_alive: true, error_page: ErrorPage::html };
}

impl ErrorPage {
    /// A page with the status and the detail.
    pub fn html(status: u16, detail: Option<&str>) -> Self {
        let body = Html { status, detail }.to_string().into();
        Self { reason: "", content_type: Some("text/html; charset=utf-8"), body }
    }
}

struct Html<'a> {
    status: u16,
    detail: Option<&'a str>,
}

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = reason_phrase(self.status);
        write!(f, "<!doctype html>\n<title>{} {title}</title>\n<h1>{title}</h1>\n", self.status)?;
        let Some(detail) = self.detail else { return Ok(()) };
        f.write_str("<pre>")?;
        for char in detail.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str("</pre>\n")
    }
}
