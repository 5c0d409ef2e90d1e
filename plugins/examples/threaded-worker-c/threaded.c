/*
 * A worker class in C with one thread for each connection: what ../threaded-worker is in Rust. HTTP, TLS, limits and the
 * access log come from the kit.
 *
 *     cc -std=c11 -O2 -fPIC -shared -pthread -I ../../../worker-api/include -I ../../../workers/kit-c/include \
 *        threaded.c -o libthreaded_c_worker.so ../../../target/release/libjimu_kit.a -lm \
 *        -Wl,--gc-sections,--exclude-libs,ALL
 *     host --worker-class ./libthreaded_c_worker.so myproject.wsgi:application
 *
 * The main thread accepts, sends the heartbeat and receives signals. The thread of a connection does everything else,
 * waits included. `worker_connections` limits the threads: a further client takes the place of the one that has sent no
 * request for longest.
 */
#define _GNU_SOURCE
#include "jimu_kit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* A worker: one per process. */
typedef struct worker {
    const jimu_host *host;
    jimu_kit *kit;
    pthread_attr_t thread;
    /* Number of connections, each with a thread. */
    atomic_size_t open;
    /* Readable when a thread has ended that the main thread may be waiting for. */
    int ended;
    /* The end of a pause in accepting. */
    uint64_t rest_until_ns;
} worker;

/* What a thread starts with. */
typedef struct start {
    worker *of;
    jimu_kit_connection *connection;
} start;

/* How long a worker without room does not look at its listeners, unless a thread ends. */
static const uint64_t CROWDED_NS = 100000000;

