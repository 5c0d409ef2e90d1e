//! The messages that an application sends.

use std::fs::File;

use python::{Exception, GlobalRef, Object, PyErrSet, PyResult, Python, required};
use worker_api::Header;

use super::{Http, Response, State};
use crate::head::{Head, owned_headers};
use crate::operation::{Operation, Source, Span};

/// Reads a message of the application, and does what it asks for up to the first write. Returns what is to be written.
pub(super) fn begin<'py>(
    py: Python<'py>,
    http: &Http,
    message: &Object<'py>,
) -> PyResult<Option<Operation>> {
    let names = &http.runtime.names;
    let Some(kind) = message.dict_item(&names.kind.get(py))? else {
        return Err(PyErrSet::new(py, Exception::Value, "the message has no type"));
    };
    let kind = kind.as_str()?;
    let mut state = http.state(py)?;
    let flag = |name: &GlobalRef| -> PyResult<bool> {
        Ok(message.dict_item(&name.get(py))?.is_some_and(|flag| flag.is_true()))
    };
    match (kind, &state.response) {
        ("http.response.start", Response::Start) => {
            state.check_open(py)?;
            let status = message.dict_item(&names.status.get(py))?;
            let status = required(py, status, "status")?.as_number()?;
            let headers = message.dict_item(&names.headers.get(py))?;
            let head = Head::new(u16::try_from(status).unwrap_or_default(), headers.as_ref())?;
            let has_trailers = flag(&names.trailers)?;
            state.response = Response::FirstBody { head, has_trailers };
            Ok(None)
        }
        ("http.response.body", Response::FirstBody { .. } | Response::Body { .. }) => {
            let data = match message.dict_item(&names.body.get(py))? {
                Some(body) => body_bytes(py, &body)?,
                None => py.bytes(b"")?,
            };
            let more = flag(&names.more_body)?;
            let length = data.as_bytes().unwrap_or_default().len();
            state.begin_body(py, http, length, more)?;
            Ok(Some(Operation::Send { data: data.store(), at: 0, more }))
        }
        ("http.response.pathsend", Response::FirstBody { .. }) => {
            let path = message.dict_item(&names.path.get(py))?;
            let file = open_file(py, required(py, path, "path")?.as_str()?)?;
            let left = file.metadata().map_or(0, |facts| facts.len());
            state.begin_body(py, http, left as usize, false)?;
            let file = Span { file: Source::File(file), offset: 0, left };
            Ok(Some(Operation::SendFile { file, more: false }))
        }
        ("http.response.zerocopysend", Response::FirstBody { .. } | Response::Body { .. }) => {
            let (file, more) = (zero_copy_span(py, http, message)?, flag(&names.more_body)?);
            state.begin_body(py, http, file.left as usize, more)?;
            Ok(Some(Operation::SendFile { file, more }))
        }
        ("http.response.trailers", Response::Trailers(_)) => {
            add_trailers(py, http, &mut state, message)?;
            if !flag(&names.more_trailers)? {
                state.complete(py, http)?;
            }
            Ok(None)
        }
        ("http.response.early_hint", Response::Start | Response::FirstBody { .. }) => {
            early_hint(py, http, &mut state, message).map(|()| None)
        }
        ("http.response.debug", Response::Start | Response::FirstBody { .. }) => {
            // For tests in the application's process: nothing is sent.
            Ok(None)
        }
        _ => Err(unexpected(py, kind, &state)),
    }
}

/// Returns the bytes of a part of the body.
pub(crate) fn body_bytes<'py>(py: Python<'py>, body: &Object<'py>) -> PyResult<Object<'py>> {
    if body.as_bytes().is_some() {
        return Ok(body.clone());
    }
    if body.is_exact_str() {
        let message = "the body of a message must be bytes, not str";
        return Err(PyErrSet::new(py, Exception::Type, message));
    }
    body.to_bytes()
}

