// A worker class with one thread for each connection. The kit does HTTP, TLS, limits and the access log; jimu_kit.h says
// what is left to the class, and in which order.
//
// The main thread accepts, sends the heartbeat and receives signals. The thread of a connection does everything else. No
// exception may leave a function of jimu.h: they are `noexcept`, so that one ends the worker, which is replaced. When all
// threads are taken, a new client takes the place of the one that has sent no request for longest.
#include "jimu_kit.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include <pthread.h>

namespace {

struct Close {
    void operator()(jimu_kit_connection *connection) const { jimu_kit_close(connection); }
};
using Connection = std::unique_ptr<jimu_kit_connection, Close>;

// A worker: one per process.
class Worker {
  public:
    Worker(const jimu_host *host, jimu_kit *kit) : host_(host), kit_(kit) {}

    jimu_result init_process(jimu_failure *failure) {
        count(JIMU_COUNT_SLOTS, static_cast<std::int64_t>(jimu_kit_capacity(kit_)));
        if (jimu_kit_init_worker(kit_, failure) != JIMU_OK) {
            return JIMU_FAILED;
        }
        // Not std::thread: the application may ask for larger stacks.
        if (pthread_attr_init(&thread_) != 0 ||
            pthread_attr_setstacksize(&thread_, jimu_kit_stack_size(kit_)) != 0 ||
            pthread_attr_setdetachstate(&thread_, PTHREAD_CREATE_DETACHED) != 0) {
            return jimu_fail(failure, JIMU_FAILURE_IO, "cannot prepare threads");
        }
        return JIMU_OK;
    }

    void run() {
        while (host_->functions->alive(host_->self)) {
            jimu_kit_tick(kit_);
            wait_and_accept();
        }
        finish();
    }

  private:
    // What a thread is started with. Counts its connection until it ends.
    struct Task {
        Task(Worker &worker, Connection accepted) : of(worker), connection(std::move(accepted)) {
            of.open_++;
            of.count(JIMU_COUNT_CONNECTIONS, 1);
        }
        Task(const Task &) = delete;
        Task &operator=(const Task &) = delete;
        ~Task() {
            connection.reset();
            of.count(JIMU_COUNT_CONNECTIONS, -1);
            of.open_--;
        }

        Worker &of;
        Connection connection;
    };

    void count(std::uint8_t counter, std::int64_t by) { host_->functions->count(host_->self, counter, by); }

    // Waits for clients and for signals, until a heartbeat is due.
    void wait_and_accept() {
        const bool is_stuck = jimu_kit_is_stuck(kit_);
        jimu_kit_wait_for_clients(kit_, has_room() && !is_stuck);
        host_->functions->deliver_signals(host_->self);
        for (std::size_t index = 0; !is_stuck && index < jimu_kit_listeners(kit_); index++) {
            if (has_room()) {
                accept_one(index);
            } else {
                jimu_kit_make_room(kit_, index);
            }
        }
    }

    bool has_room() const { return open_ < jimu_kit_capacity(kit_); }

    // Accepts one connection; returns whether there was one.
    bool accept_one(std::size_t listener) {
        std::uint64_t rest_ns = 0;
        Connection connection(jimu_kit_accept(kit_, listener, &rest_ns));
        if (!connection) {
            // No descriptors are left, or the system forbids accepting: pause instead of spinning.
            std::this_thread::sleep_for(std::chrono::nanoseconds(rest_ns));
            return false;
        }
        auto task = std::make_unique<Task>(*this, std::move(connection));
        pthread_t thread;
        if (pthread_create(&thread, &thread_, serve, task.get()) == 0) {
            task.release();
        } else {
            jimu_log(host_, JIMU_LOG_WARNING, "{{name}}", "connection closed: cannot start a thread");
        }
        return true;
    }

    // The thread of a connection: serves one request after the other.
    static void *serve(void *argument) noexcept {
        const std::unique_ptr<Task> task(static_cast<Task *>(argument));
        Connection &connection = task->connection;
        jimu_kit_next next = jimu_kit_advance(connection.get());
        while (next != JIMU_KIT_CLOSED) {
            if (next != JIMU_KIT_REQUEST) {
                next = jimu_kit_wait_for_client(task->of.kit_, connection.get(), next);
                continue;
            }
            connection.reset(jimu_kit_call(task->of.kit_, connection.release(), nullptr));
            // The application may have taken the connection over.
            next = connection ? jimu_kit_advance(connection.get()) : JIMU_KIT_CLOSED;
        }
        return nullptr;
    }

    // Accepts what no other worker would serve, closes the listeners, and waits for the threads.
    void finish() {
        const std::uint64_t deadline = jimu_kit_graceful_deadline_ns(kit_);
        jimu_kit_drain(kit_);
        for (std::size_t index = 0; index < jimu_kit_listeners(kit_); index++) {
            std::uint64_t left = jimu_kit_remaining_backlog(kit_, index);
            while (left > 0 && !jimu_kit_is_stuck(kit_) && accept_one(index)) {
                left--;
            }
        }
        host_->functions->close_listeners(host_->self);
        while ((open_ > 0 || jimu_kit_has_background_work(kit_)) && jimu_kit_now_ns() < deadline) {
            jimu_kit_tick(kit_);
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        jimu_kit_cut_requests(kit_, open_);
    }

    const jimu_host *host_;
    jimu_kit *kit_;
    pthread_attr_t thread_{};
    // Number of connections, each with a thread.
    std::atomic<std::size_t> open_{0};
};

jimu_result create(const jimu_host *host, const jimu_app *app, void **self, jimu_failure *failure) noexcept {
    jimu_kit *kit = jimu_kit_new(host, app, JIMU_KIT_KEEP_ALIVE, failure);
    if (!kit) {
        return JIMU_FAILED;
    }
    *self = new Worker(host, kit);
    return JIMU_OK;
}

jimu_result init_process(void *self, jimu_failure *failure) noexcept {
    return static_cast<Worker *>(self)->init_process(failure);
}

jimu_result run(void *self, jimu_failure *) noexcept {
    static_cast<Worker *>(self)->run();
    return JIMU_OK;
}

constexpr jimu_worker_table functions = {
    JIMU_TABLE(jimu_worker_table), run, init_process, nullptr, nullptr, nullptr, nullptr, nullptr,
};

} // namespace

JIMU_EXPORT_WORKER_CLASS = {
    JIMU_WORKER_CLASS("{{name}}", "0.1.0", JIMU_HAS_THREADS),
    "a thread for each connection",
    nullptr,
    nullptr,
    jimu_kit_check,
    create,
    &functions,
};