static uint64_t earlier(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static void count(const worker *of, uint8_t counter, int64_t by) {
    of->host->functions->count(of->host->self, counter, by);
}

/* The thread of a connection: serves one request after the other. */
static void *serve(void *argument) {
    start *begin = argument;
    worker *of = begin->of;
    jimu_kit_connection *connection = begin->connection;
    jimu_kit_next next = jimu_kit_advance(connection);
    uint64_t one = 1;
    free(begin);
    while (next != JIMU_KIT_CLOSED) {
        if (next != JIMU_KIT_REQUEST) {
            next = jimu_kit_wait_for_client(of->kit, connection, next);
            continue;
        }
        connection = jimu_kit_call(of->kit, connection, NULL);
        if (!connection) {
            break;
        }
        next = jimu_kit_advance(connection);
    }
    jimu_kit_close(connection);
    count(of, JIMU_COUNT_CONNECTIONS, -1);
    atomic_fetch_sub(&of->open, 1);
    /* A counter at its limit is readable already. */
    if (write(of->ended, &one, sizeof one) < 0) {
        return NULL;
    }
    return NULL;
}

/* Accepts one connection, so that workers share the load. Returns whether there was one. */
static bool accept_one(worker *of, size_t listener) {
    uint64_t rest_ns = 0;
    start *begin;
    pthread_t thread;
    jimu_kit_connection *connection = jimu_kit_accept(of->kit, listener, &rest_ns);
    if (!connection) {
        if (rest_ns > 0) {
            of->rest_until_ns = jimu_kit_now_ns() + rest_ns;
        }
        return false;
    }
    begin = malloc(sizeof *begin);
    if (begin) {
        *begin = (start){ of, connection };
        atomic_fetch_add(&of->open, 1);
        count(of, JIMU_COUNT_CONNECTIONS, 1);
        if (pthread_create(&thread, &of->thread, serve, begin) == 0) {
            return true;
        }
        count(of, JIMU_COUNT_CONNECTIONS, -1);
        atomic_fetch_sub(&of->open, 1);
        free(begin);
    }
    jimu_log(of->host, JIMU_LOG_WARNING, "threaded_c", "connection closed: cannot start a thread");
    jimu_kit_close(connection);
    return true;
}

/* Waits once, and handles signals, the end of threads and, if there is room, new connections. */
static void turn(worker *of, bool accepts) {
    size_t listeners = accepts ? jimu_kit_listeners(of->kit) : 0, index;
    struct pollfd polled[2 + 64];
    uint64_t now = jimu_kit_now_ns(), pause = jimu_kit_pause_ns(of->kit), ended = 0;
    if (listeners > 64) {
        listeners = 64;
    }
    polled[0] = (struct pollfd){ of->host->functions->wake_descriptor(of->host->self), POLLIN, 0 };
    polled[1] = (struct pollfd){ of->ended, POLLIN, 0 };
    for (index = 0; index < listeners; index++) {
        polled[2 + index] = (struct pollfd){ jimu_kit_listener(of->kit, index), POLLIN, 0 };
    }
    if (of->rest_until_ns > now) {
        pause = earlier(pause, of->rest_until_ns - now);
    }
    if (poll(polled, (nfds_t)(2 + listeners), (int)(pause / 1000000 + 1)) < 0) {
        listeners = 0;
        polled[1].revents = 0;
    }
    of->host->functions->deliver_signals(of->host->self);
    for (index = 0; index < listeners; index++) {
        if (!polled[2 + index].revents) {
            continue;
        }
        if (atomic_load(&of->open) < jimu_kit_capacity(of->kit)) {
            accept_one(of, index);
        } else {
            jimu_kit_make_room(of->kit, index);
            of->rest_until_ns = jimu_kit_now_ns() + CROWDED_NS;
        }
    }
    if (polled[1].revents && read(of->ended, &ended, sizeof ended) == sizeof ended) {
        of->rest_until_ns = 0;
    }
}

/* Stops gracefully: accepts what no other worker would serve, closes the listeners, and waits for the threads. */
static void finish(worker *of) {
    uint64_t deadline = jimu_kit_graceful_deadline_ns(of->kit);
    struct timespec moment = { 0, 50 * 1000 * 1000 };
    size_t index;
    jimu_kit_drain(of->kit);
    for (index = 0; index < jimu_kit_listeners(of->kit); index++) {
        uint64_t left = jimu_kit_remaining_backlog(of->kit, index);
        while (left > 0 && jimu_kit_now_ns() < deadline && accept_one(of, index)) {
            left--;
        }
    }
    of->host->functions->close_listeners(of->host->self);
    while (atomic_load(&of->open) > 0 && jimu_kit_now_ns() < deadline) {
        jimu_kit_tick(of->kit);
        turn(of, false);
    }
    while (jimu_kit_has_background_work(of->kit) && jimu_kit_now_ns() < deadline) {
        jimu_kit_tick(of->kit);
        nanosleep(&moment, NULL);
    }
    jimu_kit_cut_requests(of->kit, atomic_load(&of->open));
}

static jimu_result run(void *self, jimu_failure *failure) {
    worker *of = self;
    (void)failure;
    while (of->host->functions->alive(of->host->self)) {
        bool accepts = jimu_kit_now_ns() >= of->rest_until_ns && !jimu_kit_is_stuck(of->kit);
        jimu_kit_tick(of->kit);
        turn(of, accepts);
    }
    finish(of);
    return JIMU_OK;
}

static jimu_result init_process(void *self, jimu_failure *failure) {
    worker *of = self;
    size_t stack;
    count(of, JIMU_COUNT_SLOTS, (int64_t)jimu_kit_capacity(of->kit));
    if (jimu_kit_init_worker(of->kit, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    stack = jimu_kit_stack_size(of->kit);
    if (pthread_attr_init(&of->thread) != 0 || pthread_attr_setstacksize(&of->thread, stack) != 0 ||
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
    of->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (of->ended < 0) {
        char words[128];
        snprintf(words, sizeof words, "cannot create an eventfd: %s", strerror(errno));
        return jimu_fail(failure, JIMU_FAILURE_IO, words);
    }
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
    .head = JIMU_WORKER_CLASS("threaded_c", "1.0", JIMU_HAS_THREADS),
    .description = "a thread for each connection, in C",
    .setup = jimu_kit_check,
    .create = create,
    .functions = &functions,
};
