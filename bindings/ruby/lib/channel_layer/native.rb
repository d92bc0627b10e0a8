# frozen_string_literal: true

require "ffi"

module ChannelLayer
  # What include/channel_layer.h declares, and nothing else: types are spelled as in C, so that a
  # test can compare them with the header, and one table says what each is to ffi.
  module Native
    extend FFI::Library

    FILES = %w[libchannel_layer.so.0 libchannel_layer.so].freeze
    private_constant :FILES

    # The variable CHANNEL_LAYER_LIBRARY names another file than the installed one, or its folder.
    def self.library(named)
      return FILES.first if named.nil? || named.empty?
      return named unless File.directory?(named)

      FILES.map { |file| File.join(named, file) }.find { |path| File.exist?(path) } ||
        raise(LoadError, "there is no #{FILES.join(" and no ")} in #{named}")
    end

    begin
      ffi_lib library(ENV.fetch("CHANNEL_LAYER_LIBRARY", nil))
    rescue LoadError => e
      named = ENV.fetch("CHANNEL_LAYER_LIBRARY", nil)
      raise LoadError, "the C library of channel_layer cannot be loaded: #{e.message.strip}. " \
                       "Install it, or name its file or its folder in the variable " \
                       "CHANNEL_LAYER_LIBRARY (#{named ? "now '#{named}'" : "not set"})"
    end

    CONSTANTS = {
      LAYER_VERSION: "0.1.0",
      LAYER_VERSION_MAJOR: 0,
      LAYER_VERSION_MINOR: 1,
      LAYER_VERSION_PATCH: 0,
      LAYER_ABI_VERSION: 0,
      LAYER_NAME_SIZE: 100
    }.freeze

    # The integer type that the values of an enum travel in, and the values.
    ENUMS = {
      layer_status_t: ["int32_t", {
        LAYER_OK: 0,
        LAYER_INVALID: 1,
        LAYER_FULL: 2,
        LAYER_NO_CHANNEL: 3,
        LAYER_TOO_LARGE: 4,
        LAYER_DISCONNECTED: 5,
        LAYER_BUSY: 6,
        LAYER_TIMEOUT: 7,
        LAYER_UNCONFIRMED: 8,
        LAYER_REFUSED: 9,
        LAYER_CANCELLED: 10,
        LAYER_CLOSED: 11,
        LAYER_WOULD_DEADLOCK: 12,
        LAYER_FORKED: 13,
        LAYER_INTERNAL: 14
      }],
      layer_log_level_t: ["int32_t", {
        LAYER_LOG_ERROR: 1,
        LAYER_LOG_WARN: 2,
        LAYER_LOG_INFO: 3,
        LAYER_LOG_DEBUG: 4
      }],
      layer_state_t: ["int32_t", {
        LAYER_STATE_CONNECTING: 0,
        LAYER_STATE_READY: 1,
        LAYER_STATE_REFUSED: 2,
        LAYER_STATE_CLOSED: 3
      }],
      layer_isolation_t: ["int32_t", {
        LAYER_ISOLATION_BEGAN: 1,
        LAYER_ISOLATION_LOST: 2,
        LAYER_ISOLATION_ENDED: 3
      }],
      layer_flow_t: ["int32_t", {
        LAYER_CONTINUE: 0,
        LAYER_STOP: 1,
        LAYER_DECLINE: 2
      }],
      layer_stat_t: ["uint32_t", {
        LAYER_STAT_SENDS_CONFIRMED: 1,
        LAYER_STAT_SENDS_FULL: 2,
        LAYER_STAT_SENDS_NO_CHANNEL: 3,
        LAYER_STAT_SENDS_UNKNOWN: 4,
        LAYER_STAT_SENDS_UNSENT: 5,
        LAYER_STAT_DELIVERIES: 6,
        LAYER_STAT_RECEIVED: 7,
        LAYER_STAT_DROPPED_EXPIRED: 8,
        LAYER_STAT_DROPPED_CHANNEL_FULL: 9,
        LAYER_STAT_DROPPED_REDELIVERED: 10,
        LAYER_STAT_DROPPED_MALFORMED: 11,
        LAYER_STAT_DROPPED_NO_MEMBER: 12,
        LAYER_STAT_DROPPED_FOREIGN: 13,
        LAYER_STAT_DROPPED_DISCARDED: 14,
        LAYER_STAT_EVENTS_DROPPED: 15,
        LAYER_STAT_GENERATION: 16,
        LAYER_STAT_BACKLOG: 17,
        LAYER_STAT_IN_FLIGHT: 18,
        LAYER_STAT_CHANNELS: 19,
        LAYER_STAT_RECEIVERS: 20,
        LAYER_STAT_GROUPS: 21,
        LAYER_STAT_MEMBERSHIPS: 22,
        LAYER_STAT_GROUPS_BOUND: 23,
        LAYER_STAT_PUBLISHERS_BLOCKED: 24,
        LAYER_STAT_DELIVERIES_HELD: 25,
        LAYER_STAT_SENDS_ACCEPTED: 26,
        LAYER_STAT_SENDS_TIMED_OUT: 27,
        LAYER_STAT_SENDS_UNCONFIRMED: 28,
        LAYER_STAT_RECONNECTS: 29,
        LAYER_STAT_CALLBACKS: 30,
        LAYER_STAT_CALLBACK_NANOSECONDS: 31,
        LAYER_STAT_READY: 32,
        LAYER_STAT_ISOLATING: 33,
        LAYER_STAT_ISOLATIONS: 34,
        LAYER_STAT_DROPPED_TOTAL_FULL: 35,
        LAYER_STAT_MEMBERSHIPS_EXPIRED: 36,
        LAYER_STAT_SENDS_REFUSED: 37,
        LAYER_STAT_QUEUE_RENAMES: 38
      }]
    }.freeze

    HANDLES = %i[layer_config_t layer_error_t layer_message_t layer_t].freeze

    # Result, then the types of the parameters.
    CALLBACKS = {
      layer_log_cb: ["void", [
        "void *", "layer_log_level_t", "const char *", "const char *", "const char *"
      ]],
      layer_destroy_cb: ["void", ["void *"]],
      layer_state_cb: ["void", ["void *", "layer_state_t", "uint64_t"]],
      layer_isolation_cb: ["void", ["void *", "layer_isolation_t", "const char *", "uint64_t"]],
      layer_done_cb: ["void", ["void *", "layer_status_t", "const layer_error_t *"]],
      layer_receive_cb: ["int32_t", ["void *", "layer_status_t", "const layer_message_t *"]]
    }.freeze

    FUNCTIONS = {
      layer_config_new: ["layer_config_t *", []],
      layer_config_set: ["layer_status_t", [
        "layer_config_t *", "const char *", "const char *", "layer_error_t **"
      ]],
      layer_config_check: ["layer_status_t", ["const layer_config_t *", "layer_error_t **"]],
      layer_config_on_log: ["layer_status_t", [
        "layer_config_t *", "layer_log_cb", "void *", "layer_destroy_cb", "layer_error_t **"
      ]],
      layer_config_on_state: ["layer_status_t", [
        "layer_config_t *", "layer_state_cb", "void *", "layer_destroy_cb", "layer_error_t **"
      ]],
      layer_config_on_isolation: ["layer_status_t", [
        "layer_config_t *", "layer_isolation_cb", "void *", "layer_destroy_cb", "layer_error_t **"
      ]],
      layer_config_free: ["void", ["layer_config_t *"]],
      layer_group_add: ["layer_status_t", [
        "const layer_t *", "const char *", "const char *", "layer_error_t **"
      ]],
      layer_group_add_async: ["layer_status_t", [
        "const layer_t *", "const char *", "const char *", "layer_done_cb", "void *",
        "layer_destroy_cb", "layer_error_t **"
      ]],
      layer_group_discard: ["layer_status_t", [
        "const layer_t *", "const char *", "const char *", "layer_error_t **"
      ]],
      layer_new: ["layer_status_t", ["const layer_config_t *", "layer_t **", "layer_error_t **"]],
      layer_wait_ready: ["layer_status_t", ["const layer_t *", "uint32_t", "layer_error_t **"]],
      layer_state: ["layer_status_t", ["const layer_t *", "layer_state_t *", "layer_error_t **"]],
      layer_stat: ["layer_status_t", [
        "const layer_t *", "uint32_t", "uint64_t *", "layer_error_t **"
      ]],
      layer_stats_prometheus: ["layer_status_t", [
        "const layer_t *", "const char *", "char *", "size_t", "size_t *", "layer_error_t **"
      ]],
      layer_new_channel: ["layer_status_t", [
        "const layer_t *", "const char *", "char *", "size_t", "layer_error_t **"
      ]],
      layer_close: ["layer_status_t", ["const layer_t *", "uint32_t", "layer_error_t **"]],
      layer_close_async: ["layer_status_t", [
        "const layer_t *", "uint32_t", "layer_done_cb", "void *", "layer_destroy_cb",
        "layer_error_t **"
      ]],
      layer_free: ["void", ["layer_t *"]],
      layer_fd: ["int", ["const layer_t *"]],
      layer_fd_dup: ["layer_status_t", ["const layer_t *", "int *", "layer_error_t **"]],
      layer_poll: ["layer_status_t", [
        "const layer_t *", "size_t", "uint32_t", "size_t *", "layer_error_t **"
      ]],
      layer_receive: ["layer_status_t", [
        "const layer_t *", "const char *", "layer_receive_cb", "void *", "layer_destroy_cb",
        "uint64_t *", "layer_error_t **"
      ]],
      layer_receive_cancel: ["layer_status_t", [
        "const layer_t *", "uint64_t", "layer_error_t **"
      ]],
      layer_receive_next: ["layer_status_t", [
        "const layer_t *", "const char *", "uint32_t", "layer_message_t **", "layer_error_t **"
      ]],
      layer_channel_discard: ["layer_status_t", [
        "const layer_t *", "const char *", "layer_error_t **"
      ]],
      layer_send: ["layer_status_t", [
        "const layer_t *", "const char *", "const uint8_t *", "size_t", "layer_error_t **"
      ]],
      layer_send_json: ["layer_status_t", [
        "const layer_t *", "const char *", "const char *", "layer_error_t **"
      ]],
      layer_group_send: ["layer_status_t", [
        "const layer_t *", "const char *", "const uint8_t *", "size_t", "layer_error_t **"
      ]],
      layer_group_send_json: ["layer_status_t", [
        "const layer_t *", "const char *", "const char *", "layer_error_t **"
      ]],
      layer_send_async: ["layer_status_t", [
        "const layer_t *", "const char *", "const uint8_t *", "size_t", "layer_done_cb",
        "void *", "layer_destroy_cb", "layer_error_t **"
      ]],
      layer_group_send_async: ["layer_status_t", [
        "const layer_t *", "const char *", "const uint8_t *", "size_t", "layer_done_cb",
        "void *", "layer_destroy_cb", "layer_error_t **"
      ]],
      layer_send_json_async: ["layer_status_t", [
        "const layer_t *", "const char *", "const char *", "layer_done_cb", "void *",
        "layer_destroy_cb", "layer_error_t **"
      ]],
      layer_group_send_json_async: ["layer_status_t", [
        "const layer_t *", "const char *", "const char *", "layer_done_cb", "void *",
        "layer_destroy_cb", "layer_error_t **"
      ]],
      layer_message_data: ["const uint8_t *", ["const layer_message_t *", "size_t *"]],
      layer_message_json: ["layer_status_t", [
        "const layer_message_t *", "const char **", "layer_error_t **"
      ]],
      layer_message_channel: ["const char *", ["const layer_message_t *"]],
      layer_message_group: ["const char *", ["const layer_message_t *"]],
      layer_message_type: ["const char *", ["const layer_message_t *"]],
      layer_message_ref: ["layer_message_t *", ["const layer_message_t *"]],
      layer_message_free: ["void", ["layer_message_t *"]],
      layer_error_status: ["layer_status_t", ["const layer_error_t *"]],
      layer_error_message: ["const char *", ["const layer_error_t *"]],
      layer_error_free: ["void", ["layer_error_t *"]],
      layer_status_name: ["const char *", ["int32_t"]],
      layer_version: ["const char *", []],
      layer_abi_version: ["uint32_t", []]
    }.freeze

    # These may wait, so that Ruby's other threads must be able to run meanwhile. layer_poll is not
    # among them: it is only called with a timeout of 0, and its callbacks are fast because they
    # hold the lock of the interpreter already.
    BLOCKING = %i[
      layer_close layer_free layer_group_add layer_group_send layer_group_send_json
      layer_receive_cancel layer_receive_next layer_send layer_send_json layer_wait_ready
    ].freeze

    # userdata is a number here, never an address: Ruby objects move, and a number costs no object.
    TYPES = {
      "void" => :void, "int" => :int, "void *" => :ulong, "size_t" => :size_t,
      "int32_t" => :int32, "uint32_t" => :uint32, "uint64_t" => :uint64,
      "const char *" => :string, "char *" => :pointer, "const char **" => :pointer,
      "const uint8_t *" => :pointer, "size_t *" => :pointer, "uint64_t *" => :pointer,
      "int *" => :pointer
    }.freeze

    def self.ffi_type(spelled)
      return TYPES[spelled] if TYPES.key?(spelled)

      name = spelled.delete_prefix("const ").sub(/ \*+\z/, "").to_sym
      return :pointer if spelled.end_with?("*") && (HANDLES.include?(name) || ENUMS.key?(name))
      return :pointer if CALLBACKS.key?(name)
      return TYPES.fetch(ENUMS.fetch(name).first) if ENUMS.key?(name)

      raise KeyError, "no type of ffi for #{spelled}"
    end

    # A function that C can call. Never collected: keep it in a constant.
    def self.callback(name, &)
      result, parameters = CALLBACKS.fetch(name)
      FFI::Function.new(ffi_type(result), parameters.map { |type| ffi_type(type) }, &)
    end

    # Bytes in are a Ruby string, read where it lies. Bytes out are an address.
    def self.parameter(spelled)
      spelled == "const uint8_t *" ? :buffer_in : ffi_type(spelled)
    end

    FUNCTIONS.each do |name, (result, parameters)|
      attach_function name, parameters.map { |type| parameter(type) }, ffi_type(result),
                      blocking: BLOCKING.include?(name)
    end

    ENUMS.each_value { |(_type, values)| values.each { |name, value| const_set(name, value) } }
    CONSTANTS.each { |name, value| const_set(name, value) }

    unless layer_abi_version == LAYER_ABI_VERSION
      raise LoadError, "libchannel_layer has ABI #{layer_abi_version}, this gem is for " \
                       "#{LAYER_ABI_VERSION}: install the gem and the library of one release"
    end
  end
end
