//! gunicorn's access log format, compiled once into a list of items to write.
//!
//! Values that a client or an application can choose are escaped. Widths and precisions are those of Python's `%`
//! formatting, see [`layout`](super::layout).

use worker_api::{AccessRecord, Header};

use super::{escape, layout::Layout};

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessFormat(Box<[Piece]>);

/// An item to write, with its width if the format gives one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    atom: Atom,
    layout: Option<Layout>,
}

/// An item to write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Atom {
    Text(Box<[u8]>),
    /// Placeholder of an unknown value.
    Dash,
    RemoteHost,
    User,
    Time,
    LocalTime,
    RequestLine,
    Status,
    Method,
    Path,
    Query,
    Protocol,
    Length,
    LengthOrDash,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    Pid,
    Id,
    RequestField(Box<str>),
    ResponseField(Box<str>),
    /// An environ variable: the value set by the application, else the one that follows from the request.
    Variable(Box<str>, Box<Self>),
    RemotePort,
    LocalPort,
    Target,
    Scheme,
}

/// Values of a line that do not come from the request.
pub(super) struct LineContext<'a> {
    /// Current time in the notation of the log's form.
    pub(super) time: &'a [u8],
    /// Current local time as `2026-01-31 23:59:59`.
    pub(super) local_time: &'a [u8],
    /// Process ID of the worker.
    pub(super) pid: u32,
    /// Variables set by the application, by lower-case name.
    pub(super) variables: &'a [(Box<str>, Box<[u8]>)],
}

impl LineContext<'_> {
    /// Returns the value set by the application.
    pub(super) fn variable(&self, name: &str) -> Option<&[u8]> {
        self.variables.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

impl AccessFormat {
    /// Compiles a format; the error tells the position. Unknown atoms are written as `-`, as in gunicorn.
    pub fn compile(format: &str) -> Result<Self, String> {
        let mut atoms = Vec::new();
        let mut text = Vec::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            text.extend_from_slice(&rest.as_bytes()[..at]);
            let tail = &rest[at + 1..];
            if let Some(after) = tail.strip_prefix('%') {
                text.push(b'%');
                rest = after;
                continue;
            }
            let atom = tail.strip_prefix('(').and_then(|tail| {
                let (name, rest) = tail.split_once(')')?;
                let (layout, rest) = Layout::parse(rest)?;
                Some((name, layout, rest))
            });
            let (name, layout, after) = atom.ok_or_else(|| {
                let column = format.len() - rest.len() + at + 1;
                format!("expected %(NAME)s or %% at character {column}")
            })?;
            if !text.is_empty() {
                atoms.push(Piece::text(std::mem::take(&mut text)));
            }
            atoms.push(Piece { atom: Atom::named(name), layout });
            rest = after;
        }
        text.extend_from_slice(rest.as_bytes());
        text.push(b'\n');
        atoms.push(Piece::text(text));
        Ok(Self(atoms.into()))
    }

    /// Returns the environ variables that lines contain and that an application may set, by the names that
    /// the format uses.
    pub fn variables(&self) -> Vec<String> {
        let names = self.0.iter().filter_map(|piece| match &piece.atom {
            Atom::RemoteHost => Some(REMOTE_ADDR),
            Atom::Variable(name, _) => Some(&**name),
            _ => None,
        });
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
        names
    }

    /// Returns whether lines contain headers of the response.
    pub fn wants_response_headers(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece.atom, Atom::ResponseField(_)))
    }

    /// Appends one line, including the line end.
    pub(super) fn write(
        &self,
        line: &mut Vec<u8>,
        record: &AccessRecord<'_>,
        scene: &LineContext<'_>,
    ) {
        for piece in &self.0 {
            let start = line.len();
            piece.atom.write(line, record, scene);
            if let Some(layout) = &piece.layout {
                layout.apply(line, start);
            }
        }
    }
}

impl Piece {
    fn text(text: Vec<u8>) -> Self {
        Self { atom: Atom::Text(text.into()), layout: None }
    }
}

