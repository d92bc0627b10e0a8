//! The functions of the C API as a table, so that a test can put a broken one in.

use std::ffi::{c_char, c_int, c_void};

use crate::ffi::callback::{
    layer_destroy_cb, layer_done_cb, layer_isolation_cb, layer_log_cb, layer_receive_cb,
    layer_state_cb, layer_state_t,
};
use crate::ffi::config::{self, layer_config_t};
use crate::ffi::layer::{groups, layer_t, lifecycle, poll, receive, send};
use crate::ffi::message::{self, layer_message_t};
use crate::ffi::status::{self, layer_error_t, layer_status_t};

type Status = layer_status_t;
type Error = *mut *mut layer_error_t;
type Text = *const c_char;
type Data = *mut c_void;

macro_rules! table {
    ($($name:ident = $function:path: ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[derive(Clone, Copy)]
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// The library as it is.
            pub(super) const LIBRARY: Self = Self { $($name: $function,)* };
        }
    };
}

table! {
    config_set = config::layer_config_set: (*mut layer_config_t, Text, Text, Error) -> Status;
    config_check = config::layer_config_check: (*const layer_config_t, Error) -> Status;
    config_on_log = config::layer_config_on_log:
        (*mut layer_config_t, layer_log_cb, Data, layer_destroy_cb, Error) -> Status;
    config_on_state = config::layer_config_on_state:
        (*mut layer_config_t, layer_state_cb, Data, layer_destroy_cb, Error) -> Status;
    config_on_isolation = config::layer_config_on_isolation:
        (*mut layer_config_t, layer_isolation_cb, Data, layer_destroy_cb, Error) -> Status;
    config_free = config::layer_config_free: (*mut layer_config_t);
    new = lifecycle::layer_new: (*const layer_config_t, *mut *mut layer_t, Error) -> Status;
    wait_ready = lifecycle::layer_wait_ready: (*const layer_t, u32, Error) -> Status;
    state = lifecycle::layer_state: (*const layer_t, *mut layer_state_t, Error) -> Status;
    stat = lifecycle::layer_stat: (*const layer_t, u32, *mut u64, Error) -> Status;
    stats_prometheus = lifecycle::layer_stats_prometheus:
        (*const layer_t, Text, *mut c_char, usize, *mut usize, Error) -> Status;
    new_channel = lifecycle::layer_new_channel:
        (*const layer_t, Text, *mut c_char, usize, Error) -> Status;
    close = lifecycle::layer_close: (*const layer_t, u32, Error) -> Status;
    close_async = lifecycle::layer_close_async:
        (*const layer_t, u32, layer_done_cb, Data, layer_destroy_cb, Error) -> Status;
    free = lifecycle::layer_free: (*mut layer_t);
    fd = poll::layer_fd: (*const layer_t) -> c_int;
    fd_dup = poll::layer_fd_dup: (*const layer_t, *mut c_int, Error) -> Status;
    poll = poll::layer_poll: (*const layer_t, usize, u32, *mut usize, Error) -> Status;
    receive = receive::layer_receive:
        (*const layer_t, Text, layer_receive_cb, Data, layer_destroy_cb, *mut u64, Error) -> Status;
    receive_cancel = receive::layer_receive_cancel: (*const layer_t, u64, Error) -> Status;
    receive_next = receive::layer_receive_next:
        (*const layer_t, Text, u32, *mut *mut layer_message_t, Error) -> Status;
    channel_discard = receive::layer_channel_discard: (*const layer_t, Text, Error) -> Status;
    send = send::layer_send: (*const layer_t, Text, *const u8, usize, Error) -> Status;
    send_json = send::layer_send_json: (*const layer_t, Text, Text, Error) -> Status;
    group_send = send::layer_group_send: (*const layer_t, Text, *const u8, usize, Error) -> Status;
    group_send_json = send::layer_group_send_json: (*const layer_t, Text, Text, Error) -> Status;
    send_async = send::layer_send_async:
        (*const layer_t, Text, *const u8, usize, layer_done_cb, Data, layer_destroy_cb, Error)
        -> Status;
    group_send_async = send::layer_group_send_async:
        (*const layer_t, Text, *const u8, usize, layer_done_cb, Data, layer_destroy_cb, Error)
        -> Status;
    send_json_async = send::layer_send_json_async:
        (*const layer_t, Text, Text, layer_done_cb, Data, layer_destroy_cb, Error) -> Status;
    group_send_json_async = send::layer_group_send_json_async:
        (*const layer_t, Text, Text, layer_done_cb, Data, layer_destroy_cb, Error) -> Status;
    group_add = groups::layer_group_add: (*const layer_t, Text, Text, Error) -> Status;
    group_add_async = groups::layer_group_add_async:
        (*const layer_t, Text, Text, layer_done_cb, Data, layer_destroy_cb, Error) -> Status;
    group_discard = groups::layer_group_discard: (*const layer_t, Text, Text, Error) -> Status;
    message_data = message::layer_message_data: (*const layer_message_t, *mut usize) -> *const u8;
    message_json = message::layer_message_json:
        (*const layer_message_t, *mut *const c_char, Error) -> Status;
    message_channel = message::layer_message_channel: (*const layer_message_t) -> Text;
    message_group = message::layer_message_group: (*const layer_message_t) -> Text;
    message_type = message::layer_message_type: (*const layer_message_t) -> Text;
    message_ref = message::layer_message_ref: (*const layer_message_t) -> *mut layer_message_t;
    message_free = message::layer_message_free: (*mut layer_message_t);
    error_status = status::layer_error_status: (*const layer_error_t) -> Status;
    error_message = status::layer_error_message: (*const layer_error_t) -> Text;
    error_free = status::layer_error_free: (*mut layer_error_t);
}
