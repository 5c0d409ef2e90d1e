//! The Python objects of a request.

use worker_api::Exchange;

use super::{Request, Socket};
use crate::response::Phase;
use python::{Definition, GlobalRef, NativeType, PyResult, Python};

/// The types and functions of which the objects of a request are made.
pub(crate) struct Types {
    pub(crate) request: NativeType<Request>,
    pub(crate) socket: NativeType<Socket>,
    pub(crate) start_response: Definition<Request>,
    pub(crate) write: Definition<Request>,
    pub(crate) early_hints: Definition<Request>,
}

/// The Python objects of a request, taken from a pool and returned to it.
pub(crate) struct RequestObjects {
    /// The [`Request`], which is `wsgi.input`.
    pub(crate) request: GlobalRef,
    /// `start_response`.
    pub(crate) start_response: GlobalRef,
    /// `wsgi.early_hints`.
    pub(crate) early_hints: GlobalRef,
    /// The [`Socket`].
    pub(crate) socket: GlobalRef,
    /// `write`. The request refers to it, too, to return it from `start_response`.
    write: GlobalRef,
}

impl RequestObjects {
    /// Creates the objects around the value of the request object.
    pub(super) fn new(py: Python<'_>, types: &'static Types, request: Request) -> PyResult<Self> {
        let request = types.request.make(py, request)?;
        let write = types.request.bind(&types.write, &request)?;
        types.request.value(&request)?.state(py)?.write = Some(write.clone().store());
        let socket = Socket { owner: request.clone().store(), types };
        Ok(Self {
            write: write.store(),
            start_response: types.request.bind(&types.start_response, &request)?.store(),
            early_hints: types.request.bind(&types.early_hints, &request)?.store(),
            socket: types.socket.make(py, socket)?.store(),
            request: request.store(),
        })
    }

    /// Attaches an exchange.
    pub(crate) fn begin(
        &self,
        py: Python<'_>,
        types: &Types,
        number: u64,
        exchange: Exchange,
    ) -> PyResult<()> {
        let request = self.request.get(py);
        let mut state = types.request.value(&request)?.state(py)?;
        state.response.begin(exchange.head().method.as_str() == "HEAD");
        state.input.begin(py, exchange.head().content_length.into_option());
        state.number = number;
        state.descriptor = exchange.descriptor();
        state.failure = None;
        (state.taken, state.detached, state.hijacked) = (false, false, false);
        state.exchange = Some(exchange);
        Ok(())
    }

    /// Detaches the exchange: the application must not use these objects any more.
    pub(crate) fn end(&self, py: Python<'_>, types: &Types) -> PyResult<Option<Exchange>> {
        let request = self.request.get(py);
        let mut state = types.request.value(&request)?.state(py)?;
        let socket = state.socket.take().map(|socket| socket.take(py));
        let environ = state.environ.take().map(|environ| environ.take(py));
        state.response.phase = Phase::Ended;
        let exchange = state.exchange.take();
        let hijacked = state.hijacked;
        // Dropping the socket, or the contents of the environ, can run Python code.
        drop(state);
        drop(environ);
        if let Some(socket) = socket {
            let ended = py.truth(hijacked).and_then(|gone| socket.call_method("_end", [&gone]));
            ended.map_or_else(|raised| raised.clear(py), drop);
        }
        Ok(exchange)
    }

    /// Returns whether nothing else refers to the objects.
    pub(crate) fn is_free(&self, py: Python<'_>) -> bool {
        let is = |object: &GlobalRef, references| object.get(py).reference_count() == references;
        is(&self.start_response, 1)
            && is(&self.early_hints, 1)
            && is(&self.socket, 1)
            && is(&self.write, REFERENCES_TO_WRITE)
            && is(&self.request, REFERENCES_TO_REQUEST)
    }

    /// Drops the references to the objects, which live as long as the application refers to them.
    pub(crate) fn release(self, py: Python<'_>, types: &Types) {
        let request = self.request.take(py);
        let write = types
            .request
            .value(&request)
            .and_then(|request| request.state(py))
            .map(|mut state| state.write.take());
        match write {
            // Breaks the cycle: `write` is bound to the object that refers to it.
            Ok(write) => drop(write.map(|w| w.take(py))),
            Err(raised) => raised.clear(py),
        }
        drop((self.start_response.take(py), self.early_hints.take(py)));
        drop((self.socket.take(py), self.write.take(py)));
    }
}

/// References: from [`RequestObjects`], and from `start_response`, `write`, `early_hints` and the socket.
const REFERENCES_TO_REQUEST: u32 = 5;
/// References: from [`RequestObjects`], and from the request.
const REFERENCES_TO_WRITE: u32 = 2;