impl Atom {
    fn named(name: &str) -> Self {
        match name {
            "h" => Self::RemoteHost,
            "u" => Self::User,
            "t" => Self::Time,
            "I" => Self::LocalTime,
            "r" => Self::RequestLine,
            "s" => Self::Status,
            "m" => Self::Method,
            "U" => Self::Path,
            "q" => Self::Query,
            "H" => Self::Protocol,
            "B" => Self::Length,
            "b" => Self::LengthOrDash,
            "f" => Self::RequestField("referer".into()),
            "a" => Self::RequestField("user-agent".into()),
            "T" => Self::Seconds,
            "M" => Self::Milliseconds,
            "D" => Self::Microseconds,
            "L" => Self::DecimalSeconds,
            "p" => Self::Pid,
            "i" => Self::Id,
            _ => Self::braced(name).unwrap_or(Self::Dash),
        }
    }

    /// `{name}i`, `{name}o` and `{name}e`, with a case-insensitive name.
    fn braced(name: &str) -> Option<Self> {
        let (name, kind) = name.strip_prefix('{')?.rsplit_once('}')?;
        let lower = name.to_ascii_lowercase();
        match kind {
            "i" => Some(Self::RequestField(lower.into())),
            "o" => Some(Self::ResponseField(lower.into())),
            "e" => {
                let of_request = Self::variable(&lower).unwrap_or(Self::Dash);
                Some(Self::Variable(name.into(), of_request.into()))
            }
            _ => None,
        }
    }

    /// Variables of a WSGI environ that follow from the request alone.
    fn variable(name: &str) -> Option<Self> {
        Some(match name {
            "remote_addr" => Self::RemoteHost,
            "remote_port" => Self::RemotePort,
            "server_port" => Self::LocalPort,
            "request_method" => Self::Method,
            "raw_uri" => Self::Target,
            "path_info" => Self::Path,
            "query_string" => Self::Query,
            "server_protocol" => Self::Protocol,
            "wsgi.url_scheme" => Self::Scheme,
            "content_type" | "content_length" => Self::RequestField(name.replace('_', "-").into()),
            _ => Self::RequestField(name.strip_prefix("http_")?.replace('_', "-").into()),
        })
    }

    fn write(&self, line: &mut Vec<u8>, record: &AccessRecord<'_>, scene: &LineContext<'_>) {
        let head = record.head.into_option();
        let micros = record.duration_ns / 1000;
        match self {
            Self::Text(text) => line.extend_from_slice(text),
            Self::Dash => line.push(b'-'),
            Self::RemoteHost => {
                if let Some(host) = scene.variable(REMOTE_ADDR) {
                    return escape::text(line, host);
                }
                let peer = head.map_or(record.peer, |head| head.peer);
                field(line, Some(peer.host.as_str().as_bytes()));
            }
            Self::Variable(name, of_request) => match scene.variable(name) {
                Some(value) => escape::text(line, value),
                None => of_request.write(line, record, scene),
            },
            Self::User => {
                let user = head.and_then(|head| head.header("authorization")).and_then(basic_user);
                field(line, user.as_deref());
            }
            Self::Time => line.extend_from_slice(scene.time),
            Self::LocalTime => line.extend_from_slice(scene.local_time),
            Self::RequestLine => match head {
                Some(head) => {
                    escape::text(line, head.method.as_str().as_bytes());
                    line.push(b' ');
                    escape::text(line, head.target.as_slice());
                    line.push(b' ');
                    line.extend_from_slice(head.version.name().as_bytes());
                }
                None => field(line, Some(record.request_line.as_slice())),
            },
            Self::Status | Self::LengthOrDash if record.status == 0 => line.push(b'-'),
            Self::Status => number(line, record.status.into()),
            Self::Method => field(line, head.map(|head| head.method.as_str().as_bytes())),
            Self::Path => match head.map(|head| head.path.as_slice()) {
                Some(path) if path.contains(&b'%') => field(line, Some(&percent_decoded(path))),
                path => field(line, path),
            },
            // An empty query is an empty text in gunicorn, too.
            Self::Query => match head {
                Some(head) => escape::text(line, head.query.as_slice()),
                None => line.push(b'-'),
            },
            Self::Protocol => field(line, head.map(|head| head.version.name().as_bytes())),
            Self::Length | Self::LengthOrDash => number(line, record.body_bytes),
            Self::Seconds => number(line, micros / 1_000_000),
            Self::Milliseconds => number(line, micros / 1000),
            Self::Microseconds => number(line, micros),
            Self::DecimalSeconds => {
                decimal_seconds(line, record.duration_ns);
            }
            Self::Pid => {
                line.push(b'<');
                number(line, scene.pid.into());
                line.push(b'>');
            }
            Self::Id => match head {
                Some(head) => request_id(line, scene.pid, head.id),
                None => line.push(b'-'),
            },
            Self::RequestField(name) => {
                field(line, head.and_then(|head| last(head.headers.as_slice(), name)));
            }
            Self::ResponseField(name) => {
                field(line, last(record.response_headers.as_slice(), name));
            }
            Self::RemotePort => {
                number(line, head.map_or(record.peer, |head| head.peer).port.into());
            }
            Self::LocalPort => number(line, head.map_or(0, |head| head.local.port).into()),
            Self::Target => field(line, head.map(|head| head.target.as_slice())),
            Self::Scheme => field(line, head.map(|head| head.scheme.as_str().as_bytes())),
        }
    }
}

