// jimu.hpp - jimu.h for C++17: objects in place of tables, and exceptions in place of failures.
//
// A header of functions that are compiled into the plugin: what crosses the boundary is jimu.h alone. Nothing thrown leaves
// a function of the plugin: it becomes a failure, with the text of `what()`.
//
//     struct Greeting : jimu::Application {
//         void call(jimu::Exchange &exchange) override { exchange.respond(200, "text/plain", "Hello!\n"); }
//     };
//     JIMU_CPP_APPLICATION(Greeting, "greeting", "1.0")
#ifndef JIMU_HPP
#define JIMU_HPP

#include "jimu.h"

#include <chrono>
#include <exception>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

namespace jimu {

// Text of the other side, valid as long as jimu.h says.
inline std::string_view text(jimu_str value) {
    return value.length ? std::string_view(value.data, value.length) : std::string_view();
}

// Bytes of the other side, as text.
inline std::string_view text(jimu_bytes value) {
    return value.length ? std::string_view(reinterpret_cast<const char *>(value.data), value.length) : std::string_view();
}

// Text for the other side, valid as long as `value` is.
inline jimu_str str(std::string_view value) {
    return jimu_str{value.data(), value.size()};
}

// A failure with its kind (JIMU_FAILURE_...) and the HTTP status to send, 0 for the default.
class Error : public std::runtime_error {
  public:
    explicit Error(const std::string &words, std::uint8_t kind = JIMU_FAILURE_OTHER, std::uint16_t status = 0)
        : std::runtime_error(words), kind_(kind), status_(status) {}

    std::uint8_t kind() const noexcept { return kind_; }
    std::uint16_t status() const noexcept { return status_; }

  private:
    std::uint8_t kind_;
    std::uint16_t status_;
};

namespace detail {

// Throws what a function of the other side reports.
template <typename Call> jimu_step checked(Call &&call) {
    jimu_failure failure;
    failure.kind = JIMU_FAILURE_OTHER;
    failure.status = 0;
    failure.length = 0;
    const jimu_step step = std::forward<Call>(call)(&failure);
    if (step == JIMU_FAILED) {
        throw Error(std::string(failure.text, failure.length), failure.kind, failure.status);
    }
    return step;
}

inline jimu_result report(jimu_failure *failure, std::uint8_t kind, std::uint16_t status, const char *words) noexcept {
    jimu_fail(failure, kind, words);
    failure->status = status;
    return JIMU_FAILED;
}

// Runs code of the plugin, and turns what it throws into a failure.
template <typename Body> jimu_result guarded(jimu_failure *failure, Body &&body) noexcept {
    try {
        std::forward<Body>(body)();
        return JIMU_OK;
    } catch (const Error &error) {
        return report(failure, error.kind(), error.status(), error.what());
    } catch (const std::exception &error) {
        return report(failure, JIMU_FAILURE_PANIC, 0, error.what());
    } catch (...) {
        return report(failure, JIMU_FAILURE_PANIC, 0, "an exception that is no std::exception");
    }
}

} // namespace detail

// A header of a response. Refers to the texts that it was made of.
struct Header {
    std::string_view name;
    std::string_view value;
};

// One request and its response. Lent to `Application::call`, or owned once it is detached.
class Exchange {
  public:
    explicit Exchange(jimu_exchange *lent) : object_(*lent), lent_(lent) {}
    Exchange(Exchange &&other) noexcept : object_(other.object_), lent_(other.lent_) { other.object_.functions = nullptr; }
    Exchange(const Exchange &) = delete;
    Exchange &operator=(const Exchange &) = delete;
    Exchange &operator=(Exchange &&) = delete;
    ~Exchange() {
        if (object_.functions && !lent_) {
            object_.functions->drop(object_.self);
        }
    }

    // The head. Valid until the next call with this exchange.
    const jimu_head &head() const { return *object_.functions->head(object_.self); }
    std::string_view method() const { return text(head().method); }
    std::string_view path() const { return text(head().path); }

