// A program in C++ that knows the library only as it was installed: a message and a broadcast.

#include <channel_layer.hpp>

#include <chrono>
#include <iostream>
#include <string>

int main() try {
    using namespace std::chrono_literals;
    channel_layer::layer layer(channel_layer::options().set("host", "memory://installed"));
    const std::string channel = layer.new_channel();
    layer.send_json(channel, R"({"type": "direct"})");
    layer.group_add("everyone", channel);
    layer.group_send_json("everyone", R"({"type": "broadcast"})");
    for (const char *type : {"direct", "broadcast"}) {
        const auto message = layer.receive_next(channel, 5s);
        if (!message || message->type() != type) {
            std::cerr << "expected a message of type " << type << '\n';
            return 1;
        }
    }
    layer.close(5s);
    std::cout << "sent and received\n";
} catch (const channel_layer::error &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
