//! An application for tests that answers every request with what it saw of it: method, target, authority and body in
//! hexadecimal digits, as fields, so that a HEAD request is told too. Not an example: it keeps bodies whole.

use worker_api::{App, AppContext, AppFactory, Exchange, Header, Result};

worker_api::export_app!(Mirror);

/// The application.
pub struct Mirror;

impl AppFactory for Mirror {
    const NAME: &'static str = "mirror";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(_: AppContext) -> Result<Self> {
        Ok(Self)
    }
}

impl App for Mirror {
    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        let body = exchange.read_to_end(BODY_MAX)?;
        let head = exchange.head();
        let seen = [
            head.method.as_str().as_bytes(),
            head.target.as_slice(),
            head.authority.as_str().as_bytes(),
            &body,
        ]
        .map(hexadecimal);
        let names = ["X-Method", "X-Target", "X-Authority", "X-Body"];
        let fields: Vec<Header<'_>> =
            names.iter().zip(&seen).map(|(name, value)| Header::new(name, value)).collect();
        exchange.respond(200, &fields, b"seen\n")
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('?');
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect()
}

/// The longest body that is told.
const BODY_MAX: usize = 1 << 20;
