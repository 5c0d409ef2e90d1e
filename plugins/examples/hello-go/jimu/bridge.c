/* The application as the server sees it; bridge.h explains how it calls Go. */
#define _GNU_SOURCE
#include "bridge.h"
#include "_cgo_export.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#ifndef JIMU_GO_NAME
#define JIMU_GO_NAME "go"
#endif
#ifndef JIMU_GO_VERSION
#define JIMU_GO_VERSION "1.0"
#endif

static const jimu_host *server;
static const jimu_runtime *runtime;
/* The pipe to the goroutine that receives messages. */
static int messages = -1;
static pthread_mutex_t spares_lock = PTHREAD_MUTEX_INITIALIZER;
static bridge_slot *spares;

static jimu_result no_memory(jimu_failure *failure) {
    return jimu_fail(failure, JIMU_FAILURE_OTHER, "out of memory or descriptors");
}

/* ---- Slots ------------------------------------------------------------------------------------------------------- */

static bridge_slot *take_slot(void) {
    bridge_slot *slot;
    pthread_mutex_lock(&spares_lock);
    slot = spares;
    if (slot) {
        spares = slot->next;
    }
    pthread_mutex_unlock(&spares_lock);
    if (slot) {
        return slot;
    }
    slot = calloc(1, sizeof *slot);
    if (slot && (slot->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        free(slot);
        return NULL;
    }
    if (slot) {
        pthread_mutex_init(&slot->lock, NULL);
    }
    return slot;
}

static void give_back(bridge_slot *slot) {
    uint64_t count;
    /* What was asked for and not carried out. */
    (void)!read(slot->bell, &count, sizeof count);
    pthread_mutex_lock(&spares_lock);
    slot->next = spares;
    spares = slot;
    pthread_mutex_unlock(&spares_lock);
}

static bool make_room(bridge_text *text, size_t more) {
    if (text->length + more > text->room) {
        size_t room = (text->length + more) * 2;
        char *data = realloc(text->data, room);
        if (!data) {
            return false;
        }
        text->data = data;
        text->room = room;
    }
    return true;
}

static bool put(bridge_text *text, const void *bytes, size_t length) {
    uint32_t prefix = (uint32_t)length;
    if (!make_room(text, sizeof prefix + length)) {
        return false;
    }
    memcpy(text->data + text->length, &prefix, sizeof prefix);
    if (length > 0) {
        memcpy(text->data + text->length + sizeof prefix, bytes, length);
    }
    text->length += sizeof prefix + length;
    return true;
}

/* Copies a request: Go reads the copy, whatever becomes of the call. */
static bool copy_request(bridge_slot *slot, const jimu_head *head) {
    static const jimu_tls none;
    const jimu_tls *tls = head->tls ? head->tls : &none;
    bridge_text *to = &slot->request;
    size_t at;
    bool complete;
    to->length = 0;
    slot->content_length = head->content_length;
    slot->header_count = (uint32_t)head->header_count;
    slot->peer_port = head->peer.port;
    slot->local_port = head->local.port;
    slot->version = head->version;
    slot->has_tls = head->tls != NULL;
    complete = put(to, head->method.data, head->method.length) && put(to, head->target.data, head->target.length) &&
               put(to, head->authority.data, head->authority.length) &&
               put(to, head->peer.host.data, head->peer.host.length) &&
               put(to, head->local.host.data, head->local.host.length) &&
               put(to, tls->protocol.data, tls->protocol.length) && put(to, tls->cipher.data, tls->cipher.length) &&
               put(to, tls->server_name.data, tls->server_name.length) &&
               put(to, tls->client_certificate.data, tls->client_certificate.length);
    for (at = 0; at < head->header_count && complete; at++) {
        const jimu_header *header = &head->headers[at];
        complete = put(to, header->name.data, header->name.length) &&
                   put(to, header->value.data, header->value.length);
    }
    return complete;
}

/* ---- Messages to Go ------------------------------------------------------------------------------------------------ */

/* Sends a message; a pipe takes one whole or not at all. */
static bool try_send(bridge_slot *slot, uint32_t serial, uint32_t kind) {
    bridge_message message = { slot, serial, kind };
    ssize_t sent;
    do {
        sent = write(messages, &message, sizeof message);
    } while (sent < 0 && errno == EINTR);
    return sent == sizeof message;
}

static void send_message(bridge_slot *slot, uint32_t kind) {
    struct pollfd pipe = { messages, POLLOUT, 0 };
    while (!try_send(slot, slot->serial, kind)) {
        /* The pipe is full: Go is busy receiving what is in it. */
        poll(&pipe, 1, -1);
    }
}

/* Tells a handler that its client has disconnected. A full pipe loses it: a reader and a writer notice the end, too. */
typedef struct watch {
    bridge_slot *slot;
    uint32_t serial;
} watch;

static void watch_wake(void *self) {
    watch *of = self;
    try_send(of->slot, of->serial, BRIDGE_GONE);
}

static const jimu_waker_table watch_functions = { JIMU_TABLE(jimu_waker_table), watch_wake, free };

static void watch_client(bridge_slot *slot, jimu_exchange *exchange) {
    watch *of = malloc(sizeof *of);
    if (of) {
        jimu_waker waker = { &watch_functions, of };
        of->slot = slot;
        of->serial = slot->serial;
        exchange->functions->on_disconnect(exchange->self, waker);
    }
}

/* ---- Called by Go -------------------------------------------------------------------------------------------------- */

bool bridge_ask(bridge_slot *slot, int operation) {
    bool is_last = operation == BRIDGE_END || operation == BRIDGE_FAIL;
    uint64_t one = 1;
    pthread_mutex_lock(&slot->lock);
    if (!slot->open) {
        pthread_mutex_unlock(&slot->lock);
        if (is_last) {
            give_back(slot);
        }
        return false;
    }
    slot->operation = operation;
    slot->ended = is_last;
    /* Within the lock: without it, the slot could be another request's by now. */
    (void)!write(slot->bell, &one, sizeof one);
    pthread_mutex_unlock(&slot->lock);
    return true;
}

char *bridge_head(bridge_slot *slot, size_t length, int32_t count) {
    slot->head.length = 0;
    if (!make_room(&slot->head, length + 1)) {
        return NULL;
    }
    slot->head.length = length;
    slot->head_count = count;
    return slot->head.data;
}

void bridge_fail(bridge_slot *slot, uint8_t kind, uint16_t status, const char *text, size_t length) {
    slot->failure.kind = kind;
    slot->failure.status = status;
    slot->failure.length = (uint32_t)(length < JIMU_FAILURE_TEXT ? length : JIMU_FAILURE_TEXT);
    memcpy(slot->failure.text, text, slot->failure.length);
}

void bridge_log(uint8_t level, const char *text, size_t length) {
    jimu_str message = { text, length };
    server->functions->log(server->self, level, jimu_text(JIMU_GO_NAME), message);
}

/* ---- The application ----------------------------------------------------------------------------------------------- */

static jimu_result wait_for_bell(bridge_slot *slot, jimu_failure *failure) {
    uint64_t count;
    while (read(slot->bell, &count, sizeof count) != sizeof count) {
        bool ready;
        if (runtime->functions->wait_fd(runtime->self, slot->bell, JIMU_READ, JIMU_FOREVER, &ready, failure) !=
            JIMU_OK) {
            return JIMU_FAILED;
        }
    }
    return JIMU_OK;
}

static const char *next_text(const char *at, size_t *length) {
    uint32_t prefix;
    memcpy(&prefix, at, sizeof prefix);
    *length = prefix;
    return at + sizeof prefix;
}

/* Sends a head of the handler's: that of the response, or an informational one. */
static jimu_result send_head(bridge_slot *slot, jimu_exchange *exchange, jimu_failure *failure) {
    size_t count = (size_t)slot->head_count, at;
    jimu_header *headers = calloc(count > 0 ? count : 1, sizeof *headers);
    const char *text = slot->head.data;
    jimu_result result;
    if (!headers) {
        return no_memory(failure);
    }
    for (at = 0; at < count; at++) {
        size_t length;
        headers[at].name.data = text = next_text(text, &length);
        headers[at].name.length = length;
        text = next_text(text + length, &length);
        headers[at].value.data = (const uint8_t *)text;
        headers[at].value.length = length;
        text += length;
    }
    result = slot->operation == BRIDGE_INFORM
                 ? exchange->functions->informational(exchange->self, slot->status, headers, count, failure)
                 : jimu_start(exchange, slot->status, headers, count, failure);
    slot->head_count = -1;
    free(headers);
    return result;
}

static jimu_result carry_out(bridge_slot *slot, jimu_exchange *exchange, jimu_failure *failure) {
    if (slot->operation == BRIDGE_READ) {
        return jimu_read(exchange, slot->in, slot->wanted, &slot->done, failure);
    }
    if (slot->head_count >= 0 && send_head(slot, exchange, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    if (slot->operation == BRIDGE_INFORM) {
        return JIMU_OK;
    }
    return jimu_write(exchange, slot->out, slot->filled, failure);
}

/* Ends a call whose handler still runs: the handler gives the slot back. */
static void abandon(bridge_slot *slot) {
    bool ended;
    pthread_mutex_lock(&slot->lock);
    slot->open = false;
    ended = slot->ended;
    /* Within the lock, so that it is not sent for the next request of the slot. */
    if (!ended) {
        send_message(slot, BRIDGE_ABANDONED);
    }
    pthread_mutex_unlock(&slot->lock);
    if (ended) {
        give_back(slot);
    }
}

static jimu_result serve(bridge_slot *slot, jimu_exchange *exchange, jimu_failure *failure) {
    for (;;) {
        jimu_result result;
        if (wait_for_bell(slot, failure) != JIMU_OK) {
            abandon(slot);
            return JIMU_FAILED;
        }
        /* Go has released the lock when it has left `bridge_ask`. */
        pthread_mutex_lock(&slot->lock);
        pthread_mutex_unlock(&slot->lock);
        if (slot->operation == BRIDGE_FAIL) {
            *failure = slot->failure;
            give_back(slot);
            return JIMU_FAILED;
        }
        if (slot->operation == BRIDGE_END) {
            result = carry_out(slot, exchange, failure);
            give_back(slot);
            return result;
        }
        slot->result = carry_out(slot, exchange, &slot->failure);
        send_message(slot, BRIDGE_DONE);
    }
}

static jimu_result call(void *self, jimu_exchange *exchange, jimu_failure *failure) {
    bridge_slot *slot = take_slot();
    (void)self;
    if (!slot) {
        return no_memory(failure);
    }
    if (!copy_request(slot, exchange->functions->head(exchange->self))) {
        give_back(slot);
        return no_memory(failure);
    }
    slot->serial++;
    slot->open = true;
    slot->ended = false;
    slot->head_count = -1;
    slot->filled = 0;
    watch_client(slot, exchange);
    send_message(slot, BRIDGE_START);
    return serve(slot, exchange, failure);
}

static jimu_result create(const jimu_host *host, const jimu_app_context *context, void **self,
                          jimu_failure *failure) {
    int ends[2];
    char *refusal;
    (void)context;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return no_memory(failure);
    }
    server = host;
    messages = ends[1];
    *self = NULL;
    refusal = jimuCreate(ends[0]);
    if (refusal) {
        jimu_fail(failure, JIMU_FAILURE_LOAD, refusal);
        free(refusal);
        return JIMU_FAILED;
    }
    return JIMU_OK;
}

static jimu_result init_worker(void *self, const jimu_runtime *services, jimu_failure *failure) {
    (void)self;
    (void)failure;
    runtime = services;
    return JIMU_OK;
}

static const jimu_app_table functions = {
    .table = JIMU_TABLE(jimu_app_table),
    .call = call,
    .init_worker = init_worker,
};

JIMU_EXPORT_APPLICATION = {
    JIMU_APPLICATION(JIMU_GO_NAME, JIMU_GO_VERSION, 0, JIMU_LOAD_IN_WORKER), create, &functions
};
