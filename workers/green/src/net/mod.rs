//! Cooperative sockets: the interface of the standard library's, but blocking calls suspend the greenlet.

mod accept;
mod dns;
mod fd;
mod listener;
mod stream;
mod tcp;
mod unix;

pub use dns::resolve;
pub use fd::wait_fd;
pub use listener::Listener;
pub use stream::Stream;
pub use tcp::{TcpListener, TcpStream};
pub use unix::{UnixListener, UnixStream};

#[cfg(test)]
mod tests;
