//! An HTTP/1.1 client that hides nothing: it sends the bytes that it is given and reads answers by the letter.
//!
//! It shares no code with the server, so that the two cannot agree on the same mistake.

mod answer;
mod connection;
mod stream;

pub use answer::{Answer, Framing};
pub use connection::{Address, Broken, Connection};
