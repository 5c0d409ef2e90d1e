/*
 * jimu.h - plugins of the Jimu application server in C, and in every language that can call C.
 *
 * A plugin is a shared library that exports one constant named `jimu_module`: the table of an application, of a worker
 * class, or of hooks. The server checks the table when it opens the library, and refuses what does not fit.
 *
 *   to write                                            fill in                  export with
 *   an application, which responds to requests          jimu_application         JIMU_EXPORT_APPLICATION
 *   a worker class: accepts, waits, calls applications  jimu_worker_class        JIMU_EXPORT_WORKER_CLASS
 *   a plugin that runs on server events                 jimu_hooks_module        JIMU_EXPORT_HOOKS
 *
 * Compatibility
 *   JIMU_ABI_MAJOR and JIMU_ABI_MINOR are the version of this file. Within a major version nothing that was released
 *   changes or disappears: structures that are passed by pointer and tables only grow at their end, constants are only
 *   added, and every table begins with its size and version, so that each side sees what the other one knows. A server
 *   loads plugins of the same major version, older and newer. Ignore constants that you do not know.
 *
 * Conventions
 *   Objects      A pair of a table of functions and `self`, the first argument of each of them. Functions that may be
 *                missing (NULL) are marked "optional"; all others are required. The objects that the server passes have
 *                every function of their version.
 *   Text         `jimu_str`: pointer and length, UTF-8, not terminated by NUL. `jimu_bytes`: any bytes.
 *   Memory       Neither side frees what the other one has allocated. What a function receives is valid until it returns,
 *                unless its comment says otherwise.
 *   Failures     A function that can fail returns JIMU_FAILED and fills in the `jimu_failure` that it received.
 *   Threads      "main thread" is the worker's main thread; "any thread" are threads of the same process, one at a time
 *                for an object that is not shared, several at once where the comment says so.
 *   Exceptions   None may leave a function of a plugin, and longjmp must not cross one. A crash ends one worker, which
 *                is replaced.
 *   Processes    `create` runs in the mold, the process that loads plugins once and is forked into workers: it must be
 *                quick and start no thread. A library that does not survive a fork asks to be loaded in each worker:
 *                JIMU_LOAD_IN_WORKER.
 */
#ifndef JIMU_H
#define JIMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define JIMU_ABI_MAJOR 1
#define JIMU_ABI_MINOR 0

/* ---- Values ---------------------------------------------------------------------------------------------------- */

/* UTF-8 text. `data` may be NULL if `length` is 0. */
typedef struct jimu_str {
    const char *data;
    size_t length;
} jimu_str;

/* Bytes. `data` may be NULL if `length` is 0. */
typedef struct jimu_bytes {
    const uint8_t *data;
    size_t length;
} jimu_bytes;

/* The beginning of every table. */
typedef struct jimu_table {
    /* sizeof of the whole table, as its author knew it. */
    uint32_t size;
    /* JIMU_ABI_MAJOR and JIMU_ABI_MINOR, as its author knew them. */
    uint16_t major;
    uint16_t minor;
} jimu_table;

/* The beginning of a table of this type. */
#define JIMU_TABLE(type) { (uint32_t)sizeof(type), JIMU_ABI_MAJOR, JIMU_ABI_MINOR }

/* Outcome of a function that can fail. */
typedef int32_t jimu_result;
#define JIMU_OK 0
#define JIMU_FAILED (-1)

/* Outcome of an operation that does not block. */
typedef int32_t jimu_step;
/* Done, for the number of bytes that the operation reports. */
#define JIMU_READY 0
/* Nothing was done. The waker, if one was given, fires when the operation can be retried. */
#define JIMU_PENDING 1
/* JIMU_FAILED: failed permanently. */

/* Kinds of failures. */
#define JIMU_FAILURE_OTHER 0
/* A setting is wrong or missing. At start the server exits with status 78. */
#define JIMU_FAILURE_CONFIG 1
/* The deadline of the request or of the call has passed. */
#define JIMU_FAILURE_TIMEOUT 2
/* The client has disconnected or does not read the response. */
#define JIMU_FAILURE_GONE 3
/* The client sent malformed data. */
#define JIMU_FAILURE_PROTOCOL 4
/* The client sent more than a limit allows. */
#define JIMU_FAILURE_TOO_LARGE 5
/* The process or the greenlet is being terminated. */
#define JIMU_FAILURE_INTERRUPTED 6
/* Code panicked, or threw an exception. */
#define JIMU_FAILURE_PANIC 7
/* A system call failed. */
#define JIMU_FAILURE_IO 8
/* The other side does not support the operation. */
#define JIMU_FAILURE_UNSUPPORTED 9
/* The application violated its contract: invalid response headers, a body that does not match its length. */
#define JIMU_FAILURE_APPLICATION 10
/* The application could not be loaded. At start the server exits with status 4. */
#define JIMU_FAILURE_LOAD 11
/* The application speaks another interface than the worker class calls. */
#define JIMU_FAILURE_INTERFACE 12

/* Room for the text of a failure, in bytes. Longer texts are cut. */
#define JIMU_FAILURE_TEXT 4088

/*
 * A failure: memory of the caller, filled in by a function that returns JIMU_FAILED and otherwise untouched. Fill it in
 * with `jimu_fail`.
 */
