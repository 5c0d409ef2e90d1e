//! A second parser, only for comparison: written from the RFCs independently of the first, slow and plain. It
//! takes the whole input at once, knows only the default settings, and does not distinguish rejections.

use super::driver::{self, End, Served, Transcript};
use crate::Policy;

/// Serves the bytes. Every rejection has the status 0.
pub fn serve(input: &[u8]) -> Transcript {
    let mut served = Vec::new();
    let mut rest = input.to_vec();
    let end = loop {
        if rest.is_empty() {
            break End::Idle;
        }
        let head = match read_head(&rest) {
            Ok(Some(head)) => head,
            Ok(None) => break End::InHead,
            Err(Refused) => break End::Refused(0),
        };
        rest.drain(..head.len);
        let mut request = head.request;
        match read_body(&head.body, &rest) {
            Ok(Some((body, used))) => {
                request.body = body;
                rest.drain(..used);
            }
            Ok(None) => break End::InBody,
            Err(Refused) => break End::BodyRefused(0),
        }
        served.push(request);
        if head.last {
            break End::Closed;
        }
    };
    Transcript { served, end }
}

/// Compares the outcome of the crate with that of this parser; the error contains both. The crate may reject an
/// incomplete message as soon as it cannot become valid any more; this parser does not try to.
pub fn compare(input: &[u8]) -> Result<(), (Transcript, Transcript)> {
    let ours = driver::serve([input], &Policy::default());
    let other = serve(input);
    let same_end = match (ours.end, other.end) {
        (End::Refused(_), End::Refused(_))
        | (End::BodyRefused(_), End::BodyRefused(_) | End::InBody) => true,
        (End::Refused(_), End::InHead) => {
            serve(&[input, b"\r\n\r\n"].concat()).end == End::Refused(0)
        }
        (one, other) => one == other,
    };
    if same_end && ours.served == other.served { Ok(()) } else { Err((ours, other)) }
}

struct Refused;

struct NaiveHead {
    len: usize,
    request: Served,
    body: Body,
    last: bool,
}

enum Body {
    Fixed(u64),
    Chunked,
}

fn read_head(input: &[u8]) -> Result<Option<NaiveHead>, Refused> {
    let skipped = if input.starts_with(b"\r\n") { 2 } else { 0 };
    let text: String = input[skipped..].iter().map(|byte| char::from(*byte)).collect();
    if text.starts_with("\r\n") {
        return Err(Refused);
    }
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let len = skipped + head.chars().count() + 4;
    let mut lines = head.split("\r\n");
    let request_line = lines.next().unwrap_or_default();
    let fields: Vec<(String, String)> = lines.map(field).collect::<Result<_, _>>()?;
    if fields.len() > 100 || request_line.chars().count() > 8190 {
        return Err(Refused);
    }
    let [method, target, version] = request_line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(Refused);
    };
    check(!method.is_empty() && method.chars().all(token))?;
    check(method.len() >= 3 && method.len() <= 20)?;
    check(!method.chars().any(|c| c == '#' || c.is_lowercase()))?;
    check(!target.is_empty() && target.chars().all(|c| ('!'..='~').contains(&c)))?;
    let digits: Vec<char> = version.strip_prefix("HTTP/1.").ok_or(Refused)?.chars().collect();
    check(digits.len() == 1 && digits[0].is_ascii_digit())?;
    let old = digits[0] == '0';

    let all = |name: &str| -> Vec<String> {
        fields
            .iter()
            .filter(|(n, _)| n.to_ascii_lowercase() == name)
            .map(|(_, v)| v.clone())
            .collect()
    };
    let hosts = all("host");
    check(hosts.len() <= 1 && (old || hosts.len() == 1))?;
    check(hosts.iter().all(|host| authority(host)))?;
    check(all("content-type").len() <= 1)?;
    check(all("expect").iter().all(|value| value.eq_ignore_ascii_case("100-continue")))?;
    let named = target_authority(method, target)?;
    let body = body(&all("content-length"), &all("transfer-encoding"), old)?;
    let options: Vec<String> = all("connection")
        .iter()
        .flat_map(|value| {
            value
                .split(',')
                .map(|option| blank_trim(option).to_ascii_lowercase())
                .collect::<Vec<_>>()
        })
        .collect();
    let close = options.iter().any(|o| o == "close" || (!o.is_empty() && !o.chars().all(token)));
    let keep = options.iter().any(|o| o == "keep-alive");

    let kept =
        |(name, _): &(String, String)| !name.contains('_') && !name.eq_ignore_ascii_case("proxy");
    let latin = |text: &str| text.chars().map(|c| c as u8).collect::<Vec<u8>>();
    let request = Served {
        method: method.to_owned(),
        target: latin(target),
        authority: named.unwrap_or_else(|| hosts.first().cloned().unwrap_or_default()),
        fields: fields.iter().filter(|f| kept(f)).map(|(n, v)| (n.clone(), latin(v))).collect(),
        body: Vec::new(),
    };
    let last = close || method == "CONNECT" || (old && !keep);
    Ok(Some(NaiveHead { len, request, body, last }))
}

fn field(line: &str) -> Result<(String, String), Refused> {
    check(line.chars().count() + 2 <= 8190)?;
    let (name, value) = line.split_once(':').ok_or(Refused)?;
    check(!name.is_empty() && name.chars().all(token))?;
    check(!value.chars().any(|c| (c < ' ' && c != '\t') || c == '\u{7f}'))?;
    Ok((name.to_owned(), blank_trim(value).to_owned()))
}

