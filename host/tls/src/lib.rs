//! TLS that the server provides to its worker classes, using rustls: an installation contains it once, and a class has
//! sessions of the host in place of a copy.
//!
//! | module | contents |
//! | --- | --- |
//! | `settings` | the settings, checked when a generation is loaded |
//! | `session` | the session of a connection, as it crosses the ABI |
//! | `tickets` | session tickets that every worker of a generation can resume |

mod session;
mod settings;
mod tickets;

use std::sync::Arc;

use rustls::ServerConfig;
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{RResult, RSlice};
use worker_api::raw::{RawTls, RawTls_TO, RawTlsSession_TO, TlsBox, TlsError, TlsSessionBox};
use worker_api::{Host, Result};

use session::{Session, guarded};

/// Reads the settings of a host, for a class that speaks these protocols.
pub fn configure(host: &Host, protocols: &[&str]) -> Result<TlsBox> {
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let config = settings::read(host, protocols)?;
    Ok(RawTls_TO::from_value(Config(config), TD_Opaque))
}

/// The configuration of a process.
struct Config(Arc<ServerConfig>);

impl RawTls for Config {
    fn session(&self, received: RSlice<'_, u8>) -> RResult<TlsSessionBox, TlsError> {
        guarded(|| {
            let session = Session::new(&self.0, received.as_slice())?;
            Ok(RawTlsSession_TO::from_value(session, TD_Opaque))
        })
    }
}
