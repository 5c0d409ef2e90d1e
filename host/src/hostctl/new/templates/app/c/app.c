/* An application that greets. jimu.h documents every function. */
#include "jimu.h"

#include <stdio.h>

static jimu_result call(void *self, jimu_exchange *exchange, jimu_failure *failure) {
    const jimu_head *head = exchange->functions->head(exchange->self);
    char words[256];
    int length = snprintf(words, sizeof words, "You asked for %.*s\n", (int)head->path.length,
                          (const char *)head->path.data);
    (void)self;
    if (length < 0 || (size_t)length >= sizeof words) {
        return jimu_fail(failure, JIMU_FAILURE_APPLICATION, "the path is too long");
    }
    return jimu_respond(exchange, 200, "text/plain; charset=utf-8", words, (size_t)length, failure);
}

static jimu_result create(const jimu_host *host, const jimu_app_context *context, void **self,
                          jimu_failure *failure) {
    (void)host, (void)context, (void)failure;
    *self = NULL;
    return JIMU_OK;
}

static const jimu_app_table functions = { .table = JIMU_TABLE(jimu_app_table), .call = call };

JIMU_EXPORT_APPLICATION = { JIMU_APPLICATION("{{name}}", "0.1.0", 0, 0), create, &functions };
