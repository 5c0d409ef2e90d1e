//! TLS for a connection, by rustls: the settings, checked when a generation is loaded, and one connection's session.
//!
//! A session does no I/O of its own: it turns bytes of the socket into bytes of HTTP and back, so it works under
//! every worker class.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use worker_api::{Failure, Host, Result};

use crate::owned_head::TlsInfo;
use crate::tickets::Tickets;

/// Reads `certfile`, `keyfile`, `ca_certs`, `cert_reqs` and `ssl_version_min`; nothing where TLS is not asked for.
pub fn read_settings(host: &Host) -> Result<Option<Arc<ServerConfig>>> {
    let Some(chain) = host.setting_file("certfile")? else { return Ok(None) };
    // As with OpenSSL, the key may stand in the file of the certificates.
    let key = host.setting_file("keyfile")?.unwrap_or_else(|| chain.clone());
    let chain = certificates("certfile", &chain)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| Failure::config(format!("keyfile: no private key in PEM: {error}")))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(host)?)
        .map_err(|error| Failure::config(format!("ssl_version_min: {error}")))?;
    let builder = match client_verifier(host, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        Failure::config(format!("certfile and keyfile do not go together: {error}"))
    })?;
    // A client that offers others alone is turned away (RFC 7301 3.2), so every version that is spoken is named.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    // Sessions in a worker's memory could be resumed by that worker alone.
    if let Some(tickets) = Tickets::shared() {
        config.ticketer = tickets;
    }
    Ok(Some(Arc::new(config)))
}

/// One connection's session.
pub(crate) struct Session {
    tls: Box<ServerConnection>,
    /// Whether the first byte of the client's has been looked at.
    begun: bool,
}

/// The client does not speak TLS at all.
#[derive(Debug, thiserror::Error)]
#[error("the client speaks plain HTTP, and TLS is spoken here")]
pub(crate) struct PlainHttp;

impl Session {
    /// The session of a connection whose first bytes may have been read already.
    pub(crate) fn new(config: &Arc<ServerConfig>, already_read: &[u8]) -> io::Result<Self> {
        let mut tls =
            Box::new(ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?);
        let mut rest = already_read;
        if let Some(first) = already_read.first() {
            check_first(*first)?;
        }
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            tls.process_new_packets().map_err(refused)?;
        }
        Ok(Self { tls, begun: !already_read.is_empty() })
    }

    /// Bytes of HTTP; 0 is the end, whether the client said so or not.
    pub(crate) fn read(&mut self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => {}
            }
            // An alert or a part of the handshake may have to go out before more comes in.
            let sent = self.flush(socket);
            if !self.begun {
                let mut first = [0];
                socket.peek(&mut first)?;
                check_first(first[0])?;
                self.begun = true;
            }
            let came = self.tls.read_tls(&mut socket)?;
            let state = self.tls.process_new_packets();
            if self.tls.wants_write() {
                // The answer to a handshake, or the alert that tells the client why it failed.
                self.flush(socket).or_else(not_yet)?;
            }
            state.map_err(refused)?;
            if came == 0 {
                return Ok(0);
            }
            sent.or_else(not_yet)?;
        }
    }

    /// Takes bytes of HTTP, and hands the socket what it takes. What was taken may still be unsent: see
    /// [`Session::wants_write`].
    pub(crate) fn write(&mut self, socket: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(socket).or_else(not_yet)?;
        let taken = self.tls.writer().write_vectored(parts)?;
        self.flush(socket).or_else(not_yet)?;
        if taken == 0 && parts.iter().any(|part| !part.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    /// Hands the socket a part of what is unsent.
    pub(crate) fn flush_some(&mut self, mut socket: &TcpStream) -> io::Result<usize> {
        self.tls.write_tls(&mut socket)
    }

    /// Tells the client that nothing more will be sent.
    pub(crate) fn say_close(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush(socket)
    }

    /// Whether bytes wait to go out.
    pub(crate) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Hands the socket all that is unsent; `WouldBlock` where something is left.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            self.flush_some(socket)?;
        }
        Ok(())
    }

    /// What is known of the session once its handshake is over.
    pub(crate) fn facts(&self) -> TlsInfo {
        let protocol = match self.tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let cipher = self.tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let certificate = self.tls.peer_certificates().and_then(|chain| chain.first());
        TlsInfo {
            protocol: protocol.to_owned(),
            cipher: cipher.unwrap_or_default().to_owned(),
            server_name: self.tls.server_name().unwrap_or_default().to_owned(),
            client_certificate: certificate.map(|der| der.to_vec()).unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

fn certificates(setting: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err(Failure::config(format!("{setting}: no certificate in PEM")))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(Failure::config(format!("{setting}: not PEM: {error}"))),
    }
}

/// Who checks client certificates, by `cert_reqs`: 0 nobody, 1 those that are shown, 2 all must show one.
fn client_verifier(
    host: &Host,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let wanted = host.setting_int("cert_reqs").unwrap_or(0);
    if wanted == 0 {
        return Ok(None);
    }
    let pem = host.setting_file("ca_certs")?.ok_or_else(|| {
        Failure::config("cert_reqs asks for client certificates, and ca_certs is not set")
    })?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca_certs", &pem)? {
        roots.add(authority).map_err(|error| Failure::config(format!("ca_certs: {error}")))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if wanted == 1 {
        builder = builder.allow_unauthenticated();
    }
    let verifier =
        builder.build().map_err(|error| Failure::config(format!("ca_certs: {error}")))?;
    Ok(Some(verifier))
}

fn versions(host: &Host) -> Result<&'static [&'static SupportedProtocolVersion]> {
    match host.setting_text("ssl_version_min").as_deref() {
        None | Some("1.2") => Ok(rustls::ALL_VERSIONS),
        Some("1.3") => Ok(TLS_13_ALONE),
        Some(other) => {
            Err(Failure::config(format!("ssl_version_min: `{other}` is neither 1.2 nor 1.3")))
        }
    }
}

static TLS_13_ALONE: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// A record of TLS begins with a small number, a request with a letter.
fn check_first(byte: u8) -> io::Result<()> {
    if byte.is_ascii_alphabetic() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, PlainHttp));
    }
    Ok(())
}

fn refused(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn not_yet(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) }
}
