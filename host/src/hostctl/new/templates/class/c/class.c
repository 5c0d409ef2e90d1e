/*
 * A worker class with one thread for each connection. The kit does HTTP, TLS, limits and the access log; jimu_kit.h says
 * what is left to the class, and in which order.
 *
 * The main thread accepts, sends the heartbeat and receives signals. The thread of a connection does everything else.
 *
 * Left out: when all threads are taken, a client that sends no request keeps its thread until its time is up. The example
 * plugins/examples/threaded-worker-c in Jimu's source closes the connection that has waited longest.
 */
#define _GNU_SOURCE
#include "jimu_kit.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { LISTENERS_MAX = 64 };
static const uint64_t SLICE_NS = 500000000;

/* A worker: one per process. */
typedef struct worker {
    const jimu_host *host;
    jimu_kit *kit;
    pthread_attr_t thread;
    /* Number of connections, each with a thread. */
    atomic_size_t open;
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

/* Waits for a client until the connection's deadline. Wakes now and then, in case the worker drains. */
static jimu_kit_next wait_for_client(worker *of, jimu_kit_connection *connection, uint8_t interest) {
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

/* Waits for clients if there is a thread for one, and for signals, until a heartbeat is due. */
static void wait_and_accept(worker *of) {
    struct pollfd polled[1 + LISTENERS_MAX];
    bool has_room = atomic_load(&of->open) < jimu_kit_capacity(of->kit) && !jimu_kit_is_stuck(of->kit);
    size_t index, listeners = has_room ? jimu_kit_listeners(of->kit) : 0;
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
        if (polled[1 + index].revents) {
            accept_one(of, index);
        }
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
