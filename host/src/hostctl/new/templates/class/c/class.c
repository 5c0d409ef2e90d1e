/*
 * A worker class with one thread for each connection. The kit does HTTP, TLS, limits and the access log; jimu_kit.h says
 * what is left to the class, and in which order.
 *
 * The main thread accepts, sends the heartbeat and receives signals. The thread of a connection does everything else.
 * When all threads are taken, a new client takes the place of the one that has sent no request for longest.
 */
#define _GNU_SOURCE
#include "jimu_kit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

/* The worker: there is one per process. */
static struct {
    const jimu_host *host;
    jimu_kit *kit;
    pthread_attr_t thread;
    /* Number of connections, each with a thread. */
    atomic_size_t open;
} worker;

static void count(uint8_t counter, int64_t by) {
    worker.host->functions->count(worker.host->self, counter, by);
}

static void pause_for(uint64_t ns) {
    struct timespec pause = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
    nanosleep(&pause, NULL);
}

/* Ends the part of a connection in the worker; NULL if the application has taken it over. */
static void end(jimu_kit_connection *connection) {
    if (connection) {
        jimu_kit_close(connection);
    }
    count(JIMU_COUNT_CONNECTIONS, -1);
    atomic_fetch_sub(&worker.open, 1);
}

/* The thread of a connection: serves one request after the other. */
static void *serve(void *argument) {
    jimu_kit_connection *connection = argument;
    jimu_kit_next next = jimu_kit_advance(connection);
    while (connection && next != JIMU_KIT_CLOSED) {
        if (next != JIMU_KIT_REQUEST) {
            next = jimu_kit_wait_for_client(worker.kit, connection, next);
            continue;
        }
        connection = jimu_kit_call(worker.kit, connection, NULL);
        if (connection) {
            next = jimu_kit_advance(connection);
        }
    }
    end(connection);
    return NULL;
}

/* Accepts one connection; returns whether there was one. */
static bool accept_one(size_t listener) {
    uint64_t rest_ns = 0;
    pthread_t thread;
    jimu_kit_connection *connection = jimu_kit_accept(worker.kit, listener, &rest_ns);
    if (!connection) {
        /* No descriptors are left, or the system forbids accepting: pause instead of spinning. */
        pause_for(rest_ns);
        return false;
    }
    atomic_fetch_add(&worker.open, 1);
    count(JIMU_COUNT_CONNECTIONS, 1);
    if (pthread_create(&thread, &worker.thread, serve, connection) != 0) {
        jimu_log(worker.host, JIMU_LOG_WARNING, "{{name}}", "connection closed: cannot start a thread");
        end(connection);
    }
    return true;
}

static bool has_room(void) { return atomic_load(&worker.open) < jimu_kit_capacity(worker.kit); }

/* Waits for clients and for signals, until a heartbeat is due. */
static void wait_and_accept(void) {
    bool is_stuck = jimu_kit_is_stuck(worker.kit);
    jimu_kit_wait_for_clients(worker.kit, has_room() && !is_stuck);
    worker.host->functions->deliver_signals(worker.host->self);
    for (size_t index = 0; !is_stuck && index < jimu_kit_listeners(worker.kit); index++) {
        if (has_room()) {
            accept_one(index);
        } else {
            jimu_kit_make_room(worker.kit, index);
        }
    }
}

/* Accepts what no other worker would serve, closes the listeners, and waits for the threads. */
static void finish(void) {
    uint64_t deadline = jimu_kit_graceful_deadline_ns(worker.kit);
    jimu_kit_drain(worker.kit);
    for (size_t index = 0; index < jimu_kit_listeners(worker.kit); index++) {
        uint64_t left = jimu_kit_remaining_backlog(worker.kit, index);
        while (left > 0 && !jimu_kit_is_stuck(worker.kit) && accept_one(index)) {
            left--;
        }
    }
    worker.host->functions->close_listeners(worker.host->self);
    while ((atomic_load(&worker.open) > 0 || jimu_kit_has_background_work(worker.kit)) && jimu_kit_now_ns() < deadline) {
        jimu_kit_tick(worker.kit);
        pause_for(20000000);
    }
    jimu_kit_cut_requests(worker.kit, atomic_load(&worker.open));
}

static jimu_result run(void *self, jimu_failure *failure) {
    (void)self, (void)failure;
    while (worker.host->functions->alive(worker.host->self)) {
        jimu_kit_tick(worker.kit);
        wait_and_accept();
    }
    finish();
    return JIMU_OK;
}

static jimu_result init_process(void *self, jimu_failure *failure) {
    (void)self;
    count(JIMU_COUNT_SLOTS, (int64_t)jimu_kit_capacity(worker.kit));
    if (jimu_kit_init_worker(worker.kit, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    /* The application may ask for larger stacks. */
    if (pthread_attr_init(&worker.thread) != 0 ||
        pthread_attr_setstacksize(&worker.thread, jimu_kit_stack_size(worker.kit)) != 0 ||
        pthread_attr_setdetachstate(&worker.thread, PTHREAD_CREATE_DETACHED) != 0) {
        return jimu_fail(failure, JIMU_FAILURE_IO, "cannot prepare threads");
    }
    return JIMU_OK;
}

static jimu_result create(const jimu_host *host, const jimu_app *app, void **self, jimu_failure *failure) {
    *self = &worker;
    worker.host = host;
    worker.kit = jimu_kit_new(host, app, JIMU_KIT_KEEP_ALIVE, failure);
    return worker.kit ? JIMU_OK : JIMU_FAILED;
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