typedef struct jimu_failure {
    /* JIMU_FAILURE_... */
    uint8_t kind;
    /* HTTP status to send if no part of the response has been sent; 0 for the default, 500. */
    uint16_t status;
    /* Length of `text` in bytes. */
    uint32_t length;
    /*
     * What failed, where, and what to do, in the first line. Lines after it are details for the log, such as a
     * traceback. Not terminated by NUL.
     */
    char text[JIMU_FAILURE_TEXT];
} jimu_failure;

/* Directions to wait for on a descriptor. */
#define JIMU_READ 1
#define JIMU_WRITE 2
#define JIMU_READ_WRITE 3

/* No time limit, where nanoseconds are expected. */
#define JIMU_FOREVER UINT64_MAX

/* ---- Small objects ---------------------------------------------------------------------------------------------- */

/* Wakes the side that waits. */
typedef struct jimu_waker_table {
    jimu_table table;
    /* Notifies the waiting side. Any thread, several at once. Must not block; wake-ups may be spurious. */
    void (*wake)(void *self);
    /* Ends the object. Called once, after the last `wake`. Any thread. */
    void (*drop)(void *self);
} jimu_waker_table;

/* Passed by value: the receiver owns it and drops it. `functions` is NULL for no waker. */
typedef struct jimu_waker {
    const jimu_waker_table *functions;
    void *self;
} jimu_waker;

/* A closure that is run once. */
typedef struct jimu_task_table {
    jimu_table table;
    /* Runs the task, on a thread of the receiver's choice. Called at most once. */
    void (*run)(void *self);
    /* Ends the object. Called once, whether or not it was run. Any thread. */
    void (*drop)(void *self);
} jimu_task_table;

/* Passed by value: the receiver owns it and drops it. */
typedef struct jimu_task {
    const jimu_task_table *functions;
    void *self;
} jimu_task;

/* Receives text that the other side writes; passed by pointer, valid during the call. */
typedef struct jimu_sink {
    /* Appends `text`. */
    void (*write)(void *to, jimu_str text);
    void *to;
} jimu_sink;

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

/* One header of a request or response. The name is ASCII; neither has line breaks or NUL. */
typedef struct jimu_header {
    jimu_str name;
    /* Without surrounding white space. Often but not always ASCII (RFC 9110 5.5). */
    jimu_bytes value;
} jimu_header;

/* One end of a connection. */
typedef struct jimu_address {
    /* IP address as text without brackets, path of a unix socket, or empty if there is none. */
    jimu_str host;
    /* Port; 0 for a unix socket. */
    uint16_t port;
} jimu_address;

/* TLS session of a connection. */
typedef struct jimu_tls {
    /* "TLSv1.3" for example. */
    jimu_str protocol;
    /* Cipher suite by its IANA name. */
    jimu_str cipher;
    /* Server name that the client requested (SNI); empty if it sent none. */
    jimu_str server_name;
    /* Verified client certificate in DER; empty if there is none. */
    jimu_bytes client_certificate;
} jimu_tls;

/* `content_length` of a body whose length is not known in advance. */
#define JIMU_LENGTH_UNKNOWN (-1)

/* Head of a request. Grows at its end: `size` says what the sender knows. */
typedef struct jimu_head {
    /* sizeof(jimu_head) of the sender. */
    uint32_t size;
    /* Ten times the major version plus the minor one: 10, 11, 20. */
    uint8_t version;
    /* Whether the peer is trusted to forward client information (`forwarded_allow_ips`). */
    bool trusted_peer;
    /* Whether the body is chunked. */
    bool chunked;
    /* A token: "GET". */
    jimu_str method;
    /* Request target exactly as sent. */
    jimu_bytes target;
    /* Path of the target, percent-encoded as sent; "*" for "OPTIONS *". */
    jimu_bytes path;
    /* Query of the target, without the "?"; empty if there is none. */
    jimu_bytes query;
    /* Authority of the request: from an absolute target, otherwise from the Host header. */
    jimu_str authority;
    /* "http" or "https". */
    jimu_str scheme;
    /* Length of the body; 0 if there is none, JIMU_LENGTH_UNKNOWN if it is chunked. */
    int64_t content_length;
    /* Headers in the order received. */
    const jimu_header *headers;
    size_t header_count;
    /* Address of the client; of the original client if a PROXY header gave one. */
    jimu_address peer;
    /* Address of the server. */
    jimu_address local;
    /* TLS session, NULL on a plain connection. */
    const jimu_tls *tls;
    /* Time at which the head was complete, on CLOCK_MONOTONIC in nanoseconds. */
    uint64_t received_ns;
    /* Number of the request, unique within the worker. */
    uint64_t id;
} jimu_head;

/* A connection that an application has taken over. */
typedef struct jimu_hijacked {
    /* Non-blocking descriptor, owned by the receiver; -1 if the connection cannot be handed over. */
    int32_t fd;
    /* Bytes that were already received after the request's head. Valid until the exchange is dropped. */
    jimu_bytes already_read;
} jimu_hijacked;

/*
 * One request and its response. Created by a worker class; used by one thread at a time, the one that calls the
 * application unless the application has detached it. After a switch of protocols (`start` with 101) the same functions
 * carry raw bytes.
 *
 * An application is lent it during `call`. A worker class that makes its own exchanges gives it away by `call`: the
 * receiver drops it, when the call returns or later. Its head stays valid and unchanged until then, and its `detach` may
 * be NULL.
 */
