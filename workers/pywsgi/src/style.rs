//! The response style of gevent's WSGI handler: no `Server` header, no redundant `Connection` header, and error pages with
//! almost no details.

use std::borrow::Cow;

use jimu_http1::{ErrorPage, ResponseStyle};

/// The style of the responses that pywsgi generates.
pub(crate) const STYLE: ResponseStyle =
    ResponseStyle { names_server: false, says_keep_alive: false, error_page };

/// gevent's `format_request`: client, time, request line, status, length, seconds.
pub(crate) const LOG_FORMAT: &str = r#"%(h)s - - [%(I)s] "%(r)s" %(s)s %(b)s %(L)s"#;

/// Returns the page for an error: a line of text for an application's error, an empty body for a refused request. The reason
/// phrase of 414 is gevent's.
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
