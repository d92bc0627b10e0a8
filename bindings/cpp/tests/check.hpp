// What the tests share: a list of named tests, checks that throw, and waits with a bound.

#ifndef CHANNEL_LAYER_TESTS_CHECK_HPP
#define CHANNEL_LAYER_TESTS_CHECK_HPP

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <functional>
#include <mutex>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "channel_layer.hpp"

namespace check {

using namespace std::chrono_literals;

/// What takes longer has failed.
constexpr std::chrono::seconds deadline = 30s;

struct test {
    std::string name;
    std::function<void()> run;
};

inline std::vector<test> &tests() {
    static std::vector<test> all;
    return all;
}

struct registered {
    registered(std::string name, std::function<void()> run) {
        tests().push_back({std::move(name), std::move(run)});
    }
};

/// A test by the name of its function.
#define TEST(name)                                                                                 \
    static void name();                                                                            \
    static const check::registered name##_registered(#name, name);                                 \
    static void name()

struct failed : std::runtime_error {
    using std::runtime_error::runtime_error;
};

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            throw check::failed(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " +    \
                                #condition);                                                       \
        }                                                                                          \
    } while (false)

inline void holds(const std::string &text, const std::string &word) {
    if (text.find(word) == std::string::npos) {
        throw failed("'" + word + "' is not in '" + text + "'");
    }
}

/// The error that `call` throws, which must have this status and these words.
template <class Call>
void raises(channel_layer::status_code status, const std::vector<std::string> &words, Call &&call) {
    try {
        call();
    } catch (const channel_layer::error &problem) {
        if (problem.status() != status) {
            throw failed(std::string(to_string(problem.status())) + " in the place of " +
                         to_string(status) + ": " + problem.what());
        }
        CHECK(*problem.what() != '\0');
        for (const auto &word : words) {
            holds(problem.what(), word);
        }
        return;
    }
    throw failed(std::string("nothing was thrown in the place of ") + to_string(status));
}

/// What one thread puts in and another waits for.
template <class T> class queue {
  public:
    void put(T value) {
        const std::lock_guard<std::mutex> held(mutex);
        values.push_back(std::move(value));
        changed.notify_all();
    }
    T get(const std::string &what = "a value") {
        std::unique_lock<std::mutex> held(mutex);
        if (!changed.wait_for(held, deadline, [this] { return !values.empty(); })) {
            throw failed(what + " did not come in time");
        }
        T first = std::move(values.front());
        values.pop_front();
        return first;
    }
    std::size_t size() {
        const std::lock_guard<std::mutex> held(mutex);
        return values.size();
    }

  private:
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<T> values;
};

/// For what nothing tells of.
template <class Condition> void eventually(const std::string &what, Condition &&condition) {
    const auto end = std::chrono::steady_clock::now() + deadline;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) {
            throw failed(what + " has not come true in time");
        }
        std::this_thread::sleep_for(2ms);
    }
}

inline std::string environment(const char *name) {
    const char *value = std::getenv(name);
    if (value == nullptr) {
        throw failed(std::string(name) + " is not set");
    }
    return value;
}

inline std::string unique(const std::string &head) {
    std::ostringstream name;
    std::random_device random;
    name << head << std::hex << random() << random();
    return name.str();
}

inline std::string memory() { return "memory://" + unique("cpp-"); }
inline std::string rabbitmq() { return environment("CHANNEL_LAYER_TEST_AMQP"); }

inline channel_layer::layer open(const std::string &host) {
    return channel_layer::layer(channel_layer::options().set("host", host));
}

inline std::string content(const std::string &path) {
    std::ifstream file(path);
    if (!file) {
        throw failed(path + " cannot be read");
    }
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Runs all tests, or those whose names are given; tells of each, and closes with the numbers.
inline int run(int argc, char **argv) {
    int passed = 0, lost = 0;
    for (const auto &each : tests()) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++) {
            wanted = wanted || each.name == argv[i];
        }
        if (!wanted) {
            continue;
        }
        try {
            each.run();
            passed++;
            std::printf("ok %s\n", each.name.c_str());
        } catch (const std::exception &problem) {
            lost++;
            std::printf("not ok %s\n  %s\n", each.name.c_str(), problem.what());
        }
        std::fflush(stdout);
    }
    std::printf("%d passed, %d failed\n", passed, lost);
    return lost == 0 && passed > 0 ? 0 : 1;
}

} // namespace check

#endif
