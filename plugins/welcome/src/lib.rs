//! The page that is served if no application is named: what is running, and what to do next.
//!
//! The page is built once in each worker.

use std::sync::OnceLock;

use worker_api::{App, AppContext, AppFactory, Exchange, Header, Result, Runtime};

worker_api::export_app!(Welcome);

/// The application.
pub struct Welcome {
    class: String,
    page: OnceLock<String>,
}

impl AppFactory for Welcome {
    const NAME: &'static str = "welcome";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(context: AppContext) -> Result<Self> {
        Ok(Self { class: context.class, page: OnceLock::new() })
    }
}

impl App for Welcome {
    fn init_worker(&self, _: Runtime) -> Result<()> {
        self.page.get_or_init(|| page(&self.class));
        Ok(())
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        let head = exchange.head();
        let readable = matches!(head.method.as_str(), "GET" | "HEAD");
        match head.path_str() {
            _ if !readable => exchange.respond(
                405,
                &[Header::new("Allow", "GET, HEAD"), plain()],
                b"Only GET and HEAD are supported.\n",
            ),
            "/" => {
                let page = self.page.get_or_init(|| page(&self.class));
                let headers = [
                    Header::new("Content-Type", "text/html; charset=utf-8"),
                    Header::new("Content-Security-Policy", POLICY),
                    Header::new("Cache-Control", "no-store"),
                ];
                exchange.respond(200, &headers, page.as_bytes())
            }
            _ => exchange.respond(404, &[plain()], b"Not found: the only page is /.\n"),
        }
    }
}

fn page(class: &str) -> String {
    include_str!("page.html")
        .replace("{version}", &escaped(Welcome::VERSION))
        .replace("{class}", &escaped(class))
        .replace("{pid}", &std::process::id().to_string())
}

/// Escapes text for HTML: the name of a worker class is chosen by its author.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn plain() -> Header<'static> {
    Header::new("Content-Type", "text/plain; charset=utf-8")
}

/// The page has an inline style and loads nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_runs_and_fetches_nothing() {
        let page = page("<b>\"sync\"&");
        let pid = std::process::id().to_string();
        for words in [Welcome::VERSION, "&lt;b&gt;&quot;sync&quot;&amp;", &pid] {
            assert!(page.contains(words), "{words}");
        }
        for words in ["{", "http", "src=", "url(", "<script"] {
            let body = page.split_once("</style>").expect("a page with a style").1;
            assert!(!body.contains(words), "{words}");
        }
    }
}
