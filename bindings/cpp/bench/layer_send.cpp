/*
 * Messages from one layer to a channel of another: how many are both confirmed and received each
 * second, or how long one takes from its send to the callback. The same job, and the same tally, as
 * benches/programs/layer_send.c does in C, so that the cost of this binding shows.
 *
 *     layer_send [measure=throughput|latency] [body=BYTES] [window=N] [prefetch=N] [seconds=S]
 *                [warmup=S]
 */

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <semaphore.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "channel_layer.hpp"

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

namespace {

constexpr std::uint64_t capacity = 100000, backlog = 50000;
constexpr std::size_t ring = 1 << 17; // above backlog + window, so that no two messages meet
constexpr std::uint8_t confirmed = 1, received = 2;

/// From whichever thread, without clean-up beside threads that still run.
[[noreturn]] void fail(const std::string &why) {
    std::fprintf(stderr, "layer_send: %s\n", why.c_str());
    _exit(1);
}

struct arguments {
    std::string measure = "throughput";
    double seconds = 5, warmup = 1;
    std::uint64_t window = 1000, prefetch = 1000, body = 200;

    arguments(int argc, char **argv) {
        for (int i = 1; i < argc; i++) {
            const std::string argument = argv[i];
            const auto equals = argument.find('=');
            const auto name = argument.substr(0, equals);
            const auto value = equals == std::string::npos ? "" : argument.substr(equals + 1);
            const std::map<std::string, std::uint64_t *> counts = {
                {"window", &window}, {"prefetch", &prefetch}, {"body", &body}};
            const std::map<std::string, double *> times = {{"seconds", &seconds},
                                                           {"warmup", &warmup}};
            if (name == "measure" && (value == "throughput" || value == "latency")) {
                measure = value;
            } else if (const auto count = counts.find(name); count != counts.end()) {
                *count->second = std::stoull(value);
            } else if (const auto time = times.find(name); time != times.end()) {
                *time->second = std::stod(value);
            } else {
                fail("there is no argument " + argument);
            }
        }
        if (window == 0 || window > backlog || body < 44 || !(seconds > 0)) {
            fail("window, body or seconds cannot be so");
        }
    }
};

/// {"type": "bench.message", "seq": ..., "text": ...}: the number takes 9 bytes whatever it is.
class message_body {
  public:
    explicit message_body(std::size_t length) {
        static const char head[] = "\x83\xa4type\xad"
                                   "bench.message\xa3seq\xcf";
        bytes.assign(head, std::end(head) - 1);
        seq = bytes.size();
        bytes.insert(bytes.end(), 8, 0);
        const std::string key = "\xa4text";
        bytes.insert(bytes.end(), key.begin(), key.end());
        std::size_t text = length - bytes.size();
        const int size = text <= 2 + 0xff ? 1 : text <= 3 + 0xffff ? 2 : 4;
        text -= static_cast<std::size_t>(size) + 1;
        bytes.push_back(size == 1 ? 0xd9 : size == 2 ? 0xda : 0xdb);
        for (int shift = 8 * (size - 1); shift >= 0; shift -= 8) {
            bytes.push_back(static_cast<std::uint8_t>(text >> shift));
        }
        bytes.insert(bytes.end(), text, 'x');
    }
    void write(std::uint64_t number) {
        number = __builtin_bswap64(number);
        std::memcpy(&bytes[seq], &number, sizeof number);
    }
    std::uint64_t read(channel_layer::bytes_view message) const {
        // Searched for, as the program in C does, since that is part of what it costs.
        static const char key[] = "\xa3seq\xcf";
        const void *at = memmem(message.data(), message.size(), key, sizeof key - 1);
        if (at == nullptr) {
            fail("a message arrived that this program did not send");
        }
        std::uint64_t number;
        std::memcpy(&number, static_cast<const char *>(at) + sizeof key - 1, sizeof number);
        return __builtin_bswap64(number);
    }
    const std::vector<std::uint8_t> &data() const { return bytes; }

  private:
    std::vector<std::uint8_t> bytes;
    std::size_t seq;
};

/// Where a thread waits until another has got far enough. The one sets `wanted` before it looks at
/// the count, the other changes the count before it looks at `wanted`: one of them sees the other.
class gate {
  public:
    template <class Open> void wait(Open &&open) {
        std::unique_lock<std::mutex> held(mutex);
        wanted = true;
        changed.wait(held, [&] { return !wanted || open(); });
        wanted = false;
    }
    void pass() {
        if (wanted) {
            const std::lock_guard<std::mutex> held(mutex);
            wanted = false;
            changed.notify_one();
        }
    }

  private:
    std::atomic<bool> wanted{false};
    std::mutex mutex;
    std::condition_variable changed;
};

struct bench {
    explicit bench(const arguments &given)
        : options(given), body(given.body), receiving(open()), sending(open()),
          channel(receiving.new_channel()) {
        sem_init(&arrival, 0, 0);
        receiving.wait_ready(20s);
        sending.wait_ready(20s);
    }

    channel_layer::layer open() const {
        const char *url = std::getenv("CHANNEL_LAYER_TEST_AMQP");
        if (url == nullptr) {
            fail("CHANNEL_LAYER_TEST_AMQP is not set: it names the broker");
        }
        channel_layer::options chosen;
        chosen.set("host", url)
            .set("local_capacity", capacity)
            .set("remote_capacity", capacity)
            .set("expiry", 60s)
            .on_exception([](std::exception_ptr, const char *where) {
                fail(std::string("an exception in ") + where);
            });
        if (options.prefetch != 0) {
            chosen.set("prefetch_count", options.prefetch);
        }
        return channel_layer::layer(chosen);
    }

