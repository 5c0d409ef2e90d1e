//! The application, served by `host`. The variable HOST names another executable.

mod server;

#[test]
fn it_greets() {
    let server = server::Server::start(&[&server::library()]);
    let response = server.get("/hello");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(response.ends_with("\r\n\r\nYou asked for /hello\n"), "{response}");
    server.stop();
}
