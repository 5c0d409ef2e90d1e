//! Black-box tests of the settings: sources and their order, messages, help, the reference page, and agreement
//! with gunicorn. Set `UPDATE_PAGES=1` to rewrite the generated files.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fmt::Write as _;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use host::settings::{
    Action, Bind, Error, IGNORED, Kind, LogLevel, LogTarget, MOVED, Origin, Setting, Settings,
    Sources, TABLE, UNSUPPORTED, Value, command, page,
};
use proptest::prelude::*;
use worker_api::ProxyProtocol;

/// A directory to start in, with a file and an environment.
struct Start {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl Start {
    fn new(file: &str, variables: &[(&str, &str)], args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if !file.is_empty() {
            fs::write(directory.path().join("host.toml"), file).unwrap();
        }
        let environment =
            variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let sources = Sources {
            args: args.iter().map(Into::into).collect(),
            environment: environment.collect(),
            directory: directory.path().to_owned(),
            ..Sources::default()
        };
        Self { directory, sources }
    }

    fn load(&self) -> Arc<Settings> {
        self.sources.load().unwrap_or_else(|error| panic!("{error}")).0
    }

    /// Returns the error's message, without the name of the directory.
    fn error(&self) -> String {
        let error = self.sources.load().err().unwrap();
        assert_eq!(error.exit_status(), 78);
        error.to_string().replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn load(file: &str, variables: &[(&str, &str)], args: &[&str]) -> Arc<Settings> {
    Start::new(file, variables, args).load()
}

#[test]
fn every_default_has_its_type() {
    let settings = load("", &[], &[]);
    for setting in TABLE {
        let value = settings.get(setting.name).unwrap();
        match setting.default {
            None => assert_eq!(value, &Value::Unset, "{}", setting.name),
            Some(_) => assert_ne!(value, &Value::Unset, "{}", setting.name),
        }
    }
    assert_eq!(settings.workers, 1);
    assert_eq!(settings.timeout, Some(Duration::from_secs(30)));
    assert_eq!(settings.request_timeout, None);
    assert_eq!(settings.bind, [Bind::Tcp { host: "127.0.0.1".into(), port: 8000 }]);
    assert_eq!(settings.greenlet_stack, 256 * 1024);
    assert_eq!(settings.control_socket_mode, 0o600);
    assert_eq!(settings.errorlog, LogTarget::Stream);
    assert_eq!(settings.accesslog, None);
    assert_eq!(settings.secure_scheme_headers.len(), 3);
}

#[test]
fn the_stronger_source_wins_and_is_remembered() {
    let file = "workers = 2\nthreads = 2\nbacklog = 2\ntimeout = 2\n";
    let variables = [("WEB_CONCURRENCY", "1"), ("JIMU_CMD_ARGS", "--threads 3 --backlog 3 -t3")];
    let mut start = Start::new(file, &variables, &["--backlog", "4", "-t", "4"]);
    start.sources.requests.push(("timeout".into(), "5".into()));
    let settings = start.load();
    let path = Arc::new(start.directory.path().join("host.toml"));
    let values = (settings.workers, settings.threads, settings.backlog, settings.timeout);
    assert_eq!(values, (2, 3, 4, Some(Duration::from_secs(5))));
    for (name, origin) in [
        ("workers", Origin::File(path, 1)),
        ("threads", Origin::CommandVariable("JIMU_CMD_ARGS")),
        ("backlog", Origin::CommandLine),
        ("timeout", Origin::Request),
        ("keepalive", Origin::Default),
    ] {
        assert_eq!(settings.origin(name), Some(&origin), "{name}");
    }
}

#[test]
fn gunicorns_variable_of_flags_comes_before_ours() {
    let gunicorns = "-w 2 --threads 2 --backlog 2 --log-config x.ini app:app";
    let variables = [("GUNICORN_CMD_ARGS", gunicorns), ("JIMU_CMD_ARGS", "--threads 3")];
    let settings = load("workers = 9", &variables, &["--backlog", "4"]);
    assert_eq!((settings.workers, settings.threads, settings.backlog), (2, 3, 4));
    assert_eq!(settings.origin("workers"), Some(&Origin::CommandVariable("GUNICORN_CMD_ARGS")));
    assert_eq!(settings.wsgi_app.as_deref(), Some("app:app"));
    let warning = settings.ignored[0].to_string();
    assert!(warning.starts_with("$GUNICORN_CMD_ARGS: logconfig (of gunicorn) has no effect"));
    let error = Start::new("", &[("GUNICORN_CMD_ARGS", "--paste x.ini")], &[]).error();
    assert_eq!(error, "$GUNICORN_CMD_ARGS: unexpected argument '--paste' found");
}

#[test]
fn workers_may_be_as_many_as_there_is_room_for() {
    let most = std::thread::available_parallelism().unwrap().get();
    for settings in [
        load("", &[], &["-w", "auto"]),
        load("workers = \"auto\"", &[], &[]),
        load("", &[("WEB_CONCURRENCY", "auto")], &[]),
    ] {
        assert!((1..=most).contains(&settings.workers), "{}", settings.workers);
    }
}

#[test]
fn variables_replace_defaults_as_in_gunicorn() {
    let variables =
        [("WEB_CONCURRENCY", "7"), ("PORT", "5000"), ("FORWARDED_ALLOW_IPS", "10.0.0.0/8")];
    let settings = load("", &variables, &[]);
    assert_eq!(settings.workers, 7);
    assert_eq!(settings.bind, [Bind::Tcp { host: "0.0.0.0".into(), port: 5000 }]);
    assert_eq!(settings.forwarded_allow_ips.0, ["10.0.0.0/8"]);
    assert_eq!(settings.origin("workers"), Some(&Origin::Variable("WEB_CONCURRENCY")));
    assert_eq!(load("", &[("WEB_CONCURRENCY", "")], &[]).workers, 1);
    let start = Start::new("", &[("WEB_CONCURRENCY", "many")], &[]);
    let message =
        "$WEB_CONCURRENCY: workers: expected a whole number from 1 to 1024, or auto, found many";
    assert_eq!(start.error(), message);
}

#[test]
fn flags_have_gunicorns_forms() {
    let args = [
        "-b:0",
        "-b",
        "unix:run/x?mode=0660&user=www",
        "--bind=[::1]:80",
        "-b",
        "fd://3",
        "-e",
        "A=b",
        "--env",
        "C=d=e",
        "--preload",
        "--no-sendfile",
        "--proxy-protocol",
        "--log-file",
        "err",
        "--access-logfile",
        "-",
        "--log-level",
        "WARNING",
        "-m",
        "022",
        "--keep-alive",
        "1.5",
        "--limit-request-body",
        "10M",
        "app:make('x/y')",
    ];
    let start = Start::new("", &[], &args);
    let settings = start.load();
    let directory = start.directory.path();
    assert_eq!(
        settings.bind,
        [
            Bind::Tcp { host: "0.0.0.0".into(), port: 0 },
            Bind::Unix {
                path: directory.join("run/x"),
                mode: Some(0o660),
                user: Some("www".into()),
                group: None
            },
            Bind::Tcp { host: "::1".into(), port: 80 },
            Bind::Fd(3),
        ]
    );
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(settings.raw_env, [pair("A", "b"), pair("C", "d=e")]);
    assert!(settings.preload_app && !settings.sendfile);
    assert_eq!(settings.proxy_protocol, ProxyProtocol::Auto);
    assert_eq!(settings.errorlog, LogTarget::File(directory.join("err")));
    assert_eq!(settings.accesslog, Some(LogTarget::Stream));
    assert_eq!(settings.loglevel, LogLevel::Warning);
    assert_eq!(settings.umask, 0o22);
    assert_eq!(settings.keepalive, Some(Duration::from_millis(1500)));
    assert_eq!(settings.limit_request_body, Some(10 << 20));
    assert_eq!(settings.wsgi_app.as_deref(), Some("app:make('x/y')"));
}

#[test]
fn a_flag_may_be_followed_by_its_value() {
    for (args, mode, app) in [
        (&["--proxy-protocol", "v2", "app"][..], ProxyProtocol::V2, Some("app")),
        (&["--proxy-protocol=v1", "app"], ProxyProtocol::V1, Some("app")),
        (&["--proxy-protocol", "app:v2"], ProxyProtocol::Auto, Some("app:v2")),
        (&["--proxy-protocol"], ProxyProtocol::Auto, None),
    ] {
        let settings = load("", &[], args);
        assert_eq!(settings.proxy_protocol, mode, "{args:?}");
        assert_eq!(settings.wsgi_app.as_deref(), app, "{args:?}");
    }
}

#[test]
fn the_file_has_the_same_settings_and_the_plugins_tables() {
    let file = r#"
        bind = "127.0.0.1:0"
        raw_env = ["A=b"]
        umask = "022"
        keepalive = 0
        proxy_protocol = true
        forwarded_allow_ips = "10.0.0.1, ::1"
        secure_scheme_headers = { X-SCHEME = "https" }
        pidfile = ""
        [class.gevent]
        hub = "epoll"
        [application]
        debug = true
        [hooks]
        when_ready = ["systemd-notify"]
    "#;
    let settings = load(file, &[], &[]);
    assert_eq!(settings.umask, 0o22);
    assert_eq!(settings.keepalive, None);
    assert_eq!(settings.proxy_protocol, ProxyProtocol::Auto);
    assert_eq!(settings.forwarded_allow_ips.0, ["10.0.0.1", "::1"]);
    assert_eq!(settings.secure_scheme_headers, [("X-SCHEME".to_owned(), "https".to_owned())]);
    assert_eq!(settings.pidfile, None);
    assert_eq!(settings.sections.class["gevent"]["hub"].as_str(), Some("epoll"));
    assert_eq!(settings.sections.application["debug"].as_bool(), Some(true));
    assert!(settings.sections.hooks.contains_key("when_ready"));
}

#[test]
fn paths_start_at_chdir_and_names_stay_names() {
    let start = Start::new(
        "",
        &[],
        &[
            "--chdir",
            "sub",
            "-p",
            "pid",
            "-k",
            "./x.so",
            "--python",
            "python3.11",
            "--certfile",
            "/etc/c.pem",
            "libhello_app.so",
        ],
    );
    let sub = start.directory.path().join("sub");
    assert!(start.error().contains("chdir: expected a directory"));
    fs::create_dir(&sub).unwrap();
    let settings = start.load();
    assert_eq!(settings.chdir, sub);
    assert_eq!(settings.pidfile, Some(sub.join("pid")));
    assert_eq!(Path::new(&settings.worker_class), sub.join("x.so"));
    assert_eq!(settings.python.as_deref(), Some("python3.11"));
    assert_eq!(settings.certfile.as_deref(), Some(Path::new("/etc/c.pem")));
    assert_eq!(settings.wsgi_app.as_deref().map(Path::new), Some(&*sub.join("libhello_app.so")));
}

#[test]
fn sync_with_threads_is_gthread() {
    assert_eq!(load("", &[], &[]).class(), "sync");
    assert_eq!(load("", &[], &["--threads", "2"]).class(), "gthread");
    assert_eq!(load("", &[], &["--threads", "2", "-k", "gevent"]).class(), "gevent");
}

#[test]
fn the_control_socket_is_in_the_runtime_directory() {
    let socket = |variables: &[(&str, &str)]| load("", variables, &[]).control_socket.clone();
    let home = ("HOME", "/home/x");
    let runtime = ("XDG_RUNTIME_DIR", "/run/user/1");
    assert_eq!(socket(&[home, runtime]), Some("/run/user/1/host.ctl".into()));
    assert_eq!(socket(&[home]), Some("/home/x/.host/host.ctl".into()));
    assert_eq!(socket(&[]), None);
}

#[test]
fn every_mistake_in_a_file_is_reported_with_its_line() {
    let file = "wrokers = 2\nworkers = \"two\"\n\n[class]\ngevent = 1\n[server]\nport = 1\n";
    let expected = "\
host.toml:1: unknown key \"wrokers\"; did you mean \"workers\"?
host.toml:2: workers: expected a whole number from 1 to 1024, or auto, found \"two\"
host.toml:5: class.gevent: expected a table [class.gevent], found 1
host.toml:6: unknown key \"server\"";
    assert_eq!(Start::new(file, &[], &[]).error(), expected);
    for (line, message) in [
        ("workers = 0", "workers: expected a whole number from 1 to 1024, or auto, found 0"),
        ("timeout = -1", "timeout: expected seconds from 0 to 31622400, found -1"),
        ("timeout = nan", "timeout: expected seconds from 0 to 31622400, found nan"),
        ("preload_app = 1", "preload_app: expected true or false, found 1"),
        (
            "loglevel = 'loud'",
            "loglevel: expected one of debug, info, warning, error, critical, found 'loud'",
        ),
        ("umask = '8'", "umask: expected permission bits such as 0o660 or \"0660\", found '8'"),
        ("raw_env = ['A']", "raw_env: expected NAME=VALUE, found ['A']"),
        (
            "python_options = ['-m x']",
            "python_options: expected an option of Python, such as -X dev, found ['-m x']",
        ),
        ("bind = []", "bind: expected at least one address, found []"),
        (
            "bind = ['unix:']",
            "bind: expected HOST:PORT, unix:PATH, unix:@NAME or fd://N, found ['unix:']",
        ),
        ("user = 'no one at all'", "user: expected a user of this system, found 'no one at all'"),
        (
            "forwarded_allow_ips = '1.2.3'",
            "forwarded_allow_ips: expected \"*\", addresses or networks, found '1.2.3'",
        ),
        (
            "access_log_format = '%x'",
            "access_log_format: expected %(NAME)s or %% at character 1, found '%x'",
        ),
        ("hooks = 'x'", "hooks: expected a table [hooks], found 'x'"),
        ("log_level = 'info'", "unknown key \"log_level\"; did you mean \"loglevel\"?"),
        ("worker-class = 'sync'", "unknown key \"worker-class\"; did you mean \"worker_class\"?"),
        ("pid = 'x'", "unknown key \"pid\"; did you mean \"pidfile\"?"),
        (
            "paste = 'x.ini'",
            "unknown key \"paste\" (of gunicorn): PasteDeploy files are not supported",
        ),
        ("quite_unlike_anything = 1", "unknown key \"quite_unlike_anything\""),
    ] {
        assert_eq!(Start::new(line, &[], &[]).error(), format!("host.toml:1: {message}"));
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let error = Start::new("a = \n", &[], &[]).error();
    assert!(error.starts_with("host.toml:1: invalid TOML: "), "{error}");
    let error = Start::new("", &[], &["-c", "none.toml"]).error();
    assert_eq!(error, "none.toml: cannot be read: No such file or directory (os error 2)");
    let start = Start::new("", &[], &["-c", "pipe.toml"]);
    let pipe = start.directory.path().join("pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A reload that waited for a writer would stop the arbiter.
    let error = start.error();
    assert!(error.ends_with("pipe.toml: cannot be read: not a regular file"), "{error}");
}

#[test]
fn wrong_flags_are_reported_in_one_line_first() {
    for (args, line) in [
        (
            &["-w", "0"][..],
            "error: invalid value '0' for '--workers <INT|auto>': expected a whole number from 1 to 1024, or auto",
        ),
        (&["--worker", "2"], "error: unexpected argument '--worker' found"),
        (&["a", "b"], "error: unexpected argument 'b' found"),
    ] {
        assert_eq!(Start::new("", &[], args).error().lines().next(), Some(line));
    }
    let variable = |text| Start::new("", &[("JIMU_CMD_ARGS", text)], &[]).error();
    assert_eq!(variable("--nope"), "$JIMU_CMD_ARGS: unexpected argument '--nope' found");
    assert_eq!(variable("'"), "$JIMU_CMD_ARGS: unclosed quote, or a backslash at the end");
}

#[test]
fn the_last_of_repeated_flags_counts_and_lists_add_up() {
    let args = ["-w", "2", "--workers", "3", "--preload", "--preload", "-b", ":1", "--bind", ":2"];
    let settings = load("", &[], &args);
    assert_eq!((settings.workers, settings.preload_app, settings.bind.len()), (3, true, 2));
}

#[test]
fn syslog_over_a_stream_socket_is_refused() {
    for address in ["tcp://localhost:514", "unix:///run/log#stream"] {
        let error = Start::new("", &[], &["--log-syslog-to", address]).error();
        assert!(error.contains("--log-syslog-to"), "{error}");
        assert!(error.contains("stream socket is not supported: use udp://HOST:PORT"), "{error}");
        let first = error.lines().next().unwrap();
        assert!(first.ends_with("such as /dev/log"), "{error}");
    }
}

#[test]
fn help_is_not_an_error_and_actions_are_distinguished() {
    let action = |flag| Start::new("", &[], &[flag]).sources.load().map(|(_, action)| action);
    assert_eq!(action("--check-config").unwrap(), Action::CheckConfig);
    assert_eq!(action("--print-config").unwrap(), Action::PrintConfig);
    for flag in ["--help", "-h", "--version"] {
        let error = action(flag).unwrap_err();
        assert!(matches!(error, Error::Flags(_)));
        assert_eq!(error.exit_status(), 0);
    }
}

#[test]
fn the_generated_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let help = command().term_width(100).render_help().to_string();
    for (path, text) in [
        ("../docs/settings.md", page()),
        ("../docs/gunicorn-settings.md", comparison()),
        ("tests/settings/help.txt", help),
    ] {
        let path = root.join(path);
        if std::env::var_os("UPDATE_PAGES").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let current = fs::read_to_string(&path).unwrap_or_default();
        let differs = current.lines().zip(text.lines()).find(|(old, new)| old != new);
        assert!(
            current == text,
            "{} is not what the table says: run UPDATE_PAGES=1 cargo test -p host --test settings\n{differs:?}",
            path.display()
        );
    }
}

#[test]
fn gunicorn_settings_without_effect_are_accepted_with_a_warning() {
    let file = "worker_tmp_dir = \"/dev/shm\"\nlogconfig_dict = { version = 1 }\n";
    let start = Start::new(file, &[], &["-R", "--log-config", "logging.ini", "app:app"]);
    let settings = start.load();
    assert_eq!(settings.wsgi_app.as_deref(), Some("app:app"));
    let warnings: Vec<String> = settings.ignored.iter().map(ToString::to_string).collect();
    for (at, place, name, reason) in [
        (0, "host.toml:2", "logconfig_dict", "log_format"),
        (1, "host.toml:1", "worker_tmp_dir", "shared memory"),
        (2, "command line", "enable_stdio_inheritance", "daemon"),
        (3, "command line", "logconfig", "log_format"),
    ] {
        for word in [place, name, reason] {
            assert!(warnings[at].contains(word), "no {word:?} in {:?}", warnings[at]);
        }
    }
    assert_eq!(warnings.len(), 4);
    assert_eq!(load("", &[], &["app:app"]).ignored, []);
}

/// Compares gunicorn's settings with ours, one by one. A setting that is missing here fails the test below.
fn comparison() -> String {
    let mut page = String::from(
        "# gunicorn's settings, one by one\n\nGenerated from the table of gunicorn 27.0.1 (`host/tests/settings/list_of_gunicorn.py` \
         prints it) and from Jimu's.\n`cargo test -p host --test settings` fails if a setting is missing or unexplained, has \
         other flags, or has another\ndefault that is not listed here. [settings.md](settings.md) describes each of Jimu's \
         settings. `?` stands for a default\nthat gunicorn computes at start.\n\n| gunicorn | its flags | its default | Jimu |\n| --- | --- | --- | --- |\n",
    );
    for line in include_str!("settings/gunicorn-27.tsv").lines().filter(|l| !l.starts_with('#')) {
        let [name, flags, default] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let reason_in = |table: &'static [(&[&str], &'static str)]| {
            table.iter().find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
        };
        let here = match (TABLE.iter().find(|setting| setting.name == name), reason_in(MOVED)) {
            (Some(setting), _) if OTHER_DEFAULTS.contains(&name) => {
                format!("yes, by default `{}`", setting.default.unwrap_or("unset"))
            }
            (Some(_), _) => "yes".to_owned(),
            (None, Some(form)) => format!("in another form: {form}"),
            (None, None) => match reason_in(IGNORED) {
                Some(reason) => format!("accepted, without effect: {reason}"),
                None => format!("no: {}", reason_in(UNSUPPORTED).unwrap_or("not explained")),
            },
        };
        let code = |text: &str| match text {
            "-" | "unset" | "?" => text.to_owned(),
            text => format!("`{}`", text.replace('|', "\\|")),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| {name} | {} | {} | {here} |", code(flags), code(default));
    }
    page
}

#[test]
fn every_setting_of_gunicorn_is_here_or_explained() {
    let mut gunicorns = Vec::new();
    for line in include_str!("settings/gunicorn-27.tsv").lines().filter(|l| !l.starts_with('#')) {
        let [name, flags, default] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        gunicorns.push(name);
        let ignored = IGNORED.iter().any(|(names, _)| names.contains(&name));
        let explained =
            ignored || MOVED.iter().chain(UNSUPPORTED).any(|(names, _)| names.contains(&name));
        for flag in flags.split(',').filter(|flag| ignored && *flag != "-") {
            let given = command().try_get_matches_from(["host", flag]);
            let given = given.or_else(|_| command().try_get_matches_from(["host", flag, "value"]));
            assert!(given.is_ok(), "{name}: the flag {flag} is not accepted");
        }
        let Some(setting) = TABLE.iter().find(|setting| setting.name == name) else {
            assert!(explained, "{name} is neither here nor explained");
            continue;
        };
        assert!(!explained, "{name} is here, and explained as absent");
        let longs = setting.long.iter().chain(setting.aliases).map(|long| format!("--{long}"));
        let ours: Vec<_> =
            setting.short.iter().map(|short| format!("-{short}")).chain(longs).collect();
        for flag in flags.split(',').filter(|flag| *flag != "-") {
            assert!(ours.iter().any(|ours| ours == flag), "{name} has no flag {flag}");
        }
        let kind = setting.kind;
        let same = match (default, setting.default) {
            ("?", _) => true,
            ("unset", ours) => ours.is_none() || ours == Some(""),
            ("\"\"", ours) => ours == Some("") || ours.is_none(),
            (theirs, Some(ours)) if kind == Kind::Mode => {
                theirs.parse() == Ok(i64::from_str_radix(ours, 8).unwrap())
            }
            (theirs, ours) => ours == Some(theirs),
        };
        assert_eq!(same, !OTHER_DEFAULTS.contains(&name), "{name}: {default}");
    }
    for name in MOVED.iter().chain(UNSUPPORTED).chain(IGNORED).flat_map(|(names, _)| names.iter()) {
        assert!(gunicorns.contains(name), "{name} is no setting of gunicorn's");
    }
}

/// Settings whose default is not gunicorn's; the text of each explains why.
const OTHER_DEFAULTS: &[&str] = &["limit_request_line"];

/// Generates texts that a setting of this kind accepts.
fn text_for(name: &'static str, kind: Kind) -> BoxedStrategy<String> {
    let word = "[a-zA-Z0-9 _.\u{e9}\u{2603}\"'\\\\#=]{0,20}";
    match (name, kind) {
        ("chdir", _) => Just(".".to_owned()).boxed(),
        ("user" | "group", _) => prop_oneof!["root", "[0-9]{1,5}"].boxed(),
        ("errorlog", _) => "-|[a-z/]{1,9}".boxed_regex(),
        ("raw_env", _) => format!("[A-Z]{{1,8}}={word}").boxed_regex(),
        ("python_options", _) => {
            prop_oneof!["-[OBuE]{1,4}", "-X [a-z]{1,9}", "-W[a-z]{1,9}"].boxed()
        }
        ("statsd_host", _) => prop_oneof!["[a-z.]{1,9}:[0-9]{1,4}", "unix:/[a-z]{1,9}"].boxed(),
        ("syslog_addr", _) => {
            prop_oneof!["udp://[a-z.]{1,9}:[0-9]{1,4}", "unix:///[a-z]{1,9}"].boxed()
        }
        ("access_log_format", _) => "([a-z\" ]|%\\([a-zA-Z]\\)s|%%){0,20}".boxed_regex(),
        ("forwarded_allow_ips" | "proxy_allow_ips", _) => {
            prop_oneof![r"\*", "10\\.0\\.[1-9]\\.0/2[0-9]", "::1,127\\.0\\.0\\.1"].boxed()
        }
        (_, Kind::Bool) => prop_oneof!["true", "false"].boxed(),
        (_, Kind::Int { min, max }) => (min..=max).prop_map(|n| n.to_string()).boxed(),
        (_, Kind::Workers { max }) => (1..=max).prop_map(|n| n.to_string()).boxed(),
        (_, Kind::Bytes { min, max }) => (min..=max).prop_map(|n| n.to_string()).boxed(),
        (_, Kind::Seconds { max }) => (0.0..=max).prop_map(|n| n.to_string()).boxed(),
        (_, Kind::Mode) => (0..=0o7777u32).prop_map(|n| format!("{n:o}")).boxed(),
        (_, Kind::Choice(words)) => prop::sample::select(words).prop_map(str::to_owned).boxed(),
        (_, Kind::Addresses) => {
            prop_oneof!["[a-z0-9.]{1,20}:[1-9][0-9]{0,3}", "unix:@?[a-z]{1,9}", "fd://[0-9]"]
                .boxed()
        }
        (_, Kind::Map) => "([a-cA-C-]{1,2}=[a-z]{0,9},){0,3}".boxed_regex(),
        (_, Kind::CommaList) => "([a-z_/]{1,9},){0,3}".boxed_regex(),
        _ => word.boxed_regex(),
    }
}

trait BoxedRegex {
    fn boxed_regex(self) -> BoxedStrategy<String>;
}

impl<T: AsRef<str>> BoxedRegex for T {
    fn boxed_regex(self) -> BoxedStrategy<String> {
        prop::string::string_regex(self.as_ref()).unwrap().boxed()
    }
}

fn any_setting() -> impl Strategy<Value = &'static Setting> {
    prop::sample::select(TABLE.iter().collect::<Vec<_>>())
}

/// Generates some settings with a text each, as a user writes them after flags.
fn some_settings() -> impl Strategy<Value = BTreeMap<&'static str, String>> {
    let one = any_setting().prop_flat_map(|setting| {
        text_for(setting.name, setting.kind).prop_map(|t| (setting.name, t))
    });
    prop::collection::vec(one, 0..20).prop_map(|pairs| pairs.into_iter().collect())
}

#[test]
fn the_last_of_several_headers_counts() {
    let start = Start::new("secure_scheme_headers = 'B=1,A=1,B=2'", &[], &[]);
    let first = start.load();
    let pairs = [("A", "1"), ("B", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(first.secure_scheme_headers, pairs);
    // Printed twice, the name would make the text invalid TOML.
    fs::write(start.directory.path().join("host.toml"), first.to_toml()).unwrap();
    assert_eq!(start.load().secure_scheme_headers, pairs);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printed_settings_read_back_equal(given in some_settings()) {
        let mut start = Start::new("", &[], &[]);
        start.sources.requests =
            given.iter().map(|(name, text)| (name.to_string(), text.clone())).collect();
        // Numbers of workers may exclude each other.
        let has_range = given.iter().any(|(name, _)| matches!(&**name, "min_workers" | "max_workers"));
        prop_assume!(!has_range || start.sources.load().is_ok());
        let first = start.load();
        start.sources.requests.clear();
        fs::write(start.directory.path().join("host.toml"), first.to_toml()).unwrap();
        let second = start.load();
        for setting in TABLE {
            prop_assert_eq!(first.get(setting.name), second.get(setting.name), "{}", setting.name);
        }
        prop_assert_eq!(first.to_toml().lines().count(), second.to_toml().lines().count());
    }

    #[test]
    fn no_text_of_a_file_panics(text in "\\PC*", key in any_setting(), value in "\\PC{0,20}") {
        for file in [text.clone(), format!("{} = {value}", key.name), format!("{} = {text:?}", key.name)] {
            if let Err(error) = Start::new(&file, &[], &[]).sources.load() {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn no_variable_of_flags_panics(text in "\\PC*") {
        let _ = Start::new("", &[("JIMU_CMD_ARGS", &text)], &[]).sources.load();
    }
}
