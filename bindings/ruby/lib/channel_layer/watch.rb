# frozen_string_literal: true

module ChannelLayer
  # Waits for a channel to have a message, without taking it: a receiver that declines. Thus what
  # ends the wait, Timeout or Thread#kill, cannot lose one.
  class Watch
    attr_reader :dispatcher

    def initialize(handle, dispatcher, channel)
      @handle = handle
      @dispatcher = dispatcher
      @channel = channel
      @mutex = Thread::Mutex.new
      @changed = Thread::ConditionVariable.new
      @over = false
      @error = nil
    end

    # Until there may be a message or `seconds` (nil: for ever) are over; raises what ended the
    # channel. Call it shielded.
    def wait(seconds)
      number = FFI::MemoryPointer.new(:uint64)
      begin
        Callbacks.receive(@handle, @channel, self, number)
        Thread.handle_interrupt(Callbacks::IMMEDIATE) { wait_for_news(seconds) }
      ensure
        cancel(number.read(:uint64))
      end
      raise @error if @error
    end

    def called(status, _message)
      over(status == Native::LAYER_OK ? nil : Error.of(status))
      Native::LAYER_DECLINE
    end

    def abandoned
      over(ThreadKilled.new)
    end

    private

    # 0 is no receiver: the library refused it.
    def cancel(number)
      return if number.zero?

      Error.check { |error| Native.layer_receive_cancel(@handle, number, error) }
    end

    def over(error)
      @mutex.synchronize do
        return if @over # what came first: a message, perhaps

        @error = error
        @over = true
        @changed.signal
      end
    end

    def wait_for_news(seconds)
      deadline = seconds && (Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds)
      @mutex.synchronize do
        until @over
          left = deadline && (deadline - Process.clock_gettime(Process::CLOCK_MONOTONIC))
          break if left && left <= 0

          @changed.wait(@mutex, left)
        end
      end
    end
  end
  private_constant :Watch
end