typedef struct jimu_exchange_table {
    jimu_table table;
    /* Returns the head. Valid until the next call with this exchange. */
    const jimu_head *(*head)(void *self);
    /*
     * Reads up to `length` bytes of the request's body into `buffer`, without blocking. JIMU_READY with `*done` 0 is the
     * end of the body. Takes the waker.
     */
    jimu_step (*read)(void *self, uint8_t *buffer, size_t length, jimu_waker waker, size_t *done, jimu_failure *failure);
    /*
     * Starts the response, or replaces one whose head has not been sent. The head is sent with the first write, or at
     * the end. `reason` may be empty. The server adds Date, Server, Connection and the framing; set Content-Length if
     * the length is known.
     */
    jimu_result (*start)(void *self, uint16_t status, jimu_str reason, const jimu_header *headers, size_t count,
                         jimu_failure *failure);
    /* Writes a part of the body without blocking; `*done` is the number of bytes accepted. Takes the waker. */
    jimu_step (*write)(void *self, const uint8_t *bytes, size_t length, jimu_waker waker, size_t *done,
                       jimu_failure *failure);
    /* Sends a part of an open file as a part of the body, without blocking. Takes the waker. */
    jimu_step (*send_file)(void *self, int32_t fd, uint64_t offset, uint64_t length, jimu_waker waker, size_t *done,
                           jimu_failure *failure);
    /* Sends an informational response (1xx) ahead of the final one. */
    jimu_result (*informational)(void *self, uint16_t status, const jimu_header *headers, size_t count,
                                 jimu_failure *failure);
    /* Sets the trailer fields of a chunked body. */
    jimu_result (*trailers)(void *self, const jimu_header *headers, size_t count, jimu_failure *failure);
    /* Finishes the response without blocking. On failure the exchange stays open and must be failed. */
    jimu_result (*finish)(void *self, jimu_failure *failure);
    /* Fails the exchange: sends an error response if nothing has been sent, otherwise closes the connection. */
    void (*fail)(void *self, const jimu_failure *failure);
    /* Hands the connection over, before the response is started or after the head of a 101. */
    jimu_result (*hijack)(void *self, jimu_hijacked *hijacked, jimu_failure *failure);
    /* Returns the connection's descriptor, for inspection; -1 after the end of the exchange. */
    int32_t (*descriptor)(void *self);
    /* Returns the deadline of the response on CLOCK_MONOTONIC in nanoseconds; 0 for none. */
    uint64_t (*deadline_ns)(void *self);
    /* Extends the deadline. */
    void (*extend_deadline)(void *self, uint64_t by_ns);
    /* Registers a waker that fires when the client disconnects. Takes the waker. */
    void (*on_disconnect)(void *self, jimu_waker waker);
    /*
     * Blocks, as the worker class does, until the last JIMU_PENDING in this direction can be retried. Only during the
     * application's call.
     */
    jimu_result (*wait)(void *self, uint8_t interest, jimu_failure *failure);
    /* Returns whether the addresses in the head come from a PROXY header. */
    bool (*is_proxied)(void *self);
    /*
     * Takes the exchange out of the application's call, so that it can be finished later and on another thread: returns
     * one that the caller owns and drops. `self` is not used any more. Requires JIMU_NEEDS_DEFERRED.
     */
    struct jimu_exchange (*detach)(void *self);
    /* Ends the object. An exchange that is not finished fails. Called by the owner, once. */
    void (*drop)(void *self);
} jimu_exchange_table;

typedef struct jimu_exchange {
    const jimu_exchange_table *functions;
    void *self;
} jimu_exchange;

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

/* `*error` of an operation of a session that has failed: the system's error number, or one of these. */
/* The client violates the protocol, or the session cannot continue. The failure says why. */
#define JIMU_TLS_REFUSED 0
/* The client does not use TLS: its first byte is that of an HTTP request. */
#define JIMU_TLS_PLAIN_HTTP (-1)

/* Receives bytes; passed by pointer, valid during the call. */
typedef struct jimu_byte_sink {
    /* Appends `bytes`. */
    void (*write)(void *to, jimu_bytes bytes);
    void *to;
} jimu_byte_sink;

/*
 * The session of a connection, whose non-blocking socket every operation is given. None waits: one that would have to
 * returns JIMU_PENDING. Any thread, several at once.
 */
typedef struct jimu_tls_session_table {
    jimu_table table;
    /* Reads bytes of HTTP; JIMU_READY with `*done` 0 is the end, with or without a close alert. */
    jimu_step (*read)(void *self, int32_t socket, uint8_t *buffer, size_t length, size_t *done, int32_t *error,
                      jimu_failure *failure);
    /* Takes bytes of HTTP and sends what the socket accepts; `*done` were taken, and may still be unsent. */
    jimu_step (*write)(void *self, int32_t socket, const jimu_bytes *parts, size_t count, size_t *done, int32_t *error,
                       jimu_failure *failure);
    /* Sends a part of the unsent bytes. */
    jimu_step (*flush_some)(void *self, int32_t socket, size_t *done, int32_t *error, jimu_failure *failure);
    /* Sends the close alert. */
    jimu_step (*send_close_notify)(void *self, int32_t socket, int32_t *error, jimu_failure *failure);
    /*
     * Encrypts the last bytes of the connection and the close alert, and writes them to `sink` in place of the socket.
     * Returns false if another thread is in the middle of an operation, for which it does not wait.
     */
    bool (*seal)(void *self, jimu_bytes last, const jimu_byte_sink *sink);
    /* Returns whether there are unsent bytes. */
    bool (*wants_write)(void *self);
    /* Returns the properties of the session after its handshake. Valid until the session is dropped. */
    jimu_tls (*properties)(void *self);
    /* Ends the object. Called once, by the owner. */
    void (*drop)(void *self);
} jimu_tls_session_table;

