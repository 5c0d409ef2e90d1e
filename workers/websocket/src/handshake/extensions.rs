//! The grammar of Sec-WebSocket-Extensions (RFC 6455 9.1).
//!
//! ```text
//!     extension *( "," extension )
//!     extension = token *( ";" token [ "=" ( token | quoted token ) ] )
//! ```

use super::super::tokens::{is_token, is_token_char};

/// An extension that the client offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Extension<'r> {
    pub(super) name: &'r [u8],
    /// Names of parameters, and their values.
    pub(super) params: Vec<(&'r [u8], Option<Vec<u8>>)>,
}

/// Parses a header's value; `None` if it is malformed.
pub(super) fn parse(value: &[u8]) -> Option<Vec<Extension<'_>>> {
    let mut input = Input(value);
    let mut extensions = Vec::new();
    loop {
        // A list may have empty elements (RFC 9110 5.6.1).
        while input.skip(b',') {}
        if input.is_empty() {
            return Some(extensions);
        }
        let mut extension = Extension { name: input.token()?, params: Vec::new() };
        while input.skip(b';') {
            let name = input.token()?;
            let value = if input.skip(b'=') { Some(input.value()?) } else { None };
            extension.params.push((name, value));
        }
        extensions.push(extension);
        if !input.is_empty() && !input.skip(b',') {
            return None;
        }
    }
}

/// What has not been parsed. Each method skips the white space before what it takes.
struct Input<'r>(&'r [u8]);

impl<'r> Input<'r> {
    fn is_empty(&mut self) -> bool {
        self.0 = self.0.trim_ascii_start();
        self.0.is_empty()
    }

    /// Takes this byte if it is the next one.
    fn skip(&mut self, byte: u8) -> bool {
        self.0 = self.0.trim_ascii_start();
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn token(&mut self) -> Option<&'r [u8]> {
        self.0 = self.0.trim_ascii_start();
        let len = self.0.iter().position(|byte| !is_token_char(*byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(len);
        self.0 = rest;
        (len > 0).then_some(token)
    }

    fn value(&mut self) -> Option<Vec<u8>> {
        if !self.skip(b'"') {
            return self.token().map(<[u8]>::to_vec);
        }
        let mut value = Vec::new();
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return is_token(&value).then_some(value),
                b'\\' => {
                    let (quoted, rest) = self.0.split_first()?;
                    self.0 = rest;
                    value.push(*quoted);
                }
                _ => value.push(*byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Option<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let param = |(name, value): &(&[u8], Option<Vec<u8>>)| match value {
            Some(value) => format!(";{}={}", text(name), text(value)),
            None => format!(";{}", text(name)),
        };
        let extension = |extension: &Extension<'_>| {
            text(extension.name) + &extension.params.iter().map(param).collect::<String>()
        };
        Some(parse(value.as_bytes())?.iter().map(extension).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn values() {
        let cases = [
            ("", Some("")),
            ("a", Some("a")),
            (" a ; b ; c = d , e ", Some("a;b;c=d,e")),
            ("a;b=\"c\", ,d", Some("a;b=c,d")),
            ("a;b=\"\\c\\d\"", Some("a;b=cd")),
            ("a b", None),
            ("a;", None),
            ("a;b=", None),
            ("a;b=\"\"", None),
            ("a;b=\"c d\"", None),
            ("a;b=\"c", None),
            ("a;b=\"c\\", None),
            (";a", None),
            ("a;=b", None),
            ("a=b", None),
        ];
        for (value, expected) in cases {
            assert_eq!(shown(value).as_deref(), expected, "{value}");
        }
    }
}
