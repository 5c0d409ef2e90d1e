//! One real connection with its client, driven as by a worker class, with doubles of the host and of an application.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jimu_kit::{
    Acceptor, Advance, Buffering, Connection, ConnectionDriver, Deadline, ServerContext,
};
use nix::sys::socket::{setsockopt, sockopt};
use worker_api::raw::RawHost as _;
use worker_api::testing::{AppFn, TestHost};
use worker_api::{AppHandle, Exchange, Interest, Result};

/// One connection, its client, and the application that serves it.
pub struct Server {
    pub client: TcpStream,
    pub connection: Option<Box<Connection>>,
    pub host: TestHost,
    /// Bytes that the client sends when the application first waits.
    pub on_wait: Option<&'static [u8]>,
    /// How often an exchange has let other work run.
    pub yields: Arc<AtomicUsize>,
    app: AppHandle,
}

/// Size of the send buffers in tests in which responses do not fit into them.
const SMALL_BUFFER: usize = 4096;

impl Server {
    pub fn new(app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::build(TestHost::default(), None, false, app)
    }

    /// Uses these settings, and a small send buffer.
    pub fn with_settings(
        host: TestHost,
        app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::build(host, Some(SMALL_BUFFER), false, app)
    }

    /// Uses settings that are numbers, and a small send buffer, under a class whose threads block.
    pub fn buffering(
        numbers: &[(&str, i32)],
        app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let host = numbers
            .iter()
            .fold(TestHost::default(), |host, (name, number)| host.set(name, *number));
        Self::build(host, Some(SMALL_BUFFER), true, app)
    }

    fn build(
        host: TestHost,
        send_buffer: Option<usize>,
        buffers: bool,
        app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let host = host.set("keepalive", 5).set("sendfile", true);
        let address = host.listen();
        let listener = host.listeners().remove(0);
        // SAFETY: the host keeps the listener open, and `host` outlives the acceptor.
        let acceptor = unsafe { Acceptor::new(&listener) };
        if let Some(size) = send_buffer {
            setsockopt(&host.listener(), sockopt::SndBuf, &size).unwrap();
        }
        let client = TcpStream::connect(address).unwrap();
        let services = host.services();
        let context = if buffers {
            ServerContext::with_buffers(services, true, Buffering::Slow)
        } else {
            ServerContext::new(services, true)
        }
        .unwrap();
        let connection = Some(Connection::new(&context, acceptor.accept().unwrap()));
        let app = AppHandle::from_app(AppFn(app));
        Self { client, connection, host, on_wait: None, yields: Arc::default(), app }
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
                        yields: Arc::clone(&self.yields),
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
    yields: Arc<AtomicUsize>,
}

impl ConnectionDriver for TestDriver {
    fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()> {
        if let Some(bytes) = self.on_wait.lock().unwrap().take() {
            (&self.client).write_all(bytes).unwrap();
        }
        let ready = jimu_kit::poll::wait(fd, interest, deadline, || ()).unwrap();
        assert!(ready, "no test waits until a deadline");
        Ok(())
    }

    fn yield_now(&self) -> Result<()> {
        self.yields.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self, connection: Box<Connection>) {
        *self.released.lock().unwrap() = Some(connection);
    }
}
