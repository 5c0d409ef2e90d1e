/*
 * jimu_kit.h - the kit of the Jimu application server for worker classes in C: connections, TLS, HTTP, limits, the access
 * log. The class accepts and waits, and the kit does the rest.
 *
 * Link libjimu_kit.a; docs/c.md has the command. It is built with one version of the server but depends on none: it
 * reaches the server by jimu.h alone. Its version is 0.x: a class may need changes to be built with a newer one.
 *
 *     jimu_kit_accept --> connection --jimu_kit_advance--> JIMU_READ, JIMU_WRITE   wait, at most until the deadline
 *                             ^                        |-> JIMU_KIT_REQUEST        jimu_kit_call
 *                             |                        '-> JIMU_KIT_CLOSED         jimu_kit_close
 *                             '------- jimu_kit_call <--- the application returns
 *
 * What the kit does: HTTP, TLS, limits, the access log, `request_started` and `request_ended`, `max_requests`,
 * `request_timeout` (a request that exceeds it gets a 500, and its connection is shut down), JIMU_COUNT_ACCEPTED,
 * JIMU_COUNT_BUSY_SLOTS and JIMU_COUNT_UPGRADED. What the class does: the heartbeat, signals, waiting,
 * JIMU_COUNT_CONNECTIONS, JIMU_COUNT_SLOTS, `worker_connections`. The host calls the application's `load`, `drain` and
 * `shutdown`.
 *
 * Order in `run`: while `alive`, tick, wait, `deliver_signals`, accept, advance. Then `jimu_kit_drain`; accept
 * `jimu_kit_remaining_backlog` of each listening socket; the host's `close_listeners`, after which no listening socket is
 * used; serve on until no connection is left and no background work, or until the graceful deadline; and
 * `jimu_kit_cut_requests`.
 *
 * Not offered: exchanges that an application detaches (JIMU_CAN_DEFER), and loops of applications (JIMU_CAN_LOOP).
 *
 * Threads: a kit is used on all threads of its worker. A connection is used by one thread at a time.
 */
#ifndef JIMU_KIT_H
#define JIMU_KIT_H

#include "jimu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The kit of a worker, which lives as long as the process. */
typedef struct jimu_kit jimu_kit;

/* A connection, owned by the class except during `jimu_kit_call`. */
typedef struct jimu_kit_connection jimu_kit_connection;

/* What a connection is waiting for: JIMU_READ, JIMU_WRITE, JIMU_READ_WRITE, or one of these. */
typedef int32_t jimu_kit_next;
/* A request is complete as far as the class has to know: pass the connection to `jimu_kit_call`. */
#define JIMU_KIT_REQUEST 4
/* Nothing: pass the connection to `jimu_kit_close`. */
#define JIMU_KIT_CLOSED 5

/* The class serves several requests on a connection. */
#define JIMU_KIT_KEEP_ALIVE 1u
/*
 * The kit reads request bodies before the call, and sends the ends of responses after it, so that slow clients hold no
 * thread. For classes whose threads block. Not buffered: bodies larger than `body_buffer_max` or announced with
 * `Expect: 100-continue`, and streamed responses.
 */
#define JIMU_KIT_BUFFERS 2u

/* Checks the settings that the kit reads: for the class's `setup`. */
jimu_result jimu_kit_check(const jimu_host *host, jimu_failure *failure);

/*
 * Creates the kit of a worker: in the class's `create`, on the main thread. `flags` is a set of JIMU_KIT_... NULL if it
 * fails. It is never freed: a worker whose `create` fails ends.
 */
jimu_kit *jimu_kit_new(const jimu_host *host, const jimu_app *app, uint32_t flags, jimu_failure *failure);

/* Calls the application's `init_worker` with a runtime whose waits block: in the class's `init_process`. */
jimu_result jimu_kit_init_worker(jimu_kit *kit, jimu_failure *failure);

/*
 * Records a heartbeat, as the host's `notify`: on the main thread, at least once per second, and whenever
 * `jimu_kit_pause_ns` has passed.
 */
void jimu_kit_tick(jimu_kit *kit);

/* Returns how long to wait if nothing happens. */
uint64_t jimu_kit_pause_ns(jimu_kit *kit);

/*
 * Waits in poll(2), on the main thread of a class that does nothing else there: for a client if the worker `accepts`, and
 * for a signal, at most for `jimu_kit_pause_ns`. A worker that does not accept waits for a tenth of a second: a connection
 * may end, or give way (`jimu_kit_make_room`). Does not deliver signals.
 */
void jimu_kit_wait_for_clients(jimu_kit *kit, bool accepts);

/* Returns the time that deadlines refer to: CLOCK_MONOTONIC in nanoseconds. */
uint64_t jimu_kit_now_ns(void);

/* Returns the stack size in bytes of threads that call the application. */
size_t jimu_kit_stack_size(jimu_kit *kit);

/* Returns the largest number of connections of a worker (`worker_connections`). */
size_t jimu_kit_capacity(jimu_kit *kit);

/* Returns the number of listening sockets. */
size_t jimu_kit_listeners(jimu_kit *kit);

/* Returns the descriptor of a listening socket, to watch for reading. */
int32_t jimu_kit_listener(jimu_kit *kit, size_t index);

/*
 * Accepts one connection of a listening socket, and counts it. NULL if none is waiting; then, if `*rest_ns` is not 0,
 * accepting fails for lack of descriptors or memory: do not watch the listeners for that long. Accept one for each time
 * that a listening socket is ready, so that workers share the load.
 */
