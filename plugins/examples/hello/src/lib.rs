//! An application in Rust: the example to copy. Of the server it depends only on `worker-api`. It is built as a
//! `cdylib`, and runs unchanged under every worker class.
//!
//! | path | response |
//! | --- | --- |
//! | `/` | a greeting |
//! | `/echo` | the request's body, as it arrives |
//! | `/sleep?ms=` | a text, after a sleep of the worker class's runtime |
//! | `/stream?n=&size=` | `n` parts of `size` bytes, without a `Content-Length` |
//! | `/whole?size=` | `size` bytes in one part |
//! | `/file?path=` | a file below the root: `[application] root = "…"` in host.toml, else the working directory |
//! | `/headers` | the request's headers |
//! | `/tls` | the scheme, the TLS version, the server name, the client's certificate in hexadecimal |
//! | `/pid` | the worker's process ID |
//! | `/panic`, `/abort` | none: examples of what not to do, which the server survives |

use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd as _;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use worker_api::{App, AppContext, AppFactory, Exchange, Failure, Header, Result, Runtime};

worker_api::export_app!(Hello);

/// The application: created once in the mold, and used by each worker, possibly on several threads at a time.
pub struct Hello {
    root: PathBuf,
    runtime: OnceLock<Runtime>,
}

impl AppFactory for Hello {
    const NAME: &'static str = "hello";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(context: AppContext) -> Result<Self> {
        let root = root_of(&context.host.section())?;
        Ok(Self { root, runtime: OnceLock::new() })
    }
}

impl App for Hello {
    fn init_worker(&self, runtime: Runtime) -> Result<()> {
        self.runtime.get_or_init(|| runtime);
        Ok(())
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        match exchange.head().path_str() {
            "/" => text(exchange, 200, "Hello, world!\n"),
            "/echo" => echo(exchange),
            "/sleep" => self.sleep(exchange),
            "/stream" => stream(exchange),
            "/whole" => whole(exchange),
            "/file" => self.file(exchange),
            "/headers" => headers(exchange),
            "/tls" => tls(exchange),
            "/pid" => text(exchange, 200, &format!("{}\n", std::process::id())),
            "/panic" => panic!("a client asked for a panic"),
            "/abort" => std::process::abort(),
            _ => text(exchange, 404, "There is nothing here.\n"),
        }
    }
}

impl Hello {
    fn sleep(&self, exchange: &mut Exchange) -> Result<()> {
        let pause = Duration::from_millis(number(exchange, "ms", 1000).min(SLEEP_MS_MAX));
        // Not std::thread::sleep, which would stop all requests of a cooperative worker.
        match self.runtime.get() {
            Some(runtime) => runtime.sleep(pause)?,
            None => return Err(Failure::unsupported("this worker has no runtime to sleep with")),
        }
        text(exchange, 200, &format!("Slept for {} ms.\n", pause.as_millis()))
    }

    fn file(&self, exchange: &mut Exchange) -> Result<()> {
        let Some(path) = exchange.head().query_value("path").and_then(percent_decoded) else {
            return text(exchange, 400, "Which file? /file?path=…\n");
        };
        let Some((file, length)) = open_below(&self.root, &path) else {
            return text(exchange, 404, "There is no such file.\n");
        };
        let digits = length.to_string();
        exchange.start(200, "", &[binary(), Header::new("Content-Length", &digits)])?;
        exchange.send_file(file.as_raw_fd(), 0, length)?;
        exchange.finish()
    }
}

/// Sends the body back while it still arrives: an upload of any size takes one buffer.
fn echo(exchange: &mut Exchange) -> Result<()> {
    let length = exchange.head().content_length.into_option();
    match length.map(|bytes| bytes.to_string()) {
        Some(digits) => {
            exchange.start(200, "", &[binary(), Header::new("Content-Length", &digits)])?;
        }
        None => exchange.start(200, "", &[binary()])?,
    }
    let mut part = [0; 16 * 1024];
    loop {
        match exchange.read(&mut part)? {
            0 => return exchange.finish(),
            bytes => exchange.write(&part[..bytes])?,
        }
    }
}

fn stream(exchange: &mut Exchange) -> Result<()> {
    let parts = number(exchange, "n", 10);
    let part = vec![b'.'; number(exchange, "size", 1024).min(PART_MAX) as usize];
    exchange.start(200, "", &[binary()])?;
    for _ in 0..parts {
        exchange.write(&part)?;
    }
    exchange.finish()
}

