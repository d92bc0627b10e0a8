// The cases that all bindings share, each a test on each of its brokers. tests/bindings/README.md
// says what a step does.

#include <cmath>
#include <future>
#include <map>

#include "channel_layer_json.hpp"
#include "check.hpp"

using namespace channel_layer;
using namespace std::chrono_literals;
// Keeps the order of keys, which the JSON view of a message shows.
using json = nlohmann::ordered_json;

static std::vector<std::uint8_t> from_base64(const std::string &text) {
    static const std::string digits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::vector<std::uint8_t> bytes;
    unsigned held = 0;
    int bits = 0;
    for (const char digit : text) {
        if (digit == '=') {
            break;
        }
        held = held << 6 | static_cast<unsigned>(digits.find(digit));
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes.push_back(static_cast<std::uint8_t>(held >> bits));
        }
    }
    return bytes;
}

static json value_of(const json &form);

static json repeated(const json &what, std::size_t times) {
    if (what.is_string()) {
        std::string text;
        for (std::size_t i = 0; i < times; i++) {
            text += what.get_ref<const std::string &>();
        }
        return text;
    }
    if (what.is_binary()) {
        std::vector<std::uint8_t> bytes;
        for (std::size_t i = 0; i < times; i++) {
            bytes.insert(bytes.end(), what.get_binary().begin(), what.get_binary().end());
        }
        return json::binary(bytes);
    }
    json list = json::array();
    for (std::size_t i = 0; i < times; i++) {
        list.insert(list.end(), what.begin(), what.end());
    }
    return list;
}

static json value_of(const json &form) {
    if (form.is_object() && form.size() == 1 && form.begin().key()[0] == '$') {
        const std::string kind = form.begin().key();
        const json &given = *form.begin();
        if (kind == "$bytes") {
            return json::binary(from_base64(given.get<std::string>()));
        }
        if (kind == "$int") {
            return json::parse(given.get<std::string>()); // with or without a sign, by its value
        }
        if (kind == "$float") {
            // strtod, since stod refuses what is denormal.
            return std::strtod(given.get_ref<const std::string &>().c_str(), nullptr);
        }
        if (kind == "$repeat") {
            return repeated(value_of(given[0]), given[1].get<std::size_t>());
        }
        if (kind == "$nest") {
            json nested = json::array();
            for (int i = 1; i < given.get<int>(); i++) {
                nested = json::array({std::move(nested)});
            }
            return nested;
        }
        throw check::failed("there is no form " + kind);
    }
    json value = form;
    if (form.is_structured()) {
        for (auto &inner : value) {
            inner = value_of(json(inner));
        }
    }
    return value;
}

// nlohmann::json takes 1 and 1.0 for equal, and NaN for equal to nothing.
static bool same(const json &one, const json &other) {
    if (one.is_number_float() && other.is_number_float()) {
        const double left = one.get<double>(), right = other.get<double>();
        return left == right || (std::isnan(left) && std::isnan(right));
    }
    if (one.is_structured() && one.type() == other.type() && one.size() == other.size()) {
        for (auto left = one.begin(), right = other.begin(); left != one.end(); ++left, ++right) {
            if ((one.is_object() && left.key() != right.key()) || !same(*left, *right)) {
                return false;
            }
        }
        return true;
    }
    return one.is_number_float() == other.is_number_float() && one == other;
}

static void compare(const json &is, const json &should) {
    if (!same(is, should)) {
        throw check::failed("a message is " + is.dump().substr(0, 300) + " in the place of " +
                            should.dump().substr(0, 300));
    }
}

static status_code status_named(const std::string &name) {
    for (std::int32_t i = 0; i <= LAYER_INTERNAL; i++) {
        if (name == to_string(static_cast<status_code>(i))) {
            return static_cast<status_code>(i);
        }
    }
    throw check::failed("there is no status " + name);
}

/// The number that the header gives a name.
static std::int64_t number_of(const std::string &type, const std::string &name) {
    static const json api =
        json::parse(check::content(check::environment("CHANNEL_LAYER_TEST_API")));
    return api.at("enums").at(type).at("values").at(name).get<std::int64_t>();
}