    // The value of the first header with this name.
    std::optional<std::string_view> header(const char *name) const { return found(jimu_head_find(&head(), name)); }
    // The value of the first query parameter with this name, percent-encoded as sent.
    std::optional<std::string_view> query(const char *name) const { return found(jimu_head_query(&head(), name)); }

    // Reads from the body, blocking as the worker class does. 0 is its end.
    std::size_t read(void *buffer, std::size_t length) {
        std::size_t done = 0;
        detail::checked([&](jimu_failure *failure) { return jimu_read(&object_, buffer, length, &done, failure); });
        return done;
    }

    // Reads the whole body.
    std::string read_to_end(std::size_t limit) {
        std::string body;
        std::vector<char> part(16 * 1024);
        while (const std::size_t count = read(part.data(), part.size())) {
            if (body.size() + count > limit) {
                throw Error("the request body is too large", JIMU_FAILURE_TOO_LARGE, 413);
            }
            body.append(part.data(), count);
        }
        return body;
    }

    // Starts the response. The head is sent with the first write, or at the end.
    void start(std::uint16_t status, std::initializer_list<Header> headers) {
        std::vector<jimu_header> lines;
        lines.reserve(headers.size());
        for (const Header &header : headers) {
            const auto *value = reinterpret_cast<const std::uint8_t *>(header.value.data());
            lines.push_back(jimu_header{str(header.name), jimu_bytes{value, header.value.size()}});
        }
        detail::checked([&](jimu_failure *failure) {
            return jimu_start(&object_, status, lines.data(), lines.size(), failure);
        });
    }

    // Writes a part of the body, blocking as the worker class does.
    void write(std::string_view bytes) {
        detail::checked([&](jimu_failure *failure) {
            return jimu_write(&object_, bytes.data(), bytes.size(), failure);
        });
    }

    // Sends a part of a file.
    void send_file(int fd, std::uint64_t offset, std::uint64_t length) {
        detail::checked([&](jimu_failure *failure) { return jimu_send_file(&object_, fd, offset, length, failure); });
    }

    // Sends a complete response with its length.
    void respond(std::uint16_t status, const char *content_type, std::string_view body) {
        detail::checked([&](jimu_failure *failure) {
            return jimu_respond(&object_, status, content_type, body.data(), body.size(), failure);
        });
    }

    // Finishes the response.
    void finish() {
        detail::checked([&](jimu_failure *failure) { return object_.functions->finish(object_.self, failure); });
    }

    // Takes the exchange out of `Application::call`, so that another thread can finish it later. Needs
    // JIMU_NEEDS_DEFERRED.
    Exchange detach() {
        jimu_exchange owned = object_.functions->detach(object_.self);
        return Exchange(owned);
    }

    // The object of jimu.h, for what this class leaves out.
    jimu_exchange &raw() { return object_; }

  private:
    explicit Exchange(jimu_exchange owned) : object_(owned), lent_(nullptr) {}

    static std::optional<std::string_view> found(jimu_bytes value) {
        return value.data ? std::optional<std::string_view>(text(value)) : std::nullopt;
    }

    jimu_exchange object_;
    jimu_exchange *lent_;
};

// A descriptor, closed at the end.
class Descriptor {
  public:
    explicit Descriptor(int fd) noexcept : fd_(fd) {}
    Descriptor(Descriptor &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    Descriptor &operator=(Descriptor &&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }

    int get() const noexcept { return fd_; }
    // Gives the descriptor away.
    int release() noexcept { return std::exchange(fd_, -1); }

  private:
    int fd_;
};

// The services of the worker class. Copies are the same runtime, which lives as long as the process.
class Runtime {
  public:
    explicit Runtime(const jimu_runtime *object) : object_(object) {}

    bool cooperative() const { return object_->functions->cooperative(object_->self); }

    // Waits in the way of the worker class.
    void sleep(std::chrono::nanoseconds time) const {
        detail::checked([&](jimu_failure *failure) {
            return object_->functions->sleep(object_->self, static_cast<std::uint64_t>(time.count()), failure);
        });
    }

