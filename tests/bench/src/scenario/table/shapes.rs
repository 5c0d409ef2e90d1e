//! The same response to requests of other shapes than in the scenarios `hello`: a short and a long head.

use super::{APP, HELLO, HELLO_NATIVE, KEEPING, KEPT_ALIVE, Request, Scenario};
use crate::scenario::head::Head;

pub(super) const MINIMAL_NATIVE: Scenario =
    native("minimal-native", "Hello, head with Host only, keep-alive, native", Head::Minimal);
pub(super) const MINIMAL_WSGI: Scenario =
    wsgi("minimal-wsgi", "Hello, head with Host only, keep-alive, WSGI", Head::Minimal);
pub(super) const BROWSER_NATIVE: Scenario =
    native("browser-native", "Hello, head of a browser, keep-alive, native", Head::Browser);
pub(super) const BROWSER_WSGI: Scenario =
    wsgi("browser-wsgi", "Hello, head of a browser, keep-alive, WSGI", Head::Browser);

const fn native(name: &'static str, title: &'static str, head: Head) -> Scenario {
    let request = Request { head, ..HELLO };
    Scenario { name, title, kind: KEPT_ALIVE, request, native: HELLO_NATIVE, python: &[] }
}

const fn wsgi(name: &'static str, title: &'static str, head: Head) -> Scenario {
    let request = Request { head, ..HELLO };
    Scenario { name, title, kind: KEPT_ALIVE, request, native: &[], python: &[(APP, KEEPING)] }
}