class run_of_case {
  public:
    run_of_case(const json &given, std::string broker) : host(std::move(broker)) {
        for (const auto &[name, layer_options] : given.at("layers").items()) {
            layers.emplace(name, layer(options_of(layer_options)));
        }
        for (const auto &step : given.at("steps")) {
            take(step);
        }
    }

  private:
    options options_of(const json &given) {
        options chosen;
        chosen.set("host", host);
        for (const auto &[name, value] : given.items()) {
            chosen.set(name, value.get<std::string>());
        }
        return chosen;
    }

    std::string name(const json &step, const char *key) {
        const auto text = step.at(key).get<std::string>();
        if (text[0] == '~') {
            return groups.emplace(text, check::unique("group-")).first->second;
        }
        return text[0] == '$' ? channels.at(text.substr(1)) : text;
    }

    void take(const json &step) {
        try {
            if (!step.contains("status")) {
                act(step);
                return;
            }
            std::vector<std::string> words;
            for (const auto &word : step.value("says", json::array())) {
                const auto text = word.get<std::string>();
                words.push_back(text[0] == '$' ? channels.at(text.substr(1)) : text);
            }
            check::raises(status_named(step.at("status").get<std::string>()), words,
                          [&] { act(step); });
        } catch (const std::exception &problem) {
            throw check::failed(step.dump().substr(0, 200) + ": " + problem.what());
        }
    }

    template <class Begin> static void wait_for(Begin &&begin) {
        std::promise<void> promise;
        auto future = promise.get_future();
        begin([promise = std::move(promise)](const outcome &given) mutable {
            try {
                given.value();
                promise.set_value();
            } catch (...) {
                promise.set_exception(std::current_exception());
            }
        });
        if (future.wait_for(check::deadline) != std::future_status::ready) {
            throw check::failed("no outcome came in time");
        }
        future.get();
    }

