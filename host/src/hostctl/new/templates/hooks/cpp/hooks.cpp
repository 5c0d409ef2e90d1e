// Hooks that log each request with its status and time. jimu.h documents every function. No exception may leave one of
// them; they are `noexcept`, so that one ends the worker, which is replaced.
#include "jimu.hpp"

namespace {

// Valid in the mold, and after the fork in each worker.
const jimu_host *server = nullptr;

void log(const std::string &line) {
    jimu_log(server, JIMU_LOG_INFO, "{{name}}", line.c_str());
}

jimu_result event(void *, jimu_str name, const std::int64_t *, std::size_t, jimu_failure *) noexcept {
    if (jimu::text(name) == "when_ready") {
        log("the first worker is ready");
    }
    return JIMU_OK;
}

void post_request(void *, const jimu_access_record *record) noexcept {
    // A request that was rejected early has no head.
    std::string line(record->head ? jimu::text(record->head->method) : "-");
    line += " " + std::to_string(record->status) + " in " + std::to_string(record->duration_ns / 1000) + " us";
    log(line);
}

jimu_result create(const jimu_host *host, void **self, jimu_failure *) noexcept {
    server = host;
    *self = nullptr;
    return JIMU_OK;
}

constexpr jimu_hooks_table functions = { JIMU_TABLE(jimu_hooks_table), event, nullptr, post_request };

} // namespace

JIMU_EXPORT_HOOKS = { JIMU_HOOKS("{{name}}", "0.1.0"), create, &functions };
