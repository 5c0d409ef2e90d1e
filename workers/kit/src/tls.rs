//! TLS for connections, using rustls: the settings, checked when a generation is loaded, and the session of a
//! connection.
//!
//! A session does no I/O on its own: it converts between the socket's bytes and HTTP's, so it works under every
//! worker class.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use worker_api::{ClientCertificate, Failure, Host, Result, TlsVersion};

use crate::owned_head::TlsInfo;
use crate::tickets::Tickets;

/// Reads `certfile`, `keyfile`, `ca_certs`, `cert_reqs` and `ssl_version_min`; `None` if TLS is not configured.
pub fn read_settings(host: &Host) -> Result<Option<Arc<ServerConfig>>> {
    let Some(chain) = host.setting_file("certfile")? else { return Ok(None) };
    // As with OpenSSL, the key may be in the same file as the certificates.
    let key = host.setting_file("keyfile")?.unwrap_or_else(|| chain.clone());
    let chain = certificates("certfile", &chain)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
        Failure::config(format!("keyfile: cannot read a PEM private key: {error}"))
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(host)?)
        .map_err(|error| Failure::config(format!("ssl_version_min: {error}")))?;
    let builder = match client_verifier(host, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| Failure::config(format!("certfile and keyfile do not match: {error}")))?;
    // A client that offers only other protocols is rejected (RFC 7301 3.2), so every version that the server
    // supports is listed.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    // Sessions stored in a worker's memory could be resumed by that worker only.
    if let Some(tickets) = Tickets::shared() {
        config.ticketer = tickets;
    }
    Ok(Some(Arc::new(config)))
}

/// The TLS session of a connection. A clone is the same session: the thread that responds on behalf of one that
/// hangs uses it.
#[derive(Clone)]
pub(crate) struct Session(Arc<Mutex<State>>);

struct State {
    tls: ServerConnection,
    /// Whether the client's first byte has been checked.
    first_checked: bool,
}

/// The client does not use TLS.
#[derive(Debug, thiserror::Error)]
#[error("the client sent plain HTTP to a TLS listener")]
pub(crate) struct PlainHttp;

impl Session {
    /// Creates the session of a connection whose first bytes may have been read already.
    pub(crate) fn new(config: &Arc<ServerConfig>, already_read: &[u8]) -> io::Result<Self> {
        let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let mut rest = already_read;
        if let Some(first) = already_read.first() {
            check_first(*first)?;
        }
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            tls.process_new_packets().map_err(refused)?;
        }
        let state = State { tls, first_checked: !already_read.is_empty() };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    /// Reads bytes of HTTP; 0 means end of file, with or without a close alert.
    pub(crate) fn read(&self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let State { tls, first_checked } = &mut *state;
        loop {
            match tls.reader().read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => {}
            }
            // An alert or a part of the handshake may have to be sent before more data arrives.
            let sent = flush(tls, socket);
            if !*first_checked {
                let mut first = [0];
                socket.peek(&mut first)?;
                check_first(first[0])?;
                *first_checked = true;
            }
            let received = tls.read_tls(&mut socket)?;
            let processed = tls.process_new_packets();
            if tls.wants_write() {
                // The server's part of the handshake, or the alert that explains its failure.
                flush(tls, socket).or_else(ignore_would_block)?;
            }
            processed.map_err(refused)?;
            if received == 0 {
                return Ok(0);
            }
            sent.or_else(ignore_would_block)?;
        }
    }

    /// Takes bytes of HTTP and sends as many as the socket accepts. Bytes that were taken may still be
    /// unsent: see [`Session::wants_write`].
    pub(crate) fn write(&self, socket: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let tls = &mut self.lock().tls;
        flush(tls, socket).or_else(ignore_would_block)?;
        let taken = tls.writer().write_vectored(parts)?;
        flush(tls, socket).or_else(ignore_would_block)?;
        if taken == 0 && parts.iter().any(|part| !part.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    /// Sends a part of the unsent bytes.
    pub(crate) fn flush_some(&self, mut socket: &TcpStream) -> io::Result<usize> {
        self.lock().tls.write_tls(&mut socket)
    }

    /// Sends the close alert.
    pub(crate) fn send_close_notify(&self, socket: &TcpStream) -> io::Result<()> {
        let tls = &mut self.lock().tls;
        tls.send_close_notify();
        flush(tls, socket)
    }

    /// Encrypts the last bytes of the connection and the close alert, without sending them. Returns `None` if
    /// another thread is in the middle of another operation; it is not waited for.
    pub(crate) fn seal(&self, last: &[u8]) -> Option<Vec<u8>> {
        let mut state = match self.0.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        state.tls.writer().write_all(last).ok()?;
        state.tls.send_close_notify();
        let mut sealed = Vec::new();
        while state.tls.wants_write() {
            state.tls.write_tls(&mut sealed).ok()?;
        }
        Some(sealed)
    }

    /// Returns whether there are unsent bytes.
    pub(crate) fn wants_write(&self) -> bool {
        self.lock().tls.wants_write()
    }

    /// Returns the properties of the session after its handshake.
    pub(crate) fn facts(&self) -> TlsInfo {
        let tls = &self.lock().tls;
        let protocol = match tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let cipher = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let certificate = tls.peer_certificates().and_then(|chain| chain.first());
        TlsInfo {
            protocol: protocol.to_owned(),
            cipher: cipher.unwrap_or_default().to_owned(),
            server_name: tls.server_name().unwrap_or_default().to_owned(),
            client_certificate: certificate.map(|der| der.to_vec()).unwrap_or_default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends all unsent bytes; `WouldBlock` if some are left.
fn flush(tls: &mut ServerConnection, mut socket: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut socket)?;
    }
    Ok(())
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
            Err(Failure::config(format!("{setting}: contains no PEM certificate")))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(Failure::config(format!("{setting}: invalid PEM: {error}"))),
    }
}

/// Returns the verifier of client certificates for the setting `cert_reqs`.
fn client_verifier(
    host: &Host,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let mode = host.setting_choice("cert_reqs")?.unwrap_or(ClientCertificate::None);
    if mode == ClientCertificate::None {
        return Ok(None);
    }
    let pem = host.setting_file("ca_certs")?.ok_or_else(|| {
        Failure::config("cert_reqs requires client certificates, but ca_certs is not set")
    })?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca_certs", &pem)? {
        roots.add(authority).map_err(|error| Failure::config(format!("ca_certs: {error}")))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if mode == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier =
        builder.build().map_err(|error| Failure::config(format!("ca_certs: {error}")))?;
    Ok(Some(verifier))
}

fn versions(host: &Host) -> Result<&'static [&'static SupportedProtocolVersion]> {
    Ok(match host.setting_choice("ssl_version_min")?.unwrap_or(TlsVersion::V1_2) {
        TlsVersion::V1_2 => rustls::ALL_VERSIONS,
        TlsVersion::V1_3 => TLS_13_ALONE,
    })
}

static TLS_13_ALONE: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// The first byte of a TLS record is a small number, that of a request a letter.
fn check_first(byte: u8) -> io::Result<()> {
    if byte.is_ascii_alphabetic() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, PlainHttp));
    }
    Ok(())
}

fn refused(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn ignore_would_block(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) }
}
