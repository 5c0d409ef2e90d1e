/*
 * An application in C: the routes of the example in Rust, ../hello. It includes jimu.h and needs nothing else:
 *
 *     cc -std=c11 -O2 -fPIC -shared -I ../../../worker-api/include hello.c -o libhello_c_app.so
 *     host ./libhello_c_app.so
 *
 *   path                response
 *   /                   a greeting
 *   /echo               the request's body, as it arrives
 *   /sleep?ms=          a text, after a sleep of the worker class's runtime
 *   /connect?to=&ms=    what another server sends, to which this one connects
 *   /stream?n=&size=    n parts of size bytes, without a Content-Length
 *   /whole?size=        size bytes in one part
 *   /file?path=         a file below the working directory
 *   /headers            the request's headers
 *   /tls                the scheme, the TLS version, the server name, the client's certificate in hexadecimal
 *   /pid                the worker's process ID
 *   /panic, /abort      none: the first fails, the second ends the worker, which the server survives
 */
#define _GNU_SOURCE
#include "jimu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Created once in the mold, and used by each worker, possibly on several threads at a time. */
typedef struct application {
    const jimu_runtime *runtime;
} application;

/* A text that grows. */
typedef struct text {
    char *data;
    size_t length, room;
} text;

static const uint64_t SLEEP_MS_MAX = 600000;
static const uint64_t WHOLE_MAX = 64 << 20;
static const uint64_t PART_MAX = 1 << 20;

static jimu_result no_memory(jimu_failure *failure) {
    return jimu_fail(failure, JIMU_FAILURE_OTHER, "out of memory");
}

/* Returns the query parameter `name` as a number. */
static uint64_t number(const jimu_head *head, const char *name, uint64_t otherwise) {
    jimu_bytes value = jimu_head_query(head, name);
    uint64_t result = 0;
    size_t at;
    for (at = 0; at < value.length; at++) {
        if (value.data[at] < '0' || value.data[at] > '9' || result > UINT64_MAX / 16) {
            return otherwise;
        }
        result = result * 10 + (uint64_t)(value.data[at] - '0');
    }
    return value.length > 0 ? result : otherwise;
}

static uint64_t at_most(uint64_t value, uint64_t limit) {
    return value < limit ? value : limit;
}

static jimu_result say(jimu_exchange *exchange, uint16_t status, const char *words, jimu_failure *failure) {
    return jimu_respond(exchange, status, "text/plain; charset=utf-8", words, strlen(words), failure);
}

static bool append(text *to, const void *bytes, size_t length) {
    if (to->length + length > to->room) {
        size_t room = (to->length + length) * 2;
        char *data = realloc(to->data, room);
        if (!data) {
            return false;
        }
        to->data = data;
        to->room = room;
    }
    memcpy(to->data + to->length, bytes, length);
    to->length += length;
    return true;
}

/* Responds with a text, and frees it. */
static jimu_result say_text(jimu_exchange *exchange, text *words, bool complete, jimu_failure *failure) {
    jimu_result result = complete ? jimu_respond(exchange, 200, "text/plain; charset=utf-8", words->data,
                                                 words->length, failure)
                                  : no_memory(failure);
    free(words->data);
    return result;
}

