# frozen_string_literal: true

require_relative "helper"

# Ctrl-C and traps that raise: on the main thread nothing masks them, so that they are raised
# wherever it is. Each program runs in a process of its own, whose main thread is interrupted.
class TestInterrupts < Minitest::Test
  include Helper

  # `interrupted_in` runs a block that gets the signal as soon as that function of the library has
  # returned, and gives what it raised; `left` is how many objects the library may still call.
  PROLOGUE = <<~'RUBY'
    require "channel_layer"
    class Trapped < StandardError; end
    trap(:USR1) { raise Trapped }
    # As a mistake in a trap would be, and not as a refusal of the function.
    trap(:USR2) { raise TypeError, "by the trap" }
    RAISED = { INT: Interrupt, USR1: Trapped, USR2: TypeError }.freeze
    def interrupted_in(function, signal, of = nil, &work)
      is_done = false
      returned = TracePoint.new(:c_return) do |call|
        next if is_done || call.method_id != function || !(of.nil? || call.self.equal?(of))
        is_done = true
        Process.kill(signal, Process.pid)
      end
      returned.enable(target_thread: Thread.current, &work)
      abort("#{function} was not interrupted")
    rescue *RAISED.values => e
      abort("#{function} raised #{e.full_message}") unless e.instance_of?(RAISED.fetch(signal))
    end
    layer = ChannelLayer.open(host: ARGV.fetch(0)).wait_ready(timeout: 20)
    channel = layer.new_channel
    heard = Thread::Queue.new
    works = lambda do
      layer.send(channel, { "n" => "last" })
      layer.receive_next(channel, timeout: 20)
    end
    left = -> { ChannelLayer.const_get(:Callbacks).kept }
  RUBY

  %i[INT USR1 USR2].each do |signal|
    {
      layer_send_async: "layer.send_packed_async(channel, [128].pack('C'), &told)",
      layer_send_json_async: "layer.send_json_async(channel, '{}', &told)",
      layer_group_send_async: "layer.group_send_async('g', {}, &told)",
      layer_group_send_json_async: "layer.group_send_json_async('g', '{}', &told)",
      layer_group_add_async: "layer.group_add_async('g', channel, &told)"
    }.each do |function, call|
      define_method("test_#{signal}_in_#{function}_leaves_the_layer_and_its_block_is_called") do
        assert_equal("called with nil\n0 left\nlast\n", interrupt(<<~RUBY))
          layer.group_add("g", layer.new_channel)
          told = ->(error) { heard << error }
          interrupted_in(:#{function}, #{signal.inspect}) { #{call} }
          puts "called with \#{heard.pop.inspect}"
          puts "\#{left.call} left"
          layer.receive_next(channel, timeout: 20) if #{call.include?("send_packed") || call.include?("send_json_async(channel")}
          puts works.call["n"]
        RUBY
      end
    end

    define_method("test_#{signal}_in_layer_receive_leaves_the_receiver_and_loses_no_message") do
      assert_equal("first\nsecond\n0 left\n", interrupt(<<~RUBY))
        interrupted_in(:layer_receive, #{signal.inspect}) do
          layer.receive(channel) { |message| heard << message["n"] }
        end
        %w[first second].each { |n| layer.send(channel, { "n" => n }) }
        2.times { puts heard.pop }
        layer.channel_discard(channel)
        sleep 0.005 until left.call.zero? # nothing tells of it
        puts "\#{left.call} left"
      RUBY
    end

    # The first has taken it, the second unpacks it.
    %i[layer_receive_next full_unpack].each do |function|
      define_method("test_#{signal}_in_#{function}_leaves_the_message_first") do
        assert_equal("first\nsecond\nlast\n", interrupt(<<~RUBY))
          %w[first second].each { |n| layer.send(channel, { "n" => n }) }
          layer.receive(channel) { :decline }.wait # until it is here
          interrupted_in(:#{function}, #{signal.inspect}) { layer.receive_next(channel) }
          2.times { puts layer.receive_next(channel, timeout: 20)["n"] }
          puts works.call["n"]
        RUBY
      end
    end
  end

  # In the order in which opening calls them.
  OPENING = [%w[layer_new], %w[layer_config_free], %w[read_pointer], %w[define_finalizer],
             %w[layer_fd], %w[for_fd], %w[new Thread], %w[name=],
             %w[report_on_exception=]].freeze

  # The second is what Timeout and Thread#kill do: they raise nothing that could be rescued.
  LEAVING = {
    "an_interrupt" => "interrupted_in(FUNCTION, :INT, OF) { opens.call }",
    "a_throw" => "trap(:INT) { throw :out }; " \
                 "catch(:out) { interrupted_in(FUNCTION, :INT, OF) { opens.call } }"
  }.freeze

  OPENING.each do |function, of|
    LEAVING.each do |name, call|
      define_method("test_#{name}_out_of_open_in_#{function}_leaves_no_layer") do
        call = call.sub("FUNCTION", function.to_sym.inspect).sub("OF", of || "nil")
        assert_equal("nothing is left\n", interrupt(<<~RUBY))
          opens = -> { ChannelLayer.open(host: ARGV.fetch(0), on_log: ->(*) {}, on_state: ->(*) {}) }
          # Nothing tells when; that of ffi, of the main program and of the first layer stay.
          settled = lambda do |others|
            until left.call.zero? && Thread.list.size == 3 && others.call
              GC.start
              sleep 0.005
            end
          end
          own = lambda do
            Dir.glob("/proc/self/task/*/comm").count { |file| File.read(file).include?("layer-") }
          end
          opens.call.close # which has made what all layers share
          settled.call(-> { true })
          before = own.call
          #{call}
          settled.call(-> { own.call == before })
          puts "nothing is left"
        RUBY
      end
    end
  end

  def test_an_interrupt_of_a_receive_next_that_begins_or_ends_its_wait_leaves_nothing_behind
    out = interrupt(<<~RUBY)
      %i[layer_receive layer_receive_cancel].each do |function|
        interrupted_in(function, :INT) { layer.receive_next(channel, timeout: 0.01) }
        puts "\#{left.call} left, \#{layer.stat(:receivers)} receivers"
      end
      puts works.call["n"]
    RUBY
    assert_equal "#{"0 left, 0 receivers\n" * 2}last\n", out
  end

  def test_a_message_that_an_interrupt_left_goes_with_its_channel_and_its_layer
    out = interrupt(<<~RUBY)
      other = layer.new_channel
      [channel, other].each do |name|
        layer.send(name, { "n" => 1 })
        layer.receive(name) { :decline }.wait
        interrupted_in(:layer_receive_next, :INT) { layer.receive_next(name) }
      end
      layer.channel_discard(channel)
      begin
        layer.receive_next(channel, timeout: 0)
      rescue ChannelLayer::TimedOut
        puts "discarded"
      end
      $stdout.flush
      Process.wait(fork do
        layer.receive_next(other)
      rescue ChannelLayer::Forked
        puts "forked"
      end)
      layer.close
      begin
        layer.receive_next(other)
      rescue ChannelLayer::Closed
        puts "closed"
      end
    RUBY
    assert_equal "discarded\nforked\nclosed\n", out
  end

  # What such a program prints on each broker, which has to be the same.
  def interrupt(program)
    outs = [memory, AMQP].map do |host|
      out, status = ruby(PROLOGUE + program, host)
      assert status.success?, "#{status} #{out}"
      out
    end
    assert_equal 1, outs.uniq.size, outs
    outs.first
  end
end
