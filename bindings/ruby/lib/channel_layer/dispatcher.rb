# frozen_string_literal: true

require "io/wait"

module ChannelLayer
  # The Ruby thread that runs what the library has to tell: it waits for the layer's descriptor,
  # without the lock of the interpreter, and then runs what is due, with it.
  #
  # No thread of the library ever enters Ruby. ffi would hand each of its calls to a thread of its
  # own, one by one, and that thread is gone after a fork.
  class Dispatcher
    # Callbacks for each look at the descriptor: many enough to share its cost.
    BATCH = 256

    # How often a layer that is closing is looked at, in seconds.
    CLOSING_PERIOD = 0.05

    # Who is told of the exceptions that leave blocks.
    attr_reader :reporter

    def initialize(handle, reporter)
      @reporter = reporter
      @handle = handle
      @over = false
      @lost = false
      @closing = false
      @io = IO.for_fd(Native.layer_fd(handle), autoclose: false)
      @thread = nil
    end

    # Starts the thread.
    def start
      # Masked from its first instruction on.
      @thread = Callbacks.shielded do
        Thread.new do
          @thread = Thread.current # whatever interrupts the thread that starts it
          run
        end
      end
      @thread.name = "channel_layer"
      @thread.report_on_exception = true
    end

    # Ends the thread of a layer that is closed, once it is in no callback.
    def stop
      return if @thread == Thread.current

      @over = true
      @thread&.kill # none has begun yet where `start` was interrupted: it looks before it waits
    end

    # Whether the thread has ended though nobody closed the layer.
    def lost?
      @lost
    end

    # Whether the thread runs what is due, and will.
    def runs?
      !@lost && !@over
    end

    # Whether the thread has seen the end of the layer, or was stopped after it.
    def over?
      @over
    end

    # The layer is about to be closed. Where that runs out of time it ends after its last callback,
    # without a sign at the descriptor.
    def closing
      @closing = true
    end

    # Waits until the thread has ended, at most so many seconds.
    def join(seconds)
      @thread.join(seconds)
      nil
    end

    # Raises where what is about to begin could never be told of.
    def check
      raise ThreadKilled if @lost
    end

    private

    def run
      Callbacks.thread!
      until Callbacks.killed? || @over
        most = @closing ? CLOSING_PERIOD : nil
        Thread.handle_interrupt(Callbacks::IMMEDIATE) { @io.wait_readable(most) }
        poll
      end
    rescue Closed
      @over = true
      @handle.autorelease = true
      Callbacks.layer_closed(self)
    ensure
      # Killed, or raised at; at the end of the program too, where nobody waits any more.
      lose unless @over
    end

    def lose
      @lost = true
      Callbacks.abandon(self)
    end

    def poll
      Error.check { |error| Native.layer_poll(@handle, BATCH, 0, nil, error) }
    end
  end
  private_constant :Dispatcher
end