/* Sends the body back while it still arrives: an upload of any size takes one buffer. */
static jimu_result echo(jimu_exchange *exchange, const jimu_head *head, jimu_failure *failure) {
    jimu_header headers[2] = { jimu_header_of("Content-Type", "application/octet-stream") };
    char part[16 * 1024], digits[24];
    size_t count = 1, done;
    if (head->content_length != JIMU_LENGTH_UNKNOWN) {
        snprintf(digits, sizeof digits, "%lld", (long long)head->content_length);
        headers[count++] = jimu_header_of("Content-Length", digits);
    }
    if (jimu_start(exchange, 200, headers, count, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    for (;;) {
        if (jimu_read(exchange, part, sizeof part, &done, failure) != JIMU_OK) {
            return JIMU_FAILED;
        }
        if (done == 0) {
            return JIMU_OK;
        }
        if (jimu_write(exchange, part, done, failure) != JIMU_OK) {
            return JIMU_FAILED;
        }
    }
}

static jimu_result sleep_for(const application *app, jimu_exchange *exchange, const jimu_head *head,
                             jimu_failure *failure) {
    uint64_t ms = at_most(number(head, "ms", 1000), SLEEP_MS_MAX);
    char words[64];
    /* Not nanosleep, which would stop all requests of a cooperative worker. */
    if (app->runtime->functions->sleep(app->runtime->self, ms * 1000000, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    snprintf(words, sizeof words, "Slept for %llu ms.\n", (unsigned long long)ms);
    return say(exchange, 200, words, failure);
}

/* Sends a line, and waits for what the other side sends before it closes. Returns its length, or -1. */
static ssize_t converse(const jimu_runtime *runtime, int32_t fd, uint64_t limit_ns, char *received, size_t room,
                        jimu_failure *failure) {
    size_t length = 0;
    ssize_t count;
    if (write(fd, "ping\n", 5) != 5) {
        return jimu_fail(failure, JIMU_FAILURE_IO, "cannot write to the other side");
    }
    while ((count = read(fd, received + length, room - length)) != 0) {
        bool ready = false;
        if (count > 0) {
            length += (size_t)count;
        } else if (errno != EAGAIN) {
            return jimu_fail(failure, JIMU_FAILURE_IO, "cannot read from the other side");
        } else if (runtime->functions->wait_fd(runtime->self, fd, JIMU_READ, limit_ns, &ready, failure) != JIMU_OK) {
            return JIMU_FAILED;
        } else if (!ready) {
            return jimu_fail(failure, JIMU_FAILURE_TIMEOUT, "the other side is silent");
        }
    }
    return (ssize_t)length;
}

static jimu_result connect_to(const application *app, jimu_exchange *exchange, const jimu_head *head,
                              jimu_failure *failure) {
    uint64_t limit_ns = at_most(number(head, "ms", 1000), SLEEP_MS_MAX) * 1000000;
    jimu_bytes to = jimu_head_query(head, "to");
    jimu_str address = { (const char *)to.data, to.length };
    char received[4096];
    ssize_t length;
    int32_t fd;
    if (app->runtime->functions->connect(app->runtime->self, address, limit_ns, &fd, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    length = converse(app->runtime, fd, limit_ns, received, sizeof received, failure);
    close(fd);
    return length < 0 ? JIMU_FAILED
                      : jimu_respond(exchange, 200, "text/plain; charset=utf-8", received, (size_t)length, failure);
}

/* Sends `parts` parts of `size` bytes: with a length if it is one. */
static jimu_result dots(jimu_exchange *exchange, uint64_t parts, uint64_t size, bool with_length,
                        jimu_failure *failure) {
    jimu_header header = jimu_header_of("Content-Type", "application/octet-stream");
    jimu_result result = JIMU_OK;
    char *part = malloc(size > 0 ? size : 1);
    if (!part) {
        return no_memory(failure);
    }
    memset(part, '.', size);
    if (with_length) {
        result = jimu_respond(exchange, 200, "application/octet-stream", part, size, failure);
    } else {
        result = jimu_start(exchange, 200, &header, 1, failure);
        for (; parts > 0 && result == JIMU_OK; parts--) {
            result = jimu_write(exchange, part, size, failure);
        }
    }
    free(part);
    return result;
}

/* Decodes percent-encoding into `path`; returns whether it is well-formed and fits. */
static bool decode(jimu_bytes value, char *path, size_t room) {
    size_t at, length = 0;
    for (at = 0; at < value.length; at++) {
        char byte = (char)value.data[at];
        if (byte == '%') {
            char digits[3] = { 0 }, *end;
            if (value.length - at < 3) {
                return false;
            }
            digits[0] = (char)value.data[at + 1];
            digits[1] = (char)value.data[at + 2];
            byte = (char)strtoul(digits, &end, 16);
            if (end != digits + 2) {
                return false;
            }
            at += 2;
        }
        if (byte == '\0' || length + 1 >= room) {
            return false;
        }
        path[length++] = byte;
    }
    path[length] = '\0';
    return true;
}

/* Opens a regular file below the working directory. Neither ".." nor a link leads out of it. */
static int open_below(const char *path, off_t *length) {
    char root[4096], full[4096];
    struct stat facts;
    size_t size;
    int fd;
    if (path[0] == '/' || !realpath(".", root) || !realpath(path, full)) {
        return -1;
    }
    size = strlen(root);
    if (strncmp(full, root, size) != 0 || (full[size] != '/' && size > 1) || stat(full, &facts) != 0 ||
        !S_ISREG(facts.st_mode)) {
        return -1;
    }
    fd = open(full, O_RDONLY | O_CLOEXEC);
    *length = facts.st_size;
    return fd;
}

static jimu_result file(jimu_exchange *exchange, const jimu_head *head, jimu_failure *failure) {
    jimu_header headers[2] = { jimu_header_of("Content-Type", "application/octet-stream") };
    char path[4096], digits[24];
    jimu_result result;
    off_t length = 0;
    int fd;
    jimu_bytes value = jimu_head_query(head, "path");
    if (!value.data || !decode(value, path, sizeof path)) {
        return say(exchange, 400, "Which file? /file?path=...\n", failure);
    }
    fd = open_below(path, &length);
    if (fd < 0) {
        return say(exchange, 404, "There is no such file.\n", failure);
    }
    snprintf(digits, sizeof digits, "%lld", (long long)length);
    headers[1] = jimu_header_of("Content-Length", digits);
    result = jimu_start(exchange, 200, headers, 2, failure);
    if (result == JIMU_OK) {
        result = jimu_send_file(exchange, fd, 0, (uint64_t)length, failure);
    }
    close(fd);
    return result;
}

static jimu_result headers(jimu_exchange *exchange, const jimu_head *head, jimu_failure *failure) {
    text lines = { NULL, 0, 0 };
    bool complete = true;
    size_t at;
    for (at = 0; at < head->header_count && complete; at++) {
        const jimu_header *header = &head->headers[at];
        complete = append(&lines, header->name.data, header->name.length) && append(&lines, ": ", 2) &&
                   append(&lines, header->value.data, header->value.length) && append(&lines, "\n", 1);
    }
    return say_text(exchange, &lines, complete, failure);
}

static jimu_result tls(jimu_exchange *exchange, const jimu_head *head, jimu_failure *failure) {
    text lines = { NULL, 0, 0 };
    bool complete = append(&lines, head->scheme.data, head->scheme.length) && append(&lines, "\n", 1);
    if (head->tls && complete) {
        const jimu_tls *session = head->tls;
        size_t at;
        complete = append(&lines, session->protocol.data, session->protocol.length) && append(&lines, "\n", 1) &&
                   append(&lines, session->server_name.data, session->server_name.length) &&
                   append(&lines, "\n", 1);
        for (at = 0; at < session->client_certificate.length && complete; at++) {
            char digits[3];
            snprintf(digits, sizeof digits, "%02x", session->client_certificate.data[at]);
            complete = append(&lines, digits, 2);
        }
    }
    return say_text(exchange, &lines, complete, failure);
}

static jimu_result pid(jimu_exchange *exchange, jimu_failure *failure) {
    char words[32];
    snprintf(words, sizeof words, "%ld\n", (long)getpid());
    return say(exchange, 200, words, failure);
}

static jimu_result call(void *self, jimu_exchange *exchange, jimu_failure *failure) {
    const application *app = self;
    const jimu_head *head = exchange->functions->head(exchange->self);
    jimu_bytes path = head->path;
    if (jimu_bytes_are(path, "/")) {
        return say(exchange, 200, "Hello, world!\n", failure);
    }
    if (jimu_bytes_are(path, "/echo")) {
        return echo(exchange, head, failure);
    }
    if (jimu_bytes_are(path, "/sleep")) {
        return sleep_for(app, exchange, head, failure);
    }
    if (jimu_bytes_are(path, "/connect")) {
        return connect_to(app, exchange, head, failure);
    }
    if (jimu_bytes_are(path, "/stream")) {
        return dots(exchange, number(head, "n", 10), at_most(number(head, "size", 1024), PART_MAX), false, failure);
    }
    if (jimu_bytes_are(path, "/whole")) {
        return dots(exchange, 1, at_most(number(head, "size", 1024), WHOLE_MAX), true, failure);
    }
    if (jimu_bytes_are(path, "/file")) {
        return file(exchange, head, failure);
    }
    if (jimu_bytes_are(path, "/headers")) {
        return headers(exchange, head, failure);
    }
    if (jimu_bytes_are(path, "/tls")) {
        return tls(exchange, head, failure);
    }
    if (jimu_bytes_are(path, "/pid")) {
        return pid(exchange, failure);
    }
    if (jimu_bytes_are(path, "/panic")) {
        return jimu_fail(failure, JIMU_FAILURE_PANIC, "a client asked for a panic");
    }
    if (jimu_bytes_are(path, "/abort")) {
        abort();
    }
    return say(exchange, 404, "There is nothing here.\n", failure);
}

static jimu_result init_worker(void *self, const jimu_runtime *runtime, jimu_failure *failure) {
    application *app = self;
    (void)failure;
    app->runtime = runtime;
    return JIMU_OK;
}

static jimu_result create(const jimu_host *host, const jimu_app_context *context, void **self,
                          jimu_failure *failure) {
    application *app = calloc(1, sizeof *app);
    (void)context;
    if (!app) {
        return no_memory(failure);
    }
    jimu_log(host, JIMU_LOG_DEBUG, "hello-c", "created");
    *self = app;
    return JIMU_OK;
}

static const jimu_app_table functions = {
    .table = JIMU_TABLE(jimu_app_table),
    .call = call,
    .init_worker = init_worker,
};

JIMU_EXPORT_APPLICATION = { JIMU_APPLICATION("hello-c", "1.0", 0, 0), create, &functions };
