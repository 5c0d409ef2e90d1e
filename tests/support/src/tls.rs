//! Certificates created for a test, and what a client trusts and presents.

use std::sync::{Arc, LazyLock};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Its certificate as PEM.
    pub pem: String,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate in DER.
    pub certificate: CertificateDer<'static>,
    /// The certificate as PEM.
    pub chain_pem: String,
    /// The key as PEM.
    pub key_pem: String,
    key: Vec<u8>,
}

/// The name that clients ask for and server certificates contain.
const NAME: &str = "jimu.test";

/// [`NAME`] as a rustls type.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("the name is one of DNS")
}

impl Authority {
    /// Creates an authority.
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no name is no wrong name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a certificate can be signed");
        let (pem, certificate) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), certificate, pem }
    }

    /// Issues a server certificate for the name that clients ask for.
    pub fn server(&self) -> Identity {
        self.sign(NAME, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a client certificate.
    pub fn client(&self, name: &str) -> Identity {
        self.sign(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).expect("the name is one of DNS");
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate =
            params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        Identity {
            chain_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key_pem: key.serialize_pem(),
            key: key.serialize_der(),
        }
    }

    /// Creates a client that trusts this authority, presents `identity` if there is one, and offers these
    /// versions and protocols.
    pub fn client_config(
        &self,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("the authority's certificate is valid");
        let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(versions)
            .expect("the provider has suites for each version")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
                let chain = vec![identity.certificate.clone()];
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("key and certificate belong together")
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Creates a client that trusts this authority, with defaults.
    pub fn trusting(&self) -> Arc<ClientConfig> {
        self.client_config(None, rustls::ALL_VERSIONS, &[])
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));
