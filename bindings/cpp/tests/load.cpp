// What must hold under load: a broker that is restarted, receivers that are cancelled in flight, a
// program that exits with an open layer.

#include <atomic>
#include <filesystem>
#include <set>
#include <sys/wait.h>
#include <unistd.h>

#include "channel_layer_json.hpp"
#include "check.hpp"

using namespace channel_layer;
using namespace std::chrono_literals;
using nlohmann::json;

/// A child with a pipe to its input and one from its output.
class child {
  public:
    explicit child(std::vector<std::string> command) {
        int in[2], out[2];
        CHECK(pipe(in) == 0 && pipe(out) == 0);
        std::vector<char *> arguments;
        for (auto &word : command) {
            arguments.push_back(word.data());
        }
        arguments.push_back(nullptr);
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            dup2(in[0], STDIN_FILENO);
            dup2(out[1], STDOUT_FILENO);
            for (const int end : {in[0], in[1], out[0], out[1]}) {
                close(end);
            }
            execvp(arguments[0], arguments.data());
            _exit(127);
        }
        close(in[0]);
        close(out[1]);
        input = fdopen(in[1], "w");
        output = fdopen(out[0], "r");
    }
    ~child() {
        if (pid > 0) {
            (void)end();
        }
    }
    void say(const std::string &line) {
        std::fprintf(input, "%s\n", line.c_str());
        std::fflush(input);
    }
    std::string line() {
        char text[512];
        if (std::fgets(text, sizeof text, output) == nullptr) {
            throw check::failed("a child has ended");
        }
        std::string said = text;
        return said.substr(0, said.find('\n'));
    }
    /// Its status, as of `waitpid`.
    int end() {
        std::fclose(input);
        std::fclose(output);
        int status = -1;
        waitpid(std::exchange(pid, -1), &status, 0);
        return status;
    }

  private:
    pid_t pid = -1;
    std::FILE *input = nullptr, *output = nullptr;
};

TEST(messages_flow_again_after_the_broker_is_restarted_under_load) {
    child node({"python3", NODE});
    const layer layer(options().set("host", node.line()).set("timeout", 2s));
    layer.wait_ready(check::deadline);
    const auto channel = layer.new_channel();
    layer.group_add("g", channel);
    std::atomic<int> received{0}, doubled{0}, failed{0}, wrong{0}, outcomes{0}, accepted{0};
    std::set<int> seen;
    const auto receiver = layer.receive(channel, [&](message_view lent) {
        doubled += !seen.insert(lent.as<json>()["n"].get<int>()).second;
        ++received;
    });
    std::atomic<bool> stop{false};
    const auto expected = [](status_code status) {
        return status == status_code::ok || status == status_code::disconnected ||
               status == status_code::unconfirmed || status == status_code::timeout ||
               status == status_code::busy || status == status_code::full;
    };
    std::thread sender([&] {
        for (int n = 0; !stop; n += 2) {
            const auto status = layer.try_group_send("g", json{{"n", n}}).status();
            failed += status != status_code::ok;
            wrong += !expected(status);
            const auto handed =
                layer.try_send_async(channel, json{{"n", n + 1}}, [&](const outcome &given) {
                    ++outcomes;
                    wrong += !expected(given.status());
                });
            accepted += handed.ok();
            wrong += !expected(handed.status());
        }
    });
    std::exception_ptr problem;
    try {
        check::eventually("the first messages", [&] { return received > 100; });
        node.say("kill9");
        CHECK(node.line() == "done");
        node.say("start");
        CHECK(node.line() == "done");
        layer.wait_ready(check::deadline);
        const int before = received;
        check::eventually("messages after it", [&] { return received > before + 100; });
    } catch (...) {
        problem = std::current_exception();
    }
    stop = true;
    sender.join();
    if (problem) {
        std::rethrow_exception(problem);
    }
    CHECK(layer.stat(statistic::generation) >= 2);
    layer.close(10s);
    check::eventually("all outcomes", [&] { return outcomes == accepted; });
    CHECK(failed > 0 && wrong == 0 && doubled == 0);
}

