//! Name resolution by the system resolver, on a thread.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::offload::offload;

/// Resolves a name like the standard library, while other greenlets run. Uses a thread of the hub's pool even for
/// a literal address; [`TcpStream::connect_to`](super::TcpStream::connect_to) does not.
pub fn resolve(name: impl ToSocketAddrs + Send + 'static) -> io::Result<Vec<SocketAddr>> {
    offload(move || name.to_socket_addrs().map(Iterator::collect))?
}
