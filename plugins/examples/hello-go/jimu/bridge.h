/*
 * What bridge.c and jimu.go have in common: one slot for each request in progress, in memory of C.
 *
 * The worker's thread or greenlet calls `call`, which sends Go a message and then waits for the slot's bell. A goroutine
 * runs the handler; to read and to write it puts an operation into the slot and rings the bell, `call` carries it out, as
 * the worker class waits, and replies with a message. No code of Go runs on a stack of the worker class, and the exchange
 * is used by its own thread only.
 */
#ifndef JIMU_BRIDGE_H
#define JIMU_BRIDGE_H

#include "jimu.h"

#include <pthread.h>

/* Messages to Go. */
enum {
    /* The slot has a request. */
    BRIDGE_START = 1,
    /* The operation was carried out. */
    BRIDGE_DONE,
    /* The client has disconnected. */
    BRIDGE_GONE,
    /* The call has ended before the handler: no operation will be carried out. */
    BRIDGE_ABANDONED
};

/* Operations. */
enum {
    BRIDGE_READ = 1,
    /* Sends an informational response: `head`, `status`. */
    BRIDGE_INFORM,
    /* Starts the response, if there is a head, and sends what is in `out`. */
    BRIDGE_WRITE,
    /* As BRIDGE_WRITE, at the end of the handler, which does not wait for a reply. */
    BRIDGE_END,
    /* The handler has failed, and does not wait for a reply. */
    BRIDGE_FAIL
};

/* Bytes of `in` and `out`. */
#define BRIDGE_ROOM 32768

typedef struct bridge_text {
    char *data;
    size_t length, room;
} bridge_text;

typedef struct bridge_slot {
    struct bridge_slot *next;
    /* Number of the request among those that the slot has had. */
    uint32_t serial;
    /* eventfd(2) that Go writes to. */
    int bell;
    pthread_mutex_t lock;
    /* Whether the call is in progress. */
    bool open;
    /* Whether the handler has asked for its last operation. */
    bool ended;
    /* Request: texts, each behind its length in four bytes. */
    bridge_text request;
    int64_t content_length;
    uint32_t header_count;
    uint16_t peer_port, local_port;
    uint8_t version;
    bool has_tls;
    /* Operation, and its outcome. */
    int operation;
    uint16_t status;
    /* Headers of the response, encoded as the request is; `head_count` is -1 if there is no head to send. */
    bridge_text head;
    int32_t head_count;
    size_t wanted, filled;
    size_t done;
    jimu_result result;
    jimu_failure failure;
    uint8_t in[BRIDGE_ROOM], out[BRIDGE_ROOM];
} bridge_slot;

typedef struct bridge_message {
    bridge_slot *slot;
    uint32_t serial, kind;
} bridge_message;

/* Asks for an operation; returns false if none is carried out any more. The last one gives the slot back. */
bool bridge_ask(bridge_slot *slot, int operation);
/* Makes room for the headers of a response; returns NULL if there is no memory. */
char *bridge_head(bridge_slot *slot, size_t length, int32_t count);
/* Sets the failure of BRIDGE_FAIL. */
void bridge_fail(bridge_slot *slot, uint8_t kind, uint16_t status, const char *text, size_t length);
/* Writes a line to the error log. */
void bridge_log(uint8_t level, const char *text, size_t length);

#endif
