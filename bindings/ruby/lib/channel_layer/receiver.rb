# frozen_string_literal: true

module ChannelLayer
  # What gives the messages of a channel to a block, until it ends: by the block (`:stop`,
  # `:decline`, an exception), by `cancel`, or because the channel was discarded or the layer
  # closed.
  class Receiver
    attr_reader :channel
    # @api private
    attr_reader :dispatcher

    # @api private
    def initialize(handle, dispatcher, channel, &block)
      @handle = handle
      @dispatcher = dispatcher
      @channel = channel
      @block = block
      @with_delivery = block.arity > 1 || block.arity < -2
      @outcome = Outcome.new
      @error = nil
      @failed = lambda do |error|
        @error = error
        @dispatcher.reporter.report(error, "the receiver of #{channel}")
      end
      number = FFI::MemoryPointer.new(:uint64)
      Callbacks.receive(handle, channel, self, number)
      @number = number.read(:uint64)
    end

    # Ends it. The block is not called again once this has returned, and no message is lost. Waits
    # for a call that is running, at most option `timeout` (then TimedOut); inside a block of a
    # layer it never waits.
    def cancel
      Callbacks.shielded do
        Error.check { |error| Native.layer_receive_cancel(@handle, @number, error) }
      end
    end

    # Waits until it has ended. Raises Cancelled (the channel was discarded), Closed, ThreadKilled,
    # or what the block raised; returns where its user ended it. After ThreadKilled the block may
    # still be called inside Layer#close, for messages that had come before.
    def wait
      @outcome.wait
    end

    # Whether it has ended.
    def ended?
      @outcome.ended?
    end

    # @api private
    def called(status, message)
      unless status == Native::LAYER_OK
        @error = Error.of(status)
        return Native::LAYER_STOP
      end
      whole = false
      result = Callbacks.guarded(Native::LAYER_STOP, @failed) do
        flow(give(message)).tap { whole = true }
      end
      # Neither a result nor an exception: the block, and this thread, were killed.
      @error ||= ThreadKilled.new unless whole
      result
    end

    # @api private
    def abandoned
      @outcome.presume(ThreadKilled.new)
    end

    # @api private
    def destroyed
      @outcome.tell(@error)
    end

    private

    def give(message)
      arguments = arguments_of(message)
      @block.call(*arguments) if arguments
    end

    # What the block gets; nil, once that is reported, for a message that msgpack cannot unpack,
    # which others may send: it would be bad for them to end what receives.
    def arguments_of(message)
      return [Codec.unpack(message)] unless @with_delivery

      delivery = Delivery.new(Native.layer_message_ref(message))
      [delivery.message, delivery]
    rescue StandardError => e
      @dispatcher.reporter.report(e, "unpacking a message on #{channel}")
      nil
    end

    def flow(result)
      case result
      when :stop then Native::LAYER_STOP
      when :decline then Native::LAYER_DECLINE
      else Native::LAYER_CONTINUE
      end
    end
  end
end
