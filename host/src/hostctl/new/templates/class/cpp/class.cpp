// A worker class with one thread for each connection. The kit does HTTP, TLS, limits and the access log; jimu_kit.h says
// what is left to the class, and in which order.
//
// The main thread accepts, sends the heartbeat and receives signals. The thread of a connection does everything else. No
// exception may leave a function of jimu.h: they are `noexcept`, so that one ends the worker, which is replaced. When all
// threads are taken, a new client takes the place of the one that has sent no request for longest.
#include "jimu_kit.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

namespace {

constexpr std::uint64_t SLICE_NS = 500'000'000;
// How long the worker does not look at its listeners when all threads are taken.
constexpr std::chrono::milliseconds CROWDED{20};

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
        const std::size_t listeners = jimu_kit_is_stuck(kit_) ? 0 : jimu_kit_listeners(kit_);
        std::vector<pollfd> polled{{host_->functions->wake_descriptor(host_->self), POLLIN, 0}};
        for (std::size_t index = 0; index < listeners; index++) {
            polled.push_back({jimu_kit_listener(kit_, index), POLLIN, 0});
        }
        // A signal interrupts it.
        const int ready = poll(polled.data(), polled.size(), static_cast<int>(jimu_kit_pause_ns(kit_) / 1'000'000));
        host_->functions->deliver_signals(host_->self);
        bool crowded = false;
        for (std::size_t index = 1; ready > 0 && index < polled.size(); index++) {
            if (!polled[index].revents) {
                continue;
            }
            if (open_ < jimu_kit_capacity(kit_)) {
                accept_one(index - 1);
            } else {
                crowded = true;
            }
        }
        if (crowded) {
            make_room();
            // Until that thread has ended, or another one, the listeners would be reported again and again.
            std::this_thread::sleep_for(CROWDED);
        }
    }

    // Closes the connection that has waited longest for a request: its thread reads the end of the client's bytes.
    void make_room() {
        const std::lock_guard<std::mutex> guard(lock_);
        const auto longest = std::min_element(waiting_.begin(), waiting_.end(),
                                              [](auto &a, auto &b) { return a.second < b.second; });
        if (longest != waiting_.end() && longest->second + JIMU_KIT_EVICTABLE_NS <= jimu_kit_now_ns() &&
            shutdown(longest->first, SHUT_RD) == 0) {
            jimu_kit_note_evicted(kit_, 1);
        }
    }

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
                next = task->of.wait_for_client(*connection, static_cast<std::uint8_t>(next));
                continue;
            }
            connection.reset(jimu_kit_call(task->of.kit_, connection.release(), nullptr));
            // The application may have taken the connection over.
            next = connection ? jimu_kit_advance(connection.get()) : JIMU_KIT_CLOSED;
        }
        return nullptr;
    }

    // Waits for a client, in the list of connections that can give way to another one.
    jimu_kit_next wait_for_client(jimu_kit_connection &connection, std::uint8_t interest) {
        const std::uint64_t since_ns = jimu_kit_waits_since_ns(&connection);
        if (since_ns == 0) {
            return wait_until_ready(connection, interest);
        }
        const int fd = jimu_kit_fd(&connection);
        {
            const std::lock_guard<std::mutex> guard(lock_);
            waiting_.emplace(fd, since_ns);
        }
        const jimu_kit_next next = wait_until_ready(connection, interest);
        const std::lock_guard<std::mutex> guard(lock_);
        waiting_.erase(fd);
        return next;
    }

    // Waits until the connection's deadline. Wakes now and then, in case the worker drains.
    jimu_kit_next wait_until_ready(jimu_kit_connection &connection, std::uint8_t interest) {
        for (;;) {
            if (jimu_kit_draining(kit_)) {
                jimu_kit_shorten_idle_deadline(&connection);
            }
            const std::uint64_t deadline = jimu_kit_deadline_ns(&connection);
            const std::uint64_t until = std::min(deadline, jimu_kit_now_ns() + SLICE_NS);
            jimu_failure failure;
            bool ready = false;
            if (jimu_kit_wait(jimu_kit_fd(&connection), interest, until, &ready, &failure) != JIMU_OK) {
                return JIMU_KIT_CLOSED;
            }
            if (ready) {
                return jimu_kit_advance(&connection);
            }
            if (deadline <= jimu_kit_now_ns()) {
                return jimu_kit_expire(&connection);
            }
        }
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
    }

    const jimu_host *host_;
    jimu_kit *kit_;
    pthread_attr_t thread_{};
    // Number of connections, each with a thread.
    std::atomic<std::size_t> open_{0};
    std::mutex lock_;
    // The connections that wait for a request, by descriptor, each with the time since which it waits.
    std::unordered_map<int, std::uint64_t> waiting_;
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