    void mark(std::uint64_t seq, std::uint8_t what) {
        auto &state = states[seq % ring];
        const auto before = state.fetch_or(what);
        if ((before & what) != 0) {
            fail("message " + std::to_string(seq) + " came twice");
        }
        if (before != 0) {
            state = 0;
            ++complete;
        }
    }

    void on_message(channel_layer::message_view message) {
        const auto seq = body.read(message.data());
        const auto expected = arrived_count.load(std::memory_order_relaxed);
        if (seq != expected) {
            fail("message " + std::to_string(seq) + " arrived where " + std::to_string(expected) +
                 " was due");
        }
        mark(seq, received);
        arrived_count = expected + 1;
        if (expected + 1 >= enough) {
            less_backlog.pass();
        }
    }

    void on_done(std::uint64_t seq, const channel_layer::outcome &outcome) {
        if (!outcome) {
            fail(outcome.message());
        }
        mark(seq, confirmed);
        // Outcomes come in batches: the sender had better find room for many.
        if (--in_flight <= options.window * 3 / 4) {
            room.pass();
        }
    }

    void send() {
        for (std::uint64_t seq = 0; !stop.load(std::memory_order_relaxed); seq++) {
            if (in_flight >= options.window) {
                room.wait([&] { return in_flight <= options.window * 3 / 4; });
            }
            if (seq - arrived_count.load(std::memory_order_relaxed) >= backlog) {
                enough = seq - backlog / 2;
                less_backlog.wait([&] { return arrived_count >= enough; });
                enough = UINT64_MAX;
            }
            body.write(seq);
            ++in_flight;
            sending.send_async(
                channel, body.data(),
                [this, seq](const channel_layer::outcome &outcome) { on_done(seq, outcome); });
            sent = seq + 1;
        }
    }

    void throughput() {
        const auto receiver = receiving.receive(
            channel, [this](channel_layer::message_view message) { on_message(message); });
        std::thread sender([this] { send(); });
        std::this_thread::sleep_for(std::chrono::duration<double>(options.warmup));
        const auto cpu = std::clock();
        const std::uint64_t first = complete;
        const auto start = clock_type::now();
        std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
        const std::uint64_t messages = complete - first;
        const double seconds = std::chrono::duration<double>(clock_type::now() - start).count();
        const double used = static_cast<double>(std::clock() - cpu) * 1e6 / CLOCKS_PER_SEC;
        stop = true;
        sender.join();
        while (complete < sent) {
            std::this_thread::sleep_for(1ms);
        }
        if (messages == 0) {
            fail("no message was confirmed and received in the time that was measured");
        }
        const double per_second = static_cast<double>(messages) / seconds;
        std::printf("{\"seconds\": %.3f, \"messages\": %llu, \"per_second\": %.1f, "
                    "\"mb_per_second\": %.2f, \"cpu_us_per_message\": %.2f}\n",
                    seconds, static_cast<unsigned long long>(messages), per_second,
                    per_second * static_cast<double>(options.body) / 1e6,
                    used / static_cast<double>(messages));
    }

    void latency() {
        std::atomic<clock_type::time_point> arrived;
        const auto receiver = receiving.receive(channel, [&](channel_layer::message_view) {
            arrived = clock_type::now();
            sem_post(&arrival);
        });
        std::vector<double> samples;
        const auto begin = clock_type::now() + std::chrono::duration<double>(options.warmup);
        const auto end = begin + std::chrono::duration<double>(options.seconds);
        for (std::uint64_t seq = 0;; seq++) {
            body.write(seq);
            const auto at = clock_type::now();
            if (at >= end) {
                break;
            }
            sending.send(channel, body.data());
            while (sem_wait(&arrival) != 0) {
            }
            if (at >= begin) {
                samples.push_back(
                    std::chrono::duration<double, std::micro>(arrived.load() - at).count());
            }
        }
        if (samples.empty()) {
            fail("no message arrived in the time that was measured");
        }
        std::sort(samples.begin(), samples.end());
        const auto percentile = [&](double percent) { // nearest rank
            const auto rank = std::ceil(percent / 100 * static_cast<double>(samples.size()));
            return samples[rank < 1 ? 0 : static_cast<std::size_t>(rank) - 1];
        };
        std::printf("{\"messages\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
                    "\"max_us\": %.1f}\n",
                    samples.size(), percentile(50), percentile(99), percentile(99.9),
                    samples.back());
    }

    const arguments options;
    message_body body;
    std::vector<std::atomic<std::uint8_t>> states = std::vector<std::atomic<std::uint8_t>>(ring);
    // Each written by a thread of its own, so on cache lines of their own.
    alignas(64) std::atomic<std::uint64_t> arrived_count{0};
    alignas(64) std::atomic<std::uint64_t> complete{0};
    alignas(64) std::atomic<std::uint64_t> in_flight{0};
    alignas(64) std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> enough{UINT64_MAX};
    gate room, less_backlog;
    std::uint64_t sent = 0; // by the sender, until it is joined
    sem_t arrival;
    // Last, so that no callback comes any more when the rest goes.
    const channel_layer::layer receiving, sending;
    const std::string channel;
};

} // namespace

int main(int argc, char **argv) {
    try {
        const arguments given(argc, argv);
        alarm(static_cast<unsigned>(given.seconds + given.warmup) + 60); // whatever hangs, it ends
        const auto run = std::make_unique<bench>(given);
        given.measure == "latency" ? run->latency() : run->throughput();
    } catch (const std::exception &problem) {
        fail(problem.what());
    }
}
