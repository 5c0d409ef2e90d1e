//! What the application has put into the environ, for the access log.

use std::sync::OnceLock;

use worker_api::Host;

use python::{GlobalRef, Object, PyResult, Python};

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

    /// Passes the variables in an environ to the access log, for the request with the number `id` of the client at
    /// `peer`.
    pub(crate) fn pass_on<'py>(
        &self,
        py: Python<'py>,
        host: &Host,
        environ: &Object<'py>,
        id: u64,
        peer: &str,
    ) -> PyResult<()> {
        for Variable { name, key, upper } in self.get(py, host)? {
            let value = match environ.dict_item(&key.get(py))? {
                Some(value) => Some(value),
                None => environ.dict_item(&upper.get(py))?,
            };
            if let Some(value) = value {
                let is_peer = name == "REMOTE_ADDR" && is_text(&value, peer);
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