typedef struct jimu_tls_session {
    const jimu_tls_session_table *functions;
    void *self;
} jimu_tls_session;

/* The server's TLS configuration. Any thread, several at once; valid for the life of the process. */
typedef struct jimu_tls_config_table {
    jimu_table table;
    /* Creates the session of a connection, from which `received` was read. Fails as an operation of a session does. */
    jimu_step (*session)(void *self, jimu_bytes received, jimu_tls_session *session, int32_t *error,
                         jimu_failure *failure);
} jimu_tls_config_table;

typedef struct jimu_tls_config {
    const jimu_tls_config_table *functions;
    void *self;
} jimu_tls_config;

/* ---- The end of a request ---------------------------------------------------------------------------------------- */

/* Summary of a finished request. Grows at its end. */
typedef struct jimu_access_record {
    /* sizeof(jimu_access_record) of the sender. */
    uint32_t size;
    /* Status sent; 0 if none was sent. */
    uint16_t status;
    /* Request head; NULL if the request was rejected before its head was complete. */
    const jimu_head *head;
    /* Request line as received, if there is no head. */
    jimu_bytes request_line;
    /* Address of the client, if there is no head. */
    jimu_address peer;
    /* Number of body bytes sent, without framing. */
    uint64_t body_bytes;
    /* Time from the complete head to the end of the response. */
    uint64_t duration_ns;
    /* Response headers, if the host's `wants_response_headers` returns true. */
    const jimu_header *response_headers;
    size_t response_header_count;
} jimu_access_record;

/* ---- The host ---------------------------------------------------------------------------------------------------- */

/* Types of settings. */
#define JIMU_UNSET 0
#define JIMU_BOOL 1
/* Durations are in seconds. */
#define JIMU_INT 2
#define JIMU_FLOAT 3
/* Text or a path. */
#define JIMU_TEXT 4
#define JIMU_LIST 5

/* Value of a setting. Texts and lists are valid for the life of the process. */
typedef struct jimu_value {
    /* JIMU_UNSET ... JIMU_LIST: which of the others is valid. */
    uint8_t type;
    bool boolean;
    int64_t integer;
    double real;
    jimu_str text;
    const jimu_str *list;
    size_t list_length;
} jimu_value;

/* One listening socket of the server. */
typedef struct jimu_listener {
    /* Non-blocking, shared with the other workers. Owned by the host. */
    int32_t fd;
    /* Whether this is a unix socket. */
    bool is_unix;
    /* Address as bound: "127.0.0.1:8000", "unix:/run/app.sock"; or "private" for the one of the health probe. */
    jimu_str name;
} jimu_listener;

/* Counters in the worker's slot of the scoreboard. */
/* Connections accepted. */
#define JIMU_COUNT_ACCEPTED 0
/* Open connections (gauge). */
#define JIMU_COUNT_CONNECTIONS 1
/* Busy greenlets or threads (gauge). */
#define JIMU_COUNT_BUSY_SLOTS 2
/* Upper bound of JIMU_COUNT_BUSY_SLOTS. */
#define JIMU_COUNT_SLOTS 3
/* Microseconds that one request waited for the application. */
#define JIMU_COUNT_QUEUED_US 4
/* Open connections that carry another protocol (gauge). */
#define JIMU_COUNT_UPGRADED 5
/* WebSocket messages received. */
#define JIMU_COUNT_MESSAGES_RECEIVED 6
/* WebSocket messages sent. */
#define JIMU_COUNT_MESSAGES_SENT 7

/* Levels of the log. */
#define JIMU_LOG_CRITICAL 0
#define JIMU_LOG_ERROR 1
#define JIMU_LOG_WARNING 2
#define JIMU_LOG_INFO 3
#define JIMU_LOG_DEBUG 4
#define JIMU_LOG_TRACE 5

/*
 * Services of the host. Valid for the life of the process, in the mold and after the fork in each worker. Any thread,
 * several at once, unless stated otherwise.
 */
