//! Generations on trial, rollbacks, and the health check of a new generation.

use std::sync::atomic::{AtomicBool, Ordering};

use host::control::{Request, Response};
use nix::sys::signal::Signal;

use crate::Test;
use crate::server::Server;

pub(crate) const TESTS: &[Test] = &tests![
    a_canary_serves_beside_the_old_generation_until_it_is_promoted,
    a_canary_is_rolled_back_and_everything_is_as_before,
    a_canary_that_dies_again_and_again_is_rolled_back,
    rounds_of_promotion_and_rollback_lose_no_connection,
    a_rollback_can_return_to_past_generations,
    a_generation_whose_health_path_says_500_is_refused,
    a_healthy_generation_takes_over,
    a_worker_is_stopped_on_request_and_replaced,
    the_settings_in_force_are_shown,
];

fn swap(server: &Server, class: &str) -> Response {
    server.ask(&Request::Reload { worker_class: Some(class.to_owned()), canary: Some(1) })
}

fn roll_back(server: &Server) -> Response {
    server.ask(&Request::Rollback { generation: None })
}

/// Returns the generations as "state:number of ready workers".
fn picture(server: &Server) -> Vec<String> {
    let generations = server.status().generations;
    let picture = generations.iter().map(|generation| {
        let ready = generation.workers.iter().filter(|worker| worker.state == "ready").count();
        format!("{}:{ready}", generation.state)
    });
    picture.collect()
}

fn a_canary_serves_beside_the_old_generation_until_it_is_promoted() {
    let server = Server::start("hello", &["-w", "3"]);
    assert!(swap(&server, "other").ok);
    server.wait_until("a share of one", |server| picture(server) == ["serving:2", "trial:1"]);
    let refused = server.reload();
    assert!(refused.error.unwrap().contains("is on trial"));
    server.signal(Signal::SIGUSR2);
    server.wait_for("USR2 ignored: generation 2 is on trial");
    assert!(server.ask(&Request::Promote).ok);
    assert_eq!(picture(&server), ["serving:3"]);
    assert_eq!(server.serving().class.as_deref(), Some("other 0.0.0"));
    assert!(!server.ask(&Request::Promote).ok);
    server.stop();
}

fn a_canary_is_rolled_back_and_everything_is_as_before() {
    let server = Server::start("hello", &["-w", "2"]);
    assert!(swap(&server, "other").ok);
    assert!(roll_back(&server).ok);
    server.wait_until("as before", |server| picture(server) == ["serving:2"]);
    assert_eq!(server.serving().class.as_deref(), Some("sync 0.0.0"));
    assert!(server.reload().ok);
    server.stop();
}

fn a_canary_that_dies_again_and_again_is_rolled_back() {
    let server = Server::start("hello", &["-w", "2", "--boot-failures-max", "2"]);
    assert!(swap(&server, "other").ok);
    // Workers that its mold forks from here on cannot boot.
    server.behave("boot-refuse");
    let trial = server.status().generations.pop().unwrap();
    let kill = |pid: u32| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    };
    kill(trial.mold.unwrap().pid);
    server.wait_for("another one is started when needed");
    kill(trial.workers[0].pid);
    server.wait_for("generation 2 rolled back: the worker does not like it");
    server.wait_until("as before", |server| picture(server) == ["serving:2"]);
    server.stop();
}

fn rounds_of_promotion_and_rollback_lose_no_connection() {
    let server = Server::start("hello", &["-w", "2"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, server) = (&done, &server);
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert!(server.talk("hi").ends_with(" hello\n"));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for _ in 0..20 {
            assert!(swap(server, "other").ok);
            assert!(server.ask(&Request::Promote).ok);
            assert!(swap(server, "sync").ok);
            assert!(roll_back(server).ok);
            server.wait_until("over", |server| server.status().generations.len() == 1);
        }
        done.store(true, Ordering::Relaxed);
        let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answered > 40, "{answered} answers");
    });
    server.stop();
}

fn a_rollback_can_return_to_past_generations() {
    let server = Server::start("hello", &[]);
    assert!(!roll_back(&server).ok);
    let request = Request::Reload { worker_class: Some("other".to_owned()), canary: None };
    assert!(server.ask(&request).ok);
    let past = server.status().past;
    assert_eq!((past[0].id, past[0].worker_class.as_str()), (1, "sync"));
    assert!(roll_back(&server).ok);
    assert_eq!(server.serving().class.as_deref(), Some("sync 0.0.0"));
    assert!(server.ask(&Request::Rollback { generation: Some(2) }).ok);
    assert_eq!(server.serving().class.as_deref(), Some("other 0.0.0"));
    assert!(!server.ask(&Request::Rollback { generation: Some(77) }).ok);
    server.stop();
}

fn a_generation_whose_health_path_says_500_is_refused() {
    let flags = ["-w", "2", "--health-path", "/health", "--health-timeout", "0.6"];
    let server = Server::start("hello", &flags);
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let before = server.workers();
    server.behave("sick");
    let error = server.reload().error.unwrap();
    assert!(error.contains("health check of /health failed: status 500"), "{error}");
    server.wait_for("reload refused, generation 1 continues");
    // Until they have exited, its workers respond to accepted connections.
    server.wait_until("the old generation alone", |server| picture(server) == ["serving:2"]);
    assert!(server.talk("hi").ends_with(" hello\n"));
    assert_eq!(server.workers(), before);
    server.stop();
}

fn a_healthy_generation_takes_over() {
    let server = Server::start("hello", &["--health-path", "/health"]);
    let before = server.workers();
    assert!(server.reload().ok);
    server.wait_for("generation 2 is healthy: /health returned 200");
    assert_ne!(server.workers(), before);
    assert!(server.reload().ok);
    server.stop();
}

fn a_worker_is_stopped_on_request_and_replaced() {
    let server = Server::start("hello", &["-w", "2"]);
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let pid = server.workers()[0];
    assert!(server.ask(&Request::KillWorker { pid }).ok);
    server.wait_until("another", |server| {
        server.workers().len() == 2 && !server.workers().contains(&pid)
    });
    assert!(!server.ask(&Request::KillWorker { pid: 1 }).ok);
    assert!(!server.log().contains("[ERROR]"), "{}", server.log());
    server.stop();
}

fn the_settings_in_force_are_shown() {
    let server = Server::start("hello", &["-w", "2"]);
    let config = server.ask(&Request::Config).config.unwrap();
    assert!(config.contains("workers = 2"), "{config}");
    server.stop();
}
