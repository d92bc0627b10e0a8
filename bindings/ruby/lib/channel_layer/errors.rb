# frozen_string_literal: true

module ChannelLayer
  # A call that failed. The message is the library's own text: what failed, with which value, what
  # is allowed and what to do.
  class Error < StandardError
    # The number of the status, as in channel_layer.h.
    attr_reader :status

    def initialize(message, status)
      super(message)
      @status = status
    end

    # The name of the status, as "LAYER_FULL".
    def status_name
      Native.layer_status_name(status)
    end
  end

  # An argument, option, name or message that is not allowed, or a channel of another layer.
  class Invalid < Error; end
  # A queue that the message goes to is full.
  class Full < Error; end
  # No queue for this channel exists now: its owner is gone or reconnecting.
  class NoChannel < Error; end
  # The encoded message is larger than option `max_message_size`.
  class TooLarge < Error; end
  # Certainly not sent: no connection took the message in time.
  class Disconnected < Error; end
  # Certainly not sent: `max_in_flight` sends are in flight, or the broker blocks publishers.
  class Busy < Error; end
  # A send whose confirm did not come in time, so that nobody knows; or a wait that ran out.
  class TimedOut < Error; end
  # The connection was lost before the confirm: nobody knows whether the message arrived.
  class Unconfirmed < Error; end
  # Each host refused its last attempt for credentials, vhost or TLS.
  class Refused < Error; end
  # The channel was discarded.
  class Cancelled < Error; end
  # The layer is closed.
  class Closed < Error; end

  # Somebody killed the thread of this gem that runs the layer's callbacks: nothing that is waited
  # for can come, and no call is begun any more. The layer is of no use but to be closed. A send
  # that was begun before ends with OutcomeLost.
  class ThreadKilled < Closed
    TEXT = "the thread that runs this layer's blocks was killed, so that nothing can come any " \
           "more: close the layer and open another, and leave threads alone that are not yours"
    private_constant :TEXT

    def initialize
      super(TEXT, Native::LAYER_CLOSED)
    end
  end

  # That thread was killed before it could tell the outcome of a send: nobody knows whether the
  # message arrived. Pending#wait may know it once the layer has been closed.
  class OutcomeLost < Unconfirmed
    TEXT = "the thread that runs this layer's blocks was killed before it could tell the " \
           "outcome, and nobody knows whether the message arrived: close the layer and open " \
           "another, and leave threads alone that are not yours"
    private_constant :TEXT

    def initialize
      super(TEXT, Native::LAYER_UNCONFIRMED)
    end
  end

  # The call would have waited inside a block that the layer called.
  class WouldDeadlock < Error; end
  # The layer was opened by the parent of this process, before a fork.
  class Forked < Error; end
  # A bug in the library.
  class Internal < Error; end

  # Its making.
  class Error
    BY_STATUS = {
      Native::LAYER_INVALID => Invalid, Native::LAYER_FULL => Full,
      Native::LAYER_NO_CHANNEL => NoChannel, Native::LAYER_TOO_LARGE => TooLarge,
      Native::LAYER_DISCONNECTED => Disconnected, Native::LAYER_BUSY => Busy,
      Native::LAYER_TIMEOUT => TimedOut, Native::LAYER_UNCONFIRMED => Unconfirmed,
      Native::LAYER_REFUSED => Refused, Native::LAYER_CANCELLED => Cancelled,
      Native::LAYER_CLOSED => Closed, Native::LAYER_WOULD_DEADLOCK => WouldDeadlock,
      Native::LAYER_FORKED => Forked, Native::LAYER_INTERNAL => Internal
    }.freeze
    private_constant :BY_STATUS

    # The error of a status; `pointer` to a layer_error_t is borrowed and may be NULL.
    def self.of(status, pointer = nil)
      text = if pointer.nil? || pointer.null?
               Native.layer_status_name(status)
             else
               Native.layer_error_message(pointer)
             end
      BY_STATUS.fetch(status, Error).new(text.dup.force_encoding(Encoding::UTF_8), status)
    end

    # Calls with a place for the error as the last argument, and raises what is put there.
    def self.check
      slot = FFI::MemoryPointer.new(:pointer)
      status = yield slot
      return if status == Native::LAYER_OK

      pointer = slot.read_pointer
      begin
        raise of(status, pointer)
      ensure
        Native.layer_error_free(pointer)
      end
    end
  end
end