fn body(lengths: &[String], codings: &[String], old: bool) -> Result<Body, Refused> {
    match (lengths, codings) {
        ([], []) => Ok(Body::Fixed(0)),
        ([], [coding]) if !old && coding.eq_ignore_ascii_case("chunked") => Ok(Body::Chunked),
        ([digits], []) => {
            check(!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()))?;
            let number: u64 = digits.parse().map_err(|_| Refused)?;
            check(number < 1 << 63)?;
            Ok(Body::Fixed(number))
        }
        _ => Err(Refused),
    }
}

fn target_authority(method: &str, target: &str) -> Result<Option<String>, Refused> {
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':').ok_or(Refused)?;
        check(authority(target) && !host.is_empty() && !port.is_empty() && !port.contains(']'))?;
        return Ok(Some(target.to_owned()));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(None);
    }
    let (scheme, rest) = target.split_once("://").ok_or(Refused)?;
    check(["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()))?;
    let named = rest.split(['/', '?', '#']).next().unwrap_or_default();
    check(!named.is_empty() && !named.starts_with(':') && authority(named))?;
    Ok(Some(named.to_owned()))
}

fn authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    if !port.chars().all(|c| c.is_ascii_digit())
        || port.parse::<u32>().is_ok_and(|port| port > 65535)
    {
        return false;
    }
    if port.trim_start_matches('0').len() > 5 {
        return false;
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let name = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:".contains(c);
        let future = inner.to_ascii_lowercase();
        let future = future.strip_prefix('v').and_then(|rest| rest.split_once('.'));
        let hex = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit());
        return inner.parse::<std::net::Ipv6Addr>().is_ok()
            || future.is_some_and(|(version, rest)| {
                hex(version) && !rest.is_empty() && rest.chars().all(name)
            });
    }
    let chars: Vec<char> = host.chars().collect();
    let escaped = |at: usize| {
        let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_hexdigit);
        digit(at + 1) && digit(at + 2)
    };
    (0..chars.len()).all(|at| match chars[at] {
        '%' => escaped(at),
        c => c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c),
    })
}

/// Returns the data of a body and its encoded length.
fn read_body(body: &Body, input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Refused> {
    let Body::Fixed(length) = body else { return read_chunks(input) };
    let whole = usize::try_from(*length).ok().and_then(|length| input.get(..length));
    Ok(whole.map(|data| (data.to_vec(), data.len())))
}

fn read_chunks(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Refused> {
    let mut data = Vec::new();
    let mut at = 0;
    let mut overhead = 0;
    loop {
        let Some(line) = read_line(input, at)? else { return Ok(None) };
        let (size, extensions) = line.split_at(line.find([';', ' ', '\t']).unwrap_or(line.len()));
        check(!size.is_empty() && size.chars().all(|c| c.is_ascii_hexdigit()))?;
        check(is_extensions(extensions))?;
        let size = u64::from_str_radix(size, 16).map_err(|_| Refused)?;
        check(size < 1 << 63)?;
        overhead += (line.chars().count() + 2).saturating_sub(18);
        check(overhead <= 16384 + data.len())?;
        at += line.chars().count() + 2;
        if size == 0 {
            break;
        }
        let Some(end) = usize::try_from(size).ok().and_then(|size| at.checked_add(size)) else {
            return Ok(None);
        };
        let Some(chunk) = input.get(at..end) else { return Ok(None) };
        data.extend_from_slice(chunk);
        match input.get(end..end + 2) {
            Some(b"\r\n") => at = end + 2,
            None if b"\r\n".starts_with(&input[end..]) => return Ok(None),
            _ => return Err(Refused),
        }
    }
    for count in 0.. {
        let Some(line) = read_line(input, at)? else { return Ok(None) };
        at += line.chars().count() + 2;
        if line.is_empty() {
            return Ok(Some((data, at)));
        }
        check(count < 100)?;
        let (name, _) = field(&line)?;
        let refused = [
            "authorization",
            "connection",
            "content-length",
            "host",
            "te",
            "trailer",
            "transfer-encoding",
        ];
        check(!refused.contains(&name.to_ascii_lowercase().as_str()))?;
    }
    Ok(None)
}

/// Returns a line that ends with CRLF and contains neither CR nor LF. `None` if it has no end yet.
fn read_line(input: &[u8], at: usize) -> Result<Option<String>, Refused> {
    let text: String = input[at..].iter().map(|byte| char::from(*byte)).collect();
    let Some((line, _)) = text.split_once("\r\n") else { return Ok(None) };
    check(!line.contains(['\r', '\n']) && line.chars().count() + 2 <= 8190)?;
    Ok(Some(line.to_owned()))
}

/// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`.
fn is_extensions(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let Some(next) = blank_trim_start(rest).strip_prefix(';') else { return false };
        let Some(next) = after_token(blank_trim_start(next)) else { return false };
        rest = next;
        let Some(value) = blank_trim_start(next).strip_prefix('=') else { continue };
        let value = blank_trim_start(value);
        let after = match value.strip_prefix('"') {
            Some(quoted) => after_quoted(quoted),
            None => after_token(value),
        };
        let Some(after) = after else { return false };
        rest = after;
    }
    true
}

fn after_token(text: &str) -> Option<&str> {
    let end = text.find(|c| !token(c)).unwrap_or(text.len());
    (end > 0).then(|| &text[end..])
}

fn after_quoted(text: &str) -> Option<&str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let c = match c {
            '"' => return Some(&text[at + 1..]),
            '\\' => chars.next()?.1,
            c => c,
        };
        if (c < ' ' && c != '\t') || c == '\u{7f}' {
            return None;
        }
    }
    None
}

fn token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn blank_trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn blank_trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn check(holds: bool) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused) }
}
