"""What include/channel_layer.h declares, and the ctypes form of each of its types.

The C text of every function and callback stands here as it stands in the header; a test compares
the two. Nothing here is for users of the package.
"""

from __future__ import annotations

import ctypes

# Pointers travel as integers: the fastest form that ctypes has, and nothing here looks into what a
# handle points to. `char *` parameters take bytes.
TYPES = {
    "void": None,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "size_t": ctypes.c_size_t,
    "layer_status_t": ctypes.c_int32,
    "layer_state_t": ctypes.c_int32,
    "layer_isolation_t": ctypes.c_int32,
    "layer_log_level_t": ctypes.c_int32,
    "uint64_t": ctypes.c_uint64,
    "void *": ctypes.c_void_p,
    "const char *": ctypes.c_char_p,
    "char *": ctypes.c_char_p,
    "const uint8_t *": ctypes.c_char_p,
}

HANDLES = ("layer_config_t", "layer_error_t", "layer_message_t", "layer_t")

CONSTANTS = {
    "LAYER_VERSION": "0.1.0",
    "LAYER_VERSION_MAJOR": 0,
    "LAYER_VERSION_MINOR": 1,
    "LAYER_VERSION_PATCH": 0,
    "LAYER_ABI_VERSION": 0,
    "LAYER_NAME_SIZE": 100,
}

# Name: the type that its values travel in, and the values.
ENUMS = {
    "layer_status_t": (
        "int32_t",
        {
            "LAYER_OK": 0,
            "LAYER_INVALID": 1,
            "LAYER_FULL": 2,
            "LAYER_NO_CHANNEL": 3,
            "LAYER_TOO_LARGE": 4,
            "LAYER_DISCONNECTED": 5,
            "LAYER_BUSY": 6,
            "LAYER_TIMEOUT": 7,
            "LAYER_UNCONFIRMED": 8,
            "LAYER_REFUSED": 9,
            "LAYER_CANCELLED": 10,
            "LAYER_CLOSED": 11,
            "LAYER_WOULD_DEADLOCK": 12,
            "LAYER_FORKED": 13,
            "LAYER_INTERNAL": 14,
        },
    ),
    "layer_log_level_t": (
        "int32_t",
        {
            "LAYER_LOG_ERROR": 1,
            "LAYER_LOG_WARN": 2,
            "LAYER_LOG_INFO": 3,
            "LAYER_LOG_DEBUG": 4,
        },
    ),
    "layer_state_t": (
        "int32_t",
        {
            "LAYER_STATE_CONNECTING": 0,
            "LAYER_STATE_READY": 1,
            "LAYER_STATE_REFUSED": 2,
            "LAYER_STATE_CLOSED": 3,
        },
    ),
    "layer_isolation_t": (
        "int32_t",
        {
            "LAYER_ISOLATION_BEGAN": 1,
            "LAYER_ISOLATION_LOST": 2,
            "LAYER_ISOLATION_ENDED": 3,
        },
    ),
    "layer_flow_t": (
        "int32_t",
        {
            "LAYER_CONTINUE": 0,
            "LAYER_STOP": 1,
            "LAYER_DECLINE": 2,
        },
    ),
    "layer_stat_t": (
        "uint32_t",
        {
            "LAYER_STAT_SENDS_CONFIRMED": 1,
            "LAYER_STAT_SENDS_FULL": 2,
            "LAYER_STAT_SENDS_NO_CHANNEL": 3,
            "LAYER_STAT_SENDS_UNKNOWN": 4,
            "LAYER_STAT_SENDS_UNSENT": 5,
            "LAYER_STAT_DELIVERIES": 6,
            "LAYER_STAT_RECEIVED": 7,
            "LAYER_STAT_DROPPED_EXPIRED": 8,
            "LAYER_STAT_DROPPED_CHANNEL_FULL": 9,
            "LAYER_STAT_DROPPED_REDELIVERED": 10,
            "LAYER_STAT_DROPPED_MALFORMED": 11,
            "LAYER_STAT_DROPPED_NO_MEMBER": 12,
            "LAYER_STAT_DROPPED_FOREIGN": 13,
            "LAYER_STAT_DROPPED_DISCARDED": 14,
            "LAYER_STAT_EVENTS_DROPPED": 15,
            "LAYER_STAT_GENERATION": 16,
            "LAYER_STAT_BACKLOG": 17,
            "LAYER_STAT_IN_FLIGHT": 18,
            "LAYER_STAT_CHANNELS": 19,
            "LAYER_STAT_RECEIVERS": 20,
            "LAYER_STAT_GROUPS": 21,
            "LAYER_STAT_MEMBERSHIPS": 22,
            "LAYER_STAT_GROUPS_BOUND": 23,
            "LAYER_STAT_PUBLISHERS_BLOCKED": 24,
            "LAYER_STAT_DELIVERIES_HELD": 25,
            "LAYER_STAT_SENDS_ACCEPTED": 26,
            "LAYER_STAT_SENDS_TIMED_OUT": 27,
            "LAYER_STAT_SENDS_UNCONFIRMED": 28,
            "LAYER_STAT_RECONNECTS": 29,
            "LAYER_STAT_CALLBACKS": 30,
            "LAYER_STAT_CALLBACK_NANOSECONDS": 31,
            "LAYER_STAT_READY": 32,
            "LAYER_STAT_ISOLATING": 33,
            "LAYER_STAT_ISOLATIONS": 34,
            "LAYER_STAT_DROPPED_TOTAL_FULL": 35,
            "LAYER_STAT_MEMBERSHIPS_EXPIRED": 36,
            "LAYER_STAT_SENDS_REFUSED": 37,
            "LAYER_STAT_QUEUE_RENAMES": 38,
        },
    ),
}