jimu_kit_connection *jimu_kit_accept(jimu_kit *kit, size_t index, uint64_t *rest_ns);

/*
 * Reads and writes as far as possible without blocking, and returns what the connection waits for. Call it after
 * `jimu_kit_accept`, after `jimu_kit_call`, and when the descriptor is ready or has an error; at any other time it does no
 * harm. The descriptor of a connection never changes.
 */
jimu_kit_next jimu_kit_advance(jimu_kit_connection *connection);

/* The same for a connection whose deadline has passed. */
jimu_kit_next jimu_kit_expire(jimu_kit_connection *connection);

/*
 * For a class with a thread for each connection: waits in poll(2) on that thread for what the connection needs, which is
 * `interest`, JIMU_READ, JIMU_WRITE or JIMU_READ_WRITE, at most until its deadline; then advances the connection or has it
 * expire. Shortens the deadline of an idle connection if the worker drains.
 */
jimu_kit_next jimu_kit_wait_for_client(jimu_kit *kit, jimu_kit_connection *connection, int32_t interest);

/*
 * For the same class, at its capacity: of the connections that wait in `jimu_kit_wait_for_client` for a request, closes
 * those that have waited longest, if for JIMU_KIT_EVICTABLE_NS or more, one for each client in the backlog of the
 * listening socket. Their threads get JIMU_KIT_CLOSED. Logs it, and returns how many there are.
 */
size_t jimu_kit_make_room(jimu_kit *kit, size_t index);

/* Returns the connection's descriptor. */
int32_t jimu_kit_fd(jimu_kit_connection *connection);

/* Returns when the connection expires; JIMU_FOREVER for never. */
uint64_t jimu_kit_deadline_ns(jimu_kit_connection *connection);

/*
 * Returns since when the connection waits for its client's request, on CLOCK_MONOTONIC in nanoseconds; 0 if it does not.
 * A worker at its capacity closes the connection that has waited longest, if for JIMU_KIT_EVICTABLE_NS or more, in favor
 * of a client in the backlog. With a thread for each connection, `jimu_kit_make_room` does that.
 */
uint64_t jimu_kit_waits_since_ns(jimu_kit_connection *connection);
#define JIMU_KIT_EVICTABLE_NS UINT64_C(500000000)

/* Logs that connections were closed in favor of others, at most once a minute. */
void jimu_kit_note_evicted(jimu_kit *kit, size_t closed);

/* Returns whether the application as a whole does not respond: such a worker must not accept. */
bool jimu_kit_is_stuck(jimu_kit *kit);

/*
 * Shortens the deadline of an idle connection to a second from now, in a worker that is draining; a deadline that is
 * earlier stays, and so does that of a connection with a request.
 */
void jimu_kit_shorten_idle_deadline(jimu_kit_connection *connection);

/* Closes a connection. */
void jimu_kit_close(jimu_kit_connection *connection);

/* Waits for a descriptor in poll(2) until `deadline_ns`. `*ready` is false if the deadline passes first. No heartbeat. */
jimu_result jimu_kit_wait(int32_t fd, uint8_t interest, uint64_t deadline_ns, bool *ready, jimu_failure *failure);

/* How the exchange of a request waits. */
typedef struct jimu_kit_driver {
    /*
     * Waits for a descriptor in the way of the class, until it is ready or has an error. Fails with JIMU_FAILURE_TIMEOUT at
     * the deadline. On the thread that called `jimu_kit_call`; on the main thread it gives the heartbeat as long as it
     * waits, and may deliver signals.
     */
    jimu_result (*wait)(void *self, int32_t fd, uint8_t interest, uint64_t deadline_ns, jimu_failure *failure);
    void *self;
} jimu_kit_driver;

/*
 * Calls the application with the request of a connection, and returns the connection to advance; NULL if the application
 * has taken it over. `driver` is used during the call only. It may be NULL: then the exchange waits in poll(2), and gives
 * the heartbeat as long as it waits if this is the main thread.
 *
 * An application that detaches its exchange is not supported: a class of this kit does not declare JIMU_CAN_DEFER.
 */
jimu_kit_connection *jimu_kit_call(jimu_kit *kit, jimu_kit_connection *connection, const jimu_kit_driver *driver);

/* Begins to drain: connections are closed after their next response. Once, when `alive` returns false. */
void jimu_kit_drain(jimu_kit *kit);

/* Returns whether the worker drains. */
bool jimu_kit_draining(jimu_kit *kit);

/* Returns how many connections a worker that drains still accepts from a listening socket. */
uint64_t jimu_kit_remaining_backlog(jimu_kit *kit, size_t index);

/* Returns when a worker that begins to drain now has to have finished. */
uint64_t jimu_kit_graceful_deadline_ns(jimu_kit *kit);

/* Returns whether the application does work in the background, for which a worker that drains waits. */
bool jimu_kit_has_background_work(jimu_kit *kit);

/*
 * Cuts the requests that are left at the graceful deadline, when `connections` end with the worker: each whose response
 * has not begun receives a 500. Logs them and what the application is doing. Once, before `run` returns; does nothing if
 * `connections` is 0.
 */
void jimu_kit_cut_requests(jimu_kit *kit, size_t connections);

#ifdef __cplusplus
}
#endif

#endif
