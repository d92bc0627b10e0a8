# frozen_string_literal: true

require_relative "helper"

# A report that cannot be made ends neither the thread of the layer nor another receiver.
class TestReports < Minitest::Test
  include Helper

  Unreadable = Class.new(StandardError) { def message = raise("no message") }
  UNWRITABLE = Class.new { def write(*) = raise(Errno::EPIPE) }

  # Blocks of each kind raise, in `tell` with what is given; then the layer works all the same.
  def after_failing_reports(error, **options)
    layer = open_layer(on_state: ->(*) { raise error }, **options)
    within { layer.wait_ready }
    channel = layer.new_channel
    receiver = layer.receive(channel) { raise error }
    pending = layer.send_async(channel, {}) { raise error }
    assert_nil(within { pending.wait })
    assert_instance_of(error.is_a?(Class) ? error : error.class,
                       assert_raises(StandardError) { within { receiver.wait } })
    assert_works(layer)
    within { layer.close }
  end

  def assert_works(layer)
    heard = Thread::Queue.new
    channel = layer.new_channel
    other = layer.receive(channel) { |message| heard << message["n"] }
    within { layer.send(channel, { "n" => 1 }) }
    assert_equal(1, within { heard.pop })
    refute other.ended?
  end

  def test_an_exception_whose_message_raises_is_reported_by_its_class
    _, written = capture_io { after_failing_reports(Unreadable) }
    assert_includes written, Unreadable.name
    assert_includes written, "RuntimeError" # of its message
  end

  def test_a_stderr_that_cannot_be_written_stops_nothing
    silenced(UNWRITABLE.new) { after_failing_reports(IOError) }
  end

  def test_a_report_that_stderr_does_not_take_goes_to_the_stderr_of_the_process
    out, status = ruby(<<~RUBY)
      require "channel_layer"
      $stderr = Class.new { def write(*) = raise(Errno::EPIPE) }.new
      layer = ChannelLayer.open(host: "memory://x")
      layer.send_async(layer.new_channel, {}) { raise IOError, "my mistake" }
      layer.close
      $stderr = STDERR
    RUBY
    assert status.success?, out
    assert_includes out, "my mistake"
    assert_includes out, "EPIPE"
  end

  def test_nothing_stops_where_the_stderr_of_the_process_cannot_be_written_either
    out, status = ruby(<<~RUBY)
      require "channel_layer"
      $stderr = Class.new { def write(*) = raise(Errno::EPIPE) }.new
      reader, writer = IO.pipe
      STDERR.reopen(writer)
      reader.close
      layer = ChannelLayer.open(host: "memory://x")
      channel = layer.new_channel
      layer.send_async(channel, { "n" => "works" }) { raise IOError }.wait
      puts layer.receive_next(channel, timeout: 10)["n"]
      layer.close
      $stderr = STDERR
    RUBY
    assert status.success?, out
    assert_equal "works\n", out
  end

  def test_an_on_error_that_raises_where_nothing_can_be_reported_stops_nothing
    told = 0
    on_error = lambda do |*|
      told += 1
      raise Unreadable
    end
    silenced(UNWRITABLE.new) { after_failing_reports(Unreadable, on_error:) }
    assert_operator told, :>, 2
  end

  def test_a_report_that_kills_its_thread_ends_the_waits
    layer = open_layer
    channel = layer.new_channel
    killing = Class.new(StandardError) { def message = Thread.current.kill }
    layer.receive(channel) { raise killing }
    other = layer.receive(layer.new_channel) { flunk }
    layer.send_async(channel, {})
    assert_raises(ChannelLayer::ThreadKilled) { within { other.wait } }
  end

  # The stderr of the process is silent too, where a report that $stderr refuses is written.
  def silenced(stderr)
    capture_subprocess_io do
      before = $stderr
      $stderr = stderr
      yield
    ensure
      $stderr = before
    end
  end
end