static void cancel_in_flight(const std::string &host) {
    constexpr int receivers = 10000, messages = 5000;
    const layer layer(options().set("host", host).set("remote_capacity", 1000));
    layer.wait_ready(check::deadline);
    const auto channel = layer.new_channel();
    std::atomic<bool> stop{false};
    std::thread sender([&] {
        for (int n = 0; n < messages && !stop;) {
            // Where nobody receives fast enough it is full, and the message has to come again.
            n += layer.try_send(channel, json{{"n", n}}).ok();
        }
    });
    int next = 0, disordered = 0, declined = 0;
    for (int i = 0; i < receivers; i++) {
        std::atomic<bool> called{false};
        auto receiver = layer.receive(channel, [&](message_view lent) {
            // Every third gives back what it was given.
            if (i % 3 == 0) {
                declined++;
                called = true;
                return flow::decline;
            }
            disordered += lent.as<json>()["n"] != next++;
            called = true;
            return flow::proceed;
        });
        for (int spin = 0; i % 2 == 0 && !called && spin < 200; spin++) {
            std::this_thread::yield();
        }
        receiver.cancel();
    }
    const int in_flight = next;
    // The rest, so that what is lost or doubled shows.
    std::string problem;
    while (next < messages && problem.empty()) {
        const auto rest = layer.receive_next(channel, check::deadline);
        problem = rest ? "" : "a message was lost";
        disordered += rest && rest->as<json>()["n"] != next++;
    }
    stop = true;
    sender.join();
    if (!problem.empty()) {
        throw check::failed(problem + ", after " + std::to_string(next));
    }
    CHECK(disordered == 0 && in_flight > 0 && declined > 0);
    CHECK(!layer.receive_next(channel, 0ms));
    CHECK(layer.stat(statistic::receivers) == 0);
}

TEST(memory_ten_thousand_receivers_cancelled_in_flight_lose_nothing) {
    cancel_in_flight(check::memory());
}

TEST(rabbitmq_ten_thousand_receivers_cancelled_in_flight_lose_nothing) {
    cancel_in_flight(check::rabbitmq());
}

static const std::string self = std::filesystem::read_symlink("/proc/self/exe");

/// What the next test runs: sends and receives without end, and leaves amid that.
static int leave(const std::string &host) {
    // Never freed: exit() takes from no thread what it uses.
    static const auto &layer = *new channel_layer::layer(check::open(host));
    static auto &received = *new check::queue<int>;
    static const auto &channel = *new std::string(layer.new_channel());
    layer.receive(channel, [](message_view) { received.put(1); }).detach();
    std::thread([] {
        for (;;) {
            (void)layer.try_send_async(channel, json{{"n", 1}}, [](const outcome &) {});
        }
    }).detach();
    received.get();
    std::puts("leaving");
    std::exit(0);
}

/// The same, by the destructor of the layer.
static int leave_in_order(const std::string &host) {
    check::queue<int> received;
    const layer layer = check::open(host);
    const auto channel = layer.new_channel();
    layer.receive(channel, [&](message_view) { received.put(1); }).detach();
    for (int i = 0; i < 1000; i++) {
        (void)layer.try_send_async(channel, json{{"n", i}}, [](const outcome &) {});
    }
    received.get();
    std::puts("leaving");
    return 0;
}

TEST(programs_exit_with_an_open_layer_under_load) {
    const char *given = std::getenv("CHANNEL_LAYER_TEST_EXITS");
    const int runs = given == nullptr ? 100 : std::stoi(given);
    CHECK(runs > 0);
    for (int i = 0; i < runs; i++) {
        child program({"timeout", "-k", "5", "30", self,
                       i % 2 == 0 ? "--leave" : "--leave-in-order",
                       i % 4 < 2 ? check::memory() : check::rabbitmq()});
        CHECK(program.line() == "leaving");
        const int status = program.end();
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            throw check::failed("run " + std::to_string(i) + " ended with " +
                                std::to_string(status));
        }
    }
}

int main(int argc, char **argv) {
    if (argc == 3 && std::string(argv[1]) == "--leave") {
        return leave(argv[2]);
    }
    if (argc == 3 && std::string(argv[1]) == "--leave-in-order") {
        return leave_in_order(argv[2]);
    }
    return check::run(argc, argv);
}
