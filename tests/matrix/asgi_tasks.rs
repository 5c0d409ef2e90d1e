//! The tasks of ASGI applications: what becomes of a request whose task never runs, and of a process that a task forks.

use std::{fs, path::PathBuf, time::Duration};

use jimu_tests::{
    behaviour,
    cell::Cell,
    runner::Behaviour,
    server::{Server, Setup},
};

use crate::interpreters;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_task_cancelled_before_its_first_step_ends_its_request).of_asgi(),
        behaviour!(a_child_forked_by_a_task_ends_where_it_returns).of_asgi().within(90),
        behaviour!(every_interpreter_ends_children_and_requests).of_asgi().within(120),
        behaviour!(debug_mode_is_asyncios).of_asgi(),
        behaviour!(eager_tasks_serve)
            .of_asgi()
            .within(90)
            .only_if(|| !eager_pythons().is_empty(), "no CPython from 3.12 on"),
    ]
}

const SOON: Duration = Duration::from_secs(10);

/// An application whose factory of tasks cancels that of the second request.
const CANCELLED: &str = "
import asyncio

tasks = 0


def factory(loop, coroutine, **more):
    global tasks
    task = asyncio.Task(coroutine, loop=loop, **more)
    tasks += coroutine.__qualname__ == '_Server._serve'
    if tasks == 2:
        task.cancel()
    return task


async def application(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
        asyncio.get_running_loop().set_task_factory(factory)
        await send({'type': 'lifespan.startup.complete'})
        await receive()
        return await send({'type': 'lifespan.shutdown.complete'})
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'served'})
";

fn a_task_cancelled_before_its_first_step_ends_its_request(cell: &Cell) {
    for flags in ["--asgi-loop asyncio", "--asgi-loop auto"] {
        let setup = Setup::new(cell).file("cancelled.py", CANCELLED).app("cancelled");
        second_request_fails(&setup.flags(flags).start());
    }
}

fn second_request_fails(server: &Server) {
    let statuses = [200, 500, 200].map(|_| server.get("/").status);
    assert_eq!(statuses, [200, 500, 200]);
    server.log.line(&["CancelledError"], SOON);
    server.until_workers("all are over", |workers| workers.iter().all(|worker| worker.busy == 0));
}

fn a_child_forked_by_a_task_ends_where_it_returns(cell: &Cell) {
    for flags in ["--asgi-loop asyncio", "--asgi-loop auto"] {
        let setup = Setup::new(cell).app("forking_asgi:application").flags(flags);
        children_end(setup.start());
    }
}

fn children_end(server: Server) {
    let worker = server.until_ready_workers(1);
    for (target, status) in [
        ("/request?returns", 0),
        ("/request?exits", 7),
        ("/request?raises", 1),
        ("/request?waits", 1),
        ("/request?receives", 1),
        ("/request?sends", 1),
        ("/task", 0),
        ("/callback", 0),
        ("/pool", 0),
        ("/thread", 0),
        ("/multiprocessing", 9),
    ] {
        assert_eq!(server.get(target).text(), format!("{status}\n"), "{target}");
    }
    server.log.line(&["RuntimeError: in the child"], SOON);
    server.log.line(&["RuntimeError: the event loop belongs to the parent process"], SOON);
    for _ in 0..5 {
        assert_eq!(server.get("/pid").text(), format!("{}\n", worker[0]));
    }
    assert_eq!(server.until_ready_workers(1), worker);
    let read = |name| fs::read_to_string(server.dir().join(name)).unwrap();
    assert_eq!(read("atexit"), "returns\nexits\nraises\nwaits\nreceives\nsends\n");
    // The loop's next step was the parent's alone.
    assert_eq!(read("processes"), format!("{}\n", worker[0]).repeat(6));
    server.stop();
}

/// The way in which tasks start, and in which functions for profilers are called, depends on the version.
fn every_interpreter_ends_children_and_requests(cell: &Cell) {
    let supported = interpreters::installed().into_iter().filter(|(_, version)| *version >= (3, 9));
    let pythons: Vec<PathBuf> = supported.map(|(python, _)| python).collect();
    assert!(!pythons.is_empty());
    for python in &pythons {
        let setup = Setup::new(cell).file("cancelled.py", CANCELLED).app("cancelled");
        second_request_fails(&setup.python(python).start());
        children_end(Setup::new(cell).app("forking_asgi:application").python(python).start());
    }
}

/// An application that says whether its loop is in debug mode, and that blocks the loop.
const DEBUGGED: &str = "
import asyncio, time


async def application(scope, receive, send):
    assert scope['type'] == 'http'
    time.sleep(0.2)
    body = b'%d' % asyncio.get_running_loop().get_debug()
    await send({'type': 'http.response.debug', 'info': {'template': 'a page'}})
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': body})
";

fn debug_mode_is_asyncios(cell: &Cell) {
    for flags in ["--asgi-loop asyncio", "--asgi-loop auto"] {
        for (debug, body) in [("", "0"), ("1", "1")] {
            let setup = Setup::new(cell).file("debugged.py", DEBUGGED).app("debugged");
            let setup = setup.flags(flags).env("PYTHONASYNCIODEBUG", debug);
            assert_eq!(setup.start().get("/").text(), body, "{flags}");
        }
    }
    let setup = Setup::new(cell).file("debugged.py", DEBUGGED).app("debugged");
    let server = setup.flags("--asgi-loop asyncio").env("PYTHONASYNCIODEBUG", "1").start();
    server.get("/");
    server.log.line(&["Executing <Task", "took 0.2"], SOON);
}

/// An application whose loop runs the first steps of all tasks at once; the path says whether a response needs more.
const EAGER: &str = "
import asyncio


async def application(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await send({'type': 'lifespan.startup.complete'})
        await receive()
        return await send({'type': 'lifespan.shutdown.complete'})
    if scope['path'] == '/later':
        await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(3)))
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': scope['path'].encode()})
";

fn eager_pythons() -> Vec<PathBuf> {
    let eager = interpreters::installed().into_iter().filter(|(_, version)| *version >= (3, 12));
    eager.map(|(python, _)| python).collect()
}

fn eager_tasks_serve(cell: &Cell) {
    for python in eager_pythons() {
        let setup = Setup::new(cell).file("eager.py", EAGER).app("eager").python(&python);
        let server = setup.start();
        for path in ["/now", "/later", "/now"] {
            assert_eq!(server.get(path).text(), path);
        }
        let log = server.stop().log;
        assert!(!log.contains("Traceback") && !log.contains("was destroyed"), "{log}");
    }
}
