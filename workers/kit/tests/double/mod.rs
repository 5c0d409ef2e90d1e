//! Test doubles of the host, of a worker class and of an application, around one real connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use nix::sys::socket::{setsockopt, sockopt};

use kit::{Acceptor, Advance, Connection, ConnectionDriver, ServerContext};
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};
use worker_api::raw::{Counter, Listener, RawHost, RawHost_TO, TaskBox, Value};
use worker_api::{
    AccessRecord, App, AppHandle, Exchange, Failure, Host, Interest, RequestHead, Result,
};

/// One connection, its client, and the application that serves it.
pub struct Server {
    pub client: TcpStream,
    pub connection: Option<Box<Connection>>,
    pub host: TestHost,
    /// Bytes that the client sends when the application first waits.
    pub on_wait: Option<&'static [u8]>,
    app: AppHandle,
}

impl Server {
    pub fn new(app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::with_files(Vec::new(), app)
    }

    /// Uses settings that are files, and a small send buffer.
    pub fn with_files(
        files: Vec<(&'static str, String)>,
        app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::build(TestHost { files: files.into(), ..TestHost::default() }, false, app)
    }

    /// Uses settings that are numbers, under a class whose threads block.
    pub fn buffering(
        numbers: &'static [(&'static str, i64)],
        app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::build(TestHost { numbers, ..TestHost::default() }, true, app)
    }

    fn build(
        log: TestHost,
        buffers: bool,
        app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        if buffers || !log.files.is_empty() {
            setsockopt(&socket, sockopt::SndBuf, &4096).unwrap();
        }
        let client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let name = socket.local_addr().unwrap().to_string();
        let listener = Listener { fd: socket.as_raw_fd(), name: name.into(), unix: false };
        // SAFETY: `socket` outlives the acceptor.
        let acceptor = unsafe { Acceptor::new(&listener) };
        let host = Host::from_raw(RawHost_TO::from_value(log.clone(), TD_Opaque));
        let context = if buffers {
            ServerContext::with_buffers(host, true)
        } else {
            ServerContext::new(host, true)
        }
        .unwrap();
        let connection = Some(Connection::new(&context, acceptor.accept().unwrap()));
        Self {
            client,
            connection,
            host: log,
            on_wait: None,
            app: AppHandle::from_app(Closure(app)),
        }
    }

    /// Serves the client's requests until the connection has to wait.
    pub fn serve(&mut self) -> Advance {
        let mut connection = self.connection.take().expect("one connection, served by one test");
        let mut next = connection.advance();
        let mut asked = false;
        loop {
            match next {
                Advance::Request => {
                    let driver = Arc::new(TestDriver {
                        released: Mutex::new(None),
                        client: self.client.try_clone().unwrap(),
                        on_wait: Mutex::new(self.on_wait.take()),
                    });
                    self.app.call(connection.into_exchange(driver.clone()));
                    let released = driver.released.lock().unwrap().take();
                    connection = released.expect("the end of the exchange returns the connection");
                    asked = false;
                }
                // Nothing has been read since the last response.
                Advance::Wait(Interest::READ) if !asked => asked = true,
                _ => {
                    self.connection = (next != Advance::Closed).then_some(connection);
                    return next;
                }
            }
            next = connection.advance();
        }
    }

    /// Returns what the client has received so far.
    pub fn received(&mut self) -> String {
        self.client.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        let _ = self.client.read_to_end(&mut bytes);
        self.client.set_nonblocking(false).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

/// An application that responds with the request's body.
pub fn echo(exchange: &mut Exchange) -> Result<()> {
    let body = exchange.read_to_end(1000)?;
    exchange.respond(200, &[], &body)
}

/// An application that takes the connection over, and sends back what was already read from it and a word.
pub fn take_over(exchange: &mut Exchange) -> Result<()> {
    let hijacked = exchange.hijack()?;
    let mut stream = UnixStream::from(hijacked.fd);
    stream.write_all(&hijacked.already_read)?;
    stream.write_all(b" raw")?;
    Ok(())
}

/// A client that expects permission to send its body gets it when a server with [`echo`] waits for the body.
pub fn assert_continues(mut server: Server) {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    server.client.write_all(head).unwrap();
    server.on_wait = Some(b"ok");
    server.serve();
    let response = server.received();
    assert!(response.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nok"), "{response}");
}

struct TestDriver {
    released: Mutex<Option<Box<Connection>>>,
    client: TcpStream,
    on_wait: Mutex<Option<&'static [u8]>>,
}

impl ConnectionDriver for TestDriver {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        if let Some(bytes) = self.on_wait.lock().unwrap().take() {
            (&self.client).write_all(bytes).unwrap();
        }
        let ready = kit::poll::wait(fd, interest, deadline_ns, || ()).unwrap();
        assert!(ready, "no test waits until a deadline");
        Ok(())
    }

    fn release(&self, connection: Box<Connection>) {
        *self.released.lock().unwrap() = Some(connection);
    }
}

struct Closure<F>(F);

impl<F: Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static> App for Closure<F> {
    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        (self.0)(exchange)
    }
}

