# frozen_string_literal: true

module ChannelLayer
  # How C calls Ruby: a handful of functions that are never freed, and a table from the number that
  # travels as userdata to the object that is meant.
  #
  # No exception, throw or Thread#kill may leave such a function, since it would jump over frames of
  # the library. Thus whoever lets the library run callbacks masks interrupts, and what runs code of
  # a user (`guarded`) unmasks them and stops all that comes out.
  module Callbacks
    NEVER = { Object => :never }.freeze
    IMMEDIATE = { Object => :immediate }.freeze

    # Without a lock: each use is one operation of a Hash, which the lock of the interpreter makes
    # atomic, and a finalizer that runs `destroy` could not take a lock that its thread holds.
    ENTRIES = {} # rubocop:disable Style/MutableConstant
    private_constant :ENTRIES

    # The number for an object, which is kept until `release`.
    def self.keep(object)
      number = object.object_id
      ENTRIES[number] = object
      number
    end

    def self.release(number)
      ENTRIES.delete(number)
    end

    # Gives the block the number of an object and a place for an error, for a call whose status it
    # returns, and keeps the object unless the call fails: a call that fails takes nothing. Signals
    # are not masked on the main thread, so that Interrupt, or what a trap raises, can arrive after
    # the call has succeeded; it does not release the object.
    def self.lend(object)
      shielded do
        number = keep(object)
        status = nil
        begin
          Error.check { |error| status = yield number, error }
        rescue Exception => e # rubocop:disable Lint/RescueException
          release(number) if status ? status != Native::LAYER_OK : refused?(e)
          raise
        end
      end
    end

    # Whether ffi raised this for a wrong argument, before the call. What a trap raises has a frame
    # of the trap on top.
    def self.refused?(error)
      case error
      when TypeError, ArgumentError, RangeError
        error.backtrace_locations&.first&.base_label.to_s.start_with?("layer_")
      end
    end
    private_class_method :refused?

    # Tells all who wait for calls on the thread of this dispatcher that none will come.
    def self.abandon(dispatcher)
      # A copy, since other threads add to the table meanwhile.
      ENTRIES.values.each do |entry| # rubocop:disable Style/HashEachMethods
        next unless entry.respond_to?(:abandoned) && entry.dispatcher.equal?(dispatcher)

        entry.abandoned
      end
    end

    # Tells all who wait for a close of this dispatcher's layer that it has ended.
    def self.layer_closed(dispatcher)
      ENTRIES.values.each do |entry| # rubocop:disable Style/HashEachMethods
        next unless entry.respond_to?(:layer_closed) && entry.dispatcher.equal?(dispatcher)

        entry.layer_closed
      end
    end

    # For tests: how many objects the library may still call.
    def self.kept
      ENTRIES.size
    end

    # Runs a block in which the library may run callbacks on this thread.
    def self.shielded(&)
      Thread.handle_interrupt(NEVER, &)
    end

    # Whether this thread is one that runs callbacks, where nothing may wait.
    def self.thread?
      Thread.current.thread_variable_get(:channel_layer_callbacks) == true
    end

    # From now on this thread runs callbacks.
    def self.thread!
      Thread.current.thread_variable_set(:channel_layer_callbacks, true)
    end

    # Whether a kill of this thread was stopped, so that it has to end by itself.
    def self.killed?
      Thread.current.thread_variable_get(:channel_layer_killed) == true
    end

    # Runs code of a user: what it returns, or `instead` when anything else came out of it, of which
    # an exception is given to `failed`; what that raises is reported. Timeout works inside; a kill
    # ends the code, and not what the library does around it.
    def self.guarded(instead, failed)
      whole = false
      result = instead
      begin
        Thread.handle_interrupt(IMMEDIATE) { result = yield }
        whole = true
      rescue Exception => e # rubocop:disable Lint/RescueException
        result = instead
        begin
          failed.call(e)
        rescue Exception => other # rubocop:disable Lint/RescueException
          report(other, "a report")
        end
        whole = true
      end
      result
    ensure
      unless whole
        Thread.current.thread_variable_set(:channel_layer_killed, true)
        return instead # rubocop:disable Lint/EnsureReturn -- the only way to stop a kill
      end
    end

    # An exception that nobody waits for is told as Thread.report_on_exception does; `exit` means
    # the program, as it does in any thread. Raises nothing.
    def self.report(error, where)
      return Thread.main.raise(error) if error.is_a?(SystemExit)

      write("channel_layer: #{where} raised, and nobody waits for it: #{describe(error)}")
    end

    CLASS = Kernel.instance_method(:class)
    BACKTRACE = Exception.instance_method(:backtrace)
    private_constant :CLASS, :BACKTRACE

    # The text of an exception, or why it has none: its methods may be a user's.
    def self.describe(error)
      error.full_message
    rescue Exception => e # rubocop:disable Lint/RescueException
      "#{BACKTRACE.bind_call(error)&.first}: #{CLASS.bind_call(error)} (its full_message raised " \
      "#{CLASS.bind_call(e)} at #{BACKTRACE.bind_call(e)&.first})"
    end

    # To $stderr, which may be an object of a user; where that fails, to the stderr of the process.
    def self.write(text)
      warn(text)
    rescue Exception => e # rubocop:disable Lint/RescueException
      begin
        STDERR.write("#{text}\n$stderr raised #{describe(e)}\n") # rubocop:disable Style/GlobalStdStream
      rescue IOError, SystemCallError
        nil # It is closed, or nobody reads it: no place is left to report to.
      end
    end
    private_class_method :describe, :write

    BODIES = {
      layer_receive_cb: lambda do |userdata, status, message|
        entry = ENTRIES[userdata]
        entry ? entry.called(status, message) : Native::LAYER_DECLINE
      end,
      layer_done_cb: lambda do |userdata, status, error|
        # It is called exactly once, so that no `destroy` is needed.
        ENTRIES.delete(userdata)&.resolve(status.zero? ? nil : Error.of(status, error))
      end,
      layer_log_cb: lambda do |userdata, level, id, target, message|
        ENTRIES[userdata]&.called(LEVELS[level], id.to_sym, text(target), text(message))
      end,
      layer_state_cb: lambda do |userdata, state, generation|
        ENTRIES[userdata]&.called(STATES[state], generation)
      end,
      layer_isolation_cb: lambda do |userdata, event, channel, count|
        ENTRIES[userdata]&.called(ISOLATIONS[event], channel && text(channel), count)
      end,
      layer_destroy_cb: lambda do |userdata|
        entry = ENTRIES.delete(userdata)
        entry.destroyed if entry.respond_to?(:destroyed)
      end
    }.freeze
    private_constant :BODIES

    MAKING = Thread::Mutex.new
    private_constant :MAKING

    # A function that C can call, by its type. All are made with the first layer, and not with this
    # file: ffi starts a thread for the first of them, and Puma warns of threads that there are
    # before it forks.
    def self.function(type)
      @functions ||= nil
      functions = @functions || MAKING.synchronize do
        @functions ||= BODIES.to_h { |name, body| [name, Native.callback(name, &body)] }
      end
      functions.fetch(type)
    end

    # Registers a receiver that calls `entry`, and puts its number where `number` points.
    # The entry's dispatcher may end at any moment: it either finds the entry in the table, or is
    # found to have ended once the entry is there.
    def self.receive(handle, channel, entry, number)
      callback = function(:layer_receive_cb)
      destroy = function(:layer_destroy_cb)
      lend(entry) do |userdata, error|
        Native.layer_receive(handle, channel, callback, userdata, destroy, number, error)
      end
      entry.abandoned if entry.dispatcher.lost?
    end

    def self.callable!(name, given)
      raise TypeError, "#{name} must respond to call" unless given.respond_to?(:call)
    end

    def self.text(bytes)
      bytes.dup.force_encoding(Encoding::UTF_8)
    end

    # Who is told of the exceptions that leave the blocks of a layer: `on_error`, or stderr.
    class Reporter
      def initialize(on_error)
        Callbacks.callable!(:on_error, on_error) unless on_error.nil?

        @on_error = on_error
      end

      def report(error, where)
        return Callbacks.report(error, where) if @on_error.nil? || error.is_a?(SystemExit)

        failed = lambda do |other|
          Callbacks.report(error, where)
          Callbacks.report(other, "on_error")
        end
        Callbacks.guarded(nil, failed) { @on_error.call(error, where) }
      end
    end

    # A handler of log records, state changes or isolation. What it raises is reported; it goes on.
    class Handler
      def initialize(name, callable, reporter)
        Callbacks.callable!(name, callable)

        @callable = callable
        @failed = ->(error) { reporter.report(error, name.to_s) }
      end

      def called(*arguments)
        Callbacks.guarded(nil, @failed) { @callable.call(*arguments) }
        nil
      end
    end
  end
  private_constant :Callbacks
end
