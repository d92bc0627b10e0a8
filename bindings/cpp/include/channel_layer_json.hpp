/*
 * nlohmann::json as messages: `layer.send(channel, json)`, `message.as<nlohmann::json>()`.
 *
 * Bytes are `nlohmann::json::binary`; with a subtype the library refuses the message, with a text
 * that says where. Integers, from -2^63 to 2^64-1, are kept as they are. A double stays a double.
 * `as` throws `channel_layer::error` with status `invalid` for what nlohmann::json cannot hold, as
 * a map whose keys are not strings, and for what nests deeper than 128, which the library does not
 * send, but another peer may.
 *
 * nlohmann::ordered_json works too, and keeps the order of keys. It looks each key up one by one: a
 * map of 70,000 takes many seconds, so messages of strangers are better read as nlohmann::json.
 */

#ifndef CHANNEL_LAYER_JSON_HPP
#define CHANNEL_LAYER_JSON_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "channel_layer.hpp"

namespace channel_layer {
namespace detail {

/// How deep arrays and maps may nest in what is unpacked, as in what the library sends; the message
/// itself is the first.
constexpr std::size_t deepest_message = 128;

/// Throws `invalid` for MessagePack that nests deeper, of which it reads the heads alone, without
/// recursion. It stops without an error where the bytes are not MessagePack.
class depth_check {
  public:
    static void run(bytes_view bytes) { depth_check(bytes).run(); }

  private:
    explicit depth_check(bytes_view bytes) noexcept : at(bytes.begin()), end(bytes.end()) {}

    void run() {
        do {
            if (depth > 0) {
                left[depth - 1]--;
            }
            if (!read_value()) {
                return;
            }
            while (depth > 0 && left[depth - 1] == 0) {
                depth--;
            }
        } while (depth > 0);
    }

    /// A value, or the head of an array or a map. False where the bytes end before or are wrong.
    bool read_value() {
        if (at == end) {
            return false;
        }
        const unsigned tag = *at++;
        if (tag < 0x80 || tag >= 0xe0) { // a small integer
            return true;
        }
        if (tag < 0x90) {
            return open(2 * std::uint64_t(tag & 0x0f));
        }
        if (tag < 0xa0) {
            return open(tag & 0x0f);
        }
        if (tag < 0xc0) {
            return skip(tag & 0x1f);
        }
        std::uint64_t length = 0;
        switch (tag) {
        case 0xc0: // nil
        case 0xc2: // false
        case 0xc3: // true
            return true;
        case 0xc4: // bytes
        case 0xc5:
        case 0xc6:
            return read_length(1U << (tag - 0xc4), length) && skip(length);
        case 0xc7: // an extension, with its type
        case 0xc8:
        case 0xc9:
            return read_length(1U << (tag - 0xc7), length) && skip(1 + length);
        case 0xca: // floats
        case 0xcb:
            return skip(4U << (tag - 0xca));
        case 0xcc: // integers without a sign
        case 0xcd:
        case 0xce:
        case 0xcf:
            return skip(1U << (tag - 0xcc));
        case 0xd0: // integers with one
        case 0xd1:
        case 0xd2:
        case 0xd3:
            return skip(1U << (tag - 0xd0));
        case 0xd4: // an extension of 1 to 16 bytes, with its type
        case 0xd5:
        case 0xd6:
        case 0xd7:
        case 0xd8:
            return skip(1 + (1U << (tag - 0xd4)));
        case 0xd9: // text
        case 0xda:
        case 0xdb:
            return read_length(1U << (tag - 0xd9), length) && skip(length);
        case 0xdc: // an array
        case 0xdd:
            return read_length(2U << (tag - 0xdc), length) && open(length);
        case 0xde: // a map
        case 0xdf:
            return read_length(2U << (tag - 0xde), length) && open(2 * length);
        default:
            return false;
        }
    }

    bool open(std::uint64_t values) {
        if (depth == deepest_message) {
            throw error(status_code::invalid, "arrays and maps of the message nest deeper than " +
                                                  std::to_string(deepest_message));
        }
        left[depth++] = values;
        return true;
    }

    bool skip(std::uint64_t bytes) noexcept {
        if (bytes > static_cast<std::uint64_t>(end - at)) {
            return false;
        }
        at += bytes;
        return true;
    }

    bool read_length(unsigned bytes, std::uint64_t &length) noexcept {
        const std::uint8_t *from = at;
        if (!skip(bytes)) {
            return false;
        }
        for (; from != at; from++) {
            length = length << 8 | *from;
        }
        return true;
    }

    const std::uint8_t *at;
    const std::uint8_t *const end;
    std::size_t depth = 0;
    /// How many values each open array or map still has.
    std::uint64_t left[deepest_message] = {};
};

/// For nlohmann::json and its kind that keeps the order of keys.
template <class Json> struct json_packer {
    static std::vector<std::uint8_t> pack(const Json &message) {
        std::vector<std::uint8_t> out;
        put(message, out, 0);
        return out;
    }

    static Json unpack(bytes_view bytes) {
        depth_check::run(bytes); // from_msgpack recurses for each level
        return Json::from_msgpack(bytes.data(), bytes.data() + bytes.size());
    }

  private:
    /// The library allows 128 and says so; this only keeps the stack within bounds.
    static constexpr int deepest = 1000;

    /// nlohmann::json writes a double as a float where that loses nothing. A peer that tells the
    /// two apart would see another type than was sent, so the doubles are written here, and with
    /// them the arrays and maps that hold them.
    static void put(const Json &value, std::vector<std::uint8_t> &out, int depth) {
        if (depth > deepest) {
            throw std::invalid_argument("the message is nested too deep");
        }
        if (value.is_number_float()) {
            const double number = value.template get<double>();
            std::uint64_t bits;
            static_assert(sizeof bits == sizeof number);
            std::memcpy(&bits, &number, sizeof bits);
            out.push_back(0xcb);
            put_big_endian(bits, 8, out);
        } else if (value.is_array()) {
            put_head(value.size(), 0x90, 0xdc, out);
            for (const Json &element : value) {
                put(element, out, depth + 1);
            }
        } else if (value.is_object()) {
            put_head(value.size(), 0x80, 0xde, out);
            for (auto at = value.begin(); at != value.end(); ++at) {
                Json::to_msgpack(Json(at.key()), out);
                put(at.value(), out, depth + 1);
            }
        } else {
            Json::to_msgpack(value, out);
        }
    }

    /// The head of an array or a map: its short form, or the tag of the one with 16 bits, which
    /// that with 32 bits follows.
    static void put_head(std::size_t size, std::uint8_t short_tag, std::uint8_t tag,
                         std::vector<std::uint8_t> &out) {
        if (size < 16) {
            out.push_back(static_cast<std::uint8_t>(short_tag | size));
        } else if (size <= 0xffff) {
            out.push_back(tag);
            put_big_endian(size, 2, out);
        } else if (size <= 0xffffffff) {
            out.push_back(static_cast<std::uint8_t>(tag + 1));
            put_big_endian(size, 4, out);
        } else {
            throw std::invalid_argument("MessagePack holds no array or map so long");
        }
    }

    static void put_big_endian(std::uint64_t number, int bytes, std::vector<std::uint8_t> &out) {
        for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
            out.push_back(static_cast<std::uint8_t>(number >> shift));
        }
    }
};

} // namespace detail

template <> struct packer<nlohmann::json> : detail::json_packer<nlohmann::json> {};
template <> struct packer<nlohmann::ordered_json> : detail::json_packer<nlohmann::ordered_json> {};

} // namespace channel_layer

#endif /* CHANNEL_LAYER_JSON_HPP */