/// A host with a few settings that records its access log.
#[derive(Clone, Default)]
pub struct TestHost {
    lines: Arc<Mutex<Vec<String>>>,
    files: Arc<[(&'static str, String)]>,
    numbers: &'static [(&'static str, i64)],
}

impl TestHost {
    /// Returns one line per request: method, target, status, bytes of body.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl RawHost for TestHost {
    fn setting(&self, name: RStr<'_>) -> ROption<Value> {
        match name.as_str() {
            "keepalive" => ROption::RSome(Value::Int(5)),
            "sendfile" => ROption::RSome(Value::Bool(true)),
            name => {
                let number = self.numbers.iter().find(|(setting, _)| *setting == name);
                number.map(|(_, number)| Value::Int(*number)).into()
            }
        }
    }

    fn section(&self) -> RString {
        RString::new()
    }

    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure> {
        let file = self.files.iter().find(|(setting, _)| *setting == name.as_str());
        RResult::ROk(file.map(|(_, content)| content.as_bytes().into()).into())
    }

    fn listeners(&self) -> RVec<Listener> {
        RVec::new()
    }

    fn close_listeners(&self) {}

    fn spawn_index(&self) -> u64 {
        1
    }

    fn arbiter_pid(&self) -> i32 {
        0
    }

    fn notify(&self) {}

    fn alive(&self) -> bool {
        true
    }

    fn stop(&self) {}

    fn retire(&self) {}

    fn wake_descriptor(&self) -> i32 {
        -1
    }

    fn deliver_signals(&self) {}

    fn count(&self, _: Counter, _: i64) {}

    fn request_started(&self, _: &RequestHead<'_>) -> u32 {
        1
    }

    fn request_ended(&self, _: u32, record: &AccessRecord<'_>) {
        if let ROption::RSome(head) = record.head {
            let target = String::from_utf8_lossy(head.target.as_slice()).into_owned();
            let line = format!("{} {target} {} {}", head.method, record.status, record.body_bytes);
            self.lines.lock().unwrap().push(line);
        }
    }

    fn wants_response_headers(&self) -> bool {
        false
    }

    fn log_level(&self) -> u8 {
        0
    }

    fn log(&self, _: u8, _: RStr<'_>, _: RStr<'_>) {}

    fn retire_for(&self, _: RStr<'_>) {}

    fn write_log(&self, _: RStr<'_>, _: RSlice<'_, u8>) {}

    fn logged_variables(&self) -> RVec<RString> {
        RVec::new()
    }

    fn set_logged_variable(&self, _: u64, _: RStr<'_>, _: RSlice<'_, u8>) {}

    fn on_signal(&self, _: i32) {}

    fn reclaim_signals(&self) {}

    fn signal_descriptor(&self) -> i32 {
        -1
    }

    fn remaining_backlog(&self, _: i32) -> u64 {
        u64::MAX
    }

    fn at_abort(&self, _: TaskBox) {}

    fn log_stack(&self, _: u8, _: RStr<'_>, _: RStr<'_>, _: RSlice<'_, usize>) {}
}
