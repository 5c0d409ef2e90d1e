//! An HTTP/1.1 client that hides nothing: it sends the given bytes and parses responses strictly.
//!
//! It shares no code with the server, so that both cannot agree on the same mistake.

mod answer;
mod connection;
mod stream;

pub use answer::{Answer, Broken, Framing};
pub use connection::{Address, Connection};
