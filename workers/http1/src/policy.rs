//! Limits and strictness of HTTP parsing, from the settings of the same names.

use worker_api::HeaderMap;

/// Limits and strictness of HTTP parsing; each field is the setting of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate setting")]
pub struct Policy {
    /// Maximum length of the request line in bytes, without its line end; 0 selects [`LINE_MAX`].
    pub limit_request_line: usize,
    /// Maximum number of headers.
    pub limit_request_fields: usize,
    /// Maximum length of a header in bytes, including its line end, as gunicorn counts; 0 selects the
    /// default, as in gunicorn.
    pub limit_request_field_size: usize,
    /// Maximum length of the body in bytes; 0 for no limit.
    pub limit_request_body: u64,
    /// Treatment of headers whose name contains an underscore.
    pub header_map: HeaderMap,
    /// Names with an underscore that are passed on regardless; `*` for all. Only for trusted peers: parse the
    /// requests of other peers with [`Policy::for_strangers`].
    pub forwarder_headers: Vec<String>,
    /// Whether to accept headers folded over several lines; see [`super::normalize`].
    pub permit_obsolete_folding: bool,
    /// Whether to accept methods other than 3 to 20 characters without lower-case letters and `#`.
    pub permit_unconventional_http_method: bool,
    /// Whether to accept versions other than 1.x; they are treated as 1.1.
    pub permit_unconventional_http_version: bool,
    /// Whether to convert methods to upper case; see [`super::normalize`].
    pub casefold_http_method: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            limit_request_line: 8190,
            limit_request_fields: 100,
            limit_request_field_size: FIELD_SIZE,
            limit_request_body: 0,
            header_map: HeaderMap::Drop,
            forwarder_headers: vec!["SCRIPT_NAME".to_owned(), "PATH_INFO".to_owned()],
            permit_obsolete_folding: false,
            permit_unconventional_http_method: false,
            permit_unconventional_http_version: false,
            casefold_http_method: false,
        }
    }
}

impl Policy {
    /// Returns the policy for untrusted peers: without `forwarder_headers`.
    #[must_use]
    pub fn for_strangers(&self) -> Self {
        Self { forwarder_headers: Vec::new(), ..self.clone() }
    }

    /// Returns the maximum length of a head in bytes: the required capacity of a connection's buffer.
    pub fn head_max(&self) -> usize {
        let fields = self.limit_request_fields.saturating_mul(self.field_max());
        let lines = self.line_max().saturating_add(fields);
        lines.min(HEAD_MAX) + LEADING_LINES_MAX * 2 + 4
    }

    /// Returns whether a head must pass through [`super::normalize`] before it is parsed.
    pub fn rewrites(&self) -> bool {
        self.permit_obsolete_folding || self.casefold_http_method
    }

    /// Returns the maximum length of the request line, without its line end.
    pub(super) fn line_max(&self) -> usize {
        if self.limit_request_line == 0 { LINE_MAX } else { self.limit_request_line }
    }

    /// Returns the maximum length of a header, with its line end.
    pub(super) fn field_max(&self) -> usize {
        if self.limit_request_field_size == 0 { FIELD_SIZE } else { self.limit_request_field_size }
    }

    /// Returns whether a name with an underscore is to be passed on.
    pub(super) fn forwards(&self, name: &str) -> bool {
        self.forwarder_headers
            .iter()
            .any(|listed| listed == "*" || listed.eq_ignore_ascii_case(name))
    }
}

/// Maximum length of the request line if the setting sets no limit.
pub const LINE_MAX: usize = 1 << 20;
/// Maximum length of a head whatever the settings are: a connection buffers all of it.
pub const HEAD_MAX: usize = 8 << 20;
/// Default of `limit_request_field_size`.
const FIELD_SIZE: usize = 8190;
/// Number of empty lines before a request line that are skipped (RFC 9112 2.2 requires at least one).
pub(super) const LEADING_LINES_MAX: usize = 1;
