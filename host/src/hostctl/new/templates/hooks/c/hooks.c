/* Hooks that log each request with its status and time. jimu.h documents every function. */
#include "jimu.h"

#include <inttypes.h>
#include <stdio.h>

/* Valid in the mold, and after the fork in each worker. */
static const jimu_host *server;

static jimu_result event(void *self, jimu_str name, const int64_t *facts, size_t count, jimu_failure *failure) {
    (void)self, (void)facts, (void)count, (void)failure;
    if (jimu_is(name, "when_ready")) {
        jimu_log(server, JIMU_LOG_INFO, "{{name}}", "the first worker is ready");
    }
    return JIMU_OK;
}

static void post_request(void *self, const jimu_access_record *record) {
    /* A request that was rejected early has no head. */
    jimu_str method = record->head ? record->head->method : jimu_text("-");
    char line[128];
    (void)self;
    snprintf(line, sizeof line, "%.*s %u in %" PRIu64 " us", (int)method.length, method.data,
             (unsigned)record->status, record->duration_ns / 1000);
    jimu_log(server, JIMU_LOG_INFO, "{{name}}", line);
}

static jimu_result create(const jimu_host *host, void **self, jimu_failure *failure) {
    (void)failure;
    server = host;
    *self = NULL;
    return JIMU_OK;
}

static const jimu_hooks_table functions = {
    .table = JIMU_TABLE(jimu_hooks_table),
    .event = event,
    .post_request = post_request,
};

JIMU_EXPORT_HOOKS = { JIMU_HOOKS("{{name}}", "0.1.0"), create, &functions };
