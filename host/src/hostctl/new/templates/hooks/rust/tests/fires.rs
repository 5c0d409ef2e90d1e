//! The hooks, run by `host` with its welcome page. The variable HOST names another executable.

mod server;

#[test]
fn requests_are_logged() {
    let server = server::Server::start(&["--hooks", &server::library()]);
    server.get("/");
    let log = server.stop();
    assert!(log.contains("GET 200 in "), "{log}");
}
