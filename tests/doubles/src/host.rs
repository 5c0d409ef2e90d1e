//! The double of the host with what only our own tests need: the host's TLS, and applications from their libraries.

use worker_api::testing::TestHost;
use worker_api::{AppHandle, AppModuleRef, RawAppContext, Result};

/// Returns a host with the TLS of the server.
pub fn host_with_tls() -> TestHost {
    TestHost::default().tls(tls::configure)
}

/// Creates an application from its library, as the host does for a class and a guest loop.
pub fn app_of(
    host: &TestHost,
    library: AppModuleRef,
    spec: &str,
    class: &str,
    guest_loop: &str,
) -> Result<AppHandle> {
    let context =
        RawAppContext { spec: spec.into(), class: class.into(), guest_loop: guest_loop.into() };
    library.new()(host.raw(), context).into_result().map(AppHandle::from_raw)
}
