/*
 * A chat server on Boost.Beast: it serves a page, whose clients talk by WebSocket. A room is a
 * group, so that it spans all server processes on one broker. One thread does everything: an
 * asio_driver runs the layer's callbacks in the context of the sockets, so that no lock is needed.
 *
 *     chat HOST PORT      HOST as option `host`; PORT 0: any. Ends at SIGTERM or SIGINT.
 *
 *     g++ -std=c++17 -O2 -o chat chat.cpp -pthread -lchannel_layer
 *
 * A client opens /ROOM/NAME as WebSocket and sends text; each client of the room gets it as JSON,
 * {"from": NAME, "text": TEXT}.
 */

#include <chrono>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <memory>
#include <set>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include "channel_layer/asio.hpp"
#include "channel_layer_json.hpp"

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using boost::system::error_code;
using nlohmann::json;
using tcp = asio::ip::tcp;
using namespace std::chrono_literals;

namespace {

const char page[] = R"(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Chat</title>
<style>
  body { font: 16px sans-serif; max-width: 40em; margin: 2em auto; }
  #said { border: 1px solid #bbb; border-radius: 6px; min-height: 12em; padding: 1em; }
  #said p { margin: 0 0 .4em; }
</style>
<h1>Chat</h1>
<form id="join"><input id="room" placeholder="room" required pattern="[A-Za-z0-9]{1,40}">
<input id="name" placeholder="name" required pattern="[A-Za-z0-9]{1,40}"><button>Join</button></form>
<div id="said"></div>
<form id="say" hidden><input id="text" placeholder="say something" size="50"><button>Send</button>
</form>
<p id="state"></p>
<script>
  const at = (id) => document.getElementById(id);
  let socket;
  at("join").onsubmit = (event) => {
    event.preventDefault();
    if (socket) socket.close();
    const mine = new WebSocket(`ws://${location.host}/${at("room").value}/${at("name").value}`);
    socket = mine;
    mine.onopen = () => { at("state").textContent = "connected"; at("say").hidden = false; };
    mine.onclose = () => { if (socket === mine) at("state").textContent = "not connected"; };
    mine.onmessage = (event) => {
      const message = JSON.parse(event.data);
      const line = document.createElement("p");
      line.textContent = `${message.from}: ${message.text}`;
      at("said").append(line);
    };
  };
  at("say").onsubmit = (event) => {
    event.preventDefault();
    socket.send(at("text").value);
    at("text").value = "";
  };
</script>
</html>
)";

/// What a client may send, and how far it may fall behind, before it is let go.
constexpr std::size_t longest_text = 4096, longest_queue = 1000;

class client;

struct server {
    // In this order, since each needs those before it until its end.
    asio::io_context io{1};
    channel_layer::layer layer;
    channel_layer::asio_driver driver;
    std::set<std::shared_ptr<client>> clients;

    explicit server(const channel_layer::options &chosen) : layer(chosen), driver(io, layer) {
        driver.on_failure([](const char *operation, channel_layer::status_code, const char *text) {
            std::cerr << "chat: " << operation << ": " << text << std::endl;
        });
    }
};

/// A browser in a room: one channel of the layer, which is in the room's group.
class client : public std::enable_shared_from_this<client> {
  public:
    client(server &owner, tcp::socket socket, std::string room_name, std::string own_name)
        : home(owner), stream(std::move(socket)), room("chat." + std::move(room_name)),
          name(std::move(own_name)), channel(home.layer.new_channel("chat.")) {}

    void run(const http::request<http::string_body> &request) {
        stream.set_option(websocket::stream_base::timeout::suggested(beast::role_type::server));
        stream.read_message_max(longest_text);
        stream.async_accept(request, [self = shared_from_this()](error_code problem) {
            if (!problem) {
                self->join();
            }
        });
    }

    void leave() {
        if (home.clients.erase(shared_from_this()) == 0) {
            return;
        }
        receiver = {};
        // Its memberships and what it did not take.
        (void)home.layer.try_channel_discard(channel);
        error_code ignored; // the peer may be gone already
        beast::get_lowest_layer(stream).socket().close(ignored);
    }

  private:
    void join() {
        home.clients.insert(shared_from_this());
        // The client owns the receiver, which must not own the client.
        receiver = home.layer.receive(
            channel, [weak = weak_from_this()](channel_layer::message_view message) {
                if (const auto self = weak.lock()) {
                    self->write(std::string(message.json()));
                }
            });
        // Where the broker is away the membership stands, and begins when it is back.
        home.driver.async_group_add(
            room, channel, [self = shared_from_this()](error_code) { self->say("has joined"); });
        read();
    }

    void read() {
        stream.async_read(buffer, [self = shared_from_this()](error_code problem, std::size_t) {
            if (problem) {
                return self->leave();
            }
            self->say(beast::buffers_to_string(self->buffer.data()));
            self->buffer.consume(self->buffer.size());
            self->read();
        });
    }

