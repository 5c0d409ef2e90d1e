//! What the application has put into the environ, for the access log.

use std::sync::OnceLock;

use worker_api::Host;

use crate::python::{GlobalRef, Object, PyResult, Python};
use crate::request::Request;

/// Variables of the environ that the access log uses.
#[derive(Default)]
pub(crate) struct LoggedVariables(OnceLock<Box<[Variable]>>);

struct Variable {
    /// As written in the log's format.
    name: String,
    key: GlobalRef,
    /// The same in upper case, because gunicorn ignores the case of names.
    upper: GlobalRef,
}

impl LoggedVariables {
    /// Returns the variables. They are looked up at the first request, because the mold has no access log.
    fn get(&self, py: Python<'_>, host: &Host) -> PyResult<&[Variable]> {
        if let Some(variables) = self.0.get() {
            return Ok(variables);
        }
        let variables = host.logged_variables().into_iter().map(|name| {
            let key = py.text(&name)?.store();
            let upper = py.text(&name.to_ascii_uppercase())?.store();
            Ok(Variable { name, key, upper })
        });
        let variables = variables.collect::<PyResult<Box<[Variable]>>>()?;
        Ok(self.0.get_or_init(|| variables))
    }

    /// Returns whether an environ must be kept for [`LoggedVariables::pass_on`].
    pub(crate) fn is_wanted(&self, py: Python<'_>, host: &Host) -> PyResult<bool> {
        Ok(!self.get(py, host)?.is_empty())
    }

    /// Passes the variables to the access log. Must be called before the exchange ends, because that writes
    /// the line. Only the first call per request has an effect.
    pub(crate) fn pass_on(&self, py: Python<'_>, host: &Host, request: &Request) -> PyResult<()> {
        // The request is not borrowed while Python code may run.
        let (environ, id, peer) = {
            let mut state = request.state(py)?;
            let Some(environ) = state.environ.take() else { return Ok(()) };
            let environ = environ.take(py);
            let Some(exchange) = &state.exchange else { return Ok(()) };
            let head = exchange.head();
            (environ, head.id, head.peer.host.to_string())
        };
        for Variable { name, key, upper } in self.get(py, host)? {
            let value = match environ.dict_item(&key.get(py))? {
                Some(value) => Some(value),
                None => environ.dict_item(&upper.get(py))?,
            };
            if let Some(value) = value {
                let is_peer = name == "REMOTE_ADDR" && is_text(&value, &peer);
                if !is_peer {
                    host.set_logged_variable(id, name, value.to_text().as_bytes());
                }
            }
        }
        Ok(())
    }
}

fn is_text(value: &Object<'_>, text: &str) -> bool {
    value.is_exact_str() && value.as_str().is_ok_and(|value| value == text)
}
