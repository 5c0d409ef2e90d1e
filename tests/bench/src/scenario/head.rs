//! The headers that clients send: what a server pays per header, and what it pays for any request, differ.

/// Headers of a request, without those that its body needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Host only: what load generators send.
    Minimal,
    /// Host and two others: what command-line clients and libraries send.
    Three,
    /// What a browser sends for a page.
    Browser,
}

impl Head {
    /// Returns the headers after Host.
    pub(super) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Minimal => &[],
            Self::Three => &[("User-Agent", "bench"), ("Accept", "*/*")],
            Self::Browser => BROWSER,
        }
    }
}

/// Firefox's, without Connection, which the scenario decides.
const BROWSER: &[(&str, &str)] = &[
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Cookie", "sessionid=8f3a5c0d2b7e4916a1c5; csrftoken=Vq2LkZr8TnXw4HsJ; theme=dark"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "none"),
    ("Sec-Fetch-User", "?1"),
    ("Priority", "u=0, i"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_the_number_of_headers_that_the_page_states() {
        let count = |head: Head| 1 + head.headers().len();
        assert_eq!([Head::Minimal, Head::Three, Head::Browser].map(count), [1, 3, 12]);
    }
}
