/*
 * jimu_kit.h - the kit of the Jimu application server for worker classes in C: connections, TLS, HTTP, limits, the access
 * log. The class accepts and waits, and the kit does the rest.
 *
 * Link libjimu_kit.so, and put it beside the class with the runpath $ORIGIN, or link libjimu_kit.a. It is built with one
 * version of the server but depends on none: it reaches the server by jimu.h alone. Its own version is 0.x: a class may
 * need changes to be built with a newer one.
 *
 *     jimu_kit_accept --> connection --jimu_kit_advance--> JIMU_READ, JIMU_WRITE   wait, at most until the deadline
 *                             ^                        |-> JIMU_KIT_REQUEST        jimu_kit_call
 *                             |                        '-> JIMU_KIT_CLOSED         jimu_kit_close
 *                             '------- jimu_kit_call <--- the application returns
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
 * thread. For classes whose threads block.
 */
#define JIMU_KIT_BUFFERS 2u

/* Checks the settings that the kit reads: for the class's `setup`. */
jimu_result jimu_kit_check(const jimu_host *host, jimu_failure *failure);

/* Creates the kit of a worker: in the class's `create`. `flags` is a set of JIMU_KIT_... NULL if it fails. */
jimu_kit *jimu_kit_new(const jimu_host *host, const jimu_app *app, uint32_t flags, jimu_failure *failure);

/* Calls the application's `init_worker` with a runtime whose waits block: in the class's `init_process`. */
jimu_result jimu_kit_init_worker(jimu_kit *kit, jimu_failure *failure);

/* Records a heartbeat: at least once per second, and whenever `jimu_kit_pause_ns` has passed. */
void jimu_kit_tick(jimu_kit *kit);

/* Returns how long to wait if nothing happens. */
uint64_t jimu_kit_pause_ns(jimu_kit *kit);

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
 * Accepts one connection of a listening socket. NULL if none is waiting; then, if `*rest_ns` is not 0, accepting fails for
 * lack of descriptors or memory: do not watch the listeners for that long.
 */
jimu_kit_connection *jimu_kit_accept(jimu_kit *kit, size_t index, uint64_t *rest_ns);

/* Reads and writes as far as possible without blocking, and returns what the connection waits for. */
jimu_kit_next jimu_kit_advance(jimu_kit_connection *connection);

/* The same for a connection whose deadline has passed. */
jimu_kit_next jimu_kit_expire(jimu_kit_connection *connection);

/* Returns the connection's descriptor. */
int32_t jimu_kit_fd(jimu_kit_connection *connection);

/* Returns when the connection expires; JIMU_FOREVER for never. */
uint64_t jimu_kit_deadline_ns(jimu_kit_connection *connection);

/*
 * Returns since when the connection waits for its client's request, on CLOCK_MONOTONIC in nanoseconds; 0 if it does not.
 * A worker at its capacity closes the connection that has waited longest, if for JIMU_KIT_EVICTABLE_NS or more, in favor
 * of a client in the backlog.
 */
uint64_t jimu_kit_waits_since_ns(jimu_kit_connection *connection);
#define JIMU_KIT_EVICTABLE_NS UINT64_C(500000000)

/* Logs that connections were closed in favor of others, at most once a minute. */
void jimu_kit_note_evicted(jimu_kit *kit, size_t closed);

/* Returns whether the application as a whole does not respond: such a worker does not accept. */
bool jimu_kit_is_stuck(jimu_kit *kit);

/* Shortens the deadline of an idle connection, in a worker that is draining. */
void jimu_kit_shorten_idle_deadline(jimu_kit_connection *connection);

/* Closes a connection. */
void jimu_kit_close(jimu_kit_connection *connection);

/*
 * Waits for a descriptor in poll(2) until `deadline_ns`. `*ready` is false if the deadline passes first.
 */
jimu_result jimu_kit_wait(int32_t fd, uint8_t interest, uint64_t deadline_ns, bool *ready, jimu_failure *failure);

/* How the exchange of a request waits. */
typedef struct jimu_kit_driver {
    /*
     * Waits for a descriptor in the way of the class. Fails with JIMU_FAILURE_TIMEOUT at the deadline. On the thread that
     * called `jimu_kit_call`.
     */
    jimu_result (*wait)(void *self, int32_t fd, uint8_t interest, uint64_t deadline_ns, jimu_failure *failure);
    void *self;
} jimu_kit_driver;

/*
 * Calls the application with the request of a connection, and returns the connection to advance; NULL if the application
 * has taken it over. `driver` may be NULL: then the exchange waits in poll(2).
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

#ifdef __cplusplus
}
#endif

#endif
