//! How a class words what the server says by itself: gunicorn's way unless it has its own. Framing is none of it.

use std::borrow::Cow;
use std::fmt;

use super::response::reason_phrase;

/// The server's own words in answers.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Whether answers name the server, where the settings do not forbid it.
    pub names_server: bool,
    /// Whether an answer to a client of HTTP/1.1 says that the connection is kept, which goes without saying (RFC 9112
    /// 9.3).
    pub says_keep_alive: bool,
    /// The answer to a request that failed with a status, with details where the debug setting asks for them.
    pub error_page: fn(u16, Option<&str>) -> ErrorPage,
}

/// What answers a request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// The reason phrase; empty for the usual one.
    pub reason: &'static str,
    /// The type of the body; nothing where there is no body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Cow<'static, str>,
}

impl Manners {
    /// gunicorn's: the server is named, the connection's fate is always told, errors are small pages of HTML.
    pub const GUNICORN: Self =
        Self { names_server: true, says_keep_alive: true, error_page: ErrorPage::html };
}

impl ErrorPage {
    /// A page with the status, and the detail.
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