    // Waits for a descriptor: JIMU_READ, JIMU_WRITE. Returns false if the time passes first.
    bool wait(int fd, std::uint8_t interest, std::uint64_t timeout_ns = JIMU_FOREVER) const {
        bool ready = false;
        detail::checked([&](jimu_failure *failure) {
            return object_->functions->wait_fd(object_->self, fd, interest, timeout_ns, &ready, failure);
        });
        return ready;
    }

    // Connects to "HOST:PORT", "[IPV6]:PORT" or "unix:PATH". The socket is non-blocking: when a read or a write would
    // block, `wait` for it.
    Descriptor connect(std::string_view address, std::uint64_t timeout_ns = JIMU_FOREVER) const {
        std::int32_t fd = -1;
        detail::checked([&](jimu_failure *failure) {
            return object_->functions->connect(object_->self, str(address), timeout_ns, &fd, failure);
        });
        return Descriptor(fd);
    }

    // Returns the addresses of a host, each with its port, in the form that `connect` reads.
    std::vector<std::string> resolve(std::string_view host, std::uint16_t port,
                                     std::uint64_t timeout_ns = JIMU_FOREVER) const {
        std::vector<std::string> addresses;
        const jimu_sink sink = {
            [](void *to, jimu_str address) {
                static_cast<std::vector<std::string> *>(to)->emplace_back(text(address));
            },
            &addresses,
        };
        detail::checked([&](jimu_failure *failure) {
            return object_->functions->resolve(object_->self, str(host), port, timeout_ns, &sink, failure);
        });
        return addresses;
    }

  private:
    const jimu_runtime *object_;
};

// An application. Only `call` has to be written.
class Application {
  public:
    Application() = default;
    Application(const Application &) = delete;
    Application &operator=(const Application &) = delete;
    virtual ~Application() = default;

    // Serves one request: on several threads at once under a class with threads.
    virtual void call(Exchange &exchange) = 0;
    // Loads what is slow or can fail.
    virtual void load() {}
    // In a worker before its first request.
    virtual void init_worker(Runtime) {}
    // In a worker when it begins to drain. Must not block.
    virtual void drain() {}
    // In a worker after its last request.
    virtual void shutdown() {}
};

namespace detail {

inline Application &application(void *self) {
    return *static_cast<Application *>(self);
}

inline jimu_result call(void *self, jimu_exchange *exchange, jimu_failure *failure) noexcept {
    return guarded(failure, [&] {
        Exchange lent(exchange);
        application(self).call(lent);
    });
}

inline jimu_result load(void *self, jimu_failure *failure) noexcept {
    return guarded(failure, [&] { application(self).load(); });
}

inline jimu_result init_worker(void *self, const jimu_runtime *runtime, jimu_failure *failure) noexcept {
    return guarded(failure, [&] { application(self).init_worker(Runtime(runtime)); });
}

inline void drain(void *self) noexcept {
    jimu_failure ignored;
    guarded(&ignored, [&] { application(self).drain(); });
}

inline void shutdown(void *self) noexcept {
    jimu_failure ignored;
    guarded(&ignored, [&] { application(self).shutdown(); });
}

template <typename Type>
jimu_result create(const jimu_host *, const jimu_app_context *, void **self, jimu_failure *failure) noexcept {
    return guarded(failure, [&] { *self = static_cast<Application *>(std::make_unique<Type>().release()); });
}

// Not `inline`: the dynamic linker would make the first plugin's table that of all others.
static constexpr jimu_app_table functions = {
    JIMU_TABLE(jimu_app_table), call,    load,    init_worker, nullptr, shutdown, drain,   nullptr,
    nullptr,                    nullptr, nullptr, nullptr,     nullptr, nullptr,  nullptr,
};

} // namespace detail
} // namespace jimu

// Exports an application. Once in a library, outside of any namespace.
#define JIMU_CPP_APPLICATION(Type, name, version)                                                                      \
    JIMU_EXPORT_APPLICATION = {JIMU_APPLICATION(name, version, 0, 0), jimu::detail::create<Type>, &jimu::detail::functions};

#endif