fn open_file(py: Python<'_>, path: &str) -> PyResult<File> {
    File::open(path).map_err(|error| {
        PyErrSet::new(py, Exception::Os, &format!("cannot open {path:?} for pathsend: {error}"))
    })
}

/// Reads `file`, `offset` and `count` of a message: a part of a file that the application has opened.
fn zero_copy_span<'py>(py: Python<'py>, http: &Http, message: &Object<'py>) -> PyResult<Span> {
    let names = &http.runtime.names;
    let file = required(py, message.dict_item(&names.file.get(py))?, "file")?;
    let number = |name: &GlobalRef| -> PyResult<Option<u64>> {
        let value = message.dict_item(&name.get(py))?.filter(|value| !value.is_none());
        value.map(|value| value.as_number().map(|n| n.max(0) as u64)).transpose()
    };
    let (offset, count) = (number(&names.offset)?, number(&names.count)?);
    let fd = match file.as_number() {
        Ok(fd) => fd as i32,
        Err(raised) => {
            raised.clear(py);
            file.call_method("fileno", [])?.as_number()? as i32
        }
    };
    let offset = if let Some(offset) = offset {
        offset
    } else {
        let os = py.import("os")?;
        let at = os.call_method("lseek", [&py.number(fd.into())?, &py.number(0)?, &py.number(1)?]);
        at?.as_number()? as u64
    };
    let left = if let Some(count) = count {
        count
    } else {
        let facts = py.import("os")?.call_method("fstat", [&py.number(fd.into())?])?;
        let size = facts.attr_named("st_size")?.as_number()? as u64;
        size.saturating_sub(offset)
    };
    Ok(Span { file: Source::Descriptor(fd), offset, left })
}

/// Adds the headers of a message to the trailers; passes them to the exchange with the last message.
fn add_trailers(
    py: Python<'_>,
    http: &Http,
    state: &mut State,
    message: &Object<'_>,
) -> PyResult<()> {
    let headers = message.dict_item(&http.runtime.names.headers.get(py))?;
    let added = headers.map_or_else(|| Ok(Vec::new()), |headers| owned_headers(&headers))?;
    let Response::Trailers(all) = &mut state.response else { return Ok(()) };
    all.extend(added);
    let all = std::mem::take(all);
    let headers: Vec<Header<'_>> =
        all.iter().map(|(name, value)| Header::new(name, value)).collect();
    let set = state.open(py)?.trailers(&headers);
    set.map_err(|failure| state.raise(py, failure))?;
    state.response = Response::Trailers(all);
    Ok(())
}

/// Sends 103 with the links of a message (RFC 8297).
fn early_hint(
    py: Python<'_>,
    http: &Http,
    state: &mut State,
    message: &Object<'_>,
) -> PyResult<()> {
    let links = message.dict_item(&http.runtime.names.links.get(py))?;
    let links = required(py, links, "links")?.to_list()?;
    let mut values = Vec::new();
    for place in 0..links.list_len() {
        let link = links.list_item(place)?;
        let Some(bytes) = link.as_bytes() else {
            return Err(PyErrSet::new(py, Exception::Type, "a link must be bytes"));
        };
        values.push(bytes.to_vec());
    }
    let headers: Vec<Header<'_>> = values.iter().map(|value| Header::new("link", value)).collect();
    let sent = state.open(py)?.informational(103, &headers);
    sent.map_err(|failure| state.raise(py, failure))
}

/// Creates the error for a message that the protocol does not allow at this point.
#[cold]
fn unexpected(py: Python<'_>, kind: &str, state: &State) -> PyErrSet {
    let expected = match state.response {
        Response::Start => "expected http.response.start",
        Response::FirstBody { .. } | Response::Body { .. } => "expected http.response.body",
        Response::Trailers(_) => "expected http.response.trailers",
        Response::Nothing => "the response is complete",
    };
    let message = format!("unexpected ASGI message {kind:?}: {expected}");
    PyErrSet::new(py, Exception::Runtime, &message)
}
