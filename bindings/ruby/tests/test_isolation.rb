# frozen_string_literal: true

require_relative "helper"

# on_isolation: what is reported when channels that nobody reads keep the broker from sending.
class TestIsolation < Minitest::Test
  include Helper

  # Two messages use up all credit, and are all that a channel keeps.
  SMALL = { local_capacity: 1, prefetch_count: 1, channel_capacity: 2, stall_after: 0.1 }.freeze

  # A test on memory:// and one on RabbitMQ.
  def self.on_each_broker(name, &)
    { "memory" => -> { memory }, "rabbitmq" => -> { AMQP } }.each do |broker, host|
      define_method("test_#{name}_on_#{broker}") do
        @host = instance_exec(&host)
        @events = Thread::Queue.new
        instance_exec(&)
      end
    end
  end

  def open_small(**options)
    open_layer(host: @host, on_isolation: ->(*event) { @events << event }, **SMALL, **options)
  end

  def event
    within { @events.pop }
  end

  # What each channel lost, until it is `total` in all.
  def losses(total)
    lost = Hash.new(0)
    while lost.values.sum < total
      name, channel, count = event
      assert_equal :lost, name
      lost[channel] += count
    end
    lost
  end

  # A channel that holds two messages and has lost none, while channels are isolated.
  def isolate(layer)
    channel = layer.new_channel
    2.times { |n| layer.send(channel, { "n" => n }) }
    assert_equal [:began, nil, 2], event
    channel
  end

  on_each_broker "isolation_begins_takes_the_newest_messages_and_ends" do
    layer = open_small
    channel = isolate(layer)
    (2..6).each { |n| layer.send(channel, { "n" => n }) }
    lost = losses(5)
    assert_equal({ channel => 5 }, lost)
    assert_equal Encoding::UTF_8, lost.keys.first.encoding
    counted = %i[isolating isolations dropped_channel_full dropped_total_full]
    assert_equal([1, 1, 5, 0], counted.map { |which| layer.stat(which) })
    kept = Array.new(2) { layer.receive_next(channel, timeout: DEADLINE) }
    assert_equal [{ "n" => 0 }, { "n" => 1 }], kept
    assert_equal [:ended, nil, 5], event
    assert_equal 0, layer.stat(:isolating)
    layer.send(channel, { "n" => 7 })
    assert_equal({ "n" => 7 }, layer.receive_next(channel, timeout: DEADLINE))
  end

  on_each_broker "losses_of_many_channels_are_reported_for_the_first_hundred_by_name" do
    layer = open_small(channel_capacity: 1)
    group = "isolation-#{SecureRandom.hex(6)}"
    channels = Array.new(103) { layer.new_channel.tap { |name| layer.group_add(group, name) } }
    2.times { |n| layer.group_send(group, { "n" => n }) }
    assert_equal [:began, nil, 103], event
    lost = losses(103)
    assert_equal 3, lost.delete(nil)
    assert_equal 100, lost.size
    assert_empty lost.keys - channels
    assert_equal [1], lost.values.uniq
  end

  on_each_broker "without_stall_after_senders_are_refused_and_nothing_is_lost" do
    layer = open_small(remote_capacity: 1, stall_after: 0, on_isolation: ->(*) { flunk })
    channel = layer.new_channel
    # One is held in memory and one by the connection; a third waits on the broker.
    2.times do |n|
      layer.send(channel, { "n" => n })
      eventually("a delivery") { layer.stat(:deliveries) > n }
    end
    layer.send(channel, { "n" => 2 })
    assert_raises(ChannelLayer::Full) { layer.send(channel, {}) }
    isolate(open_small) # as the other would be by now
    assert_raises(ChannelLayer::Full) { layer.send(channel, {}) }
    got = Array.new(3) { layer.receive_next(channel, timeout: DEADLINE)["n"] }
    assert_equal [0, 1, 2], got
    assert_equal 0, layer.stat(:isolations)
  end

  on_each_broker "a_membership_expires_only_while_nobody_receives_from_its_channel" do
    layer = open_small(group_expiry: 0.3)
    group = "expiry-#{SecureRandom.hex(6)}"
    used, idle = Array.new(2) { layer.new_channel.tap { |name| layer.group_add(group, name) } }
    receiver = layer.receive(used) { flunk }
    eventually("the expiry") { layer.stat(:memberships_expired) == 1 }
    layer.group_add(group, idle)
    eventually("the second expiry") { layer.stat(:memberships_expired) == 2 }
    assert_equal 1, layer.stat(:memberships)
    receiver.cancel
    eventually("the end of the other") { layer.stat(:memberships).zero? }
  end

  on_each_broker "an_exception_in_the_hook_is_reported_and_stops_nothing" do
    raising = lambda do |*event|
      @events << event
      raise IOError, "my mistake with #{event.first}"
    end
    _, told = capture_io do
      layer = open_small(on_isolation: raising)
      channel = isolate(layer)
      layer.send(channel, { "n" => 2 })
      assert_equal({ channel => 1 }, losses(1))
      2.times { |n| assert_equal n, layer.receive_next(channel, timeout: DEADLINE)["n"] }
      assert_equal [:ended, nil, 1], event
      layer.close # after which it has returned from each
    end
    %w[began lost ended].each { |name| assert_includes told, "my mistake with #{name}" }
  end

  on_each_broker "the_example_of_the_readme_reports_isolation" do
    text = File.read(File.join(BINDING, "README.md"))
    example = text[/^```ruby\n(report = .*?)^```$/m, 1]
    out, status = ruby(<<~RUBY, @host)
      require "channel_layer"
      OPTIONS = #{SMALL.inspect}
      #{example.sub("open(", "open(host: ARGV.first, **OPTIONS, ")}
      channel = layer.new_channel
      3.times { |n| layer.send(channel, { "n" => n }) }
      sleep 0.005 until layer.stat(:dropped_channel_full) == 1
      2.times { layer.receive_next(channel) }
      sleep 0.005 until layer.stat(:isolating).zero?
      layer.close # which waits for the last report
      puts channel
    RUBY
    assert status.success?, out
    *told, channel = out.lines(chomp: true)
    assert_equal ["isolation began, 2 messages wait in memory", "#{channel} lost 1 messages",
                  "isolation ended, channels lost 1 messages in all"], told
  end

  on_each_broker "a_layer_can_be_closed_while_channels_are_isolated" do
    layer = open_small
    channel = isolate(layer)
    assert_equal 1, layer.stat(:isolating)
    within { layer.close }
    assert_raises(ChannelLayer::Closed) { layer.send(channel, {}) }
    assert_equal :closed, layer.state
  end

  on_each_broker "the_hook_may_close_its_layer" do
    closing = lambda do |*event|
      @layers.first.close
      @events << event
    end
    layer = open_small(on_isolation: closing)
    channel = isolate(layer)
    assert_raises(ChannelLayer::Closed) { layer.send(channel, {}) }
    within { layer.close }
    assert_equal :closed, layer.state
  end

  def test_a_hook_that_cannot_be_called_is_a_type_error
    raises(TypeError, "on_isolation") { open_layer(on_isolation: :began) }
  end
end
