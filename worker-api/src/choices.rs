//! Settings that are a choice of words, for both sides: the host checks the word when it reads its settings, and a worker
//! class reads it as the same type ([`Host::setting_choice`](crate::Host::setting_choice)). Plain Rust: what crosses the
//! boundary is the word.

/// A setting that is a choice of words.
pub trait Choice: Sized {
    /// The accepted words.
    const WORDS: &'static [&'static str];

    /// Returns the meaning of a word.
    fn from_word(word: &str) -> Option<Self>;
}

macro_rules! choices {
    ($(
        $(#[doc = $doc:literal])*
        $type:ident { $( $(#[doc = $of:literal])* $word:literal => $variant:ident, )* }
    )*) => { $(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $( $(#[doc = $of])* $variant, )* }

        impl Choice for $type {
            const WORDS: &'static [&'static str] = &[$($word),*];

            fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    )* };
}

choices! {
    /// Accepted versions of the PROXY protocol: the setting `proxy_protocol`.
    ProxyProtocol {
        /// None: a connection starts with HTTP or TLS.
        "off" => Off,
        /// The text form.
        "v1" => V1,
        /// The binary form.
        "v2" => V2,
        /// Either.
        "auto" => Auto,
    }
    /// Treatment of request headers whose name contains an underscore: the setting `header_map`.
    ///
    /// An application that reads headers as CGI variables cannot distinguish `X_Name` from `X-Name`, so it could
    /// mistake a header forged by a client for one set by its proxy (RFC 9110 17.10).
    HeaderMap {
        /// Drop them.
        "drop" => Drop,
        /// Reject the request.
        "refuse" => Refuse,
        /// Pass them on although they may be mistaken for others.
        "dangerous" => Dangerous,
    }
    /// Minimum TLS version: the setting `ssl_version_min`.
    TlsVersion {
        /// TLS 1.2.
        "1.2" => V1_2,
        /// TLS 1.3.
        "1.3" => V1_3,
    }
    /// Whether to request client certificates: the setting `cert_reqs`, whose words are Python's numbers.
    ClientCertificate {
        /// Do not request one.
        "0" => None,
        /// Request one; verify it if the client sends one.
        "1" => Optional,
        /// Require one.
        "2" => Required,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_meaning_and_no_other_text_has() {
        for word in HeaderMap::WORDS {
            assert!(HeaderMap::from_word(word).is_some(), "{word}");
        }
        assert_eq!(ClientCertificate::from_word("2"), Some(ClientCertificate::Required));
        for other in ["", "Drop", "3"] {
            assert_eq!(HeaderMap::from_word(other), None);
        }
    }
}
