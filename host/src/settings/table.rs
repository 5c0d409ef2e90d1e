//! The table of all settings: one item each, from which flags, file keys, `--help`, the reference
//! page and the struct `Settings` come. The form of an item is in `declare.rs`.

use std::{path::PathBuf, time::Duration};

use super::{
    bind::Bind,
    declare::{Effect, Setting, Variable, settings},
    error::{Origin, Problem},
    file::Sections,
    types::{
        Account, ClientCertificate, Field, GroupId, HeaderMap, LogFormat, LogLevel, LogTarget,
        ProxyProtocol, StatsdHost, SyslogAddress, SyslogFacility, TlsVersion, TrustedPeers,
    },
    value::{Kind, Value},
};
use crate::log::AccessFormat;

/// The longest time a setting can name: a year.
const YEAR: f64 = 366.0 * 86_400.0;
const SECONDS: Kind = Kind::Seconds { max: YEAR };
/// Bounds each queue and table whose length is a setting; far above what one machine can use.
const MANY: i64 = 1 << 20;
/// The most worker processes: each has a slot in the scoreboard.
const WORKERS_MAX: i64 = 1024;
/// Counters and sizes without a bound of their own.
const HUGE: i64 = i64::MAX;

settings! {
    "Server socket" {
        /// An address to listen on; may be repeated.
        ///
        /// `HOST:PORT`, `HOST` (port 8000), `[IPV6]:PORT`, `unix:PATH`, `unix:@NAME` for an abstract name,
        /// or `fd://N` for a listening socket that was inherited. A unix path may be followed by
        /// `?mode=0660&user=NAME&group=NAME`. When `PORT` is in the environment, the default is that
        /// port on all IPv4 addresses, as in gunicorn.
        bind: Vec<Bind> {
            kind: Kind::Addresses, default: Some("127.0.0.1:8000"),
            long: Some("bind"), short: Some('b'),
            variable: Some(Variable { name: "PORT", prefix: "0.0.0.0:" }),
        }
        /// How many connections the kernel may hold that no worker has accepted yet.
        backlog: u32 {
            kind: Kind::Int { min: 1, max: MANY }, default: Some("2048"), long: Some("backlog"),
        }
        /// Let several servers share the port (`SO_REUSEPORT`).
        reuse_port: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("reuse-port"),
            bare: Some("true"), effect: Effect::Restart,
        }
    }
    "Workers" {
        /// How many worker processes serve.
        ///
        /// `TTIN` and `TTOU`, and hostctl, change the number while the server runs.
        workers: usize {
            kind: Kind::Int { min: 1, max: WORKERS_MAX }, default: Some("1"),
            long: Some("workers"), short: Some('w'), effect: Effect::Live,
            variable: Some(Variable { name: "WEB_CONCURRENCY", prefix: "" }),
        }
        /// The worker class: a short name, or the path of a shared library.
        ///
        /// A short name such as sync finds `libsync_worker.so` beside the executable, in
        /// `../lib/host/` from there, and in the folders of `HOST_PLUGIN_PATH`. With more than one
        /// thread, sync means gthread. The names of gunicorn's own worker classes, and of
        /// gevent-websocket's, work too.
        worker_class: String {
            kind: Kind::Name, default: Some("sync"), long: Some("worker-class"), short: Some('k'),
        }
        /// How many threads a worker of class gthread answers requests with.
        ///
        /// Another thread serves in the place of one whose client keeps it waiting, so that slow
        /// clients hold up nobody; more requests than threads are under way then.
        threads: usize {
            kind: Kind::Int { min: 1, max: 4096 }, default: Some("1"), long: Some("threads"),
        }
        /// How many connections one worker holds at most.
        worker_connections: usize {
            kind: Kind::Int { min: 1, max: MANY }, default: Some("1000"),
            long: Some("worker-connections"),
        }
        /// Replace a worker after this many requests; 0: never.
        max_requests: Option<u64> {
            kind: Kind::Int { min: 0, max: HUGE }, default: Some("0"), long: Some("max-requests"),
        }
        /// Add a random number up to this to `max_requests`, so that workers end at different times.
        max_requests_jitter: u64 {
            kind: Kind::Int { min: 0, max: HUGE }, default: Some("0"),
            long: Some("max-requests-jitter"),
        }
        /// Replace a worker that takes more memory than this, in bytes; 0: no limit.
        ///
        /// Counted is what is resident, with what is shared; measured every two seconds. It is
        /// replaced like one that has served `max_requests`: nothing that it has is lost.
        max_worker_memory: Option<u64> {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("0"),
            long: Some("max-worker-memory"),
        }
        /// Replace a worker that has not shown a sign of life for so many seconds; 0: never.
        timeout: Option<Duration> {
            kind: SECONDS, default: Some("30"), long: Some("timeout"), short: Some('t'),
        }
        /// How long a stopping worker may take to finish the requests that it has.
        graceful_timeout: Duration {
            kind: SECONDS, default: Some("30"), long: Some("graceful-timeout"),
        }
        /// How long an idle connection is kept for its next request; 0: it is closed.
        keepalive: Option<Duration> {
            kind: SECONDS, default: Some("2"), long: Some("keep-alive"),
        }
        /// How long loading and booting may take before it counts as failed; 0: for ever.
        ///
        /// At a reload it covers the mold and the workers together: a generation that is not ready by then is refused.
        /// Apart from timeout, so that an application that is slow to load need not weaken the
        /// watch over requests.
        boot_timeout: Option<Duration> {
            kind: SECONDS, default: Some("60"), long: Some("boot-timeout"),
        }
        /// End the server after so many failed boots in a row at start.
        ///
        /// An application that cannot be loaded, or a setting that is wrong, ends it at once: another try would
        /// fare no better.
        boot_failures_max: u32 {
            kind: Kind::Int { min: 1, max: MANY }, default: Some("5"),
            long: Some("boot-failures-max"),
        }
        /// A path that must answer 200 in a new generation before the old one ends.
        ///
        /// Asked of the new workers alone, through a socket that nobody else can reach; without TLS even
        /// where clients speak it, but as if a proxy had been reached by https. The first generation is not
        /// asked.
        health_path: Option<String> { kind: Kind::Text, long: Some("health-path") }
        /// How long a new generation may take until `health_path` answers 200.
        health_timeout: Duration {
            kind: SECONDS, default: Some("10"), long: Some("health-timeout"),
        }
        /// How long a stopping server still accepts connections.
        ///
        /// Gives a load balancer time to look away before the first connection is refused.
        drain_delay: Option<Duration> {
            kind: SECONDS, default: Some("0"), long: Some("drain-delay"),
        }
    }
    "Requests" {
        /// How long a request may take from its head to the end of its answer; 0: for ever.
        ///
        /// The application can ask for more time while it runs.
        request_timeout: Option<Duration> {
            kind: SECONDS, default: Some("0"), long: Some("request-timeout"),
        }
        /// How long a client may take to send a request's head; 0: for ever.
        header_timeout: Option<Duration> {
            kind: SECONDS, default: Some("20"), long: Some("header-timeout"),
        }
        /// How long a request's body may stand still; 0: for ever.
        body_timeout: Option<Duration> {
            kind: SECONDS, default: Some("30"), long: Some("body-timeout"),
        }
        /// How long a client may take nothing of its answer; 0: for ever.
        write_timeout: Option<Duration> {
            kind: SECONDS, default: Some("30"), long: Some("write-timeout"),
        }
        /// Bytes a second below which a head or a body counts as too slow; 0: no bound.
        min_rate: Option<u64> {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("240"), long: Some("min-rate"),
        }
        /// The longest request line in bytes; 0: no limit of its own.
        ///
        /// gunicorn's default is 4094, less than the 8000 bytes that RFC 9112 section 3 asks every
        /// server to take.
        limit_request_line: Option<usize> {
            kind: Kind::Bytes { min: 0, max: 1 << 20 }, default: Some("8190"),
            long: Some("limit-request-line"),
        }
        /// The most header fields of a request.
        limit_request_fields: usize {
            kind: Kind::Int { min: 1, max: 32768 }, default: Some("100"),
            long: Some("limit-request-fields"),
        }
        /// The longest header field in bytes; 0: no limit of its own.
        limit_request_field_size: Option<usize> {
            kind: Kind::Bytes { min: 0, max: 1 << 20 }, default: Some("8190"),
            long: Some("limit-request-field-size"), aliases: &["limit-request-field_size"],
        }
        /// The longest request body in bytes; 0: no limit.
        limit_request_body: Option<u64> {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("0"),
            long: Some("limit-request-body"),
        }
        /// The most bytes of a request body that sync and gthread buffer before they call the application; 0: none.
        ///
        /// A slow upload then occupies no thread. The application is called when the body is whole, or when this much
        /// of it is buffered; it reads the rest from the client. A body with a longer `Content-Length`, and one that
        /// waits for `100 Continue`, is not buffered.
        body_buffer_max: u64 {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("16m"),
            long: Some("body-buffer-max"),
        }
        /// The most bytes of buffered request bodies that a worker keeps in memory at a time.
        ///
        /// A body has at most a sixteenth of it, which is 1 MiB by default. A longer one is kept in a temporary file, and
        /// so are all others when this much is in use.
        body_buffer_memory: usize {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("16m"),
            long: Some("body-buffer-memory"),
        }
        /// The most temporary files that a worker has at a time; 0: none.
        ///
        /// With `body_buffer_max` it bounds the disk space: 64 files of 16 MiB take 1 GiB for each worker. When all are
        /// in use, the application reads further bodies from the client.
        body_buffer_files: usize {
            kind: Kind::Int { min: 0, max: MANY }, default: Some("64"),
            long: Some("body-buffer-files"),
        }
        /// The directory of the temporary files. Unset: `TMPDIR`, else `/tmp`.
        ///
        /// The files have no names, so that none is left behind.
        tmp_upload_dir: Option<PathBuf> { kind: Kind::Path, long: Some("tmp-upload-dir") }
        /// Take methods that are not upper-case words of 3 to 20 letters.
        permit_unconventional_http_method: bool {
            kind: Kind::Bool, default: Some("false"),
            long: Some("permit-unconventional-http-method"), bare: Some("true"),
        }
        /// Take HTTP versions other than 1.0 and 1.1.
        permit_unconventional_http_version: bool {
            kind: Kind::Bool, default: Some("false"),
            long: Some("permit-unconventional-http-version"), bare: Some("true"),
        }
        /// Turn methods into upper case.
        casefold_http_method: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("casefold-http-method"),
            bare: Some("true"),
        }
        /// Take header fields that are folded over several lines.
        permit_obsolete_folding: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("permit-obsolete-folding"),
            bare: Some("true"),
        }
        /// Send the Server field with every answer; the flag turns it off.
        server_header: bool {
            kind: Kind::Bool, default: Some("true"), long: Some("no-server-header"),
            bare: Some("false"),
        }
        /// Send files by `sendfile(2)` where the connection allows it; the flag turns it off.
        sendfile: bool {
            kind: Kind::Bool, default: Some("true"), long: Some("no-sendfile"),
            bare: Some("false"),
            variable: Some(Variable { name: "SENDFILE", prefix: "" }),
        }
    }
    "Proxies" {
        /// Peers whose forwarding header fields are believed: addresses, networks, or *.
        ///
        /// Peers of a unix socket are always believed.
        forwarded_allow_ips: TrustedPeers {
            kind: Kind::CommaList, default: Some("127.0.0.1,::1"),
            long: Some("forwarded-allow-ips"),
            variable: Some(Variable { name: "FORWARDED_ALLOW_IPS", prefix: "" }),
        }
        /// Header fields, with the value of each, by which a believed peer says that it was
        /// reached by https.
        secure_scheme_headers: Vec<(String, String)> {
            kind: Kind::Map,
            default: Some(
                "X-FORWARDED-PROTOCOL=ssl,X-FORWARDED-PROTO=https,X-FORWARDED-SSL=on"
            ),
        }
        /// Names of fields that a believed peer may set although they have an underscore.
        forwarder_headers: Vec<String> {
            kind: Kind::CommaList, default: Some("SCRIPT_NAME,PATH_INFO"),
            long: Some("forwarder-headers"),
        }
        /// What becomes of header fields whose name has an underscore.
        ///
        /// drop leaves them out, refuse answers 400, dangerous passes them on although an
        /// application cannot tell `X_Name` from `X-Name`.
        header_map: HeaderMap {
            kind: Kind::Choice(HeaderMap::WORDS), default: Some("drop"), long: Some("header-map"),
        }
        /// The PROXY protocol that connections begin with.
        ///
        /// Without a value the flag means auto.
        proxy_protocol: ProxyProtocol {
            kind: Kind::Choice(ProxyProtocol::WORDS), default: Some("off"),
            long: Some("proxy-protocol"), bare: Some("auto"), bare_or_value: true,
        }
        /// Peers that may speak the PROXY protocol: addresses, networks, or *.
        proxy_allow_ips: TrustedPeers {
            kind: Kind::CommaList, default: Some("127.0.0.1,::1"),
            long: Some("proxy-allow-from"),
        }
    }
    "TLS" {
        /// The certificate chain, as PEM.
        certfile: Option<PathBuf> { kind: Kind::Path, long: Some("certfile") }
        /// The private key, as PEM.
        keyfile: Option<PathBuf> { kind: Kind::Path, long: Some("keyfile") }
        /// The authorities that client certificates must come from, as PEM.
        ca_certs: Option<PathBuf> { kind: Kind::Path, long: Some("ca-certs") }
        /// Whether clients show a certificate: 0 never, 1 if they like, 2 always.
        cert_reqs: ClientCertificate {
            kind: Kind::Int { min: 0, max: 2 }, default: Some("0"), long: Some("cert-reqs"),
        }
        /// The oldest TLS version that is spoken.
        ssl_version_min: TlsVersion {
            kind: Kind::Choice(TlsVersion::WORDS), default: Some("1.2"),
            long: Some("ssl-version-min"),
        }
    }
    "Application" {
        /// The application: the path of a shared library, or what the wsgi plugin understands,
        /// such as `module:name`.
        wsgi_app: Option<String> { kind: Kind::Application }
        /// Load the application once, before the workers are forked.
        preload_app: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("preload"), bare: Some("true"),
        }
        /// Reload when a file of the application, or of the worker class, changes.
        reload: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("reload"), bare: Some("true"),
        }
        /// Further files to watch with reload: paths, directories, or patterns with `*`, `**` and `?`; may be repeated.
        reload_extra_files: Vec<PathBuf> {
            kind: Kind::Paths, default: Some(""), long: Some("reload-extra-file"),
        }
        /// The folder to work in; relative paths of other settings start there.
        chdir: PathBuf { kind: Kind::Path, default: Some("."), long: Some("chdir") }
        /// `NAME=VALUE` to put into the environment of the application; may be repeated.
        raw_env: Vec<(String, String)> {
            kind: Kind::List, default: Some(""), long: Some("env"), short: Some('e'),
        }
        /// Folders that come first on Python's module path, parted by commas.
        pythonpath: Vec<String> {
            kind: Kind::CommaList, default: Some(""), long: Some("pythonpath"),
        }
        /// The Python interpreter to be; unset: that of `VIRTUAL_ENV`, else `python3` on `PATH`.
        python: Option<String> { kind: Kind::Name, long: Some("python") }
        /// A hook plugin (a shared library) or a Python module with gunicorn's hooks.
        hooks_module: Option<String> { kind: Kind::Name, long: Some("hooks") }
        /// Say in error answers what failed. Not for the open internet.
        debug_errors: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("debug-errors"),
            bare: Some("true"),
        }
        /// The stack of a greenlet, in bytes.
        greenlet_stack: usize {
            kind: Kind::Bytes { min: 16 << 10, max: 1 << 30 }, default: Some("256k"),
            long: Some("greenlet-stack"),
        }
        /// Name a greenlet in the log that computes for longer than so many seconds; 0: never.
        greenlet_block_warning: Option<Duration> {
            kind: SECONDS, default: Some("1"), long: Some("greenlet-block-warning"),
        }
    }
    "Process" {
        /// Go to the background.
        daemon: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("daemon"), short: Some('D'),
            bare: Some("true"), effect: Effect::Restart,
        }
        /// A file for the number of the arbiter's process.
        pidfile: Option<PathBuf> { kind: Kind::Path, long: Some("pid"), short: Some('p') }
        /// The user, by name or number, as whom molds and workers run.
        user: Option<Account> { kind: Kind::Text, long: Some("user"), short: Some('u') }
        /// The group, by name or number, as which molds and workers run.
        ///
        /// Unset, it is the primary group of `user`, together with the supplementary groups of that user.
        /// gunicorn keeps the group of the process that starts it.
        group: Option<GroupId> { kind: Kind::Text, long: Some("group"), short: Some('g') }
        /// Give molds and workers all groups of the user.
        initgroups: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("initgroups"),
            bare: Some("true"),
        }
        /// Take from molds and workers the means to gain privileges again, where root gives up its own for `user`.
        ///
        /// Set-user-id programs (`sudo`, some mail programs) then run without their privileges, and no capability can be
        /// acquired. Turn it off for applications that start such programs.
        no_new_privs: bool {
            kind: Kind::Bool, default: Some("true"), long: Some("no-no-new-privs"),
            bare: Some("false"),
        }
        /// Permission bits that unix sockets do not get.
        ///
        /// As in gunicorn it concerns the server's own sockets; what the application makes has the
        /// umask that the server was started with.
        umask: u32 {
            kind: Kind::Mode, default: Some("0"), long: Some("umask"), short: Some('m'),
        }
        /// The name that `ps(1)` shows.
        proc_name: Option<String> { kind: Kind::Text, long: Some("name"), short: Some('n') }
        /// The control socket that hostctl speaks to.
        ///
        /// Unset, it is `host.ctl` in `XDG_RUNTIME_DIR`, or in `.host` of the home folder.
        control_socket: Option<PathBuf> {
            kind: Kind::Path, long: Some("control-socket"), effect: Effect::Restart,
        }
        /// Permission bits of the control socket.
        control_socket_mode: u32 {
            kind: Kind::Mode, default: Some("0600"), long: Some("control-socket-mode"),
            effect: Effect::Restart,
        }
        /// Have no control socket.
        control_socket_disable: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("no-control-socket"),
            bare: Some("true"), effect: Effect::Restart,
        }
    }
    "Logging" {
        /// The access log: a file, or - for standard output. Unset: none.
        ///
        /// `/dev/stdout`, `/dev/stderr` and `/proc/self/fd/N` mean that descriptor. The page [logs](logs.md) has whose
        /// rights a file is opened with, and when a line is written.
        accesslog: Option<LogTarget> { kind: Kind::Output, long: Some("access-logfile") }
        /// The form of an access line.
        ///
        /// Unset, it is that of the worker class where that has one of its own, as pywsgi has.
        ///
        /// `%(h)s` address, `%(l)s` always -, `%(u)s` user, `%(t)s` time, `%(I)s` time as year-month-day
        /// hour:minute:second, `%(r)s` request line, `%(m)s` method, `%(U)s` path, `%(q)s` query,
        /// `%(H)s` protocol, `%(s)s` status, `%(B)s` length, `%(b)s` length or -, `%(f)s` referrer, `%(a)s` user agent, `%(T)s` seconds, `%(M)s` milliseconds, `%(D)s`
        /// microseconds, `%(L)s` seconds with a fraction, `%(p)s` process, `%({name}i)s` request field,
        /// `%({name}o)s` answer field, `%({name}e)s` environment variable of the request, and `%(i)s` a
        /// number that no other request has while the server runs.
        access_log_format: AccessFormat {
            kind: Kind::Text, long: Some("access-logformat"),
            default: Some(
                r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#
            ),
        }
        /// The error log: a file, or - for standard error.
        ///
        /// As with `accesslog`, a path may mean a descriptor.
        errorlog: LogTarget {
            kind: Kind::Output, default: Some("-"), long: Some("error-logfile"),
            aliases: &["log-file"],
        }
        /// The least severe events that the error log has.
        loglevel: LogLevel {
            kind: Kind::Choice(LogLevel::WORDS), default: Some("info"), long: Some("log-level"),
        }
        /// The form of both logs: text, or one JSON object a line.
        ///
        /// With json, `access_log_format` means nothing: an object has all that is known.
        log_format: LogFormat {
            kind: Kind::Choice(LogFormat::WORDS), default: Some("text"), long: Some("log-format"),
        }
        /// Write only one of so many lines to the access log.
        ///
        /// Answers of 500 and above, and requests without an answer, are always written.
        access_log_sample: u64 {
            kind: Kind::Int { min: 1, max: MANY }, default: Some("1"),
            long: Some("access-log-sample"),
        }
        /// Send both logs to a syslog daemon, too.
        syslog: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("log-syslog"), bare: Some("true"),
        }
        /// Where the syslog daemon listens: `udp://HOST:PORT` or `unix://PATH`.
        ///
        /// Lines are sent as datagrams. Stream sockets (`tcp://`, `unix://PATH#stream`) are not supported.
        syslog_addr: SyslogAddress {
            kind: Kind::Text, default: Some("udp://localhost:514"), long: Some("log-syslog-to"),
        }
        /// What stands in a syslog line between `host.` and the name of the log. Unset: `proc_name`.
        syslog_prefix: Option<String> { kind: Kind::Text, long: Some("log-syslog-prefix") }
        /// The facility of syslog lines.
        syslog_facility: SyslogFacility {
            kind: Kind::Choice(SyslogFacility::WORDS), default: Some("user"),
            long: Some("log-syslog-facility"),
        }
        /// Keep the access log away from syslog.
        disable_redirect_access_to_syslog: bool {
            kind: Kind::Bool, default: Some("false"),
            long: Some("disable-redirect-access-to-syslog"), bare: Some("true"),
        }
        /// Put what the application writes to its standard streams into the error log.
        ///
        /// The text is written unchanged, also where `log_format` is json. An error log that is standard error (`-`)
        /// leaves both streams as they are.
        capture_output: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("capture-output"),
            bare: Some("true"),
        }
    }
    "Metrics" {
        /// Where Prometheus finds metrics; may be repeated.
        ///
        /// The forms of `bind`. Served by a small process of its own, under `/metrics`; `/health`
        /// there answers 200 while a worker serves, and 503 else.
        metrics_bind: Option<Vec<Bind>> { kind: Kind::Addresses, long: Some("metrics-bind") }
        /// Where browsers find a page that shows the server's life; may be repeated.
        ///
        /// It changes nothing, but it shows what is requested: not for the open internet.
        status_bind: Option<Vec<Bind>> { kind: Kind::Addresses, long: Some("status-bind") }
        /// Show requests in flight with their query: on the status page, in hostctl's output, and in log lines about workers.
        ///
        /// Queries often hold tokens and personal data, so only the path is shown otherwise.
        status_queries: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("status-queries"),
            bare: Some("true"),
        }
        /// The StatsD server, `HOST:PORT` or `unix:PATH`, that metrics are sent to.
        statsd_host: Option<StatsdHost> { kind: Kind::Text, long: Some("statsd-host") }
        /// What the names of all metrics for StatsD begin with.
        statsd_prefix: String {
            kind: Kind::Text, default: Some(""), long: Some("statsd-prefix"),
        }
        /// Tags of all metrics for StatsD, in DogStatsD's form: `name:value,name:value`.
        dogstatsd_tags: String {
            kind: Kind::Text, default: Some(""), long: Some("dogstatsd-tags"),
        }
        /// Send StatsD how many connections wait in the backlogs.
        enable_backlog_metric: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("enable-backlog-metric"),
            bare: Some("true"),
        }
    }
}
