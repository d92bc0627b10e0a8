# frozen_string_literal: true

module ChannelLayer
  # The values of a layer_state_t, a layer_isolation_t and a layer_log_level_t, as symbols.
  STATES = Native::ENUMS[:layer_state_t].last.to_h do |name, value|
    [value, name.to_s.delete_prefix("LAYER_STATE_").downcase.to_sym]
  end.freeze
  ISOLATIONS = Native::ENUMS[:layer_isolation_t].last.to_h do |name, value|
    [value, name.to_s.delete_prefix("LAYER_ISOLATION_").downcase.to_sym]
  end.freeze
  LEVELS = Native::ENUMS[:layer_log_level_t].last.to_h do |name, value|
    [value, name.to_s.delete_prefix("LAYER_LOG_").downcase.to_sym]
  end.freeze
  STATS = Native::ENUMS[:layer_stat_t].last.transform_keys do |name|
    name.to_s.delete_prefix("LAYER_STAT_").downcase.to_sym
  end.freeze

  # An open layer. Usable from any thread of the process that opened it. It stays open until
  # `close`, whether or not anything refers to it.
  class Layer
    # A layer_t. It is freed by the garbage collector, once it is closed and no call can be inside;
    # at exit an open one is left to the library, which ends with the process.
    class Handle < FFI::AutoPointer
      def self.release(pointer)
        Callbacks.shielded { Native.layer_free(pointer) }
      end
    end
    private_constant :Handle

    # How long a wait in the library may put off Timeout and Thread#kill.
    SLICE_MS = 100
    private_constant :SLICE_MS

    # How long a layer that nobody gets may take to close.
    GIVE_UP_SECONDS = 10
    private_constant :GIVE_UP_SECONDS

    CALLBACKS = { on_log: :layer_log_cb, on_state: :layer_state_cb,
                  on_isolation: :layer_isolation_cb }.freeze
    private_constant :CALLBACKS

    # See ChannelLayer.open.
    def initialize(on_log: nil, on_state: nil, on_isolation: nil, on_error: nil, **options)
      reporter = Callbacks::Reporter.new(on_error)
      handlers = { on_log:, on_state:, on_isolation: }.compact.to_h do |name, callable|
        [name, Callbacks::Handler.new(name, callable, reporter)]
      end
      @left_over = {}
      # Allocated first, so that it is known whatever interrupts what follows.
      @handle = Handle.allocate
      slot = FFI::MemoryPointer.new(:pointer)
      is_open = false
      begin
        Layer.open_in(slot, options, handlers)
        @handle.__send__(:initialize, slot.read_pointer)
        @handle.autorelease = false
        @dispatcher = Dispatcher.new(@handle, reporter)
        @dispatcher.start
        is_open = true
      ensure
        # Timeout and Thread#kill raise nothing that could be rescued.
        give_up(slot.read_pointer) unless is_open
      end
    end

    # See ChannelLayer.check.
    def self.check(options)
      with_config(options) do |config|
        Error.check { |error| Native.layer_config_check(config, error) }
      end
    end

    # Puts a new layer_t where `slot` points.
    # @api private
    def self.open_in(slot, options, handlers)
      with_config(options) do |config|
        handlers.each { |name, handler| hear(config, name, handler) }
        Error.check { |error| Native.layer_new(config, slot, error) }
      end
    end

    def self.with_config(options)
      if options.key?(:dispatch) || options.key?("dispatch")
        raise ArgumentError, "the option dispatch belongs to this gem, which polls on a Ruby thread"
      end

      config = Native.layer_config_new
      options.merge(dispatch: "poll").each { |name, value| set(config, name.to_s, value) }
      yield config
    ensure
      Callbacks.shielded { Native.layer_config_free(config) } if config
    end

    def self.set(config, name, value)
      text = value.is_a?(Float) ? format("%.9f", value) : value.to_s
      Error.check { |error| Native.layer_config_set(config, name, text, error) }
    end

    def self.hear(config, name, handler)
      callback = Callbacks.function(CALLBACKS.fetch(name))
      destroy = Callbacks.function(:layer_destroy_cb)
      Callbacks.lend(handler) do |userdata, error|
        Native.public_send(:"layer_config_#{name}", config, callback, userdata, destroy, error)
      end
    end
    private_class_method :with_config, :set, :hear

    # Waits until both connections stand and every group is bound, at most `timeout` seconds.
    def wait_ready(timeout: 10)
      in_slices(timeout) { |ms, error| Native.layer_wait_ready(@handle, ms, error) }
      self
    end

    # :connecting, :ready, :refused or :closed.
    def state
      slot = FFI::MemoryPointer.new(:int32)
      Error.check { |error| Native.layer_state(@handle, slot, error) }
      STATES.fetch(slot.read(:int32))
    end

    # A counter or gauge, by its name in STATS or its number.
    def stat(which)
      number = which.is_a?(Integer) ? which : STATS.fetch(which.to_sym)
      slot = FFI::MemoryPointer.new(:uint64)
      Error.check { |error| Native.layer_stat(@handle, number, slot, error) }
      slot.read(:uint64)
    end

    # All counters and gauges in the text format of Prometheus, to be served as
    # "text/plain; version=0.0.4", with these labels on each, as `site: "a"`. A control character
    # in a value, other than a line's end, is refused (Invalid).
    def prometheus(**labels)
      text = labels.map { |name, value| "#{name}=\"#{escape(value)}\"" }.join(",")
      length = FFI::MemoryPointer.new(:size_t)
      Error.check { |error| Native.layer_stats_prometheus(@handle, text, nil, 0, length, error) }
      room = FFI::MemoryPointer.new(:char, length.read(:size_t) + 1)
      Error.check do |error|
        Native.layer_stats_prometheus(@handle, text, room, room.size, length, error)
      end
      room.read_bytes(length.read(:size_t)).force_encoding(Encoding::UTF_8)
    end

    # The name of a new channel of this layer.
    def new_channel(prefix = nil)
      name = FFI::MemoryPointer.new(:char, Native::LAYER_NAME_SIZE)
      Error.check do |error|
        Native.layer_new_channel(@handle, prefix, name, name.size, error)
      end
      name.read_string.force_encoding(Encoding::UTF_8)
    end

    # Sends a Hash to a channel and waits for the broker's confirm, at most option `timeout`.
    def send(channel, message)
      send_packed(channel, Codec.pack(message))
    end

    # The same with a message that is MessagePack already.
    def send_packed(channel, bytes)
      if Callbacks.thread?
        Error.check do |error|
          Native.layer_send(@handle, channel, bytes, bytes.bytesize, error)
        end
      else
        send_packed_async(channel, bytes).wait
      end
    end

    # The same with JSON text of one object.
    def send_json(channel, json)
      if Callbacks.thread?
        Error.check { |error| Native.layer_send_json(@handle, channel, json, error) }
      else
        send_json_async(channel, json).wait
      end
    end

    # Sends without waiting. The result's `wait` gives the outcome; a block is called with it: nil
    # or an Error. Raises Busy where `max_in_flight` sends are in flight.
    def send_async(channel, message, &)
      send_packed_async(channel, Codec.pack(message), &)
    end

    # The same with a message that is MessagePack already.
    def send_packed_async(channel, bytes, &block)
      size = bytes.bytesize
      begin_async(block, OutcomeLost) do |done, userdata, error|
        Native.layer_send_async(@handle, channel, bytes, size, done, userdata, nil, error)
      end
    end

    # The same with JSON text of one object.
    def send_json_async(channel, json, &block)
      begin_async(block, OutcomeLost) do |done, userdata, error|
        Native.layer_send_json_async(@handle, channel, json, done, userdata, nil, error)
      end
    end

    # Sends a Hash to every member of a group and waits for the broker's confirm.
    def group_send(group, message)
      group_send_packed(group, Codec.pack(message))
    end

    # The same with a message that is MessagePack already.
    def group_send_packed(group, bytes)
      if Callbacks.thread?
        Error.check do |error|
          Native.layer_group_send(@handle, group, bytes, bytes.bytesize, error)
        end
      else
        group_send_packed_async(group, bytes).wait
      end
    end

    # The same with JSON text of one object.
    def group_send_json(group, json)
      if Callbacks.thread?
        Error.check { |error| Native.layer_group_send_json(@handle, group, json, error) }
      else
        group_send_json_async(group, json).wait
      end
    end

    # `group_send` without waiting, as `send_async`.
    def group_send_async(group, message, &)
      group_send_packed_async(group, Codec.pack(message), &)
    end

    # The same with a message that is MessagePack already.
    def group_send_packed_async(group, bytes, &block)
      size = bytes.bytesize
      begin_async(block, OutcomeLost) do |done, userdata, error|
        Native.layer_group_send_async(@handle, group, bytes, size, done, userdata, nil, error)
      end
    end

    # The same with JSON text of one object.
    def group_send_json_async(group, json, &block)
      begin_async(block, OutcomeLost) do |done, userdata, error|
        Native.layer_group_send_json_async(@handle, group, json, done, userdata, nil, error)
      end
    end

    # Gives each message of a channel to the block, in order, on the layer's thread: a Hash, and a
    # Delivery where the block takes two arguments. The block may return :stop (the message was
    # taken, the receiver ends) or :decline (it was not, it stays first); all else goes on. An
    # exception ends the receiver and is reported, to `on_error` or on stderr. Inside, nothing may
    # wait (WouldDeadlock).
    def receive(channel, &block)
      raise ArgumentError, "receive needs a block" unless block

      @dispatcher.check
      Receiver.new(@handle, @dispatcher, channel, &block)
    end

    # Waits for the next message of a channel, at most `timeout` seconds (nil: for ever; 0 only
    # looks), and raises TimedOut where none came. A wait that Timeout, Thread#raise or Thread#kill
    # ends has taken no message.
    def receive_next(channel, timeout: nil)
      take(channel, timeout) { |pointer| Codec.unpack(pointer) }
    end

    # The same as a Delivery.
    def receive_delivery(channel, timeout: nil)
      take(channel, timeout) { |pointer| Delivery.new(Native.layer_message_ref(pointer)) }
    end

    # Adds a channel of this layer to a group, and waits until the broker routes it here.
    def group_add(group, channel)
      if Callbacks.thread?
        Error.check { |error| Native.layer_group_add(@handle, group, channel, error) }
      else
        group_add_async(group, channel).wait
      end
    end

    # The same without waiting, as `send_async`.
    def group_add_async(group, channel, &block)
      begin_async(block, ThreadKilled) do |done, userdata, error|
        Native.layer_group_add_async(@handle, group, channel, done, userdata, nil, error)
      end
    end

    # Removes a channel from a group. Never waits.
    def group_discard(group, channel)
      Error.check { |error| Native.layer_group_discard(@handle, group, channel, error) }
    end

    # Gives a channel up, with its memberships, messages and receivers. Never waits.
    def channel_discard(channel)
      Error.check { |error| Native.layer_channel_discard(@handle, channel, error) }
      free_left_over(channel)
    end

    # Closes the layer, within `timeout` seconds: waits for confirms, ends receivers. Again is fine.
    # TimedOut means that something is left, closed it is all the same. Inside a block of a layer it
    # only begins. Timeout and Thread#kill end the wait, and the layer goes on closing.
    def close(timeout: 10)
      deadline = now + timeout
      return if @dispatcher.runs? && close_by_dispatcher(timeout, deadline)

      begin
        close_here([deadline - now, 0].max)
      rescue TimedOut
        raise TimedOut.new("the layer is closed, but not all had ended within #{timeout} s: a " \
                           "block is still running, or the broker did not answer",
                           Native::LAYER_TIMEOUT)
      end
    end

    # The same without waiting, as `send_async`: the outcome comes after all other blocks of the
    # layer have ended.
    def close_async(timeout: 10, &block)
      ms = milliseconds(timeout)
      @dispatcher.closing
      pending = begin_async(block, ThreadKilled) do |done, userdata, error|
        Native.layer_close_async(@handle, ms, done, userdata, nil, error)
      end
      pending.closes
      # It may have seen the end before, and not have seen this one.
      pending.layer_closed if @dispatcher.over?
      pending
    end

    def inspect
      "#<#{self.class} #{@handle.address.to_s(16)}>"
    end

    private

    LABEL_ESCAPES = { "\\" => "\\\\", '"' => '\"', "\n" => '\n' }.freeze
    private_constant :LABEL_ESCAPES

    # The value of a label, as it stands between quotes.
    def escape(value)
      value.to_s.gsub(/[\\"\n]/, LABEL_ESCAPES)
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    def milliseconds(seconds)
      (seconds * 1000).ceil.clamp(0, (2**32) - 1)
    end

    # What the block makes of the next message.
    def take(channel, timeout, &)
      deadline = timeout && (now + timeout)
      if Callbacks.thread?
        return pull(channel, timeout ? milliseconds(timeout) : SLICE_MS, &)
      end

      begin
        pull(channel, 0, &)
      rescue TimedOut
        left = deadline && (deadline - now)
        if left && left <= 0
          raise TimedOut.new("no message came for channel '#{channel}' within #{timeout} s",
                             Native::LAYER_TIMEOUT)
        end

        Callbacks.shielded { Watch.new(@handle, @dispatcher, channel).wait(left) }
        retry
      end
    end

    # Until the block has made something of it, the slot owns the message. What is raised meanwhile
    # (what a mask has held back at its end; Interrupt, or by a trap, anywhere on the main thread)
    # leaves the slot to the next pull; a message that cannot be unpacked goes. Inline, since Ruby
    # raises them where a method returns.
    def pull(channel, wait_ms)
      left = @left_over[channel]
      check_usable(channel) if left
      slot = left&.shift || FFI::MemoryPointer.new(:pointer)
      given = false
      if slot.read_pointer.null?
        Callbacks.shielded do
          Error.check { |error| Native.layer_receive_next(@handle, channel, wait_ms, slot, error) }
        end
      end
      made = yield slot.read_pointer
      given = true
      Native.layer_message_free(slot.read_pointer)
      made
    rescue MessagePack::UnpackError
      given = true
      Native.layer_message_free(slot.read_pointer)
      raise
    ensure
      unless given || slot.nil? || slot.read_pointer.null?
        (@left_over[channel] ||= []).unshift(slot)
      end
    end

    # Raises what the library would raise for a message that it still has.
    def check_usable(channel)
      return unless state == :closed

      free_left_over(channel)
      raise Error.of(Native::LAYER_CLOSED)
    end

    def free_left_over(channel)
      left = @left_over.delete(channel)
      while (slot = left&.shift)
        Native.layer_message_free(slot.read_pointer)
      end
    end

    # `lost`: the error where the outcome cannot come, though the call was begun.
    def begin_async(block, lost)
      @dispatcher.check
      pending = Pending.new(@dispatcher, lost, &block)
      done = Callbacks.function(:layer_done_cb)
      Callbacks.lend(pending) { |userdata, error| yield done, userdata, error }
      # It may have ended since, and not have seen this one.
      pending.abandoned if @dispatcher.lost?
      pending
    end

    # Whether the layer's own thread has told the end; false where that was killed meanwhile, or is
    # inside a block that does not return.
    def close_by_dispatcher(timeout, deadline)
      pending = close_async(timeout:)
      return true if Callbacks.thread?

      @dispatcher.join([deadline - now, 0].max) # it ends with the layer
      return false unless pending.done?

      pending.wait
      true
    rescue ThreadKilled
      false
    end

    # Closes where the layer's own thread does not run what is due: the library has a thread of its
    # own for that, so that Timeout and Thread#kill end the wait of this one. Inside a block of a
    # layer the library itself does not wait.
    def close_here(timeout)
      return close_on_this_thread(timeout) if Callbacks.thread?

      Thread.new do
        Thread.current.report_on_exception = false
        Callbacks.thread!
        close_on_this_thread(timeout)
      end.value
      nil
    end

    # Closes a layer_t whose opening was interrupted, and which nobody gets.
    def give_up(pointer)
      return if pointer.null?

      if @dispatcher.nil?
        ObjectSpace.undefine_finalizer(@handle)
        Handle.release(pointer)
      elsif Callbacks.thread?
        close_async(timeout: GIVE_UP_SECONDS) # its thread sees the end
      else
        give_up_with_thread
      end
    end

    def give_up_with_thread
      close_on_this_thread(GIVE_UP_SECONDS)
    rescue TimedOut
      nil # It is closed all the same.
    ensure
      @handle.autorelease = true
      @dispatcher.stop
    end

    def close_on_this_thread(timeout)
      ms = milliseconds(timeout)
      Callbacks.shielded { Error.check { |error| Native.layer_close(@handle, ms, error) } }
      @handle.autorelease = true
      @dispatcher.stop
    end

    def in_slices(timeout)
      deadline = now + timeout
      loop do
        left = milliseconds(deadline - now)
        ms = Callbacks.thread? ? left : [left, SLICE_MS].min
        return Error.check { |error| yield ms, error }
      rescue TimedOut
        raise if now >= deadline
      end
    end
  end
end
