//! The opening handshake, as far as the application has no part in it.

use jimu_websocket::handshake::{self, Offer, Refused};
use worker_api::{Exchange, Header, RequestHead};

/// Returns whether a request asks for an upgrade to WebSocket. An offer without a header of that protocol is ignored, as
/// other offers are (RFC 9110 7.8).
pub(crate) fn is_upgrade(head: &RequestHead<'_>) -> bool {
    let prefix = "sec-websocket-";
    handshake::is_upgrade(head.fields().map(|(name, value)| (name.as_bytes(), value)))
        && head.fields().any(|(name, _)| {
            name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        })
}

/// Responds to a request whose handshake is invalid. Returns whether it is.
pub(crate) fn refuse(exchange: &mut Exchange) -> bool {
    let Err(refused) = offer(exchange.head()) else { return false };
    let headers = refused.headers().iter().map(|(name, value)| Header::new(name, value));
    let headers: Vec<Header<'_>> = headers.collect();
    let reason = refused.to_string();
    if let Err(failure) = exchange.respond(refused.status(), &headers, reason.as_bytes()) {
        exchange.fail(failure);
    }
    true
}

/// Checks the handshake of a request.
pub(super) fn offer<'a>(head: &RequestHead<'a>) -> Result<Offer<'a>, Refused> {
    Offer::parse(handshake::RequestHead {
        method: head.method.as_str().as_bytes(),
        http_version: (head.version.0 / 10, head.version.0 % 10),
        headers: head.fields().map(|(name, value)| (name.as_bytes(), value)),
    })
}
