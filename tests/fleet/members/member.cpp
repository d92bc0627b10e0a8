// The member of the fleet in C++; tests/fleet/README.md says what it does.
#include "channel_layer_json.hpp"

#include <cstdint>
#include <iostream>
#include <limits>
#include <mutex>
#include <string>

using nlohmann::json;
using namespace std::chrono_literals;

static std::mutex output;

static void say(const std::string &line) {
    const std::lock_guard<std::mutex> held(output);
    std::cout << line << std::endl;
}

static json message_of(const std::string &from) {
    return {
        {"type", "fleet.message"},
        {"from", from},
        {"nothing", nullptr},
        {"yes", true},
        {"no", false},
        {"least", std::numeric_limits<std::int64_t>::min()},
        {"most", std::numeric_limits<std::int64_t>::max()},
        {"tenth", 0.1},
        {"whole", 1.0},
        {"text", "Grüße, 世界, 😀"},
        {"bytes", json::binary({0x00, 0xff, 0xfe, 0x80})},
        {"nested", json::array({1, json::array({2.5, nullptr, json::binary({0x07})}),
                                json::object({{"clé", json::object({{"", -1}})}})})},
    };
}

// nlohmann::json takes 1 and 1.0 for equal; here a type is part of a value.
static bool same(const json &one, const json &other) {
    if (one.is_number_float() != other.is_number_float() || one != other) {
        return false;
    }
    if (one.is_structured()) {
        auto left = one.begin();
        for (auto right = other.begin(); right != other.end(); ++left, ++right) {
            if (!same(*left, *right)) {
                return false;
            }
        }
    }
    return true;
}

static void on_message(channel_layer::message_view lent) {
    const json message = lent.as<json>();
    const std::string from = message.value("from", "nobody");
    const json expected = message_of(from);
    for (const auto &[key, value] : expected.items()) {
        if (!message.contains(key) || !same(message[key], value)) {
            return say("wrong " + from + ": " + key);
        }
    }
    say(message.size() == expected.size() ? "got " + from
                                          : "wrong " + from + ": the number of keys");
}

int main(int argc, char **argv) {
    if (argc != 4) {
        std::cerr << "usage: member HOST GROUP NAME\n";
        return 2;
    }
    const std::string group = argv[2], name = argv[3];
    try {
        const channel_layer::layer layer(channel_layer::options().set("host", argv[1]));
        const std::string channel = layer.new_channel("fleet.");
        const channel_layer::receiver receiver = layer.receive(channel, on_message);
        layer.group_add(group, channel);
        say("joined");
        for (std::string line; std::getline(std::cin, line);) {
            const auto sent = layer.try_group_send(group, message_of(name));
            say(sent ? "sent" : std::string("failed ") + sent.message());
        }
        layer.group_discard(group, channel);
        layer.close(10s);
    } catch (const channel_layer::error &error) {
        std::cerr << "member.cpp: " << channel_layer::to_string(error.status()) << ": "
                  << error.what() << '\n';
        return 1;
    }
}
