/* A layer in the event loop of Qt 5 or 6: qt [HOST] */

#include <chrono>
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include <QCoreApplication>
#include <QSocketNotifier>
#include <QTimer>

#include <channel_layer.hpp>

using namespace std::chrono_literals;

int main(int argc, char **argv) try {
    QCoreApplication application(argc, argv);
    /* [watch] */
    channel_layer::layer layer(channel_layer::options()
                                   .set("host", argc > 1 ? argv[1] : "memory://qt")
                                   .set("dispatch", "poll"));
    QSocketNotifier readable(layer.fd(), QSocketNotifier::Read);
    QObject::connect(&readable, &QSocketNotifier::activated, [&] { layer.poll(); });
    /* [end] */
    QTimer::singleShot(20s, [] {
        std::cerr << "nothing has come\n";
        QCoreApplication::exit(1);
    });

    /* [receive] */
    const std::string channel = layer.new_channel();
    auto receiver = layer.receive(channel, [](channel_layer::message_view message) {
        std::cout << "received a " << message.type().value_or("?") << '\n';
        QCoreApplication::quit();
    });
    /* {"type": "hello"} as MessagePack */
    const std::vector<std::uint8_t> hello{0x81, 0xa4, 't', 'y', 'p', 'e',
                                          0xa5, 'h',  'e', 'l', 'l', 'o'};
    layer.send_async(channel, hello, [](const channel_layer::outcome &outcome) {
        if (!outcome) {
            std::cerr << "not sent: " << outcome.message() << '\n';
        }
    });
    /* [end] */
    return QCoreApplication::exec();
} catch (const std::exception &problem) {
    std::cerr << problem.what() << '\n';
    return 1;
}
