//! An application that switches protocols: it sends back each message of a WebSocket, under every worker class. `read`
//! and `write` of the exchange block in the way of the class, and carry the frames after the 101; the crate `websocket`
//! converts between frames and messages.

use jimu_websocket::handshake::{DeflatePolicy, Offer, RequestHead};
use jimu_websocket::{Codec, Event, ProtocolError, Role, Settings};
use worker_api::{App, AppContext, AppFactory, Counter, Exchange, Failure, Header, Host, Result};

worker_api::export_app!(WebSocketEcho);

/// The application.
pub struct WebSocketEcho {
    host: Host,
}

impl AppFactory for WebSocketEcho {
    const NAME: &'static str = "websocket-echo";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(context: AppContext) -> Result<Self> {
        Ok(Self { host: context.host })
    }
}

impl App for WebSocketEcho {
    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        let head = exchange.head();
        let request = RequestHead {
            method: head.method.as_bytes(),
            http_version: (head.version.0 / 10, head.version.0 % 10),
            headers: head.headers.iter().map(|h| (h.name.as_bytes(), h.value.as_slice())),
        };
        // The client's first offer of compression is accepted.
        let deflate = Some(DeflatePolicy::default());
        match Offer::parse(request).map(|offer| offer.accept(None, deflate)) {
            Ok(Ok(accepted)) => {
                exchange.start(101, "", &headers(&accepted.headers))?;
                let settings = Settings { deflate: accepted.deflate, ..Settings::default() };
                echo(exchange, Codec::new(Role::Server, &settings), &self.host)
            }
            Ok(Err(error)) => Err(Failure::application(error.to_string())),
            Err(refused) => {
                let words = format!("{refused}\n");
                exchange.respond(refused.status(), &headers(refused.headers()), words.as_bytes())
            }
        }
    }
}

/// Sends each message back until either end closes the WebSocket.
fn echo(exchange: &mut Exchange, mut codec: Codec, host: &Host) -> Result<()> {
    let mut part = [0; 16 * 1024];
    let mut out = Vec::new();
    while !codec.is_closed() {
        let count = exchange.read(&mut part)?;
        if count == 0 {
            // The client has left without a Close frame.
            break;
        }
        let received = reply(&mut codec, &part[..count], &mut out, host);
        exchange.write(&out)?;
        out.clear();
        if received.is_err() {
            // The Close frame that says why has been written.
            break;
        }
    }
    exchange.finish()
}

/// Appends the frames to `out` that respond to `input`: messages, which are counted for the server's metrics, pongs and the
/// Close frame.
fn reply(
    codec: &mut Codec,
    mut input: &[u8],
    out: &mut Vec<u8>,
    host: &Host,
) -> std::result::Result<(), ProtocolError> {
    let Codec { receiver, sender } = codec;
    loop {
        match receiver.receive(&mut input) {
            Ok(Some(Event::Message(message))) => {
                host.count(Counter::MESSAGES_RECEIVED, 1);
                // Fails if a Close frame was sent: then the client receives nothing more.
                if sender.message(message, out).is_ok() {
                    host.count(Counter::MESSAGES_SENT, 1);
                }
            }
            Ok(Some(event)) => sender.reply(&event, out),
            Ok(None) => return Ok(()),
            Err(error) => {
                sender.fail(&error, out);
                return Err(error);
            }
        }
    }
}

fn headers<'a>(pairs: &'a [(&'static str, impl AsRef<str>)]) -> Vec<Header<'a>> {
    pairs.iter().map(|(name, value)| Header::new(name, value.as_ref())).collect()
}
