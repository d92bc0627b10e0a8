/*
 * nlohmann::json as messages: `layer.send(channel, json)`, `message.as<nlohmann::json>()`.
 *
 * Bytes are `nlohmann::json::binary`; with a subtype the library refuses the message, with a text
 * that says where. Integers, from -2^63 to 2^64-1, are kept as they are. A double stays a double.
 * `as` throws `channel_layer::error` with status `invalid` for what nlohmann::json cannot hold, as
 * a map whose keys are not strings.
 *
 * nlohmann::ordered_json works too, and keeps the order of keys. It looks each key up one by one: a
 * map of 70,000 takes many seconds, so messages of strangers are better read as nlohmann::json.
 */

#ifndef CHANNEL_LAYER_JSON_HPP
#define CHANNEL_LAYER_JSON_HPP

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <nlohmann/json.hpp>

#include "channel_layer.hpp"

namespace channel_layer {
namespace detail {

/// For nlohmann::json and its kind that keeps the order of keys.
template <class Json> struct json_packer {
    static std::vector<std::uint8_t> pack(const Json &message) {
        std::vector<std::uint8_t> out;
        put(message, out, 0);
        return out;
    }

    static Json unpack(bytes_view bytes) {
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
