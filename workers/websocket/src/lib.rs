//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692), without I/O: bytes in; events and bytes out. No
//! sockets, clocks or threads.
//!
//! | module | what it decides | reference |
//! | --- | --- | --- |
//! | [`handshake`] | whether a request opens a connection, and the response | RFC 6455 4.2, RFC 7692 7.1 |
//! | `receiver` ([`Receiver`]) | frames and messages that arrive, or what is wrong with them | RFC 6455 5, 7, 8 |
//! | `sender` ([`Sender`]) | frames to send, and when nothing more may be sent | RFC 6455 5, 7 |
//! | `codec` ([`Codec`]) | both halves of a connection | |
//! | `deflate` ([`DeflateParams`]) | compression of messages | RFC 7692 7.2 |
//! | `keepalive` ([`Keepalive`]) | which ping a pong belongs to | RFC 6455 5.5.3 |
//!
//! # How a connection uses it
//!
//! 1. [`handshake::Offer::parse`] checks the request; [`handshake::Offer::accept`] returns the headers of the
//!    response. After that response the connection carries frames.
//! 2. [`Codec::receive`] on the bytes that arrive, until it returns `None`. It appends to a buffer what the protocol
//!    demands in return: pongs and the Close frame.
//! 3. [`Sender::message`] and the other methods of [`Sender`] append frames to a buffer. The caller writes it, and
//!    stops reading while the client does not read.
//! 4. After an error, or once [`Codec::is_closed`], the caller writes what is left in the buffer, and closes the
//!    connection.
//!
//! ```
//! use jimu_websocket::handshake::{DeflatePolicy, Offer, RequestHead};
//! use jimu_websocket::{Codec, Event, Message, Role, Settings};
//!
//! let headers = [
//!     ("Upgrade", "websocket"),
//!     ("Connection", "Upgrade"),
//!     ("Sec-WebSocket-Version", "13"),
//!     ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
//! ];
//! let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
//! let offer = Offer::parse(RequestHead { method: b"GET", http_version: (1, 1), headers })?;
//! let accepted = offer.accept(None, Some(DeflatePolicy::default()))?;
//! assert!(accepted.headers.contains(&("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into())));
//!
//! let settings = Settings { deflate: accepted.deflate, ..Settings::default() };
//! let mut codec = Codec::new(Role::Server, &settings);
//! let mut out = Vec::new();
//! // The text "Hello" with a mask, as it arrives from the client.
//! let mut input: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
//! let Codec { receiver, sender } = &mut codec;
//! while let Some(event) = receiver.receive(&mut input)? {
//!     sender.reply(&event, &mut out);
//!     if let Event::Message(message) = event {
//!         assert_eq!(message, Message::text("Hello"));
//!         sender.message(message, &mut out)?;
//!     }
//! }
//! assert_eq!(out, b"\x81\x05Hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - Whatever the bytes and however they are split: no panic, and the same events and error.
//! - A [`ProtocolError`] is final, and so is a Close frame, for the half that it concerns.
//! - The buffer of a message has a capacity of at most about twice `max_message_size`. It grows as bytes arrive, not
//!   when a header announces them.
//! - Messages do not allocate while they fit into the buffers of those before them.

#![forbid(unsafe_code)]

pub mod handshake;

mod assembly;
mod close;
mod code;
mod codec;
mod deflate;
mod error;
mod frame;
mod keepalive;
mod mask;
mod message;
mod receiver;
mod role;
mod sender;
mod settings;
mod tokens;

pub use close::Close;
pub use code::CloseCode;
pub use codec::Codec;
pub use deflate::DeflateParams;
pub use error::{ProtocolError, SendError};
pub use keepalive::Keepalive;
pub use message::{Event, Message, MessageKind};
pub use receiver::Receiver;
pub use role::Role;
pub use sender::Sender;
pub use settings::Settings;

/// Compiles the examples of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
