//! An application that greets.

use worker_api::{App, AppContext, AppFactory, Exchange, Header, Result};

worker_api::export_app!({{type}}App);

/// The application.
pub struct {{type}}App;

impl AppFactory for {{type}}App {
    const NAME: &'static str = "{{name}}";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(_: AppContext) -> Result<Self> {
        Ok(Self)
    }
}

impl App for {{type}}App {
    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        let words = format!("You asked for {}\n", exchange.head().path_str());
        exchange.respond(200, &[Header::new("Content-Type", "text/plain")], words.as_bytes())
    }
}
