//! What Python applications write to the logs, and what the access log shows of them.

use std::time::Duration;

use jimu_tests::{behaviour, cell::Cell, runner::Behaviour, server::Setup, wait};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(wsgi_errors_is_written_unchanged).of_python(),
        behaviour!(gunicorns_loggers_have_handlers_and_a_level).of_python(),
        behaviour!(captured_output_is_written_unchanged).of_python(),
        behaviour!(access_lines_show_what_the_application_set).of_python(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn wsgi_errors_is_written_unchanged(cell: &Cell) {
    let application = "
import flask
application = flask.Flask(__name__)
application.logger.setLevel('INFO')

@application.get('/')
def note():
    application.logger.info('a note')
    return 'noted'

@application.get('/fails')
def fail():
    try:
        raise KeyError('on purpose')
    except KeyError:
        application.logger.exception('it failed')
    print('part one', end=', ', file=flask.request.environ['wsgi.errors'])
    print('part two', file=flask.request.environ['wsgi.errors'])
    return 'failed'
";
    let setup = Setup::new(cell).with_frameworks();
    let server = setup.file("served.py", application).app("served").start();
    assert_eq!(server.get("/").text(), "noted");
    let line = server.log.line(&["a note"], SOON);
    assert!(line.ends_with("] INFO in served: a note") && line.matches('[').count() == 1, "{line}");
    let start = server.log.mark();
    assert_eq!(server.get("/fails").text(), "failed");
    assert_eq!(server.log.line_after(start, &["part two"], SOON), "part one, part two");
    let log = server.log.text()[start..].to_owned();
    assert!(log.contains("] ERROR in served: it failed\nTraceback (most recent"), "{log}");
    assert!(log.contains("\nKeyError: 'on purpose'\npart one"), "{log}");
    assert!(!log.contains("[ERROR]"), "{log}");
}

/// The recipe of most guides to Flask.
fn gunicorns_loggers_have_handlers_and_a_level(cell: &Cell) {
    let application = "
import logging
mine = logging.getLogger('mine')
mine.handlers = logging.getLogger('gunicorn.error').handlers
mine.setLevel(logging.getLogger('gunicorn.error').level)
mine.propagate = False
mine.warning('imported with level %d and %d handler', mine.level, len(mine.handlers))

def application(environ, start_response):
    mine.info('by the application')
    logging.getLogger('gunicorn.access').info('by the other logger')
    start_response('200 OK', [])
    return [b'logged']
";
    for (level, number) in [("debug", 10), ("info", 20)] {
        let setup = Setup::new(cell).file("served.py", application).app("served");
        let server = setup.flags(&format!("--log-level {level}")).start();
        let words = format!("imported with level {number} and 1 handler");
        server.log.line(&["[warning]", &words], SOON);
        assert_eq!(server.get("/").text(), "logged");
        server.log.line(&["[info]", "by the application"], SOON);
        server.log.line(&["[info]", "by the other logger"], SOON);
        assert_eq!(server.log.count("by the application"), 1);
    }
}

fn captured_output_is_written_unchanged(cell: &Cell) {
    let application = "
import faulthandler, sys
faulthandler.enable()
sys.stdout.buffer.write(b'by the buffer\\n')
sys.stdout.flush()
sys.stdout.reconfigure(errors='replace')
print(sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.encoding)

def application(environ, start_response):
    print('printed\\nin two lines')
    print('an error', file=sys.stderr)
    start_response('200 OK', [])
    return [b'printed']
";
    let setup = Setup::new(cell).file("served.py", application).app("served");
    let server = setup.flags("--capture-output --error-logfile error.log").start();
    assert_eq!(server.get("/").text(), "printed");
    let log = server.dir().join("error.log");
    wait::until("the output is in the log", SOON, || {
        let text = std::fs::read_to_string(&log).unwrap();
        let expected = ["by the buffer\n1 2 utf-8\n", "printed\nin two lines\nan error\n"];
        let is_there = expected.iter().all(|part| text.contains(&format!("\n{part}")));
        if is_there { Ok(()) } else { Err(text) }
    });
}

fn access_lines_show_what_the_application_set(cell: &Cell) {
    let application = "
def parts():
    yield b'in '
    yield b'parts'

def application(environ, start_response):
    environ['REMOTE_ADDR'] = '192.0.2.7'
    environ['myapp.user'] = 'ann'
    environ['REMOTE_USER'] = 'ann\\n\"'
    environ['number'] = 5
    if environ['PATH_INFO'] == '/raises':
        raise ValueError
    if environ['PATH_INFO'] == '/plain':
        del environ['REMOTE_ADDR'], environ['myapp.user']
        environ['REMOTE_USER'] = ''
    start_response('200 OK', [])
    return parts() if environ['PATH_INFO'] == '/parts' else [b'whole']
";
    let format = "%(U)s|%(h)s|%({myapp.user}e)5s|%({remote_user}e)s|%({number}e)-3s|%({none}e)s|";
    let setup = Setup::new(cell).file("served.py", application).app("served");
    let setup = setup.flags("--access-logfile -");
    let server = setup.flag("--access-logformat", format).start();
    for (path, status) in [("/whole", 200), ("/parts", 200), ("/raises", 500)] {
        assert_eq!(server.get(path).status, status);
        let line = server.out.line(&[path], SOON);
        assert_eq!(line, format!("{path}|192.0.2.7|  ann|ann\\x0a\\\"|5  |-|"));
    }
    assert_eq!(server.get("/plain").status, 200);
    let line = server.out.line(&["/plain"], SOON);
    assert!(line.ends_with("|    -||5  |-|") && !line.contains("192.0.2.7"), "{line}");
}