/// Returns the last header of that name, as in gunicorn, where a repeated header replaces the one before.
fn last<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().rfind(|header| header.is(name)).map(|header| header.value.as_slice())
}

/// Returns the user name of basic authentication (RFC 7617).
pub(super) fn basic_user(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, credentials) = authorization.split_at_checked(BASIC.len())?;
    if !scheme.eq_ignore_ascii_case(BASIC) {
        return None;
    }
    let mut pair = base64_decoded(credentials.trim_ascii())?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.truncate(colon);
    Some(pair)
}

/// Appends a value, or `-` without one.
fn field(line: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None | Some([]) => line.push(b'-'),
        Some(value) => escape::text(line, value),
    }
}

/// Appends an ID that is unique while the server runs: the worker's process ID and the request's number there.
pub(super) fn request_id(line: &mut Vec<u8>, pid: u32, id: u64) {
    number(line, pid.into());
    line.push(b'-');
    number(line, id);
}

/// Appends seconds with six decimal places.
pub(super) fn decimal_seconds(line: &mut Vec<u8>, nanoseconds: u64) {
    number(line, nanoseconds / 1_000_000_000);
    let point = line.len();
    // The added leading digit keeps the zeros after the decimal point; the point takes its place.
    number(line, 1_000_000 + nanoseconds / 1000 % 1_000_000);
    line[point] = b'.';
}

/// Appends decimal digits without the machinery of `fmt`: most lines have several numbers.
pub(super) fn number(line: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
}

fn percent_decoded(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (byte, digit(0), digit(1)) {
            decoded.push((high << 4 | low) as u8);
            rest = &tail[2..];
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    decoded
}

/// RFC 4648 section 4, with or without padding.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii_end();
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
    let mut decoded = Vec::with_capacity(end * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
        }
    }
    Some(decoded)
}

