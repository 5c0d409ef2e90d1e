//! The keys of an environ.

use python::{GlobalRef, PyResult, Python};

macro_rules! keys {
    ($($field:ident: $name:literal,)*) => {
        /// Interned keys of the values that differ between requests.
        pub(super) struct Keys { $(pub(super) $field: GlobalRef,)* }

        impl Keys {
            /// Creates the keys.
            pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
                Ok(Self { $($field: py.name($name)?.store(),)* })
            }
        }
    };
}

keys! {
    input: b"wsgi.input",
    early_hints: b"wsgi.early_hints",
    socket: b"gunicorn.socket",
    sock: b"gunicorn.sock",
    request_method: b"REQUEST_METHOD",
    server_protocol: b"SERVER_PROTOCOL",
    query_string: b"QUERY_STRING",
    raw_uri: b"RAW_URI",
    path_info: b"PATH_INFO",
    remote_addr: b"REMOTE_ADDR",
    remote_port: b"REMOTE_PORT",
    http_host: b"HTTP_HOST",
}
