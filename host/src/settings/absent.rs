//! gunicorn's settings that are no keys of the file here, each with the reason: for the reference page, and for those
//! who bring a file from there.

/// Names of what exists in another form, with that form; those of one form stand together.
pub static ELSEWHERE: &[(&[&str], &str)] = &[
    (&["config", "check_config", "print_config"], "flags only, not keys of the file"),
    (
        &[
            "on_starting",
            "on_reload",
            "when_ready",
            "pre_fork",
            "post_fork",
            "post_worker_init",
            "worker_int",
            "worker_abort",
            "pre_exec",
            "pre_request",
            "post_request",
            "child_exit",
            "worker_exit",
            "nworkers_changed",
            "on_exit",
        ],
        "functions cannot stand in a TOML file: see docs/hooks.md for hook modules and commands",
    ),
];

/// Names of what does not exist, with the reason; those of one reason stand together.
pub static ABSENT: &[(&[&str], &str)] = &[
    (&["ssl_context"], "a Python function; TLS is made from certfile, keyfile and ca_certs"),
    (
        &["ssl_version", "ciphers"],
        "rustls offers only cipher suites that are safe; the oldest version is ssl_version_min",
    ),
    (
        &["suppress_ragged_eofs", "do_handshake_on_connect"],
        "switches of Python's ssl module, which is not used",
    ),
    (
        &[
            "http_protocols",
            "http2_cleartext",
            "http2_max_concurrent_streams",
            "http2_initial_window_size",
            "http2_max_frame_size",
            "http2_max_header_list_size",
        ],
        "the server speaks HTTP/1.1",
    ),
    (&["http_parser"], "there is one parser"),
    (&["protocol", "uwsgi_allow_ips"], "the uwsgi protocol is not spoken"),
    (
        &[
            "asgi_loop",
            "asgi_lifespan",
            "asgi_disconnect_grace_period",
            "websocket_max_message_size",
            "root_path",
        ],
        "ASGI is not served",
    ),
    (
        &[
            "dirty_apps",
            "dirty_workers",
            "dirty_timeout",
            "dirty_threads",
            "dirty_graceful_timeout",
            "on_dirty_starting",
            "dirty_post_fork",
            "dirty_worker_init",
            "dirty_worker_exit",
        ],
        "there is no second arbiter for long tasks",
    ),
    (&["worker_tmp_dir"], "the heartbeat is in shared memory, not in a file"),
    (&["tmp_upload_dir"], "bodies are streamed, not stored"),
    (&["strip_header_spaces"], "RFC 9112 5.1 forbids a space before the colon"),
    (&["default_proc_name"], "an inner default of gunicorn's own; use proc_name"),
    (&["paste", "raw_paste_global_conf"], "PasteDeploy files are not read"),
    (&["spew"], "Python tracing is the business of a debugger"),
    (&["reload_engine"], "the kernel tells of changed files"),
    (&["enable_stdio_inheritance"], "standard streams are kept unless daemon is set"),
    (
        &["logger_class", "logconfig", "logconfig_dict", "logconfig_json"],
        "the log is not Python's logging; see log_format",
    ),
];

/// Why a setting of gunicorn's is no key of the file.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    let mut all = ELSEWHERE.iter().chain(ABSENT);
    all.find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
}