const BASIC: &[u8] = b"basic ";
const REMOTE_ADDR: &str = "REMOTE_ADDR";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::access::tests::{head, record};

    fn line(format: &str, record: &AccessRecord<'_>) -> String {
        let mut line = Vec::new();
        AccessFormat::compile(format).unwrap().write(
            &mut line,
            record,
            &LineContext { time: b"[now]", local_time: b"today", pid: 77, variables: &[] },
        );
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn every_atom_has_gunicorns_meaning() {
        let fields = [
            Header::new("Host", "localhost"),
            Header::new("Referer", "http://a/"),
            Header::new("User-Agent", "curl/8"),
            Header::new("Authorization", "Basic YnJpYW46aG93"),
            Header::new("X-Id", "1"),
            Header::new("x-id", "2"),
        ];
        let head = head(&fields);
        let sent = [Header::new("Content-Type", "text/plain")];
        let record = record(Some(&head), &sent);
        for (atom, written) in [
            ("h", "10.0.0.7"),
            ("l", "-"),
            ("u", "brian"),
            ("t", "[now]"),
            ("r", "GET /a%20b?c=d HTTP/1.1"),
            ("s", "200"),
            ("m", "GET"),
            ("U", "/a b"),
            ("q", "c=d"),
            ("H", "HTTP/1.1"),
            ("B", "1024"),
            ("b", "1024"),
            ("f", "http://a/"),
            ("a", "curl/8"),
            ("T", "1"),
            ("M", "1234"),
            ("D", "1234567"),
            ("L", "1.234567"),
            ("p", "<77>"),
            ("{x-id}i", "2"),
            ("{X-ID}i", "2"),
            ("{none}i", "-"),
            ("{content-type}o", "text/plain"),
            ("{remote_port}e", "4711"),
            ("{HTTP_USER_AGENT}e", "curl/8"),
            ("{nothing}e", "-"),
            ("{x-id}z", "-"),
            ("unknown", "-"),
        ] {
            assert_eq!(line(&format!("%({atom})s"), &record), format!("{written}\n"), "{atom}");
        }
        assert_eq!(line("100%% %(s)s|%(D)09d!", &record), "100% 200|001234567!\n");
    }

    #[test]
    fn a_request_without_a_head_still_has_a_line() {
        let record = AccessRecord { status: 400, ..record(None, &[]) };
        let written = line(r#"%(h)s %(u)s "%(r)s" %(s)s "%(a)s" %(U)s%(q)s"#, &record);
        assert_eq!(written, "10.0.0.9 - \"BAD \\\"\\x0d\" 400 \"-\" --\n");
    }

    #[test]
    fn variables_set_by_the_application_are_written() {
        let fields = [Header::new("X-Id", "1")];
        let head = head(&fields);
        let record = record(Some(&head), &[]);
        let format = "%(h)s %({REMOTE_ADDR}e)s %({myapp.user}e)5s %({http_x_id}e)s %({NONE}e)s";
        let format = AccessFormat::compile(format).unwrap();
        assert_eq!(format.variables(), ["NONE", "REMOTE_ADDR", "http_x_id", "myapp.user"]);
        let set = |name: &str, value: &str| (name.into(), value.as_bytes().into());
        let variables = [set("REMOTE_ADDR", "192.0.2.1"), set("myapp.user", "a\nb")];
        let mut line = Vec::new();
        let scene = LineContext { time: b"", local_time: b"", pid: 1, variables: &variables };
        format.write(&mut line, &record, &scene);
        assert_eq!(line, b"192.0.2.1 192.0.2.1 a\\x0ab 1 -\n");
    }

    #[test]
    fn no_value_can_forge_a_line() {
        let fields = [Header::new("User-Agent", b"x\" 200\n10.0.0.1 - \x1b[31m\xff")];
        let written = line("\"%(a)s\"", &record(Some(&head(&fields)), &[]));
        assert_eq!(written, "\"x\\\" 200\\x0a10.0.0.1 - \\x1b[31m\\xff\"\n");
    }

    #[test]
    fn invalid_formats_are_refused_with_the_position() {
        for (format, column) in [
            ("%", 1),
            ("ab%x", 3),
            ("%(h", 1),
            ("%(h)s %(s)", 7),
            ("%(h)é", 1),
            ("%(h)9999s", 1),
            ("%(h)x", 1),
        ] {
            let error = AccessFormat::compile(format).unwrap_err();
            assert!(error.ends_with(&format!("at character {column}")), "{format}: {error}");
        }
    }

    #[test]
    fn only_formats_with_response_headers_need_them() {
        let wants = |format| AccessFormat::compile(format).unwrap().wants_response_headers();
        assert!(wants("%(h)s %({etag}o)s"));
        assert!(!wants("%(h)s %({etag}i)s"));
    }

    #[test]
    fn invalid_credentials_have_no_user() {
        for authorization in ["", "Basic", "Basic !!!", "Bearer YnJpYW46aG93", "Basic YnJpYW4="] {
            assert_eq!(basic_user(authorization.as_bytes()), None, "{authorization}");
        }
        assert_eq!(basic_user(b"bAsIc YTo="), Some(b"a".to_vec()));
    }
}
