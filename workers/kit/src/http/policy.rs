//! The limits and strictness of the layer, as the settings of the same names say.

/// What becomes of request fields whose name has an underscore (setting `header_map`).
///
/// An application that sees fields as CGI variables cannot tell `X_Name` from `X-Name`, and so takes the one that
/// a client forged for the one that its proxy set (RFC 9110 17.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderMap {
    /// They are left out.
    Drop,
    /// The request is refused.
    Refuse,
    /// They are passed on.
    Dangerous,
}

/// Limits and strictness of the HTTP layer; each field is the setting of its name.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Policy {
    /// The longest request line in octets, without its line end; 0: [`LINE_MAX`].
    pub limit_request_line: usize,
    /// The most fields of a head.
    pub limit_request_fields: usize,
    /// The longest field in octets, with its line end as gunicorn counts; 0: the default, as in gunicorn.
    pub limit_request_field_size: usize,
    /// The longest body in octets; 0: none.
    pub limit_request_body: u64,
    /// What becomes of fields whose name has an underscore.
    pub header_map: HeaderMap,
    /// Names with an underscore that are passed on all the same; `*` for all. They are for trusted peers only: parse
    /// with [`Policy::for_strangers`] what others send.
    pub forwarder_headers: Vec<String>,
    /// Whether fields folded over several lines are taken; see [`super::normalize`].
    pub permit_obsolete_folding: bool,
    /// Whether methods are taken that are not 3 to 20 characters without lower-case letters and `#`.
    pub permit_unconventional_http_method: bool,
    /// Whether versions other than 1.x are taken; they are treated as 1.1.
    pub permit_unconventional_http_version: bool,
    /// Whether methods are turned into upper case; see [`super::normalize`].
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
    /// The same policy for peers that are not trusted: without `forwarder_headers`.
    #[must_use]
    pub fn for_strangers(&self) -> Self {
        Self { forwarder_headers: Vec::new(), ..self.clone() }
    }

    /// How many octets a whole head may have: what a connection's buffer must be able to hold.
    pub fn head_max(&self) -> usize {
        let fields = self.limit_request_fields.saturating_mul(self.field_max());
        let lines = self.line_max().saturating_add(fields);
        lines.min(HEAD_MAX) + LEADING_LINES_MAX * 2 + 4
    }

    /// Whether a head has to go through [`super::normalize`] before it is parsed.
    pub fn rewrites(&self) -> bool {
        self.permit_obsolete_folding || self.casefold_http_method
    }

    /// The longest request line, without its line end.
    pub(super) fn line_max(&self) -> usize {
        if self.limit_request_line == 0 { LINE_MAX } else { self.limit_request_line }
    }

    /// The longest field, with its line end.
    pub(super) fn field_max(&self) -> usize {
        if self.limit_request_field_size == 0 { FIELD_SIZE } else { self.limit_request_field_size }
    }

    /// Whether a name with an underscore is on the list of those that are passed on.
    pub(super) fn forwards(&self, name: &str) -> bool {
        self.forwarder_headers
            .iter()
            .any(|listed| listed == "*" || listed.eq_ignore_ascii_case(name))
    }
}

/// The longest request line where the setting sets no limit.
pub const LINE_MAX: usize = 1 << 20;
/// The longest head whatever the settings say: a connection buffers it whole.
pub const HEAD_MAX: usize = 8 << 20;
/// The default of `limit_request_field_size`.
const FIELD_SIZE: usize = 8190;
/// How many empty lines before a request line are skipped (RFC 9112 2.2 asks for at least one).
pub(super) const LEADING_LINES_MAX: usize = 1;
