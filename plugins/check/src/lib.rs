//! The application of `host --check-worker`: each path is a probe for something that a worker class promises. No example
//! to copy (that is `hello`): some of what it does, an application must not do.
//!
//! | path | what it probes |
//! | --- | --- |
//! | `/` | that the application is called at all |
//! | `/facts?…` | method, target and fields as they reach the application |
//! | `/echo` | bodies in both directions, waiting for a client that is slow |
//! | `/large?octets=` | a long answer to a client that is slow |
//! | `/sleep?ms=` | a request that waits in the worker class's way |
//! | `/hang?ms=` | a request that blocks its thread, as one that computes does |
//! | `/panic` | a failure of the application |

use std::sync::OnceLock;
use std::time::Duration;

use worker_api::{App, AppContext, AppFactory, Exchange, Failure, Header, Result, Runtime};

worker_api::export_app!(Check);

/// The application.
#[derive(Default)]
pub struct Check {
    runtime: OnceLock<Runtime>,
}

impl AppFactory for Check {
    const NAME: &'static str = "check";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(_: AppContext) -> Result<Self> {
        Ok(Self::default())
    }
}

impl App for Check {
    fn init_worker(&self, runtime: Runtime) -> Result<()> {
        self.runtime.get_or_init(|| runtime);
        Ok(())
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        match exchange.head().path_str() {
            "/" => text(exchange, "check\n"),
            "/facts" => facts(exchange),
            "/echo" => echo(exchange),
            "/large" => large(exchange),
            "/sleep" => self.sleep(exchange),
            "/hang" => {
                std::thread::sleep(milliseconds(exchange));
                text(exchange, "hung\n")
            }
            "/panic" => panic!("the check asked for a panic"),
            _ => exchange.respond(404, &[], b""),
        }
    }
}

impl Check {
    fn sleep(&self, exchange: &mut Exchange) -> Result<()> {
        let Some(runtime) = self.runtime.get() else {
            return Err(Failure::unsupported("the worker class never called init_worker"));
        };
        runtime.sleep(milliseconds(exchange))?;
        text(exchange, "slept\n")
    }
}

/// What came of the request's head, a line for each part.
fn facts(exchange: &mut Exchange) -> Result<()> {
    let head = exchange.head();
    let query = String::from_utf8_lossy(&head.query).into_owned();
    let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("x-check"));
    let field = field.map(|field| String::from_utf8_lossy(&field.value).into_owned());
    let lines = format!(
        "{} {} {query} {} {}\n",
        head.method,
        head.path_str(),
        head.scheme,
        field.unwrap_or_default()
    );
    text(exchange, &lines)
}

/// The body comes back while it still comes in.
fn echo(exchange: &mut Exchange) -> Result<()> {
    exchange.start(200, "", &[])?;
    let mut part = [0; 16 * 1024];
    loop {
        match exchange.read(&mut part)? {
            0 => return exchange.finish(),
            octets => exchange.write(&part[..octets])?,
        }
    }
}

/// An answer of known length, of which each octet is known too.
fn large(exchange: &mut Exchange) -> Result<()> {
    let octets = number(exchange, "octets");
    let digits = octets.to_string();
    exchange.start(200, "", &[Header::new("Content-Length", &digits)])?;
    let part = [b'x'; 16 * 1024];
    let mut left = octets as usize;
    while left > 0 {
        let next = left.min(part.len());
        exchange.write(&part[..next])?;
        left -= next;
    }
    exchange.finish()
}

fn text(exchange: &mut Exchange, body: &str) -> Result<()> {
    exchange.respond(200, &[Header::new("Content-Type", "text/plain")], body.as_bytes())
}

fn milliseconds(exchange: &Exchange) -> Duration {
    Duration::from_millis(number(exchange, "ms"))
}

/// The query's parameter of that name; 0 where it is none.
fn number(exchange: &Exchange, name: &str) -> u64 {
    exchange.head().query_value(name).and_then(|value| value.parse().ok()).unwrap_or_default()
}