fn whole(exchange: &mut Exchange) -> Result<()> {
    let body = vec![b'.'; number(exchange, "size", 1024).min(WHOLE_MAX) as usize];
    exchange.respond(200, &[binary()], &body)
}

fn headers(exchange: &mut Exchange) -> Result<()> {
    let fields = exchange.head().headers.as_slice();
    let lines: Vec<String> = fields.iter().map(|field| format!("{field:?}\n")).collect();
    text(exchange, 200, &lines.concat())
}

fn tls(exchange: &mut Exchange) -> Result<()> {
    let head = exchange.head();
    let mut lines = format!("{}\n", head.scheme);
    if let Some(tls) = head.tls.into_option() {
        let _ = writeln!(lines, "{}\n{}", tls.protocol, tls.server_name);
        for byte in tls.client_certificate.as_slice() {
            let _ = write!(lines, "{byte:02x}");
        }
    }
    text(exchange, 200, &lines)
}

fn text(exchange: &mut Exchange, status: u16, body: &str) -> Result<()> {
    exchange.respond(
        status,
        &[Header::new("Content-Type", "text/plain; charset=utf-8")],
        body.as_bytes(),
    )
}

/// Returns the query parameter `name` as a number.
fn number(exchange: &Exchange, name: &str, default: u64) -> u64 {
    exchange.head().query_value(name).and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Returns the directory that `/file` serves, from the section `[application]`. If this fails, the server does not start.
fn root_of(section: &str) -> Result<PathBuf> {
    let table: toml::Table = section
        .parse()
        .map_err(|error| Failure::config("cannot read [application]").caused_by(&error))?;
    let root = match table.get("root") {
        None => Path::new("."),
        Some(value) => Path::new(value.as_str().ok_or_else(|| {
            Failure::config(format!("[application] root: expected a text instead of {value}"))
        })?),
    };
    root.canonicalize().map_err(|error| {
        Failure::config(format!("[application] root: {}", root.display())).caused_by(&error)
    })
}

/// Opens a file below `root`; returns it with its length. Neither `..` nor a link leads out of `root`.
fn open_below(root: &Path, path: &str) -> Option<(File, u64)> {
    let path = Path::new(path);
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return None;
    }
    let path = root.join(path).canonicalize().ok().filter(|path| path.starts_with(root))?;
    // Only regular files: opening a FIFO or a device could block.
    let facts = path.metadata().ok().filter(Metadata::is_file)?;
    Some((File::open(&path).ok()?, facts.len()))
}

/// Decodes percent-encoding; returns `None` if it is malformed or not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (rest.next()?, rest.next()?);
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push((digit(high)? << 4 | digit(low)?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn binary() -> Header<'static> {
    Header::new("Content-Type", "application/octet-stream")
}

/// The longest sleep, so that a client cannot occupy a worker for longer.
const SLEEP_MS_MAX: u64 = 600_000;
/// The longest response of `/whole`, in bytes.
const WHOLE_MAX: u64 = 64 << 20;
/// The longest part of a stream, in bytes.
const PART_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_below_the_root_are_opened() {
        let directory = std::env::temp_dir().join(format!("hello-app-{}", std::process::id()));
        let root = directory.join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/in.txt"), "inside").unwrap();
        std::fs::write(directory.join("out.txt"), "outside").unwrap();
        std::os::unix::fs::symlink(directory.join("out.txt"), root.join("link")).unwrap();
        let root = root.canonicalize().unwrap();
        let out = directory.join("out.txt");

        let (_, length) = open_below(&root, "sub/./in.txt").expect("a file below the root");
        assert_eq!(length, 6);
        for path in ["../out.txt", "sub/../../out.txt", "link", "sub", "", out.to_str().unwrap()] {
            assert!(open_below(&root, path).is_none(), "{path:?}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        assert_eq!(percent_decoded("a%2Fb%20c").as_deref(), Some("a/b c"));
        for malformed in ["%", "%4", "%zz", "%ff", "%00"] {
            assert_eq!(percent_decoded(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn the_root_is_taken_from_the_section() {
        assert_eq!(root_of("").unwrap(), std::env::current_dir().unwrap());
        assert_eq!(root_of("root = \"/\"").unwrap(), Path::new("/"));
        for section in ["root = 1", "root = \"/no/such/directory\"", "root"] {
            let failure = root_of(section).unwrap_err();
            assert!(failure.to_string().contains("[application]"), "{failure}");
        }
    }
}
