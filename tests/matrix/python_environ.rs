//! What a WSGI application finds in its environ beyond the requirements of PEP 3333.

use jimu_tests::{behaviour, cell::Cell, runner::Behaviour, server::Setup};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_mount_point_set_by_the_application_counts).of_python(),
        behaviour!(the_ends_of_a_proxied_connection_are_in_the_environ).of_python(),
        behaviour!(pywsgi_has_the_environ_of_gevents_server).of_python(),
    ]
}

/// Responds with the values of the keys in the query.
const ECHO: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return ['\\n'.join(repr(environ.get(key)) for key in environ['QUERY_STRING'].split('&')).encode()]
";

fn a_mount_point_set_by_the_application_counts(cell: &Cell) {
    let module = format!("import os\nos.environ['SCRIPT_NAME'] = '/mounted'\n{ECHO}");
    let server = Setup::new(cell).file("echo.py", module).app("echo").start();
    let answer = server.get("/mounted/here?SCRIPT_NAME&PATH_INFO");
    assert_eq!(answer.text(), "'/mounted'\n'/here'");
}

fn the_ends_of_a_proxied_connection_are_in_the_environ(cell: &Cell) {
    let setup = Setup::new(cell).file("echo.py", ECHO).app("echo");
    let server = setup.flags("--proxy-protocol auto --proxy-allow-from *").start();
    let target = "/?PROXY_PROTOCOL&PROXY_ADDR&PROXY_PORT&REMOTE_ADDR&REMOTE_PORT";
    for (header, seen) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 4000 443\r\n",
            "'TCP4'\n'198.51.100.2'\n'443'\n'192.0.2.1'\n'4000'",
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 4000 443\r\n",
            "'TCP6'\n'2001:db8::2'\n'443'\n'2001:db8::1'\n'4000'",
        ),
    ] {
        let mut client = server.connect();
        client.send(format!("{header}GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap();
        assert_eq!(client.answer("GET").unwrap().text(), seen);
    }
    let plain = server.get("/?PROXY_PROTOCOL&PROXY_ADDR&PROXY_PORT");
    assert_eq!(plain.text(), "None\nNone\nNone");
}

/// gunicorn sets no `GATEWAY_INTERFACE`; gevent's server does, and reports that it has no threads.
fn pywsgi_has_the_environ_of_gevents_server(cell: &Cell) {
    let server = Setup::new(cell).file("echo.py", ECHO).app("echo").start();
    let seen = server.get("/?GATEWAY_INTERFACE&wsgi.multithread").text();
    let expected = match cell.class.name.as_str() {
        "pywsgi" => "'CGI/1.1'\nFalse",
        "sync" => "None\nFalse",
        _ => "None\nTrue",
    };
    assert_eq!(seen, expected);
}
