// An application that greets. An exception that leaves `call` becomes a response with status 500.
#include "jimu.hpp"

namespace {

class Application : public jimu::Application {
  public:
    void call(jimu::Exchange &exchange) override {
        std::string words = "You asked for ";
        words.append(exchange.path()).append("\n");
        exchange.respond(200, "text/plain; charset=utf-8", words);
    }
};

} // namespace

JIMU_CPP_APPLICATION(Application, "{{name}}", "0.1.0")