typedef struct jimu_host_table {
    jimu_table table;
    /* Returns a setting by its name in the settings file. */
    jimu_value (*setting)(void *self, jimu_str name);
    /* Returns this plugin's section of the settings file as TOML. Valid for the life of the process. */
    jimu_str (*section)(void *self);
    /*
     * Returns the contents of the file that a setting names, as read before privileges were dropped; `data` is NULL if
     * the setting is not set. Valid for the life of the process.
     */
    jimu_result (*setting_file)(void *self, jimu_str name, jimu_bytes *contents, jimu_failure *failure);
    /* Returns the listening sockets. Valid for the life of the process. */
    const jimu_listener *(*listeners)(void *self, size_t *count);
    /* Returns the number of connections that a stopping worker still accepts from this listening socket. */
    uint64_t (*remaining_backlog)(void *self, int32_t listener);
    /* Closes this process's copies of the listening sockets. Once, by the class, after it has stopped accepting. */
    void (*close_listeners)(void *self);
    /* Returns the 1-based spawn number of this worker; 0 in the mold. */
    uint64_t (*spawn_index)(void *self);
    /* Returns the arbiter's process ID. A worker with another parent is orphaned. */
    int32_t (*arbiter_pid)(void *self);
    /* Records a heartbeat: by the class, at least once per second. The first one within `run` reports readiness. */
    void (*notify)(void *self);
    /* Returns whether this worker should continue. */
    bool (*alive)(void *self);
    /* Makes `alive` return false, as TERM does. */
    void (*stop)(void *self);
    /* Asks the arbiter to replace this worker; TERM follows when the replacement is ready. `reason` may be empty. */
    void (*retire)(void *self, jimu_str reason);
    /* Returns a descriptor that becomes readable when a signal arrives. Watch it and call `deliver_signals`. */
    int32_t (*wake_descriptor)(void *self);
    /* Calls the worker's `handle_*` functions for each signal that has arrived. Main thread. */
    void (*deliver_signals)(void *self);
    /* Performs the action of the server's handler for that signal. */
    void (*on_signal)(void *self, int32_t signal);
    /* Reinstalls the server's signal handlers in front of those of the application. */
    void (*reclaim_signals)(void *self);
    /* Returns a non-blocking descriptor for use in signal handlers; see `run_signal_handlers`. -1 in the mold. */
    int32_t (*signal_descriptor)(void *self);
    /* Adds to a counter: JIMU_COUNT_... */
    void (*count)(void *self, uint8_t counter, int64_t by);
    /* Reports that a request head is complete; returns a token for `request_ended`, never 0. */
    uint32_t (*request_started)(void *self, const jimu_head *head);
    /* Reports the end of the request with this token; 0 for one that was rejected without a head. */
    void (*request_ended)(void *self, uint32_t token, const jimu_access_record *record);
    /* Returns whether the access log refers to response headers. */
    bool (*wants_response_headers)(void *self);
    /* Returns the most verbose level that is logged. */
    uint8_t (*log_level)(void *self);
    /* Writes a line to the error log. `target` names the part of the plugin. */
    void (*log)(void *self, uint8_t level, jimu_str target, jimu_str message);
    /* Writes text to the error log unchanged, in one piece: for an application's error stream. */
    void (*write_log)(void *self, jimu_str target, jimu_bytes text);
    /* Overrides a variable of the access log (`%({NAME}e)s`) for the request with this number. */
    void (*set_logged_variable)(void *self, uint64_t request, jimu_str name, jimu_bytes value);
    /* Has `task` run once if another process aborts the worker: in a signal handler, so it must not wait. Takes it. */
    void (*at_abort)(void *self, jimu_task task);
    /* Writes the names of the variables that the access log uses, one in each write. */
    void (*logged_variables)(void *self, const jimu_sink *sink);
    /*
     * Writes a stack to the error log: `heading`, and the functions at `addresses`, the innermost first. Another process
     * finds their names.
     */
    void (*log_stack)(void *self, uint8_t level, jimu_str target, jimu_str heading, const uintptr_t *addresses,
                      size_t count);
    /*
     * Creates the TLS configuration by the settings; without the setting `certfile` it fails. `protocols` are the
     * application protocols that the class speaks, by their names for ALPN (RFC 7301). Call it in `setup`, too: that
     * refuses wrong settings, and creates the secret by which workers resume each other's sessions.
     */
    jimu_result (*tls)(void *self, const jimu_str *protocols, size_t count, jimu_tls_config *config,
                       jimu_failure *failure);
} jimu_host_table;

typedef struct jimu_host {
    const jimu_host_table *functions;
    void *self;
} jimu_host;

/* ---- The worker class's services for the application --------------------------------------------------------------- */

/*
 * Waits in the way of the worker class: under a cooperative class other requests run in that time. Valid for the life of the
 * process. Threads on which the class calls the application, and spawned tasks.
 */
typedef struct jimu_runtime_table {
    jimu_table table;
    /* Returns whether waiting lets other requests run on this thread. */
    bool (*cooperative)(void *self);
    /* Waits for a descriptor. `*ready` is false if the time passes first. */
    jimu_result (*wait_fd)(void *self, int32_t fd, uint8_t interest, uint64_t timeout_ns, bool *ready,
                           jimu_failure *failure);
    /* Waits for this time. */
    jimu_result (*sleep)(void *self, uint64_t ns, jimu_failure *failure);
    /* Runs a task in the background: in a greenlet or a thread. Takes the task. */
    jimu_result (*spawn)(void *self, jimu_task task, jimu_failure *failure);
    /* Runs a task that may block on a thread, and waits until it has finished. Takes the task. */
    jimu_result (*offload)(void *self, jimu_task task, jimu_failure *failure);
    /*
     * Connects to "HOST:PORT", "[IPV6]:PORT" or "unix:PATH". The addresses of a host name are tried in order, all of them
     * within the time. `*fd` is a non-blocking socket that the caller owns: when a read or a write would block, wait with
     * `wait_fd`. Fails with JIMU_FAILURE_TIMEOUT when the time has passed, with JIMU_FAILURE_IO if the connection is refused
     * or the name is unknown.
     */
    jimu_result (*connect)(void *self, jimu_str address, uint64_t timeout_ns, int32_t *fd, jimu_failure *failure);
    /*
     * Looks up the addresses of a host on another thread, with the system's resolver, and writes each with its port to
     * `addresses`, in the form that `connect` reads. Fails as `connect` does.
     */
    jimu_result (*resolve)(void *self, jimu_str host, uint16_t port, uint64_t timeout_ns, const jimu_sink *addresses,
                           jimu_failure *failure);
} jimu_runtime_table;

typedef struct jimu_runtime {
    const jimu_runtime_table *functions;
    void *self;
} jimu_runtime;

