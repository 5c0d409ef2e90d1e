//! The strings of the protocol, as interned Python objects.

use python::{GlobalRef, PyResult, Python};

macro_rules! names {
    ($($(#[doc = $doc:literal])* $field:ident = $text:literal,)*) => {
        /// The strings that messages and scopes use.
        pub(crate) struct Names {
            $($(#[doc = $doc])* pub(crate) $field: GlobalRef,)*
        }

        impl Names {
            /// Creates the strings.
            pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
                Ok(Self { $($field: py.name($text.as_bytes())?.store(),)* })
            }
        }
    };
}

names! {
    kind = "type",
    http_request = "http.request",
    body = "body",
    more_body = "more_body",
    status = "status",
    headers = "headers",
    trailers = "trailers",
    more_trailers = "more_trailers",
    path = "path",
    file = "file",
    offset = "offset",
    count = "count",
    links = "links",
    client = "client",
    raw_path = "raw_path",
    query_string = "query_string",
    extensions = "extensions",
    state = "state",
    done = "done",
    websocket_connect = "websocket.connect",
    websocket_receive = "websocket.receive",
    text = "text",
    bytes = "bytes",
    code = "code",
    reason = "reason",
    subprotocol = "subprotocol",
    subprotocols = "subprotocols",
    method = "method",
    scheme = "scheme",
    websocket = "websocket",
    ws = "ws",
    wss = "wss",
    set_result = "set_result",
}
