//! The table of all settings: flags, file keys, `--help`, the reference page and the struct `Settings` are
//! generated from its items. `declare.rs` defines the form of an item.

use std::{path::PathBuf, time::Duration};

use worker_api::{Choice as _, ClientCertificate, HeaderMap, ProxyProtocol, TlsVersion};

use super::{
    bind::Bind,
    declare::{Effect, Setting, Variable, settings},
    error::{Origin, Problem},
    sections::Sections,
    types::{
        Account, Field, GroupId, Interface, Lifespan, Load, LogFormat, LogLevel, LogTarget,
        PythonOptions, StatsdHost, SyslogAddress, SyslogFacility, TrustedPeers,
    },
    value::{Kind, Value},
};
use crate::capacity::WORKERS_MAX;
use crate::log::AccessFormat;

/// Maximum duration of a setting: a year.
const YEAR: f64 = 366.0 * 86_400.0;
const SECONDS: Kind = Kind::Seconds { max: YEAR };
/// Upper bound of each queue and table whose length is a setting; far above what one machine can use.
const MANY: i64 = 1 << 20;
/// For counters and sizes without a specific bound.
const HUGE: i64 = i64::MAX;

settings! {
    "Server socket" {
        /// Listen on this address; may be repeated.
        ///
        /// `HOST:PORT`, `HOST` (port 8000), `[IPV6]:PORT`, `unix:PATH`, `unix:@NAME` for an abstract
        /// name, or `fd://N` for an inherited listening socket. A unix path may be followed by
        /// `?mode=0660&user=NAME&group=NAME`. If `PORT` is set in the environment, the default is that
        /// port on all IPv4 addresses, as in gunicorn.
        bind: Vec<Bind> {
            kind: Kind::Addresses, default: Some("127.0.0.1:8000"),
            long: Some("bind"), short: Some('b'),
            variable: Some(Variable { name: "PORT", prefix: "0.0.0.0:" }),
        }
        /// Maximum number of connections that wait in the kernel to be accepted.
        backlog: u32 {
            kind: Kind::Int { min: 1, max: MANY }, default: Some("2048"), long: Some("backlog"),
        }
        /// Share the port with other servers (`SO_REUSEPORT`).
        reuse_port: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("reuse-port"),
            bare: Some("true"), effect: Effect::Restart,
        }
    }
    "Workers" {
        /// Number of worker processes, or auto for one per CPU.
        ///
        /// auto counts the CPUs that the process may use, at most those of the CPU quota of its control groups
        /// (version 1 or 2), and at most one worker for each 128 MiB of their memory limit. The number is determined
        /// again at each reload.
        ///
        /// Change it while the server runs with `TTIN`, `TTOU`, or hostctl.
        workers: usize {
            kind: Kind::Workers { max: WORKERS_MAX as i64 }, default: Some("1"),
            long: Some("workers"), short: Some('w'), effect: Effect::Live,
            variable: Some(Variable { name: "WEB_CONCURRENCY", prefix: "" }),
        }
        /// Start more workers under load, up to this number, and stop them later; auto as for `workers`.
        ///
        /// There are more workers as soon as, for two seconds, one request in twenty waits for a worker for longer
        /// than 16 ms, or the workers are busy for 85 % of the time: with requests, or computing. There are fewer when
        /// that has not happened for half a minute, and the rest would be busy for at most 60 %; for longer, if
        /// workers that were stopped are soon needed again. Workers that stop finish their requests. `workers` is
        /// the number at the start. The current one, also if set by a signal or hostctl, lasts over a reload and until the
        /// load asks for another.
        max_workers: Option<usize> {
            kind: Kind::Workers { max: WORKERS_MAX as i64 }, default: None, long: Some("max-workers"),
        }
        /// With `max_workers`: keep at least this number of workers, instead of `workers`.
        min_workers: Option<usize> {
            kind: Kind::Workers { max: WORKERS_MAX as i64 }, default: None, long: Some("min-workers"),
        }
        /// Worker class to use: a short name, or the path of a shared library.
        ///
        /// The short name sync refers to `libsync_worker.so`, which is searched for beside the
        /// executable, in `../lib/host/` relative to it, and in the directories of `JIMU_PLUGIN_PATH`.
        /// With more than one thread, sync means gthread. The names of the worker classes of gunicorn and
        /// gevent-websocket are accepted, too.
        worker_class: String {
            kind: Kind::Name, default: Some("sync"), long: Some("worker-class"), short: Some('k'),
        }
        /// Number of threads per worker that serve requests, for class gthread.
        ///
        /// While a slow client keeps a thread waiting, another thread serves in its place, so slow
        /// clients do not delay others. More requests than threads are then in progress.
        threads: usize {
            kind: Kind::Int { min: 1, max: 4096 }, default: Some("1"), long: Some("threads"),
        }
        /// Maximum number of open connections per worker.
        ///
        /// When a worker has as many, connections that have waited longest for a request, idle ones or those with an
        /// incomplete head, are closed in favor of new ones that no other worker accepts. Those with a request stay.
        worker_connections: usize {
            kind: Kind::Int { min: 1, max: MANY }, default: Some("1000"),
            long: Some("worker-connections"),
        }
        /// Replace a worker after this many requests; 0 disables this.
        ///
        /// A WebSocket is one request, whatever the number of its messages.
        max_requests: Option<u64> {
            kind: Kind::Int { min: 0, max: HUGE }, default: Some("0"), long: Some("max-requests"),
        }
        /// Add a random number up to this to `max_requests`, so that workers are replaced at different
        /// times.
        max_requests_jitter: u64 {
            kind: Kind::Int { min: 0, max: HUGE }, default: Some("0"),
            long: Some("max-requests-jitter"),
        }
        /// Replace a worker that uses more memory than this, in bytes; 0 disables this.
        ///
        /// The resident set size, including shared memory, is measured every two seconds. The worker is
        /// replaced as by `max_requests`, without losing requests.
        max_worker_memory: Option<u64> {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("0"),
            long: Some("max-worker-memory"),
        }
        /// Kill and replace a worker without a heartbeat for this many seconds; 0 disables this.
        timeout: Option<Duration> {
            kind: SECONDS, default: Some("30"), long: Some("timeout"), short: Some('t'),
        }
        /// Seconds that a stopping worker may take to finish its requests.
        graceful_timeout: Duration {
            kind: SECONDS, default: Some("30"), long: Some("graceful-timeout"),
        }
        /// Seconds to keep an idle connection open for the next request; 0 closes it after each response.
        keepalive: Option<Duration> {
            kind: SECONDS, default: Some("2"), long: Some("keep-alive"),
        }
        /// Seconds that loading and booting may take before the attempt fails; 0 means no limit.
        ///
        /// At a reload the limit covers the mold and the workers together: a generation that is not ready
        /// by then is refused. It is separate from `timeout`, so that a slow-loading application does not
        /// need a longer heartbeat timeout.
        boot_timeout: Option<Duration> {
            kind: SECONDS, default: Some("60"), long: Some("boot-timeout"),
        }
        /// Stop the server after this many consecutive failed boots at start.
        ///
        /// An application that cannot be loaded, or an invalid setting, stops the server at once because
        /// retrying cannot help.
        boot_failures_max: u32 {
            kind: Kind::Int { min: 1, max: MANY }, default: Some("5"),
            long: Some("boot-failures-max"),
        }
        /// Path that must return 200 in a new generation before the old one is retired.
        ///
        /// Only the new workers are probed, through a private socket; without TLS even if clients use it,
        /// but as if forwarded by a proxy over https. The first generation is not probed.
        health_path: Option<String> { kind: Kind::Text, long: Some("health-path") }
        /// Seconds that a new generation may take until `health_path` returns 200.
        health_timeout: Duration {
            kind: SECONDS, default: Some("10"), long: Some("health-timeout"),
        }
        /// Seconds for which a stopping server keeps accepting connections.
        ///
        /// This gives a load balancer time to take the server out of rotation before connections are
        /// refused. The old server of an upgrade does not wait: the new one accepts its connections.
        drain_delay: Option<Duration> {
            kind: SECONDS, default: Some("0"), long: Some("drain-delay"),
        }
    }
    "Requests" {
        /// Seconds that a request may take from its head to the end of its response; 0 means no limit.
        ///
        /// The client receives a 500 if no byte of the response was sent; else the connection is cut. The application
        /// can extend the limit while it runs.
        request_timeout: Option<Duration> {
            kind: SECONDS, default: Some("0"), long: Some("request-timeout"),
        }
        /// Seconds that a client may take to send a request head; 0 means no limit.
        header_timeout: Option<Duration> {
            kind: SECONDS, default: Some("20"), long: Some("header-timeout"),
        }
        /// Seconds for which a request body may stall; 0 means no limit.
        body_timeout: Option<Duration> {
            kind: SECONDS, default: Some("30"), long: Some("body-timeout"),
        }
        /// Seconds for which a client may stop reading its response; 0 means no limit.
        write_timeout: Option<Duration> {
            kind: SECONDS, default: Some("30"), long: Some("write-timeout"),
        }
        /// Minimum transfer rate of heads and bodies in bytes per second; 0 means no limit.
        ///
        /// A head may take 5 seconds, a body `body_timeout` and a response `write_timeout` before the rate counts.
        /// `header_timeout` limits a head in any case.
        min_rate: Option<u64> {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("240"), long: Some("min-rate"),
        }
        /// Maximum length of a request line in bytes; 0 means no separate limit.
        ///
        /// gunicorn's default is 4094, which is less than the 8000 bytes that RFC 9112 section 3 asks
        /// servers to support.
        limit_request_line: Option<usize> {
            kind: Kind::Bytes { min: 0, max: 1 << 20 }, default: Some("8190"),
            long: Some("limit-request-line"),
        }
        /// Maximum number of headers in a request.
        limit_request_fields: usize {
            kind: Kind::Int { min: 1, max: 32768 }, default: Some("100"),
            long: Some("limit-request-fields"),
        }
        /// Maximum length of a request header in bytes; 0 means no separate limit.
        limit_request_field_size: Option<usize> {
            kind: Kind::Bytes { min: 0, max: 1 << 20 }, default: Some("8190"),
            long: Some("limit-request-field-size"), aliases: &["limit-request-field_size"],
        }
        /// Maximum length of a request body in bytes; 0 means no limit.
        limit_request_body: Option<u64> {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("0"),
            long: Some("limit-request-body"),
        }
        /// Maximum number of bytes of a body that sync and gthread buffer for a slow client; 0 disables buffering.
        ///
        /// A slow client then occupies no thread. The application is called when the request body is complete, when this
        /// much of it is buffered, or, under gthread, when the client has sent 96 KiB so fast that the rest takes less than
        /// 100 ms; it reads the rest from the client. A body with a longer `Content-Length`, and one that waits for
        /// `100 Continue`, is not buffered. Of a response with a `Content-Length`, what the client does
        /// not read at once is buffered when the application has written all of it; a file that is sent by
        /// `sendfile(2)` is kept open instead.
        body_buffer_max: u64 {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("16m"),
            long: Some("body-buffer-max"),
        }
        /// Maximum number of bytes of buffered bodies that a worker keeps in memory.
        ///
        /// A body has at most a sixteenth of it, which is 1 MiB by default. A longer one is kept in a temporary file, and
        /// so are all others when this much is in use.
        body_buffer_memory: usize {
            kind: Kind::Bytes { min: 0, max: HUGE }, default: Some("16m"),
            long: Some("body-buffer-memory"),
        }
        /// Maximum number of files that a worker uses for buffered bodies; 0 disables them.
        ///
        /// With `body_buffer_max` it limits the disk space: 64 files of 16 MiB take 1 GiB per worker. When all are
        /// in use, the application waits for further slow clients.
        body_buffer_files: usize {
            kind: Kind::Int { min: 0, max: MANY }, default: Some("64"),
            long: Some("body-buffer-files"),
        }
        /// Directory for temporary files; unset, the one in `TMPDIR`, otherwise `/tmp`.
        ///
        /// The files have no names, so that none is left behind.
        tmp_upload_dir: Option<PathBuf> { kind: Kind::Path, long: Some("tmp-upload-dir") }
        /// Accept methods other than upper-case words of 3 to 20 letters.
        permit_unconventional_http_method: bool {
            kind: Kind::Bool, default: Some("false"),
            long: Some("permit-unconventional-http-method"), bare: Some("true"),
        }
        /// Accept HTTP versions other than 1.0 and 1.1.
        permit_unconventional_http_version: bool {
            kind: Kind::Bool, default: Some("false"),
            long: Some("permit-unconventional-http-version"), bare: Some("true"),
        }
        /// Convert methods to upper case.
        casefold_http_method: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("casefold-http-method"),
            bare: Some("true"),
        }
        /// Accept headers that are folded over several lines.
        permit_obsolete_folding: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("permit-obsolete-folding"),
            bare: Some("true"),
        }
        /// Send the Server header with every response.
        server_header: bool {
            kind: Kind::Bool, default: Some("true"), long: Some("no-server-header"),
            bare: Some("false"), flag_summary: Some("Do not send the Server header."),
        }
        /// Send files with `sendfile(2)` where the connection allows it.
        sendfile: bool {
            kind: Kind::Bool, default: Some("true"), long: Some("no-sendfile"),
            bare: Some("false"), flag_summary: Some("Do not send files with sendfile(2)."),
            variable: Some(Variable { name: "SENDFILE", prefix: "" }),
        }
    }
    "Proxies" {
        /// Peers whose forwarding headers are trusted: addresses, networks, or *.
        ///
        /// Peers of a unix socket are always trusted.
        forwarded_allow_ips: TrustedPeers {
            kind: Kind::CommaList, default: Some("127.0.0.1,::1"),
            long: Some("forwarded-allow-ips"),
            variable: Some(Variable { name: "FORWARDED_ALLOW_IPS", prefix: "" }),
        }
        /// Headers, with their values, by which a trusted peer signals https.
        secure_scheme_headers: Vec<(String, String)> {
            kind: Kind::Map,
            default: Some(
                "X-FORWARDED-PROTOCOL=ssl,X-FORWARDED-PROTO=https,X-FORWARDED-SSL=on"
            ),
        }
        /// Names with an underscore that a trusted peer may use for headers.
        forwarder_headers: Vec<String> {
            kind: Kind::CommaList, default: Some("SCRIPT_NAME,PATH_INFO"),
            long: Some("forwarder-headers"),
        }
        /// Treatment of headers whose name contains an underscore.
        ///
        /// drop removes them, refuse rejects the request with 400, dangerous passes them on although an
        /// application cannot distinguish `X_Name` from `X-Name`.
        header_map: HeaderMap {
            kind: Kind::Choice(HeaderMap::WORDS), default: Some("drop"), long: Some("header-map"),
        }
        /// Version of the PROXY protocol with which connections start.
        ///
        /// Without a value the flag means auto.
        proxy_protocol: ProxyProtocol {
            kind: Kind::Choice(ProxyProtocol::WORDS), default: Some("off"),
            long: Some("proxy-protocol"), bare: Some("auto"), bare_or_value: true,
        }
        /// Peers that may send a PROXY header: addresses, networks, or *.
        proxy_allow_ips: TrustedPeers {
            kind: Kind::CommaList, default: Some("127.0.0.1,::1"),
            long: Some("proxy-allow-from"),
        }
    }
    "TLS" {
        /// Certificate chain file, in PEM format.
        certfile: Option<PathBuf> { kind: Kind::Path, long: Some("certfile") }
        /// Private key file, in PEM format.
        keyfile: Option<PathBuf> { kind: Kind::Path, long: Some("keyfile") }
        /// File with the certificate authorities for client certificates, in PEM format.
        ca_certs: Option<PathBuf> { kind: Kind::Path, long: Some("ca-certs") }
        /// Whether to request client certificates: 0 no, 1 optional, 2 required.
        cert_reqs: ClientCertificate {
            kind: Kind::Int { min: 0, max: 2 }, default: Some("0"), long: Some("cert-reqs"),
        }
        /// Minimum TLS version.
        ssl_version_min: TlsVersion {
            kind: Kind::Choice(TlsVersion::WORDS), default: Some("1.2"),
            long: Some("ssl-version-min"),
        }
    }
    "Application" {
        /// Application to serve: the path of a shared library, or a specification for the wsgi plugin
        /// such as `module:name`.
        wsgi_app: Option<String> { kind: Kind::Application }
        /// Load the application once, before the workers are forked.
        preload_app: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("preload"), bare: Some("true"),
        }
        /// Where to open the library of a native application: once, in the mold, or after the fork, in each worker.
        ///
        /// `worker` is for libraries that start threads when they are opened, which a forked process does not inherit,
        /// and for runtimes that do not survive a fork. The mold then checks the file and what it exports, and what is
        /// wrong with the rest is reported by the boot of the workers, which refuses a reload all the same;
        /// `preload_app` has no effect. A library can ask for this itself (`JIMU_LOAD_IN_WORKER` in `jimu.h`). Python
        /// applications are loaded in each worker unless `preload_app` is set, and refuse this setting.
        load: Load {
            kind: Kind::Choice(Load::WORDS), default: Some("mold"), long: Some("load"),
        }
        /// Reload when a file of the application, the settings or the worker class changes.
        reload: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("reload"), bare: Some("true"),
        }
        /// Additional files to watch with reload: paths, directories, or patterns with `*`, `**` and `?`;
        /// may be repeated.
        reload_extra_files: Vec<PathBuf> {
            kind: Kind::Paths, default: Some(""), long: Some("reload-extra-file"),
        }
        /// Working directory. Relative paths in other settings are relative to it.
        chdir: PathBuf { kind: Kind::Path, default: Some("."), long: Some("chdir") }
        /// Set an environment variable, `NAME=VALUE`, for the application; may be repeated.
        raw_env: Vec<(String, String)> {
            kind: Kind::List, default: Some(""), long: Some("env"), short: Some('e'),
        }
        /// Directories to put first on Python's module path, separated by commas.
        pythonpath: Vec<String> {
            kind: Kind::CommaList, default: Some(""), long: Some("pythonpath"),
        }
        /// Python interpreter, or virtual environment, to use.
        ///
        /// Unset, it is that of the virtual environment that the server is installed in, otherwise that of
        /// `VIRTUAL_ENV`, otherwise the one beside the server's executable, otherwise `python3` on `PATH`.
        python: Option<String> { kind: Kind::Name, long: Some("python") }
        /// Option of the Python interpreter, such as `-X dev` or `-W error`; may be repeated.
        python_options: PythonOptions {
            kind: Kind::List, default: Some(""), long: Some("python-option"),
        }
        /// Hook plugin (a shared library) or Python module with gunicorn's hooks.
        hooks_module: Option<String> { kind: Kind::Name, long: Some("hooks") }
        /// Include details in error responses. Do not use it on the public internet.
        debug_errors: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("debug-errors"),
            bare: Some("true"),
        }
        /// Interface that the application speaks. `auto` asks the application.
        interface: Interface {
            kind: Kind::Choice(Interface::WORDS), default: Some("auto"), long: Some("interface"),
        }
        /// Stack size of a greenlet, in bytes.
        greenlet_stack: usize {
            kind: Kind::Bytes { min: 16 << 10, max: 1 << 30 }, default: Some("256k"),
            long: Some("greenlet-stack"),
        }
        /// Log what blocks the loop of a cooperative worker for longer than this many seconds: a greenlet, or under the class
        /// asgi a line of Python; 0 disables this.
        greenlet_block_warning: Option<Duration> {
            kind: SECONDS, default: Some("1"), long: Some("greenlet-block-warning"),
        }
    }
    "ASGI" {
        /// Event loop of the worker class asgi: auto, asyncio, uvloop, or `module:factory`.
        ///
        /// `auto` is uvloop if it is installed for the application's interpreter, otherwise asyncio.
        asgi_loop: String { kind: Kind::Text, default: Some("auto"), long: Some("asgi-loop") }
        /// Lifespan protocol: auto, on or off.
        ///
        /// With `on`, an application that does not support the protocol is refused.
        asgi_lifespan: Lifespan {
            kind: Kind::Choice(Lifespan::WORDS), default: Some("auto"), long: Some("asgi-lifespan"),
        }
        /// Seconds after which the task of a request whose client has disconnected is cancelled; 0 leaves it alone.
        asgi_disconnect_grace_period: Option<Duration> {
            kind: SECONDS, default: Some("3"), long: Some("asgi-disconnect-grace-period"),
        }
        /// Maximum number of bytes in a message of a WebSocket, after decompression.
        websocket_max_message_size: usize {
            kind: Kind::Bytes { min: 1, max: 1 << 30 }, default: Some("16777216"),
            long: Some("websocket-max-message-size"),
        }
        /// Compress the messages of WebSockets (permessage-deflate).
        websocket_compression: bool {
            kind: Kind::Bool, default: Some("true"), long: Some("no-websocket-compression"),
            bare: Some("false"),
            flag_summary: Some("Do not compress the messages of WebSockets (permessage-deflate)."),
        }
        /// Seconds of silence after which a WebSocket's client is sent a ping; 0 sends none.
        websocket_ping_interval: Option<Duration> {
            kind: SECONDS, default: Some("20"), long: Some("websocket-ping-interval"),
        }
        /// Seconds that the client has to answer a ping; 0 sets no limit.
        websocket_ping_timeout: Option<Duration> {
            kind: SECONDS, default: Some("20"), long: Some("websocket-ping-timeout"),
        }
        /// Path below which the application is mounted: `root_path` of its scopes.
        root_path: String { kind: Kind::Text, default: Some(""), long: Some("root-path") }
    }
    "Process" {
        /// Run in the background.
        daemon: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("daemon"), short: Some('D'),
            bare: Some("true"), effect: Effect::Restart,
        }
        /// Write the arbiter's PID to this file.
        pidfile: Option<PathBuf> { kind: Kind::Path, long: Some("pid"), short: Some('p') }
        /// User, by name or number, to run molds and workers as.
        user: Option<Account> { kind: Kind::Text, long: Some("user"), short: Some('u') }
        /// Group, by name or number, to run molds and workers as.
        ///
        /// Unset, it is the primary group of `user`, together with the supplementary groups of that user.
        /// gunicorn keeps the group of the process that starts it.
        group: Option<GroupId> { kind: Kind::Text, long: Some("group"), short: Some('g') }
        /// Give molds and workers all groups of the user.
        initgroups: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("initgroups"),
            bare: Some("true"),
        }
        /// Prevent molds and workers from gaining privileges, if root drops its privileges for `user`.
        ///
        /// Set-user-ID programs (`sudo`, some mail programs) then run without their privileges, and no
        /// capability can be acquired. Turn it off for applications that run such programs.
        no_new_privs: bool {
            kind: Kind::Bool, default: Some("true"), long: Some("allow-new-privs"),
            bare: Some("false"),
            flag_summary: Some("Let molds and workers gain privileges, as with set-user-ID programs."),
        }
        /// Permission bits to clear on unix sockets.
        ///
        /// As in gunicorn it applies to the server's own sockets. Files that the application creates use
        /// the umask with which the server was started.
        umask: u32 {
            kind: Kind::Mode, default: Some("0"), long: Some("umask"), short: Some('m'),
        }
        /// Process name to show in `ps(1)`.
        proc_name: Option<String> { kind: Kind::Text, long: Some("name"), short: Some('n') }
        /// Path of the control socket for hostctl.
        ///
        /// Unset, it is `host.ctl` in `XDG_RUNTIME_DIR`, or in `.host` in the home directory.
        control_socket: Option<PathBuf> {
            kind: Kind::Path, long: Some("control-socket"), effect: Effect::Restart,
        }
        /// Permission bits of the control socket.
        control_socket_mode: u32 {
            kind: Kind::Mode, default: Some("0600"), long: Some("control-socket-mode"),
            effect: Effect::Restart,
        }
        /// Disable the control socket.
        control_socket_disable: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("no-control-socket"),
            bare: Some("true"), effect: Effect::Restart,
        }
    }
    "Logging" {
        /// Access log: a file, or - for standard output; unset, there is none.
        ///
        /// `/dev/stdout`, `/dev/stderr` and `/proc/self/fd/N` mean that descriptor. The page
        /// [logs](logs.md) describes with whose permissions a file is opened and when a line is written.
        accesslog: Option<LogTarget> { kind: Kind::Output, long: Some("access-logfile") }
        /// Format of an access log line.
        ///
        /// Unset, it is the worker class's format if it has one, as pywsgi does.
        ///
        /// `%(h)s` address, `%(l)s` always -, `%(u)s` user, `%(t)s` time, `%(I)s` time as year-month-day
        /// hour:minute:second, `%(r)s` request line, `%(m)s` method, `%(U)s` path, `%(q)s` query, `%(H)s`
        /// protocol, `%(s)s` status, `%(B)s` length, `%(b)s` length or -, `%(f)s` referrer, `%(a)s` user
        /// agent, `%(T)s` seconds, `%(M)s` milliseconds, `%(D)s` microseconds, `%(L)s` seconds with a
        /// fraction, `%(p)s` process, `%({name}i)s` request header, `%({name}o)s` response header,
        /// `%({name}e)s` environment variable of the request, and `%(i)s` a request number that is unique
        /// while the server runs.
        access_log_format: AccessFormat {
            kind: Kind::Text, long: Some("access-logformat"),
            default: Some(
                r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#
            ),
        }
        /// Error log: a file, or - for standard error.
        ///
        /// As with `accesslog`, a path may refer to a descriptor.
        errorlog: LogTarget {
            kind: Kind::Output, default: Some("-"), long: Some("error-logfile"),
            aliases: &["log-file"],
        }
        /// Minimum severity of the error log.
        loglevel: LogLevel {
            kind: Kind::Choice(LogLevel::WORDS), default: Some("info"), long: Some("log-level"),
        }
        /// Format of both logs: text, or one JSON object per line.
        ///
        /// With json, `access_log_format` is ignored: an object contains all values.
        log_format: LogFormat {
            kind: Kind::Choice(LogFormat::WORDS), default: Some("text"), long: Some("log-format"),
        }
        /// Write only one in this many lines to the access log.
        ///
        /// Responses of 500 and above, and requests without a response, are always written.
        access_log_sample: u64 {
            kind: Kind::Int { min: 1, max: MANY }, default: Some("1"),
            long: Some("access-log-sample"),
        }
        /// Send both logs to syslog, too.
        syslog: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("log-syslog"), bare: Some("true"),
        }
        /// Address of the syslog daemon: `udp://HOST:PORT` or `unix://PATH`.
        ///
        /// Lines are sent as datagrams. Stream sockets (`tcp://`, `unix://PATH#stream`) are not
        /// supported.
        syslog_addr: SyslogAddress {
            kind: Kind::Text, default: Some("udp://localhost:514"), long: Some("log-syslog-to"),
        }
        /// Part of a syslog tag between `host.` and the name of the log; unset, `proc_name`.
        syslog_prefix: Option<String> { kind: Kind::Text, long: Some("log-syslog-prefix") }
        /// Facility of syslog lines.
        syslog_facility: SyslogFacility {
            kind: Kind::Choice(SyslogFacility::WORDS), default: Some("user"),
            long: Some("log-syslog-facility"),
        }
        /// Do not send the access log to syslog.
        disable_redirect_access_to_syslog: bool {
            kind: Kind::Bool, default: Some("false"),
            long: Some("disable-redirect-access-to-syslog"), bare: Some("true"),
        }
        /// Redirect the application's standard streams to the error log.
        ///
        /// The text is written unchanged, even if `log_format` is json. If the error log is standard
        /// error (`-`), both streams are left alone.
        capture_output: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("capture-output"),
            bare: Some("true"),
        }
    }
    "Metrics" {
        /// Address on which to serve Prometheus metrics; may be repeated.
        ///
        /// Same forms as `bind`. A small separate process serves `/metrics`, and `/health`, which returns
        /// 200 while a worker serves and 503 otherwise, also from the beginning of `drain_delay` on. It also
        /// responds to agent checks of HAProxy.
        metrics_bind: Option<Vec<Bind>> { kind: Kind::Addresses, long: Some("metrics-bind") }
        /// Address on which to serve a status page for browsers; may be repeated.
        ///
        /// The page is read-only, but it shows what is requested: do not expose it to the public
        /// internet.
        status_bind: Option<Vec<Bind>> { kind: Kind::Addresses, long: Some("status-bind") }
        /// Show the queries of requests in flight on the status page, in hostctl's output, and in log
        /// lines about workers.
        ///
        /// Queries often contain tokens and personal data, so by default only the path is shown.
        status_queries: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("status-queries"),
            bare: Some("true"),
        }
        /// StatsD server to send metrics to, `HOST:PORT` or `unix:PATH`.
        statsd_host: Option<StatsdHost> { kind: Kind::Text, long: Some("statsd-host") }
        /// Prefix of all StatsD metric names.
        statsd_prefix: String {
            kind: Kind::Text, default: Some(""), long: Some("statsd-prefix"),
        }
        /// Tags of all StatsD metrics, in DogStatsD's form: `name:value,name:value`.
        dogstatsd_tags: String {
            kind: Kind::Text, default: Some(""), long: Some("dogstatsd-tags"),
        }
        /// Send the length of the backlogs to StatsD.
        enable_backlog_metric: bool {
            kind: Kind::Bool, default: Some("false"), long: Some("enable-backlog-metric"),
            bare: Some("true"),
        }
    }
}