/* The engine of a class, for an application with an event loop. Main thread; valid until `run_loop` returns. */
typedef struct jimu_engine_table {
    jimu_table table;
    /* Returns the descriptor to watch for reading, level-triggered. */
    int32_t (*descriptor)(void *self);
    /* Processes pending events without blocking: call it whenever the descriptor is readable. */
    jimu_result (*turn)(void *self, jimu_failure *failure);
    /* Returns whether the worker has stopped and has no exchange left: `run_loop` then returns. */
    bool (*stopped)(void *self);
} jimu_engine_table;

typedef struct jimu_engine {
    const jimu_engine_table *functions;
    void *self;
} jimu_engine;

/* ---- Applications ------------------------------------------------------------------------------------------------- */

/* The application keeps exchanges and finishes them after `call` has returned. */
#define JIMU_NEEDS_DEFERRED 1
/* The application brings an event loop: the class calls `run_loop`. */
#define JIMU_NEEDS_LOOP 2

/*
 * An application. Order of calls: `create` in the mold; `load` in the mold with `preload_app`, otherwise in each worker;
 * `before_fork` and `after_fork` around each fork; then in each worker `load` (unless preloaded), `init_worker`, `call`
 * for each request or `run_loop` once, and `shutdown`.
 */
typedef struct jimu_app_table {
    jimu_table table;
    /*
     * Serves one request. Several threads at once under a class with threads, in a greenlet with a small stack under a
     * cooperative class. If it returns JIMU_OK and the exchange is open, it is finished; if it fails, the client gets
     * the failure's status, or a cut connection if a part of the response has been sent.
     */
    jimu_result (*call)(void *self, jimu_exchange *exchange, jimu_failure *failure);
    /* Optional. Loads what is slow or can fail. */
    jimu_result (*load)(void *self, jimu_failure *failure);
    /* Optional. In a worker before its first request, main thread. */
    jimu_result (*init_worker)(void *self, const jimu_runtime *runtime, jimu_failure *failure);
    /* Optional; required by JIMU_NEEDS_LOOP. Runs the application's loop around the engine, on the main thread. */
    jimu_result (*run_loop)(void *self, const jimu_engine *engine, jimu_failure *failure);
    /* Optional. In a worker that exits gracefully, after its last request. */
    void (*shutdown)(void *self);
    /* Optional. Once when the worker begins to drain, main thread. Must not block. */
    void (*drain)(void *self);
    /* Optional. In the mold before each fork. */
    void (*before_fork)(void *self);
    /* Optional. After each fork, in the mold and in the child. */
    void (*after_fork)(void *self, bool in_child);
    /* Optional. A server hook, by its gunicorn name, with numbers that describe the event. */
    jimu_result (*hook)(void *self, jimu_str event, const int64_t *facts, size_t count, jimu_failure *failure);
    /* Optional. Describes what each request is doing. While other threads serve. */
    void (*trace)(void *self, const jimu_sink *sink);
    /* Optional. Writes the files to watch with `--reload`, one in each write. */
    void (*files)(void *self, const jimu_sink *sink);
    /* Optional. Returns the stack size of the threads that call the application; 0 for the class's default. */
    uint64_t (*stack_size)(void *self);
    /* Optional. Runs pending signal handlers, after a byte was written to `signal_descriptor`. Main thread. */
    void (*run_signal_handlers)(void *self);
    /* Optional. In the mold before it reads a message: runs what was started there until the descriptor is readable. */
    void (*wait_in_mold)(void *self, int32_t descriptor);
} jimu_app_table;

/* An application as a worker class calls it. Any thread, several at once. */
typedef struct jimu_app {
    const jimu_app_table *functions;
    void *self;
    /* JIMU_NEEDS_... */
    uint64_t needs;
} jimu_app;

/* ---- Worker classes ------------------------------------------------------------------------------------------------ */

/* Drives exchanges that an application has detached. */
#define JIMU_CAN_DEFER 1
/* Hands its engine to the application's loop. */
#define JIMU_CAN_LOOP 2
/* Calls the application from several threads at once. */
#define JIMU_HAS_THREADS 4
/* Serves several requests concurrently on one thread. */
#define JIMU_IS_COOPERATIVE 8

/* A worker: one in each worker process, main thread. Order of calls: `init_process`, `run`. */
typedef struct jimu_worker_table {
    jimu_table table;
    /* Serves until the host's `alive` returns false, then finishes what it has and returns. */
    jimu_result (*run)(void *self, jimu_failure *failure);
    /* Optional. Prepares the process and calls the application's `init_worker`. */
    jimu_result (*init_process)(void *self, jimu_failure *failure);
    /* Optional. TERM: exit gracefully. From within `deliver_signals`, as the others. */
    void (*handle_exit)(void *self);
    /* Optional. QUIT and INT: exit at once. */
    void (*handle_quit)(void *self);
    /* Optional. WINCH. */
    void (*handle_winch)(void *self);
    /* Optional. USR1: reopen log files of the class. */
    void (*handle_usr1)(void *self);
    /* Optional. Describes what the worker's threads are doing. */
    void (*trace)(void *self, const jimu_sink *sink);
} jimu_worker_table;

/* ---- Hooks ---------------------------------------------------------------------------------------------------------- */

/* Hooks: server events in the mold and in workers, and requests. */
typedef struct jimu_hooks_table {
    jimu_table table;
    /* A server hook, by its gunicorn name, with numbers that describe the event. */
    jimu_result (*event)(void *self, jimu_str event, const int64_t *facts, size_t count, jimu_failure *failure);
    /* Optional. When a request head is complete, on the thread that serves the request. */
    void (*pre_request)(void *self, const jimu_head *head);
    /* Optional. At the end of a request. */
    void (*post_request)(void *self, const jimu_access_record *record);
} jimu_hooks_table;

