//! gunicorn's server hooks in Python: the objects they are called with, and how their errors are handled.

use std::{fs, time::Duration};

use jimu_tests::{behaviour, cell::Cell, runner::Behaviour, server::Setup, wait};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(hooks_get_objects_with_gunicorns_attributes).of_python(),
        behaviour!(post_request_takes_two_three_or_four_arguments).of_python(),
        behaviour!(an_error_of_post_request_is_the_hooks_own).of_python(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

const APPLICATION: &str = "
class Parts(list):
    def close(self):
        open('closed', 'a').write('closed\\n')

def application(environ, start_response):
    start_response('201 Made', [('X-Own', 'yes')])
    if environ['PATH_INFO'] == '/file':
        return environ['wsgi.file_wrapper'](open('served.py', 'rb'))
    return Parts([b'made'])
";

fn hooks_get_objects_with_gunicorns_attributes(cell: &Cell) {
    let hooks = "
def when_ready(server):
    server.log.info('ready with %d workers at %s, timeout %r', server.num_workers, server.address[0],
                    server.cfg.timeout)

def pre_fork(server, worker):
    worker.mark = 'made in the mold %d' % worker.age

def post_fork(server, worker):
    server.log.warning('forked %s, %s, booted %s', worker.mark, worker.cfg.workers, worker.booted)

def pre_request(worker, req):
    worker.log.info('number %d: %s %s?%s %r, booted %s, %s', worker.nr, req.method, req.path, req.query, req.version,
                    worker.booted, dict(req.headers)['X-SENT'])

def post_request(worker, req, environ, resp):
    worker.log.info('answered %s %d %s on %s of %s', resp.status, resp.status_code, dict(resp.headers), req.uri,
                    environ['REMOTE_ADDR'])
";
    let setup = Setup::new(cell).file("served.py", APPLICATION).file("hooks.py", hooks);
    let server = setup.app("served").flags("--hooks ./hooks.py --timeout 11").start();
    let mut client = server.connect();
    client.send("GET /a%20b?c=d HTTP/1.1\r\nHost: test\r\nX-Sent: by the client\r\n\r\n").unwrap();
    assert_eq!(client.answer("GET").unwrap().text(), "made");
    for words in [
        &["[info]", "ready with 1 workers at ", "timeout 11"][..],
        &["[warning]", "forked made in the mold 1, 1, booted False"],
        &["[info]", "number 1: GET /a b?c=d (1, 1), booted True, by the client"],
        &["answered 201 Made 201 {'X-Own': 'yes'} on /a%20b?c=d of "],
    ] {
        server.log.line(words, SOON);
    }
    server.stop();
}

fn post_request_takes_two_three_or_four_arguments(cell: &Cell) {
    for (parameters, last) in [
        ("worker, req", "req.path"),
        ("worker, req, environ", "environ['PATH_INFO']"),
        ("worker, req, environ, resp", "resp.status"),
    ] {
        let hooks =
            format!("def post_request({parameters}):\n    worker.log.info('last: %s', {last})\n");
        let setup = Setup::new(cell).file("served.py", APPLICATION).file("hooks.py", hooks);
        let server = setup.app("served").flags("--hooks ./hooks.py").start();
        assert_eq!(server.get("/x").status, 201, "{parameters}");
        let expected = if last == "resp.status" { "last: 201 Made" } else { "last: /x" };
        server.log.line(&[expected], SOON);
    }
}

fn an_error_of_post_request_is_the_hooks_own(cell: &Cell) {
    let hooks = "def post_request(worker, req):\n    raise RuntimeError('in the hook')\n";
    let setup = Setup::new(cell).file("served.py", APPLICATION).file("hooks.py", hooks);
    let server = setup.app("served").flags("--hooks ./hooks.py").start();
    assert_eq!(server.get("/").text(), "made");
    server.log.line(&["the hook post_request failed"], SOON);
    server.log.line(&["RuntimeError: in the hook"], SOON);
    let closed = server.dir().join("closed");
    wait::until("the body is closed", SOON, || match fs::read_to_string(&closed) {
        Ok(text) if text == "closed\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(server.get("/file").text(), APPLICATION);
    let ended = server.stop();
    assert!(!ended.log.contains("close()"), "{}", ended.log);
}
