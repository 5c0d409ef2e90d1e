// An application in C++17: some routes of the example in Rust, ../hello. It includes jimu.hpp and needs nothing else:
//
//     c++ -std=c++17 -O2 -fPIC -shared -I ../../../worker-api/include hello.cpp -o libhello_cpp_app.so
//     host ./libhello_cpp_app.so
//
//   path               response
//   /                  a greeting
//   /echo              the request's body, as it arrives
//   /sleep?ms=         a text, after a sleep of the worker class's runtime
//   /connect?to=&ms=   what another server sends, to which this one connects
//   /headers           the request's headers
//   /pid               the worker's process ID
//   /panic             none: it throws, which the server survives
#include "jimu.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include <unistd.h>

namespace {

constexpr const char *PLAIN = "text/plain; charset=utf-8";

class Hello : public jimu::Application {
  public:
    void init_worker(jimu::Runtime runtime) override { runtime_ = runtime; }

    void call(jimu::Exchange &exchange) override {
        const std::string_view path = exchange.path();
        if (path == "/") {
            exchange.respond(200, PLAIN, "Hello, world!\n");
        } else if (path == "/echo") {
            echo(exchange);
        } else if (path == "/sleep") {
            sleep(exchange);
        } else if (path == "/connect") {
            connect(exchange);
        } else if (path == "/headers") {
            headers(exchange);
        } else if (path == "/pid") {
            exchange.respond(200, PLAIN, std::to_string(getpid()) + "\n");
        } else if (path == "/panic") {
            throw std::logic_error("a client asked for a panic");
        } else {
            exchange.respond(404, PLAIN, "There is nothing here.\n");
        }
    }

  private:
    // An upload of any size takes one buffer.
    static void echo(jimu::Exchange &exchange) {
        std::vector<char> part(16 * 1024);
        exchange.start(200, {{"Content-Type", "application/octet-stream"}});
        while (const std::size_t count = exchange.read(part.data(), part.size())) {
            exchange.write({part.data(), count});
        }
    }

    static unsigned milliseconds(jimu::Exchange &exchange) {
        const std::string_view asked = exchange.query("ms").value_or("1000");
        unsigned ms = 0;
        std::from_chars(asked.data(), asked.data() + asked.size(), ms);
        return std::min(ms, 600'000u);
    }

    // Sends a line, and waits for what the other side sends before it closes.
    void connect(jimu::Exchange &exchange) const {
        const std::uint64_t limit_ns = milliseconds(exchange) * std::uint64_t{1'000'000};
        const jimu::Descriptor socket = runtime_->connect(exchange.query("to").value_or(""), limit_ns);
        std::string received(4096, '\0');
        std::size_t length = 0;
        if (write(socket.get(), "ping\n", 5) != 5) {
            throw jimu::Error("cannot write to the other side", JIMU_FAILURE_IO);
        }
        while (const ssize_t count = read(socket.get(), received.data() + length, received.size() - length)) {
            if (count > 0) {
                length += static_cast<std::size_t>(count);
            } else if (errno != EAGAIN) {
                throw jimu::Error("cannot read from the other side", JIMU_FAILURE_IO);
            } else if (!runtime_->wait(socket.get(), JIMU_READ, limit_ns)) {
                throw jimu::Error("the other side is silent", JIMU_FAILURE_TIMEOUT);
            }
        }
        exchange.respond(200, PLAIN, {received.data(), length});
    }

    void sleep(jimu::Exchange &exchange) const {
        const unsigned ms = milliseconds(exchange);
        // Not std::this_thread::sleep_for, which would stop all requests of a cooperative worker.
        runtime_->sleep(std::chrono::milliseconds(ms));
        exchange.respond(200, PLAIN, "Slept for " + std::to_string(ms) + " ms.\n");
    }

    static void headers(jimu::Exchange &exchange) {
        std::string lines;
        const jimu_head &head = exchange.head();
        for (std::size_t at = 0; at < head.header_count; at++) {
            lines.append(jimu::text(head.headers[at].name)).append(": ");
            lines.append(jimu::text(head.headers[at].value)).append("\n");
        }
        exchange.respond(200, PLAIN, lines);
    }

    std::optional<jimu::Runtime> runtime_;
};

} // namespace

JIMU_CPP_APPLICATION(Hello, "hello-cpp", "1.0")
