# frozen_string_literal: true

module ChannelLayer
  # The outcome of an async call, once it is there.
  class Pending
    # @api private
    attr_reader :dispatcher

    # @api private
    def initialize(dispatcher, lost, &block)
      @dispatcher = dispatcher
      @lost = lost # what is raised where no outcome can come
      @block = block
      @closes = false
      @outcome = Outcome.new
    end

    # Waits for the outcome, and raises it if it is an error. Any thread, any number of them, any
    # number of times. Timeout and Thread#kill end the wait, not the call. Where the layer's own
    # thread was killed it raises OutcomeLost (of a send) or ThreadKilled, until closing the layer
    # has brought the outcome after all.
    def wait
      @outcome.wait
    end

    # Whether the outcome is there.
    def done?
      @outcome.ended?
    end

    # Ends the waits, since no outcome will come; the block may still be called when the layer is
    # closed.
    # @api private
    def abandoned
      @outcome.presume(@lost.new)
    end

    # It is the outcome of a close.
    # @api private
    def closes
      @closes = true
    end

    # The layer has ended, and nobody takes the outcome of a call that came later: what such a call
    # asked for has happened.
    # @api private
    def layer_closed
      @outcome.presume(nil) if @closes
    end

    # Called once, by the thread that runs callbacks.
    # @api private
    def resolve(error)
      @outcome.tell(error)
      return if @block.nil?

      failed = ->(e) { @dispatcher.reporter.report(e, "the block of an async call") }
      Callbacks.guarded(nil, failed) { @block.call(error) }
    end
  end
end