/* ---- What a library exports ------------------------------------------------------------------------------------------ */

/* Kinds of plugins. */
#define JIMU_KIND_APPLICATION 1
#define JIMU_KIND_WORKER_CLASS 2
#define JIMU_KIND_HOOKS 3

/* "jimu", as a little-endian number: `magic` of every exported table. */
#define JIMU_MAGIC UINT32_C(0x756d696a)

/*
 * Flag: do not open the library in the mold, but in each worker after the fork. For runtimes that do not survive a fork
 * (Go's), and libraries that start threads when they are opened. The mold checks the file and the numbers of the table
 * only; `preload_app` has no effect. For applications.
 */
#define JIMU_LOAD_IN_WORKER UINT64_C(1)

/* The beginning of every exported table. Its numbers are read from the file before the library is opened. */
typedef struct jimu_module_head {
    jimu_table table;
    uint32_t magic;
    /* JIMU_KIND_... */
    uint32_t kind;
    /* JIMU_LOAD_IN_WORKER or 0. */
    uint64_t flags;
    /* JIMU_NEEDS_... of an application, JIMU_CAN_... and so on of a class, 0 of hooks. */
    uint64_t features;
    /* Terminated by NUL, UTF-8. */
    const char *name;
    const char *version;
} jimu_module_head;

/* Arguments of an application's `create`. */
typedef struct jimu_app_context {
    /* sizeof(jimu_app_context) of the sender. */
    uint32_t size;
    /* Application as named on the command line. */
    jimu_str spec;
    /* Name of the worker class that serves it. */
    jimu_str worker_class;
    /* Guest loop that the class is made for; empty if the application must not bring a loop. */
    jimu_str guest_loop;
} jimu_app_context;

/* An application. */
typedef struct jimu_application {
    jimu_module_head head;
    /* Creates the application and stores its `self`. */
    jimu_result (*create)(const jimu_host *host, const jimu_app_context *context, void **self, jimu_failure *failure);
    const jimu_app_table *functions;
} jimu_application;

/* A worker class. */
typedef struct jimu_worker_class {
    jimu_module_head head;
    /* One line: how the class serves requests. */
    const char *description;
    /* Optional. Guest loop that the class is made for. */
    const char *guest_loop;
    /* Optional. Access log format, if the operator sets none. */
    const char *access_log_format;
    /* Optional. Checks the class's settings, in the mold. */
    jimu_result (*setup)(const jimu_host *host, jimu_failure *failure);
    /* Creates the worker in its process and stores its `self`. `host` and `app` live as long as the process. */
    jimu_result (*create)(const jimu_host *host, const jimu_app *app, void **self, jimu_failure *failure);
    const jimu_worker_table *functions;
} jimu_worker_class;

/* A hook plugin. */
typedef struct jimu_hooks_module {
    jimu_module_head head;
    /* Creates the hooks, in the mold, and stores their `self`. */
    jimu_result (*create)(const jimu_host *host, void **self, jimu_failure *failure);
    const jimu_hooks_table *functions;
} jimu_hooks_module;

/* Makes a symbol visible to the server, also in a library that hides its symbols. */
#define JIMU_VISIBLE __attribute__((visibility("default")))
#ifdef __cplusplus
#define JIMU_EXPORT_(type) extern "C" JIMU_VISIBLE const type jimu_module
#else
#define JIMU_EXPORT_(type) extern JIMU_VISIBLE const type jimu_module; const type jimu_module
#endif

/* `JIMU_EXPORT_APPLICATION = { JIMU_APPLICATION("name", "1.0", needs, flags), create, &functions };` */
#define JIMU_EXPORT_APPLICATION JIMU_EXPORT_(jimu_application)
#define JIMU_EXPORT_WORKER_CLASS JIMU_EXPORT_(jimu_worker_class)
#define JIMU_EXPORT_HOOKS JIMU_EXPORT_(jimu_hooks_module)

/* Heads of the exported tables. */
#define JIMU_APPLICATION(name, version, needs, flags) \
    { JIMU_TABLE(jimu_application), JIMU_MAGIC, JIMU_KIND_APPLICATION, (flags), (needs), (name), (version) }
#define JIMU_WORKER_CLASS(name, version, features) \
    { JIMU_TABLE(jimu_worker_class), JIMU_MAGIC, JIMU_KIND_WORKER_CLASS, 0, (features), (name), (version) }
#define JIMU_HOOKS(name, version) \
    { JIMU_TABLE(jimu_hooks_module), JIMU_MAGIC, JIMU_KIND_HOOKS, 0, 0, (name), (version) }

/* ---- Helpers: plain C on top of the tables ------------------------------------------------------------------------- */

/* The text of a string that ends in NUL. */
static inline jimu_str jimu_text(const char *text) {
    jimu_str value = { text, text ? strlen(text) : 0 };
    return value;
}

/* Whether a text is this string. */
static inline bool jimu_is(jimu_str text, const char *other) {
    return text.length == strlen(other) && memcmp(text.data, other, text.length) == 0;
}

/* Whether bytes are this string. */
static inline bool jimu_bytes_are(jimu_bytes bytes, const char *other) {
    return bytes.length == strlen(other) && memcmp(bytes.data, other, bytes.length) == 0;
}

/* A header of two strings that end in NUL. */
static inline jimu_header jimu_header_of(const char *name, const char *value) {
    jimu_header header = { jimu_text(name), { (const uint8_t *)value, strlen(value) } };
    return header;
}

