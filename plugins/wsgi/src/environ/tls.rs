//! The variables of a TLS session.

use worker_api::TlsFacts;

use python::{Object, PyResult, Python};

/// Sets the TLS session's properties under the names of Apache's `mod_ssl`.
#[cold]
pub(super) fn set_tls<'py>(
    py: Python<'py>,
    environ: &Object<'py>,
    tls: &TlsFacts<'_>,
) -> PyResult<()> {
    let set =
        |key: &str, value: &[u8]| environ.set_item(&py.name(key.as_bytes())?, &py.latin1(value)?);
    set("HTTPS", b"on")?;
    set("SSL_PROTOCOL", tls.protocol.as_bytes())?;
    set("SSL_CIPHER", tls.cipher.as_bytes())?;
    if !tls.server_name.is_empty() {
        set("SSL_TLS_SNI", tls.server_name.as_bytes())?;
    }
    let certificate = tls.client_certificate.as_slice();
    if certificate.is_empty() {
        return set("SSL_CLIENT_VERIFY", b"NONE");
    }
    set("SSL_CLIENT_VERIFY", b"SUCCESS")?;
    set("SSL_CLIENT_CERT", pem(certificate).as_bytes())
}

fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    // 48 bytes make a line of 64 characters (RFC 7468).
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b))
                << (8 * (3 - group.len()));
            for place in 0..4 {
                let character = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= group.len() { char::from(character) } else { '=' });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_written_as_pem() {
        let text = pem(&[0, 1, 2, 0xFF]);
        assert!(text.contains("\nAAEC/w==\n"), "{text}");
    }
}
