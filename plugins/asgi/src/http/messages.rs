//! The messages that an application sends.

use std::fs::File;

use python::{Exception, GlobalRef, Object, PyErrSet, PyResult, Python};
use worker_api::Header;

use super::state::gone;
use super::{Http, Response, State};
use crate::head::owned_headers;
use crate::message::Sent;
use crate::operation::{Operation, Source, Span};
use crate::request::Request as _;

/// Reads a message of the application, and does what it asks for up to the first write. Returns what is to be written.
pub(super) fn begin<'py>(
    py: Python<'py>,
    http: &Http,
    message: &Object<'py>,
) -> PyResult<Option<Operation>> {
    let names = &http.runtime().names;
    let message = Sent { dict: message, names };
    let kind = message.kind()?;
    let kind = kind.as_str()?;
    let mut state = http.state(py)?;
    match (kind, &state.response) {
        ("http.response.start", Response::Start) => {
            state.check_open(py)?;
            let (head, has_trailers) = (message.head()?, message.flag(&names.trailers)?);
            state.response = Response::FirstBody { head, has_trailers };
            Ok(None)
        }
        ("http.response.body", Response::FirstBody { .. } | Response::Body { .. }) => {
            let (data, more) = message.body()?;
            let length = data.as_bytes().unwrap_or_default().len();
            if length == 0 && !more && state.is_cut() {
                return state.complete(py, http).map(|()| None);
            }
            let ends = state.begin_body(py, http, length, more)?;
            Ok(Some(Operation::Send { data: data.store(), at: 0, ends }))
        }
        ("http.response.pathsend", Response::FirstBody { .. }) => {
            let file = open_file(py, message.required(&names.path)?.as_str()?)?;
            let left = file.metadata().map_or(0, |facts| facts.len());
            let ends = state.begin_body(py, http, left as usize, false)?;
            let file = Span { file: Source::File(file), offset: 0, left };
            Ok(Some(Operation::SendFile { file, ends }))
        }
        ("http.response.zerocopysend", Response::FirstBody { .. } | Response::Body { .. }) => {
            let (file, more) = (zero_copy_span(py, &message)?, message.flag(&names.more_body)?);
            let ends = state.begin_body(py, http, file.left as usize, more)?;
            Ok(Some(Operation::SendFile { file, ends }))
        }
        ("http.response.trailers", Response::Trailers(_)) => {
            state.add_trailers(&message)?;
            let more = message.flag(&names.more_trailers)?;
            Ok(if more { None } else { state.take_trailers().map(Operation::SendTrailers) })
        }
        ("http.response.early_hint", Response::Start | Response::FirstBody { .. }) => {
            state.early_hint(py, &message).map(|()| None)
        }
        ("http.response.debug", Response::Start | Response::FirstBody { .. }) => {
            // For tests in the application's process: nothing is sent.
            Ok(None)
        }
        _ if state.is_gone => Err(gone(py)),
        _ => Err(unexpected(py, kind, &state)),
    }
}

fn open_file(py: Python<'_>, path: &str) -> PyResult<File> {
    File::open(path).map_err(|error| {
        PyErrSet::new(py, Exception::Os, &format!("cannot open {path:?} for pathsend: {error}"))
    })
}

/// Reads `file`, `offset` and `count` of a message: a part of a file that the application has opened.
fn zero_copy_span(py: Python<'_>, message: &Sent<'_, '_>) -> PyResult<Span> {
    let names = message.names;
    let file = message.required(&names.file)?;
    let number = |name: &GlobalRef| -> PyResult<Option<u64>> {
        message.optional(name)?.map(|value| value.as_number().map(|n| n.max(0) as u64)).transpose()
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

impl State {
    /// Adds the headers of a message to the trailers.
    fn add_trailers(&mut self, message: &Sent<'_, '_>) -> PyResult<()> {
        if let Response::Trailers(all) = &mut self.response
            && let Some(headers) = message.item(&message.names.headers)?
        {
            all.extend(owned_headers(&headers)?);
        }
        Ok(())
    }

    /// Takes the trailers, which are complete.
    fn take_trailers(&mut self) -> Option<Vec<(String, Vec<u8>)>> {
        match std::mem::replace(&mut self.response, Response::Nothing) {
            Response::Trailers(all) => Some(all),
            _ => None,
        }
    }

    /// Sends 103 with the links of a message (RFC 8297).
    fn early_hint(&mut self, py: Python<'_>, message: &Sent<'_, '_>) -> PyResult<()> {
        let links = message.required(&message.names.links)?.to_list()?;
        let mut values = Vec::new();
        for place in 0..links.list_len() {
            let link = links.list_item(place)?;
            let Some(bytes) = link.as_bytes() else {
                return Err(PyErrSet::new(py, Exception::Type, "a link must be bytes"));
            };
            values.push(bytes.to_vec());
        }
        let headers: Vec<Header<'_>> =
            values.iter().map(|value| Header::new("link", value)).collect();
        let sent = self.open(py)?.informational(103, &headers);
        sent.map_err(|failure| self.raise(py, failure))
    }
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
