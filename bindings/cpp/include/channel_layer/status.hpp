// The enums of channel_layer.h, what an event holds, and their names. Part of channel_layer.hpp.

#ifndef CHANNEL_LAYER_STATUS_HPP
#define CHANNEL_LAYER_STATUS_HPP

#include <cstdint>
#include <optional>
#include <string_view>

#include "channel_layer.h"

namespace channel_layer {

/// How a call ended: `layer_status_t`, where each is described.
enum class status_code : std::int32_t {
    ok = LAYER_OK,
    invalid = LAYER_INVALID,
    full = LAYER_FULL,
    no_channel = LAYER_NO_CHANNEL,
    too_large = LAYER_TOO_LARGE,
    disconnected = LAYER_DISCONNECTED,
    busy = LAYER_BUSY,
    timeout = LAYER_TIMEOUT,
    unconfirmed = LAYER_UNCONFIRMED,
    refused = LAYER_REFUSED,
    cancelled = LAYER_CANCELLED,
    closed = LAYER_CLOSED,
    would_deadlock = LAYER_WOULD_DEADLOCK,
    forked = LAYER_FORKED,
    internal = LAYER_INTERNAL,
};

/// How grave a log record is.
enum class log_level : std::int32_t {
    error = LAYER_LOG_ERROR,
    warn = LAYER_LOG_WARN,
    info = LAYER_LOG_INFO,
    debug = LAYER_LOG_DEBUG,
};

/// The state of a layer: `layer_state_t`.
enum class connection_state : std::int32_t {
    connecting = LAYER_STATE_CONNECTING,
    ready = LAYER_STATE_READY,
    refused = LAYER_STATE_REFUSED,
    closed = LAYER_STATE_CLOSED,
};

/// What isolation does: `layer_isolation_t`, where it is described.
enum class isolation_kind : std::int32_t {
    began = LAYER_ISOLATION_BEGAN,
    lost = LAYER_ISOLATION_LOST,
    ended = LAYER_ISOLATION_ENDED,
};

/// What a callable of `options::on_isolation` gets; borrowed until it returns.
struct isolation_event {
    isolation_kind kind;
    /// With `lost`, the channel that has lost messages; none for several that are not told apart.
    std::optional<std::string_view> channel;
    /// `began`: messages that wait in memory. `lost`: messages lost since the last event of this
    /// channel. `ended`: messages lost in all since isolation began.
    std::uint64_t count;
};

/// What a receiver's callable makes of a message.
enum class flow : std::int32_t {
    /// It was taken; go on.
    proceed = LAYER_CONTINUE,
    /// It was taken; the receiver ends.
    stop = LAYER_STOP,
    /// It was not taken and stays first in its channel; the receiver ends.
    decline = LAYER_DECLINE,
};

/// What `layer::stat` can be asked: `layer_stat_t`, where each is described.
enum class statistic : std::uint32_t {
    sends_confirmed = LAYER_STAT_SENDS_CONFIRMED,
    sends_full = LAYER_STAT_SENDS_FULL,
    sends_no_channel = LAYER_STAT_SENDS_NO_CHANNEL,
    sends_unknown = LAYER_STAT_SENDS_UNKNOWN,
    sends_unsent = LAYER_STAT_SENDS_UNSENT,
    deliveries = LAYER_STAT_DELIVERIES,
    received = LAYER_STAT_RECEIVED,
    dropped_expired = LAYER_STAT_DROPPED_EXPIRED,
    dropped_channel_full = LAYER_STAT_DROPPED_CHANNEL_FULL,
    dropped_redelivered = LAYER_STAT_DROPPED_REDELIVERED,
    dropped_malformed = LAYER_STAT_DROPPED_MALFORMED,
    dropped_no_member = LAYER_STAT_DROPPED_NO_MEMBER,
    dropped_foreign = LAYER_STAT_DROPPED_FOREIGN,
    dropped_discarded = LAYER_STAT_DROPPED_DISCARDED,
    events_dropped = LAYER_STAT_EVENTS_DROPPED,
    generation = LAYER_STAT_GENERATION,
    backlog = LAYER_STAT_BACKLOG,
    in_flight = LAYER_STAT_IN_FLIGHT,
    channels = LAYER_STAT_CHANNELS,
    receivers = LAYER_STAT_RECEIVERS,
    groups = LAYER_STAT_GROUPS,
    memberships = LAYER_STAT_MEMBERSHIPS,
    groups_bound = LAYER_STAT_GROUPS_BOUND,
    publishers_blocked = LAYER_STAT_PUBLISHERS_BLOCKED,
    deliveries_held = LAYER_STAT_DELIVERIES_HELD,
    sends_accepted = LAYER_STAT_SENDS_ACCEPTED,
    sends_timed_out = LAYER_STAT_SENDS_TIMED_OUT,
    sends_unconfirmed = LAYER_STAT_SENDS_UNCONFIRMED,
    reconnects = LAYER_STAT_RECONNECTS,
    callbacks = LAYER_STAT_CALLBACKS,
    callback_nanoseconds = LAYER_STAT_CALLBACK_NANOSECONDS,
    ready = LAYER_STAT_READY,
    isolating = LAYER_STAT_ISOLATING,
    isolations = LAYER_STAT_ISOLATIONS,
    dropped_total_full = LAYER_STAT_DROPPED_TOTAL_FULL,
    memberships_expired = LAYER_STAT_MEMBERSHIPS_EXPIRED,
    sends_refused = LAYER_STAT_SENDS_REFUSED,
    queue_renames = LAYER_STAT_QUEUE_RENAMES,
};

/// The name of a status as the header has it, as "LAYER_FULL".
inline const char *to_string(status_code status) noexcept {
    return ::layer_status_name(static_cast<std::int32_t>(status));
}

/// The version of the library that is loaded; LAYER_VERSION is that of the header.
inline const char *version() noexcept { return ::layer_version(); }

} // namespace channel_layer

#endif /* CHANNEL_LAYER_STATUS_HPP */
