/*
 * A worker class with one thread for each connection. The kit does HTTP, TLS, limits and the access log; jimu_kit.h says
 * what is left to the class, and in which order.
 *
 * The main thread accepts, sends the heartbeat and receives signals. The thread of a connection does everything else.
 * When all threads are taken, a new client takes the place of the one that has sent no request for longest.
 */
#define _GNU_SOURCE
#include "jimu_kit.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { LISTENERS_MAX = 64 };
static const uint64_t SLICE_NS = 500000000;
/* How long the worker does not look at its listeners when all threads are taken. */
static const uint64_t CROWDED_NS = 20000000;

/* A connection that waits for a request, in the list of its worker. */
typedef struct waiting {
    struct waiting *before, *after;
    int fd;
    uint64_t since_ns;
} waiting;

/* A worker: one per process. */
typedef struct worker {
    const jimu_host *host;
    jimu_kit *kit;
    pthread_attr_t thread;
    /* Number of connections, each with a thread. */
    atomic_size_t open;
    /* The connections that wait for a request. */
    pthread_mutex_t lock;
    waiting *list;
} worker;

/* What a thread is started with. */
typedef struct task {
    worker *of;
    jimu_kit_connection *connection;
} task;

static void count(worker *of, uint8_t counter, int64_t by) {
    of->host->functions->count(of->host->self, counter, by);
}

static void pause_for(uint64_t ns) {
    struct timespec pause = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
    nanosleep(&pause, NULL);
}

static void add_to_list(worker *of, waiting *entry) {
    pthread_mutex_lock(&of->lock);
    entry->before = NULL;
    entry->after = of->list;
    if (entry->after) {
        entry->after->before = entry;
    }
    of->list = entry;
    pthread_mutex_unlock(&of->lock);
}

static void remove_from_list(worker *of, waiting *entry) {
    pthread_mutex_lock(&of->lock);
    if (entry->after) {
        entry->after->before = entry->before;
    }
    if (entry->before) {
        entry->before->after = entry->after;
    } else {
        of->list = entry->after;
    }
    pthread_mutex_unlock(&of->lock);
}

/* Closes the connection that has waited longest for a request: its thread reads the end of the client's bytes. */
static void make_room(worker *of) {
    waiting *entry, *longest = NULL;
    pthread_mutex_lock(&of->lock);
    for (entry = of->list; entry; entry = entry->after) {
        if (!longest || entry->since_ns < longest->since_ns) {
            longest = entry;
        }
    }
    if (longest && longest->since_ns + JIMU_KIT_EVICTABLE_NS <= jimu_kit_now_ns() &&
        shutdown(longest->fd, SHUT_RD) == 0) {
        jimu_kit_note_evicted(of->kit, 1);
    }
    pthread_mutex_unlock(&of->lock);
}

/* Waits for a client until the connection's deadline. Wakes now and then, in case the worker drains. */
static jimu_kit_next wait_until_ready(worker *of, jimu_kit_connection *connection, uint8_t interest) {
    for (;;) {
        uint64_t deadline, until = jimu_kit_now_ns() + SLICE_NS;
        jimu_failure failure;
        bool ready = false;
        if (jimu_kit_draining(of->kit)) {
            jimu_kit_shorten_idle_deadline(connection);
        }
        deadline = jimu_kit_deadline_ns(connection);
        until = until < deadline ? until : deadline;
        if (jimu_kit_wait(jimu_kit_fd(connection), interest, until, &ready, &failure) != JIMU_OK) {
            return JIMU_KIT_CLOSED;
        }
        if (ready) {
            return jimu_kit_advance(connection);
        }
        if (deadline <= jimu_kit_now_ns()) {
            return jimu_kit_expire(connection);
        }
    }
}

/* The same, in the list of connections that can give way to another one. */
static jimu_kit_next wait_for_client(worker *of, jimu_kit_connection *connection, uint8_t interest) {
    waiting entry = { NULL, NULL, jimu_kit_fd(connection), jimu_kit_waits_since_ns(connection) };
    jimu_kit_next next;
    if (entry.since_ns == 0) {
        return wait_until_ready(of, connection, interest);
    }
    add_to_list(of, &entry);
    next = wait_until_ready(of, connection, interest);
    remove_from_list(of, &entry);
    return next;
}

/* The thread of a connection: serves one request after the other. */
static void *serve(void *argument) {
    task begin = *(task *)argument;
    jimu_kit_connection *connection = begin.connection;
    jimu_kit_next next = jimu_kit_advance(connection);
    free(argument);
    while (connection && next != JIMU_KIT_CLOSED) {
        if (next != JIMU_KIT_REQUEST) {
            next = wait_for_client(begin.of, connection, (uint8_t)next);
            continue;
        }
        /* The application may take the connection over. */
        connection = jimu_kit_call(begin.of->kit, connection, NULL);
        if (connection) {
            next = jimu_kit_advance(connection);
        }
    }
    if (connection) {
        jimu_kit_close(connection);
    }
    count(begin.of, JIMU_COUNT_CONNECTIONS, -1);
    atomic_fetch_sub(&begin.of->open, 1);
    return NULL;
}

