//! What a request leaves behind in the greenlet that served it, for the next request of its connection.

use python::{GlobalRef, Object, PyResult};

/// Where the driver keeps it, and how to find it.
pub(super) struct Leftovers {
    /// The driver's contexts by connection.
    contexts: GlobalRef,
    /// The driver's greenlets by connection.
    bound: GlobalRef,
    /// `weakref.getweakrefcount`.
    count: GlobalRef,
    /// The string `gr_context`.
    context: GlobalRef,
}

impl Leftovers {
    /// Takes the parts from the driver.
    pub(super) fn new(driver: &Object<'_>) -> PyResult<Self> {
        let py = driver.py();
        Ok(Self {
            contexts: driver.attr_named("contexts")?.store(),
            bound: driver.attr_named("bound")?.store(),
            count: py.import("weakref")?.attr_named("getweakrefcount")?.store(),
            context: py.name(b"gr_context")?.store(),
        })
    }

    /// Returns whether any greenlet can serve the next request, whichever it is, without preparation. The greenlet is
    /// the one that has just served; without locals it has this number of weak references.
    pub(super) fn are_none(&self, greenlet: &Object<'_>, references: i64) -> PyResult<bool> {
        let py = greenlet.py();
        let elsewhere = self.contexts.get(py).length()? > 0 || self.bound.get(py).length()? > 0;
        Ok(!elsewhere
            && self.count.get(py).call([greenlet])?.as_number()? == references
            && greenlet.attr(&self.context.get(py))?.is_none())
    }
}
