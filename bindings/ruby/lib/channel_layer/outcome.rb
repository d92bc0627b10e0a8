# frozen_string_literal: true

module ChannelLayer
  # How something ended, for all who wait for it. What the library tells counts, whenever it comes;
  # what is presumed when the thread that would tell it has ended counts only until then.
  class Outcome
    FORKED = "this was begun by the parent of this process, before a fork: wait for it there, " \
             "and open a layer in this process"
    private_constant :FORKED

    def initialize
      @ended = Thread::Queue.new
      @told = false
      @process = Process.pid
      @error = @presumed = nil
    end

    WOULD_DEADLOCK = "inside a block that a layer called nothing may wait: the thread that waits " \
                     "here is the one that would tell how this ends"
    private_constant :WOULD_DEADLOCK

    # Raises how it ended, if that is an error. Any thread, any number of times. In a forked child,
    # where no thread is left that could tell, it raises Forked; inside a block of a layer, where it
    # would wait, WouldDeadlock.
    def wait
      raise Forked.new(FORKED, Native::LAYER_FORKED) unless Process.pid == @process

      if Callbacks.thread? && !ended?
        raise WouldDeadlock.new(WOULD_DEADLOCK, Native::LAYER_WOULD_DEADLOCK)
      end

      @ended.pop # closed at the end
      error = @told ? @error : @presumed
      raise error if error
    end

    def ended?
      @ended.closed?
    end

    def tell(error)
      @error = error
      @told = true
      @ended.close
    end

    # Apart from what is told, since both may come at once, by two threads.
    def presume(error)
      @presumed = error
      @ended.close
    end
  end
  private_constant :Outcome
end
