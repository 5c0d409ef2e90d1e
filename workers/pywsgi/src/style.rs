//! The words of gevent's WSGI handler: it does not name itself, does not say what goes without saying, and tells
//! clients of errors next to nothing.

use std::borrow::Cow;

use http1::{ErrorPage, ResponseStyle};

/// What pywsgi's answers say by themselves.
pub(crate) const STYLE: ResponseStyle =
    ResponseStyle { names_server: false, says_keep_alive: false, error_page };

/// gevent's `format_request`: client, time, request line, status, length, seconds.
pub(crate) const LOG_FORMAT: &str = r#"%(h)s - - [%(I)s] "%(r)s" %(s)s %(b)s %(L)s"#;

/// An application's error has a line of text for its body, a refused request has none. The phrase of 414 is gevent's.
fn error_page(status: u16, detail: Option<&str>) -> ErrorPage {
    let reason = if status == 414 { "Request URI Too Long" } else { "" };
    let body: Cow<'static, str> = match (status, detail) {
        (_, Some(detail)) => format!("{detail}\n").into(),
        (500, None) => "Internal Server Error".into(),
        _ => "".into(),
    };
    let content_type = (!body.is_empty()).then_some("text/plain");
    ErrorPage { reason, content_type, body }
}