# Name: result, and the types and names of the parameters.
CALLBACKS = {
    "layer_log_cb": (
        "void",
        [
            ("void *", "userdata"),
            ("layer_log_level_t", "level"),
            ("const char *", "id"),
            ("const char *", "target"),
            ("const char *", "message"),
        ],
    ),
    "layer_destroy_cb": (
        "void",
        [
            ("void *", "userdata"),
        ],
    ),
    "layer_state_cb": (
        "void",
        [
            ("void *", "userdata"),
            ("layer_state_t", "state"),
            ("uint64_t", "generation"),
        ],
    ),
    "layer_isolation_cb": (
        "void",
        [
            ("void *", "userdata"),
            ("layer_isolation_t", "event"),
            ("const char *", "channel"),
            ("uint64_t", "count"),
        ],
    ),
    "layer_done_cb": (
        "void",
        [
            ("void *", "userdata"),
            ("layer_status_t", "status"),
            ("const layer_error_t *", "error"),
        ],
    ),
    "layer_receive_cb": (
        "int32_t",
        [
            ("void *", "userdata"),
            ("layer_status_t", "status"),
            ("const layer_message_t *", "message"),
        ],
    ),
}

# Name: result, and the types and names of the parameters.
FUNCTIONS = {
    "layer_config_new": (
        "layer_config_t *",
        [],
    ),
    "layer_config_set": (
        "layer_status_t",
        [
            ("layer_config_t *", "config"),
            ("const char *", "name"),
            ("const char *", "value"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_config_check": (
        "layer_status_t",
        [
            ("const layer_config_t *", "config"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_config_on_log": (
        "layer_status_t",
        [
            ("layer_config_t *", "config"),
            ("layer_log_cb", "callback"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_config_on_state": (
        "layer_status_t",
        [
            ("layer_config_t *", "config"),
            ("layer_state_cb", "callback"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_config_on_isolation": (
        "layer_status_t",
        [
            ("layer_config_t *", "config"),
            ("layer_isolation_cb", "callback"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_config_free": (
        "void",
        [
            ("layer_config_t *", "config"),
        ],
    ),
    "layer_group_add": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "group"),
            ("const char *", "channel"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_group_add_async": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "group"),
            ("const char *", "channel"),
            ("layer_done_cb", "done"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_group_discard": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "group"),
            ("const char *", "channel"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_new": (
        "layer_status_t",
        [
            ("const layer_config_t *", "config"),
            ("layer_t **", "layer"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_wait_ready": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("uint32_t", "timeout_ms"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_state": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("layer_state_t *", "state"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_stat": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("uint32_t", "which"),
            ("uint64_t *", "value"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_stats_prometheus": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "labels"),
            ("char *", "text"),
            ("size_t", "size"),
            ("size_t *", "length"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_new_channel": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "prefix"),
            ("char *", "name"),
            ("size_t", "size"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_close": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("uint32_t", "timeout_ms"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_close_async": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("uint32_t", "timeout_ms"),
            ("layer_done_cb", "done"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_free": (
        "void",
        [
            ("layer_t *", "layer"),
        ],
    ),
    "layer_fd": (
        "int",
        [
            ("const layer_t *", "layer"),
        ],
    ),
    "layer_fd_dup": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("int *", "fd"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_poll": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("size_t", "max"),
            ("uint32_t", "timeout_ms"),
            ("size_t *", "ran"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_receive": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "channel"),
            ("layer_receive_cb", "callback"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("uint64_t *", "receiver"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_receive_cancel": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("uint64_t", "receiver"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_receive_next": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "channel"),
            ("uint32_t", "timeout_ms"),
            ("layer_message_t **", "message"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_channel_discard": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "channel"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_send": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "channel"),
            ("const uint8_t *", "message"),
            ("size_t", "length"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_send_json": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "channel"),
            ("const char *", "json"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_group_send": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "group"),
            ("const uint8_t *", "message"),
            ("size_t", "length"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_group_send_json": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "group"),
            ("const char *", "json"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_send_async": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "channel"),
            ("const uint8_t *", "message"),
            ("size_t", "length"),
            ("layer_done_cb", "done"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_group_send_async": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "group"),
            ("const uint8_t *", "message"),
            ("size_t", "length"),
            ("layer_done_cb", "done"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_send_json_async": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "channel"),
            ("const char *", "json"),
            ("layer_done_cb", "done"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_group_send_json_async": (
        "layer_status_t",
        [
            ("const layer_t *", "layer"),
            ("const char *", "group"),
            ("const char *", "json"),
            ("layer_done_cb", "done"),
            ("void *", "userdata"),
            ("layer_destroy_cb", "destroy"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_message_data": (
        "const uint8_t *",
        [
            ("const layer_message_t *", "message"),
            ("size_t *", "length"),
        ],
    ),
    "layer_message_json": (
        "layer_status_t",
        [
            ("const layer_message_t *", "message"),
            ("const char **", "json"),
            ("layer_error_t **", "error"),
        ],
    ),
    "layer_message_channel": (
        "const char *",
        [
            ("const layer_message_t *", "message"),
        ],
    ),
    "layer_message_group": (
        "const char *",
        [
            ("const layer_message_t *", "message"),
        ],
    ),
    "layer_message_type": (
        "const char *",
        [
            ("const layer_message_t *", "message"),
        ],
    ),
    "layer_message_ref": (
        "layer_message_t *",
        [
            ("const layer_message_t *", "message"),
        ],
    ),
    "layer_message_free": (
        "void",
        [
            ("layer_message_t *", "message"),
        ],
    ),
    "layer_error_status": (
        "layer_status_t",
        [
            ("const layer_error_t *", "error"),
        ],
    ),
    "layer_error_message": (
        "const char *",
        [
            ("const layer_error_t *", "error"),
        ],
    ),
    "layer_error_free": (
        "void",
        [
            ("layer_error_t *", "error"),
        ],
    ),
    "layer_status_name": (
        "const char *",
        [
            ("int32_t", "status"),
        ],
    ),
    "layer_version": (
        "const char *",
        [],
    ),
    "layer_abi_version": (
        "uint32_t",
        [],
    ),
}


def type_of(text: str, result: bool = False):
    """The ctypes form of a C type."""
    if text in CALLBACKS or text.endswith("**"):
        return ctypes.c_void_p
    if result and text == "const uint8_t *":
        return ctypes.c_void_p  # bytes with NULs in them: read by length
    if text in TYPES:
        return TYPES[text]
    if text.endswith(" *"):
        return ctypes.c_void_p
    raise KeyError(text)


def callback_type(name: str):
    """The ctypes function type of a callback; it takes the interpreter's lock if need be."""
    result, parameters = CALLBACKS[name]
    return ctypes.CFUNCTYPE(type_of(result), *(type_of(each) for each, _ in parameters))


def declare(library, names) -> None:
    """Gives the functions of a loaded library their types."""
    for name in names:
        result, parameters = FUNCTIONS[name]
        function = getattr(library, name)
        function.restype = type_of(result, result=True)
        function.argtypes = [type_of(each) for each, _ in parameters]