    void act(const json &step) {
        const auto what = step.at("do").get<std::string>();
        if (what == "open") {
            const layer opened(options_of(step.at("options")));
            return;
        }
        const layer &on = layers.at(step.at("layer").get<std::string>());
        const json message = value_of(step.value("message", json()));
        if (what == "wait_ready") {
            on.wait_ready(check::deadline);
        } else if (what == "new_channel") {
            channels[step.at("as").get<std::string>()] =
                on.new_channel(step.at("prefix").get<std::string>());
        } else if (what == "send") {
            on.send(name(step, "channel"), message);
        } else if (what == "send_async") {
            wait_for([&](auto &&done) {
                on.send_async(name(step, "channel"), message, std::forward<decltype(done)>(done));
            });
        } else if (what == "group_send") {
            on.group_send(name(step, "group"), message);
        } else if (what == "group_send_async") {
            wait_for([&](auto &&done) {
                on.group_send_async(name(step, "group"), message,
                                    std::forward<decltype(done)>(done));
            });
        } else if (what == "send_json") {
            on.send_json(name(step, "channel"), step.at("json").get<std::string>());
        } else if (what == "group_send_json") {
            on.group_send_json(name(step, "group"), step.at("json").get<std::string>());
        } else if (what == "send_packed") {
            const auto hex = step.at("packed").get<std::string>();
            std::vector<std::uint8_t> bytes;
            for (std::size_t i = 0; i < hex.size(); i += 2) {
                bytes.push_back(
                    static_cast<std::uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
            }
            on.send(name(step, "channel"), bytes);
        } else if (what == "receive") {
            receive(on, step);
        } else if (what == "handle") {
            handle(on, step);
        } else if (what == "decline") {
            check::queue<json> taken;
            const auto receiver = on.receive(name(step, "channel"), [&](message_view lent) {
                taken.put(lent.as<json>());
                return flow::decline;
            });
            compare(taken.get("a message to be declined"), message);
            check::eventually("the end of who declined",
                              [&] { return on.stat(statistic::receivers) == 0; });
        } else if (what == "cancel") {
            auto receiver = on.receive(name(step, "channel"), [](message_view) {});
            receiver.cancel();
        } else if (what == "handle_until") {
            check::queue<status_code> ended;
            const auto receiver = on.receive(
                name(step, "channel"), [](message_view) {},
                [&](status_code status) { ended.put(status); });
            for (const auto &inner : step.at("then")) {
                take(inner);
            }
            CHECK(ended.get("the end") == status_named(step.at("ends").get<std::string>()));
        } else if (what == "group_add") {
            on.group_add(name(step, "group"), name(step, "channel"));
        } else if (what == "group_discard") {
            on.group_discard(name(step, "group"), name(step, "channel"));
        } else if (what == "channel_discard") {
            on.channel_discard(name(step, "channel"));
        } else if (what == "stat") {
            const auto which = static_cast<statistic>(
                number_of("layer_stat_t", "LAYER_STAT_" + step.at("which").get<std::string>()));
            check::eventually("the statistic", [&] {
                return on.stat(which) == step.at("value").get<std::uint64_t>();
            });
        } else if (what == "state") {
            CHECK(static_cast<std::int64_t>(on.state()) ==
                  number_of("layer_state_t", "LAYER_STATE_" + step.at("state").get<std::string>()));
        } else if (what == "close") {
            on.close(check::deadline);
        } else {
            throw check::failed("there is no step " + what);
        }
    }

    void receive(const layer &on, const json &step) {
        auto next = on.try_receive_next(
            name(step, "channel"), std::chrono::milliseconds(step.value("milliseconds", 5000)));
        const auto message = std::move(next).value();
        if (step.contains("message")) {
            compare(message.as<json>(), value_of(step["message"]));
        }
        if (step.contains("type")) {
            CHECK(message.type().has_value() == step["type"].is_string());
            CHECK(!message.type() || *message.type() == step["type"].get<std::string>());
        }
        if (step.contains("from_group")) {
            CHECK(message.group().has_value() == step["from_group"].is_string());
            CHECK(!message.group() || *message.group() == name(step, "from_group"));
        }
        if (step.contains("json")) {
            CHECK(message.json() == step["json"].get<std::string>());
        }
        CHECK(message.channel() == name(step, "channel"));
    }

    void handle(const layer &on, const json &step) {
        check::queue<json> taken;
        auto receiver = on.receive(name(step, "channel"),
                                   [&](message_view lent) { taken.put(lent.as<json>()); });
        for (const auto &form : step.at("messages")) {
            compare(taken.get("a message"), value_of(form));
        }
        receiver.cancel();
        CHECK(taken.size() == 0);
    }

    std::string host;
    std::map<std::string, std::string> channels, groups;
    std::map<std::string, layer> layers;
};

/// For tests/bindings/table.py, where that is wanted.
static void record(const std::string &broker, const std::string &name, const char *result) {
    const char *path = std::getenv("CHANNEL_LAYER_TEST_TABLE");
    if (path == nullptr) {
        return;
    }
    std::ofstream file(path, std::ios::app);
    if (!(file << broker << ' ' << name << ' ' << result << std::endl)) {
        throw check::failed(std::string(path) + " cannot be written");
    }
}

static void run_and_record(const json &given, const std::string &broker) {
    const auto name = given.at("name").get<std::string>();
    try {
        run_of_case(given, broker == "memory" ? check::memory() : check::rabbitmq());
    } catch (...) {
        record(broker, name, "failed");
        throw;
    }
    record(broker, name, "passed");
}

int main(int argc, char **argv) {
    const json file = json::parse(check::content(CASES));
    for (const auto &given : file.at("cases")) {
        for (const std::string broker : {"memory", "rabbitmq"}) {
            const json brokers = given.value("brokers", json::array({"memory", "rabbitmq"}));
            if (std::find(brokers.begin(), brokers.end(), broker) != brokers.end()) {
                check::tests().push_back({broker + "." + given.at("name").get<std::string>(),
                                          [=] { run_and_record(given, broker); }});
            }
        }
    }
    return check::run(argc, argv);
}