/* Fills in a failure and returns JIMU_FAILED: `return jimu_fail(failure, JIMU_FAILURE_CONFIG, "no such directory");` */
static inline jimu_result jimu_fail(jimu_failure *failure, uint8_t kind, const char *text) {
    size_t length = strlen(text);
    failure->kind = kind;
    failure->status = 0;
    failure->length = (uint32_t)(length < JIMU_FAILURE_TEXT ? length : JIMU_FAILURE_TEXT);
    memcpy(failure->text, text, failure->length);
    return JIMU_FAILED;
}

/* Returns the value of the first header with this name, ignoring ASCII case; `data` is NULL if there is none. */
static inline jimu_bytes jimu_head_find(const jimu_head *head, const char *name) {
    jimu_bytes none = { NULL, 0 };
    size_t length = strlen(name), index, at;
    for (index = 0; index < head->header_count; index++) {
        const jimu_header *header = &head->headers[index];
        if (header->name.length != length) {
            continue;
        }
        for (at = 0; at < length; at++) {
            unsigned char a = (unsigned char)header->name.data[at], b = (unsigned char)name[at];
            if ((a >= 'A' && a <= 'Z' ? a + 32 : a) != (b >= 'A' && b <= 'Z' ? b + 32 : b)) {
                break;
            }
        }
        if (at == length) {
            return header->value;
        }
    }
    return none;
}

/* Returns the value of the first query parameter with this name, percent-encoded as sent; `data` is NULL if absent. */
static inline jimu_bytes jimu_head_query(const jimu_head *head, const char *name) {
    jimu_bytes none = { NULL, 0 };
    size_t length = strlen(name), at = 0;
    while (at < head->query.length) {
        const uint8_t *pair = head->query.data + at;
        const uint8_t *end = (const uint8_t *)memchr(pair, '&', head->query.length - at);
        size_t size = end ? (size_t)(end - pair) : head->query.length - at;
        if (size >= length && memcmp(pair, name, length) == 0 && (size == length || pair[length] == '=')) {
            size_t skipped = size == length ? length : length + 1;
            jimu_bytes value = { pair + skipped, size - skipped };
            return value;
        }
        at += size + 1;
    }
    return none;
}

/* Writes a line to the error log. */
static inline void jimu_log(const jimu_host *host, uint8_t level, const char *target, const char *message) {
    host->functions->log(host->self, level, jimu_text(target), jimu_text(message));
}

/* Reads from the body, blocking as the worker class does. `*done` is 0 at the end of the body. */
static inline jimu_result jimu_read(jimu_exchange *exchange, void *buffer, size_t length, size_t *done,
                                    jimu_failure *failure) {
    jimu_waker none = { NULL, NULL };
    for (;;) {
        jimu_step step =
            exchange->functions->read(exchange->self, (uint8_t *)buffer, length, none, done, failure);
        if (step != JIMU_PENDING) {
            return step;
        }
        if (exchange->functions->wait(exchange->self, JIMU_READ, failure) != JIMU_OK) {
            return JIMU_FAILED;
        }
    }
}

/* Writes all bytes to the body, blocking as the worker class does. */
static inline jimu_result jimu_write(jimu_exchange *exchange, const void *bytes, size_t length,
                                     jimu_failure *failure) {
    jimu_waker none = { NULL, NULL };
    const uint8_t *rest = (const uint8_t *)bytes;
    while (length > 0) {
        size_t done = 0;
        jimu_step step = exchange->functions->write(exchange->self, rest, length, none, &done, failure);
        if (step == JIMU_READY) {
            rest += done;
            length -= done;
        } else if (step != JIMU_PENDING || exchange->functions->wait(exchange->self, JIMU_WRITE, failure) != JIMU_OK) {
            return JIMU_FAILED;
        }
    }
    return JIMU_OK;
}

/* Sends a part of a file, blocking as the worker class does. */
static inline jimu_result jimu_send_file(jimu_exchange *exchange, int32_t fd, uint64_t offset, uint64_t length,
                                         jimu_failure *failure) {
    jimu_waker none = { NULL, NULL };
    while (length > 0) {
        size_t done = 0;
        jimu_step step =
            exchange->functions->send_file(exchange->self, fd, offset, length, none, &done, failure);
        if (step == JIMU_READY) {
            offset += done;
            length = done < length ? length - done : 0;
        } else if (step != JIMU_PENDING || exchange->functions->wait(exchange->self, JIMU_WRITE, failure) != JIMU_OK) {
            return JIMU_FAILED;
        }
    }
    return JIMU_OK;
}

/* Starts a response. */
static inline jimu_result jimu_start(jimu_exchange *exchange, uint16_t status, const jimu_header *headers, size_t count,
                                     jimu_failure *failure) {
    return exchange->functions->start(exchange->self, status, jimu_text(""), headers, count, failure);
}

/* Sends a complete response of this type with its length. */
static inline jimu_result jimu_respond(jimu_exchange *exchange, uint16_t status, const char *content_type,
                                       const void *body, size_t length, jimu_failure *failure) {
    char digits[21];
    size_t at = sizeof digits - 1, rest = length;
    jimu_header headers[2];
    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    headers[0] = jimu_header_of("Content-Type", content_type);
    headers[1] = jimu_header_of("Content-Length", digits + at);
    if (jimu_start(exchange, status, headers, 2, failure) != JIMU_OK ||
        jimu_write(exchange, body, length, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    return exchange->functions->finish(exchange->self, failure);
}

#ifdef __cplusplus
}
#endif

#endif
