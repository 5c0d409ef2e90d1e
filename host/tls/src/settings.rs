//! The settings for TLS, checked when a generation is loaded.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use worker_api::{ClientCertificate, Failure, Host, Result, TlsVersion};

use crate::tickets::Tickets;

/// Reads `certfile`, `keyfile`, `ca_certs`, `cert_reqs` and `ssl_version_min`. `protocols` are those that the class speaks.
pub(crate) fn read(host: &Host, protocols: Vec<Vec<u8>>) -> Result<Arc<ServerConfig>> {
    let chain = host.setting_file("certfile")?;
    let chain = chain.ok_or_else(|| Failure::config("the setting `certfile` is not set"))?;
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
    config.alpn_protocols = protocols;
    // Sessions stored in a worker's memory could be resumed by that worker only.
    if let Some(tickets) = Tickets::shared() {
        config.ticketer = tickets;
    }
    Ok(Arc::new(config))
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
    provider: Arc<CryptoProvider>,
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
