//! gunicorn's settings that are not keys of the settings file, each with the reason: for the reference page, and
//! for users who convert a file.

/// Settings that exist in another form, grouped by that form.
pub static MOVED: &[(&[&str], &str)] = &[
    (&["config", "check_config", "print_config"], "flags only; not available in a settings file"),
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
        "functions of a gunicorn.conf.py; a TOML file names hook modules and commands, see docs/hooks.md",
    ),
];

/// Settings that are accepted and have no effect, grouped by reason. Each is a warning at start and at a reload.
pub static IGNORED: &[(&[&str], &str)] = &[
    (
        &["ssl_version", "ciphers"],
        "rustls has only secure cipher suites; set the minimum version with ssl_version_min",
    ),
    (
        &["suppress_ragged_eofs", "do_handshake_on_connect"],
        "options of Python's ssl module, which is not used",
    ),
    (&["http_parser"], "there is only one parser"),
    (&["worker_tmp_dir"], "the heartbeat is in shared memory, not in a file"),
    (&["strip_header_spaces"], "RFC 9112 5.1 forbids a space before the colon"),
    (&["default_proc_name"], "an internal default of gunicorn; use proc_name"),
    (&["spew"], "use a debugger to trace Python"),
    (&["reload_engine"], "the kernel reports changed files"),
    (&["enable_stdio_inheritance"], "standard streams are kept unless daemon is set"),
    (
        &["logger_class", "logconfig", "logconfig_dict", "logconfig_json"],
        "logs do not use Python's logging module; see log_format",
    ),
];

/// Flags of gunicorn for the settings of [`IGNORED`].
pub(super) static IGNORED_FLAGS: &[IgnoredFlag] = &[
    IgnoredFlag::value("ssl_version", "ssl-version"),
    IgnoredFlag::value("ciphers", "ciphers"),
    IgnoredFlag::switch("suppress_ragged_eofs", "suppress-ragged-eofs"),
    IgnoredFlag::switch("do_handshake_on_connect", "do-handshake-on-connect"),
    IgnoredFlag::value("http_parser", "http-parser"),
    IgnoredFlag::value("worker_tmp_dir", "worker-tmp-dir"),
    IgnoredFlag::switch("strip_header_spaces", "strip-header-spaces"),
    IgnoredFlag::switch("spew", "spew"),
    IgnoredFlag::value("reload_engine", "reload-engine"),
    IgnoredFlag::switch("enable_stdio_inheritance", "enable-stdio-inheritance").short('R'),
    IgnoredFlag::value("logger_class", "logger-class"),
    IgnoredFlag::value("logconfig", "log-config"),
    IgnoredFlag::value("logconfig_json", "log-config-json"),
];

/// A flag of gunicorn that is accepted and has no effect.
#[derive(Debug)]
pub(super) struct IgnoredFlag {
    pub(super) name: &'static str,
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    pub(super) takes_value: bool,
}

impl IgnoredFlag {
    const fn value(name: &'static str, long: &'static str) -> Self {
        Self { name, long, short: None, takes_value: true }
    }

    const fn switch(name: &'static str, long: &'static str) -> Self {
        Self { name, long, short: None, takes_value: false }
    }

    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }
}

/// Settings that are not supported, grouped by reason.
pub static UNSUPPORTED: &[(&[&str], &str)] = &[
    (&["ssl_context"], "a Python function; use certfile, keyfile and ca_certs for TLS"),
    (
        &[
            "http_protocols",
            "http2_cleartext",
            "http2_max_concurrent_streams",
            "http2_initial_window_size",
            "http2_max_frame_size",
            "http2_max_header_list_size",
        ],
        "only HTTP/1.0 and HTTP/1.1 are supported",
    ),
    (&["protocol", "uwsgi_allow_ips"], "the uwsgi protocol is not supported"),
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
        "a second arbiter for long tasks is not supported",
    ),
    (&["paste", "raw_paste_global_conf"], "PasteDeploy files are not supported"),
];

/// Returns why a setting of gunicorn is not a key of the file.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    find(MOVED.iter().chain(UNSUPPORTED).chain(IGNORED), name)
}

/// Returns why a setting of gunicorn has no effect, if it is one that is accepted.
pub(super) fn ignored_reason(name: &str) -> Option<&'static str> {
    find(IGNORED.iter(), name)
}

/// Returns the names of all settings of gunicorn that are not keys of the file.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    MOVED.iter().chain(UNSUPPORTED).chain(IGNORED).flat_map(|(names, _)| names.iter().copied())
}

/// Returns whether gunicorn has a setting of this name that is not supported.
pub(super) fn is_unsupported(name: &str) -> bool {
    find(UNSUPPORTED.iter(), name).is_some()
}

fn find<'a>(
    mut all: impl Iterator<Item = &'a (&'static [&'static str], &'static str)>,
    name: &str,
) -> Option<&'static str> {
    all.find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
}
