# frozen_string_literal: true

module ChannelLayer
  # The outcome of an async call, once it is there.
  class Pending
    # @api private
    attr_reader :dispatcher

    # @api private
    def initialize(dispatcher, &block)
      @dispatcher = dispatcher
      @block = block
      @queue = Thread::Queue.new
      @error = nil
    end

    # Waits for the outcome, and raises it if it is an error. Any thread, any number of them, any
    # number of times. Timeout and Thread#kill end the wait, not the call.
    def wait
      @queue.pop # closed once the outcome is there
      raise @error if @error
    end

    # Whether the outcome is there.
    def done?
      @queue.closed?
    end

    # Ends the waits, since no outcome will come; the block may still be called when the layer is
    # closed.
    # @api private
    def abandoned(error)
      @error = error
      @queue.close
    end

    # Called once, by the thread that runs callbacks.
    # @api private
    def resolve(error)
      @error = error
      @queue.close
      return if @block.nil?

      Callbacks.guarded(nil, ->(e) { Callbacks.report(e, "the block of an async call") }) do
        @block.call(error)
      end
    end
  end
end