    void say(const std::string &text) {
        home.driver.async_group_send(
            room, json{{"from", name}, {"text", text}},
            [self = shared_from_this()](error_code problem) {
                if (problem) {
                    self->write(json{{"from", "server"}, {"text", problem.message()}}.dump());
                }
            });
    }

    void write(std::string text) {
        if (home.clients.count(shared_from_this()) == 0) {
            return;
        }
        if (queue.size() >= longest_queue) {
            return leave();
        }
        queue.push_back(std::move(text));
        if (queue.size() == 1) {
            write_next();
        }
    }

    void write_next() {
        stream.text(true);
        stream.async_write(asio::buffer(queue.front()),
                           [self = shared_from_this()](error_code problem, std::size_t) {
                               if (problem) {
                                   return self->leave();
                               }
                               self->queue.pop_front();
                               if (!self->queue.empty()) {
                                   self->write_next();
                               }
                           });
    }

    server &home;
    // Without compression: what does it takes long to compile.
    websocket::stream<beast::tcp_stream, false> stream;
    const std::string room, name, channel;
    channel_layer::receiver receiver;
    beast::flat_buffer buffer;
    std::deque<std::string> queue;
};

bool is_name(const std::string &text) {
    return !text.empty() && text.size() <= 40 &&
           text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789") == std::string::npos;
}

/// A connection whose request is not known yet.
class visitor : public std::enable_shared_from_this<visitor> {
  public:
    visitor(server &owner, tcp::socket socket) : home(owner), stream(std::move(socket)) {}

    void run() {
        stream.expires_after(30s);
        http::async_read(stream, buffer, request,
                         [self = shared_from_this()](error_code problem, std::size_t) {
                             if (!problem) {
                                 self->answer();
                             }
                         });
    }

  private:
    void answer() {
        const std::string target(request.target());
        if (!websocket::is_upgrade(request)) {
            const bool found = target == "/" && request.method() == http::verb::get;
            return respond(found ? http::status::ok : http::status::not_found,
                           found ? page : "There is only the page at /.\n");
        }
        const auto slash = target.find('/', 1);
        const auto room = target.substr(1, slash == std::string::npos ? slash : slash - 1);
        const auto name = slash == std::string::npos ? "" : target.substr(slash + 1);
        if (!is_name(room) || !is_name(name)) {
            return respond(http::status::bad_request, "Open /ROOM/NAME, of letters and digits.\n");
        }
        stream.expires_never(); // the WebSocket has times of its own
        std::make_shared<client>(home, stream.release_socket(), room, name)->run(request);
    }

    void respond(http::status status, const char *text) {
        response.result(status);
        response.set(http::field::content_type, status == http::status::ok
                                                    ? "text/html; charset=utf-8"
                                                    : "text/plain; charset=utf-8");
        response.keep_alive(false);
        response.body() = text;
        response.prepare_payload();
        http::async_write(stream, response, [self = shared_from_this()](error_code, std::size_t) {
            error_code ignored; // the peer may be gone already
            self->stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
        });
    }

    server &home;
    beast::tcp_stream stream;
    beast::flat_buffer buffer;
    http::request<http::string_body> request;
    http::response<http::string_body> response;
};

void accept(server &home, tcp::acceptor &acceptor) {
    acceptor.async_accept([&](error_code problem, tcp::socket socket) {
        if (problem == asio::error::operation_aborted) {
            return;
        }
        if (problem) {
            std::cerr << "chat: " << problem.message() << std::endl;
        } else {
            std::make_shared<visitor>(home, std::move(socket))->run();
        }
        accept(home, acceptor);
    });
}

void serve(const char *host, unsigned short port) {
    channel_layer::options chosen;
    chosen.set("host", host)
        .set("dispatch", "poll")
        // A burst to one process, beyond which senders get status `full`; the default is 100.
        .set("local_capacity", 1000)
        .set("remote_capacity", 1000)
        .on_log([](channel_layer::log_level level, std::string_view, std::string_view,
                   std::string_view text) {
            if (level <= channel_layer::log_level::warn) {
                std::cerr << "chat: " << text << std::endl;
            }
        });
    server home(chosen);
    tcp::acceptor acceptor(home.io, {asio::ip::address_v4::loopback(), port});
    accept(home, acceptor);
    asio::signal_set signals(home.io, SIGINT, SIGTERM);
    signals.async_wait([&](error_code, int) { home.io.stop(); });
    std::cout << "http://127.0.0.1:" << acceptor.local_endpoint().port() << "/" << std::endl;
    home.io.run();
    while (!home.clients.empty()) {
        (*home.clients.begin())->leave();
    }
    home.driver.stop();
    home.layer.close(10s);
}

} // namespace

int main(int argc, char **argv) {
    const int port = argc == 3 ? std::atoi(argv[2]) : -1;
    if (port < 0 || port > 65535) {
        std::cerr << "usage: chat HOST PORT\n";
        return 2;
    }
    try {
        serve(argv[1], static_cast<unsigned short>(port));
    } catch (const std::exception &problem) {
        std::cerr << "chat: " << problem.what() << '\n';
        return 1;
    }
}