static bool start_thread(worker *of, jimu_kit_connection *connection) {
    pthread_t thread;
    task *begin = malloc(sizeof *begin);
    if (!begin) {
        return false;
    }
    *begin = (task){ of, connection };
    if (pthread_create(&thread, &of->thread, serve, begin) != 0) {
        free(begin);
        return false;
    }
    return true;
}

/* Accepts one connection; returns whether there was one. */
static bool accept_one(worker *of, size_t listener) {
    uint64_t rest_ns = 0;
    jimu_kit_connection *connection = jimu_kit_accept(of->kit, listener, &rest_ns);
    if (!connection) {
        /* No descriptors are left, or the system forbids accepting: pause instead of spinning. */
        pause_for(rest_ns);
        return false;
    }
    atomic_fetch_add(&of->open, 1);
    count(of, JIMU_COUNT_CONNECTIONS, 1);
    if (!start_thread(of, connection)) {
        jimu_log(of->host, JIMU_LOG_WARNING, "{{name}}", "connection closed: cannot start a thread");
        count(of, JIMU_COUNT_CONNECTIONS, -1);
        atomic_fetch_sub(&of->open, 1);
        jimu_kit_close(connection);
    }
    return true;
}

/* Waits for clients and for signals, until a heartbeat is due. */
static void wait_and_accept(worker *of) {
    struct pollfd polled[1 + LISTENERS_MAX];
    size_t index, listeners = jimu_kit_is_stuck(of->kit) ? 0 : jimu_kit_listeners(of->kit);
    bool crowded = false;
    listeners = listeners < LISTENERS_MAX ? listeners : LISTENERS_MAX;
    polled[0] = (struct pollfd){ of->host->functions->wake_descriptor(of->host->self), POLLIN, 0 };
    for (index = 0; index < listeners; index++) {
        polled[1 + index] = (struct pollfd){ jimu_kit_listener(of->kit, index), POLLIN, 0 };
    }
    /* A signal interrupts it. */
    if (poll(polled, (nfds_t)(1 + listeners), (int)(jimu_kit_pause_ns(of->kit) / 1000000)) < 0) {
        listeners = 0;
    }
    of->host->functions->deliver_signals(of->host->self);
    for (index = 0; index < listeners; index++) {
        if (!polled[1 + index].revents) {
            continue;
        }
        if (atomic_load(&of->open) < jimu_kit_capacity(of->kit)) {
            accept_one(of, index);
        } else {
            crowded = true;
        }
    }
    if (crowded) {
        make_room(of);
        /* Until that thread has ended, or another one, the listeners would be reported again and again. */
        pause_for(CROWDED_NS);
    }
}

/* Accepts what no other worker would serve, closes the listeners, and waits for the threads. */
static void finish(worker *of) {
    uint64_t deadline = jimu_kit_graceful_deadline_ns(of->kit);
    size_t index;
    jimu_kit_drain(of->kit);
    for (index = 0; index < jimu_kit_listeners(of->kit); index++) {
        uint64_t left = jimu_kit_remaining_backlog(of->kit, index);
        while (left > 0 && !jimu_kit_is_stuck(of->kit) && accept_one(of, index)) {
            left--;
        }
    }
    of->host->functions->close_listeners(of->host->self);
    while ((atomic_load(&of->open) > 0 || jimu_kit_has_background_work(of->kit)) && jimu_kit_now_ns() < deadline) {
        jimu_kit_tick(of->kit);
        pause_for(20000000);
    }
}

static jimu_result run(void *self, jimu_failure *failure) {
    worker *of = self;
    (void)failure;
    while (of->host->functions->alive(of->host->self)) {
        jimu_kit_tick(of->kit);
        wait_and_accept(of);
    }
    finish(of);
    return JIMU_OK;
}

static jimu_result init_process(void *self, jimu_failure *failure) {
    worker *of = self;
    count(of, JIMU_COUNT_SLOTS, (int64_t)jimu_kit_capacity(of->kit));
    if (jimu_kit_init_worker(of->kit, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    /* The application may ask for larger stacks. */
    if (pthread_attr_init(&of->thread) != 0 ||
        pthread_attr_setstacksize(&of->thread, jimu_kit_stack_size(of->kit)) != 0 ||
        pthread_attr_setdetachstate(&of->thread, PTHREAD_CREATE_DETACHED) != 0) {
        return jimu_fail(failure, JIMU_FAILURE_IO, "cannot prepare threads");
    }
    return JIMU_OK;
}

static jimu_result create(const jimu_host *host, const jimu_app *app, void **self, jimu_failure *failure) {
    worker *of = calloc(1, sizeof *of);
    if (!of) {
        return jimu_fail(failure, JIMU_FAILURE_OTHER, "out of memory");
    }
    of->host = host;
    pthread_mutex_init(&of->lock, NULL);
    of->kit = jimu_kit_new(host, app, JIMU_KIT_KEEP_ALIVE, failure);
    *self = of;
    return of->kit ? JIMU_OK : JIMU_FAILED;
}

static const jimu_worker_table functions = {
    .table = JIMU_TABLE(jimu_worker_table),
    .run = run,
    .init_process = init_process,
};

JIMU_EXPORT_WORKER_CLASS = {
    .head = JIMU_WORKER_CLASS("{{name}}", "0.1.0", JIMU_HAS_THREADS),
    .description = "a thread for each connection",
    .setup = jimu_kit_check,
    .create = create,
    .functions = &functions,
};
