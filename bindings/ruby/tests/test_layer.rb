# frozen_string_literal: true

require_relative "helper"

class TestLayer < Minitest::Test
  include Helper

  def test_a_closed_layer_refuses_by_its_own_error
    layer = open_layer
    channel = layer.new_channel
    layer.close
    raises(ChannelLayer::Closed, "closed") { layer.send(channel, {}) }
    raises(ChannelLayer::Closed) { layer.receive(channel) { flunk } }
    assert_equal :closed, layer.state
    layer.close
  end

  def test_wrong_types_raise_a_type_error
    layer = open_layer
    channel = layer.new_channel
    raises(TypeError, "a message is a Hash") { layer.send(channel, [1]) }
    assert_raises(TypeError) { layer.send(7, {}) }
    assert_raises(ArgumentError) { layer.receive(channel) }
    [2**64, -(2**63) - 1, 2**70].each do |number|
      raises(RangeError, "message.a[1]") { layer.send(channel, { "a" => [0, number] }) }
    end
    raises(ChannelLayer::Invalid, "message.a[1]") do
      layer.send_json(channel, "{\"a\": [0, #{2**64}]}")
    end
    raises(ChannelLayer::Invalid) { layer.send(channel, { 1 => 2 }) }
  end

  def test_integers_of_64_bits_arrive_with_and_without_a_sign
    layer = open_layer
    channel = layer.new_channel
    numbers = [-(2**63), (2**63) - 1, 2**63, (2**64) - 1]
    layer.send(channel, { "n" => numbers })
    layer.send_json(channel, "{\"n\": #{numbers}}")
    2.times do
      delivery = layer.receive_delivery(channel, timeout: 10)
      assert_equal({ "n" => numbers }, delivery.message)
      assert_equal("{\"n\":[#{numbers.join(",")}]}", delivery.json)
    end
  end

  def test_reserved_keys_and_bad_options_raise_the_text_of_the_library
    layer = open_layer
    raises(ChannelLayer::Invalid, "__asgi_group__") do
      layer.send(layer.new_channel, { "__asgi_group__" => "x" })
    end
    raises(ChannelLayer::Invalid, "expiry", "soon") do
      ChannelLayer.open(host: memory, expiry: "soon")
    end
    raises(ArgumentError, "dispatch") { ChannelLayer.open(dispatch: "thread") }
  end

  def refusal
    yield&.close
    nil
  rescue ChannelLayer::Error, ArgumentError => e
    [e.class, e.message]
  end

  def test_a_check_raises_what_opening_would
    tls = { host: "amqps://nowhere.invalid/" }
    {
      { host: memory, expiry: 30 } => nil,
      { expiry: "soon" } => ChannelLayer::Invalid,
      { no_such_option: 1 } => ChannelLayer::Invalid,
      { dispatch: "thread" } => ArgumentError,
      { tls_ca_file: "/dev/null" } => ChannelLayer::Invalid, # nothing would be encrypted
      { **tls, tls_ca_file: "/dev/null" } => ChannelLayer::Invalid,
      { **tls, tls_ca_pem: "none" } => ChannelLayer::Invalid,
      { **tls, tls_cert_file: "/no/file" } => ChannelLayer::Invalid
    }.each do |options, expected|
      checked = refusal { ChannelLayer.check(**options) }
      assert_equal(expected.to_s, checked&.first.to_s, options.to_s)
      assert_equal(refusal { ChannelLayer.open(**options) }.to_a, checked.to_a, options.to_s)
    end
  end

  # How many objects the library may still call; it is for tests, and no part of the API.
  def kept
    ChannelLayer.const_get(:Callbacks).kept
  end

  def test_a_call_that_is_refused_keeps_nothing
    layer = open_layer
    closed = open_layer
    channel = layer.new_channel
    closed_channel = closed.new_channel
    closed.close
    before = kept
    10.times do
      raises(ChannelLayer::Invalid) { layer.receive("another!channel") { flunk } }
      raises(ChannelLayer::Invalid) { layer.send_async("no mark", {}) }
      raises(ChannelLayer::Invalid) { layer.send_packed_async(channel, "no message".b) }
      raises(ChannelLayer::Closed) { closed.receive(closed_channel) { flunk } }
      raises(ChannelLayer::Closed) { closed.send_async(closed_channel, {}) }
      assert_raises(TypeError) { layer.send_async(7, {}) }
      assert_raises(TypeError) { layer.receive(7) { flunk } }
    end
    assert_equal before, kept
    # What is taken is kept, until it has ended.
    receiver = layer.receive(channel) { flunk }
    assert_equal before + 1, kept
    receiver.cancel
    assert_equal before, kept
  end

  # A message is a part of C's memory, which the collector does not see.
  def test_messages_that_nobody_refers_to_are_freed
    told, status = ruby(<<~RUBY)
      require "channel_layer"
      layer = ChannelLayer.open(host: "memory://freed", local_capacity: 2_000, remote_capacity: 2_000)
      channel = layer.new_channel
      pad = "x" * 10_000
      grown = lambda do |count|
        count.times do |n|
          layer.send_async(channel, { "n" => n, "pad" => pad })
          layer.receive_next(channel, timeout: 20)
        end
        GC.start
        File.read("/proc/self/statm").split[1].to_i * 4096
      end
      first = grown.call(2_000)
      last = grown.call(8_000)
      layer.close
      puts "grown by \#{last - first}"
    RUBY
    assert_predicate status, :success?, told
    grown = told[/grown by (-?\d+)/, 1]
    refute_nil grown, told
    # All of them would take 80 MB.
    assert_operator grown.to_i, :<, 30_000_000
  end

  def test_symbols_arrive_as_strings_and_encodings_as_types
    layer = open_layer
    channel = layer.new_channel
    layer.send(channel, { type: :x, "latin" => "é".encode("ISO-8859-1"), "raw" => "é".b })
    got = layer.receive_next(channel, timeout: 5)
    assert_equal({ "type" => "x", "latin" => "é", "raw" => "é".b }, got)
    assert_equal Encoding::UTF_8, got["latin"].encoding
    assert_equal Encoding::BINARY, got["raw"].encoding
  end

  def test_a_block_that_raises_ends_its_receiver_and_is_reported
    layer = open_layer
    channel = layer.new_channel
    receiver = nil
    _, told = capture_io do
      receiver = layer.receive(channel) { raise IOError, "my mistake" }
      layer.send(channel, {})
      assert_equal "my mistake", assert_raises(IOError) { within { receiver.wait } }.message
    end
    assert_includes told, "my mistake"
    assert receiver.ended?
    layer.send(channel, { "n" => 1 })
    assert_equal({ "n" => 1 }, layer.receive_next(channel, timeout: 5))
  end

  # A layer, what its on_error is called with, and what is written to stderr meanwhile.
  def with_errors(on_error: nil, **options)
    errors = Thread::Queue.new
    on_error ||= ->(*told) { errors << told }
    _, written = capture_io do
      layer = open_layer(on_error:, **options)
      yield layer, errors
      within { layer.close } # after which it has returned from each
    end
    [errors, written]
  end

  def test_exceptions_that_leave_blocks_go_to_on_error_and_not_to_stderr
    states = 0
    on_state = lambda do |*|
      states += 1
      raise KeyError, "on_state"
    end
    errors, written = with_errors(on_state:) do |layer, _|
      channel = layer.new_channel
      receiver = layer.receive(channel) { raise IOError, "receive" }
      pending = layer.send_async(channel, {}) { raise ScriptError, "send_async" }
      assert_equal "receive", assert_raises(IOError) { within { receiver.wait } }.message
      assert_nil(within { pending.wait })
    end
    assert_empty written
    told = Array.new(errors.size) { errors.pop }
    assert_operator states, :>, 0
    of_state, others = told.partition { |_, where| where == "on_state" }
    assert_equal([KeyError] * states, of_state.map { |error, _| error.class })
    assert_equal %w[receive send_async], others.map { |error, _| error.message }.sort
    assert_equal [IOError, ScriptError], others.map { |error, _| error.class }.sort_by(&:to_s)
    others.each { |_, where| assert_kind_of String, where }
  end

  def test_an_on_error_that_raises_is_reported_with_what_it_was_told_and_called_again
    calls = 0
    on_error = lambda do |*|
      calls += 1
      raise KeyError, "of on_error"
    end
    _, written = with_errors(on_error:) do |layer, _|
      2.times do |n|
        channel = layer.new_channel
        receiver = layer.receive(channel) { raise IOError, "of block #{n}" }
        layer.send(channel, {})
        assert_raises(IOError) { within { receiver.wait } }
      end
    end
    assert_equal 2, calls
    ["of block 0", "of block 1", "of on_error"].each { |text| assert_includes written, text }
  end

  def test_what_is_called_must_respond_to_call
    %i[on_error on_log on_state on_isolation].each do |name|
      raises(TypeError, name.to_s) { ChannelLayer.open(host: memory, name => 1) }
    end
  end

  def test_a_wait_inside_a_block_would_deadlock
    layer = open_layer
    other = open_layer
    channel = layer.new_channel
    errors = Thread::Queue.new
    layer.receive(channel) do
      [
        -> { layer.send(channel, {}) },
        -> { layer.group_send("g", {}) },
        -> { layer.group_add("g", channel) },
        -> { layer.send_json(channel, "{}") },
        -> { layer.group_send_json("g", "{}") },
        -> { layer.receive_next(layer.new_channel) },
        -> { layer.send_async(layer.new_channel, {}).wait },
        -> { other.receive(other.new_channel) { nil }.wait }
      ].each do |call|
        call.call
        errors << nil
      rescue ChannelLayer::Error => e
        errors << e
      end
    end
    layer.send(channel, {})
    8.times { assert_instance_of(ChannelLayer::WouldDeadlock, within { errors.pop }) }
    within { layer.send(layer.new_channel, {}) }
  end

  def test_what_ended_before_can_be_waited_for_inside_a_block
    layer = open_layer
    channel = layer.new_channel
    sent = layer.send_async(layer.new_channel, {})
    sent.wait
    waited = Thread::Queue.new
    layer.receive(channel) { waited << sent.wait.inspect }
    layer.send(channel, {})
    assert_equal("nil", within { waited.pop })
  end

  # A block of the layer is running when this returns, until something is put into the result.
  def busy_block(layer)
    channel = layer.new_channel
    inside = Thread::Queue.new
    go_on = Thread::Queue.new
    layer.receive(channel) do
      inside << true
      go_on.pop
    end
    layer.send_async(channel, {})
    within { inside.pop }
    go_on
  end

  def test_a_close_that_runs_out_of_time_names_the_time_that_it_had
    layer = ChannelLayer.open(host: memory)
    go_on = busy_block(layer)
    raises(ChannelLayer::TimedOut, "0.1 s") { layer.close(timeout: 0.1) }
    go_on << true
    layer.close
  end

  def test_timeout_works_inside_a_block
    layer = open_layer
    channel = layer.new_channel
    seen = Thread::Queue.new
    layer.receive(channel) do
      Timeout.timeout(0.05) { sleep }
    rescue Timeout::Error => e
      seen << e
    end
    layer.send(channel, {})
    assert_instance_of(Timeout::Error, within { seen.pop })
    layer.send(channel, {})
    assert_instance_of(Timeout::Error, within { seen.pop })
  end

  def test_a_block_may_close_its_layer
    layer = open_layer
    channel = layer.new_channel
    receiver = layer.receive(channel) { layer.close }
    layer.send_async(channel, {})
    assert_raises(ChannelLayer::Closed) { within { receiver.wait } }
    layer.close
    assert_equal :closed, layer.state
  end

  def test_a_value_that_no_message_holds_is_an_error_with_its_path
    layer = open_layer
    channel = layer.new_channel
    layer.group_add("g", channel)
    never = Struct.new(:a)
    {
      Time.now => TypeError, Rational(1, 3) => TypeError, (1..2) => TypeError,
      never.new(1) => TypeError, Object.new => TypeError, 2**70 => RangeError,
      -(2**70) => RangeError
    }.each do |value, error|
      message = { "ok" => [1, "a", nil, 1.5, :b], "deep" => [{ "x" => 1 }, { "a b" => value }] }
      [-> { layer.send(channel, message) }, -> { layer.send_async(channel, message) { flunk } },
       -> { layer.group_send("g", message) }].each do |call|
        raises(error, 'message.deep[1]["a b"]', &call)
      end
    end
    endless = {}
    endless["self"] = endless
    raises(ChannelLayer::Invalid, "message") { layer.send(channel, endless) }
    raises(TypeError, "a key of message", "Time") { layer.send(channel, { Time.now => 1 }) }
    assert_raises(ChannelLayer::TimedOut) { layer.receive_next(channel, timeout: 0) }
  end

  def test_json_is_sent_without_waiting_in_order_and_each_outcome_comes
    [memory, AMQP].each do |host|
      layer = open_layer(host:)
      channel = layer.new_channel
      layer.group_add("g", channel)
      outcomes = Thread::Queue.new
      pendings = Array.new(20) do |n|
        if n.even?
          layer.send_json_async(channel, "{\"n\": #{n}}") { |error| outcomes << error }
        else
          layer.group_send_json_async("g", "{\"n\": #{n}}")
        end
      end
      20.times { |n| assert_equal({ "n" => n }, layer.receive_next(channel, timeout: 10)) }
      pendings.each { |pending| within { pending.wait } }
      10.times { assert_nil(within { outcomes.pop }) }
      gone = layer.send_json_async("channels_none!gone", "{}")
      assert_raises(ChannelLayer::NoChannel) { within { gone.wait } }
      raises(ChannelLayer::Invalid, "twin") do
        layer.send_json_async(channel, '{"twin": 1, "twin": 2}') { flunk }
      end
      assert_raises(ChannelLayer::TimedOut) { layer.receive_next(channel, timeout: 0) }
    end
  end

  def test_json_that_is_sent_takes_no_thread_of_ruby
    layer = open_layer(host: "amqp://guest:guest@127.0.0.1:1/none")
    before = Thread.list.size
    waiting = Array.new(8) { Thread.new { layer.send_json("q!c", "{}") } }
    waiting.each { |thread| thread.report_on_exception = false }
    eventually("the sends") { layer.stat(:in_flight) == 8 }
    assert_operator Thread.list.size, :<=, before + 8
    layer.close
    waiting.each { |thread| assert_raises(ChannelLayer::Closed) { within { thread.join } } }
  end

  def test_a_close_without_waiting_is_told_after_all_other_blocks
    [memory, AMQP].each do |host|
      layer = open_layer(host:)
      channel = layer.new_channel
      order = Thread::Queue.new
      receiver = layer.receive(channel) { :go_on }
      5.times { layer.send_async(channel, {}) { |error| order << [:sent, error] } }
      closed = layer.close_async { |error| order << [:closed, error] }
      raises(ChannelLayer::Closed) { layer.send_async(channel, {}) }
      assert_nil(within { closed.wait })
      assert receiver.ended?
      assert_equal(5, 5.times.count { within { order.pop }.first == :sent })
      assert_equal([:closed, nil], within { order.pop })
      # Again, whoever asks, and however far the layer's thread is by then.
      Array.new(4) { layer.close_async }.each { |again| assert_nil(within { again.wait }) }
      within { layer.close }
      assert_nil(within { layer.close_async.wait })
      assert_equal :closed, layer.state
    end
  end

  def test_other_threads_run_while_a_layer_is_closed_and_several_may_close_it
    layer = open_layer
    go_on = busy_block(layer)
    closing = Array.new(4) { Thread.new { layer.close } }
    eventually("the end of calls") { layer.state == :closed }
    assert closing.all?(&:alive?)
    assert_raises(Timeout::Error) { Timeout.timeout(0.05) { layer.close } }
    assert_raises(ChannelLayer::TimedOut) { within { layer.close(timeout: 0.05) } }
    go_on << true
    closing.each { |thread| within { thread.join } }
    within { layer.close }
  end

  def test_a_close_that_runs_out_of_time_leaves_no_thread_behind
    layer, own = thread_of { open_layer }
    go_on = busy_block(layer)
    pending = layer.close_async(timeout: 0.05)
    refute pending.done?
    eventually("the end of calls") { layer.state == :closed }
    go_on << true
    within { own.join }
    # In time or late, it was told.
    assert pending.done?
    within { layer.close }
  end

  def test_log_and_state_reach_their_handlers
    states = Thread::Queue.new
    logs = Thread::Queue.new
    layer = open_layer(host: AMQP, on_state: ->(*told) { states << told },
                       on_log: ->(*told) { logs << told })
    within { layer.wait_ready }
    assert_equal([:ready, 1], within { states.pop })
    level, id, target, text = within { logs.pop }
    assert_equal :connected, id
    assert_includes ChannelLayer::LEVELS.values, level
    refute_empty target
    assert_equal Encoding::UTF_8, text.encoding
    layer.close
    assert_equal(:closed, within { states.pop }.first)
  end

  def test_statistics_come_as_text_for_prometheus
    layer = open_layer
    within { layer.wait_ready }
    layer.send(layer.new_channel, { "n" => 1 })
    text = layer.prometheus(site: "a \"b\"\n\\\u00e9", zone: 3)
    line = "channel_layer_sends_total{site=\"a \\\"b\\\"\\n\\\\\u00e9\",zone=\"3\"} 1\n"
    assert_includes text, line
    assert_includes layer.prometheus, "channel_layer_ready 1\n"
    assert_raises(ChannelLayer::Invalid) { layer.prometheus(reason: "mine") }
  end

  def test_a_wait_that_is_timed_out_raised_at_or_killed_loses_no_message
    layer = open_layer
    channel = layer.new_channel
    assert_raises(Timeout::Error) { Timeout.timeout(0.05) { layer.receive_next(channel) } }
    waiting = Array.new(2) do
      Thread.new do
        Thread.current.report_on_exception = false
        layer.receive_next(channel)
      end
    end
    eventually("two receivers") { layer.stat(:receivers) == 2 }
    waiting[0].kill
    waiting[1].raise(IOError, "enough")
    within { waiting[0].join }
    assert_raises(IOError) { within { waiting[1].join } }
    assert_equal 0, layer.stat(:receivers)
    layer.send(channel, { "n" => 1 })
    assert_equal({ "n" => 1 }, layer.receive_next(channel, timeout: 5))
  end

  def test_a_send_without_a_broker_can_be_timed_out_and_killed
    layer = open_layer(host: "amqp://guest:guest@127.0.0.1:1/none", timeout: 30)
    assert_raises(Timeout::Error) { Timeout.timeout(0.1) { layer.send("q!c", {}) } }
    assert_raises(Timeout::Error) { Timeout.timeout(0.1) { layer.wait_ready } }
    assert_raises(Timeout::Error) { Timeout.timeout(0.1) { layer.send_json("q!c", "{}") } }
    thread = Thread.new { layer.group_add("g", layer.new_channel) }
    eventually("the wait") { thread.stop? }
    thread.kill
    within(5) { thread.join }
    layer.close
  end

  def test_other_threads_run_while_one_waits
    layer = open_layer(host: "amqp://guest:guest@127.0.0.1:1/none")
    turns = 0
    counting = Thread.new { loop { turns += 1 } }
    assert_raises(ChannelLayer::TimedOut) { layer.wait_ready(timeout: 0.3) }
    before = turns
    assert_raises(ChannelLayer::TimedOut) { layer.wait_ready(timeout: 0.3) }
    assert_operator turns, :>, before + 1000
  ensure
    counting.kill.join
  end

  { "memory" => -> {}, "rabbitmq" => -> { AMQP } }.each do |broker, host|
    define_method("test_ten_thousand_receivers_cancelled_in_flight_lose_nothing_on_#{broker}") do
      options = { host: host.call, local_capacity: 20_000, remote_capacity: 20_000 }.compact
      cancel_in_flight(open_layer(**options).wait_ready)
    end
  end

  def cancel_in_flight(layer, count: 4_000)
    channel = layer.new_channel
    taken = []
    sender = Thread.new { count.times { |n| layer.send_async(channel, { "n" => n }) } }
    given_back = 0
    10_000.times do |n|
      receiver = layer.receive(channel) do |message|
        if (n % 3).zero?
          given_back += 1
          next :decline
        end
        taken << message["n"]
      end
      Thread.pass if n.even?
      receiver.cancel
    end
    in_flight = taken.size
    within { sender.join }
    rest = layer.receive(channel) { |message| taken << message["n"] }
    eventually("the last message") { taken.size >= count }
    rest.cancel
    assert_equal (0...count).to_a, taken
    assert_equal 0, layer.stat(:receivers)
    # Else nothing was in flight.
    assert_operator in_flight, :>, 0
    assert_operator given_back, :>, 0
  end

  # The layer's own thread, which nobody should touch.
  def thread_of
    before = Thread.list
    layer = yield
    own = (Thread.list - before).find { |thread| thread.name == "channel_layer" }
    refute_nil own
    [layer, own]
  end

  def test_waits_raise_when_the_thread_of_the_layer_is_killed
    layer, own = thread_of { open_layer(host: "amqp://guest:guest@127.0.0.1:1/none", timeout: 60) }
    channel = layer.new_channel
    receiver = layer.receive(layer.new_channel) { flunk }
    sends = [-> { layer.send("q!c", {}) }, -> { layer.group_send("g", {}) }]
    waits = [-> { layer.group_add("g", channel) }, -> { layer.receive_next(channel) },
             -> { receiver.wait }]
    # A program that is told Closed of a send may send it again; of these nobody knows.
    threads = { ChannelLayer::OutcomeLost => sends, ChannelLayer::ThreadKilled => waits }
              .flat_map do |error, calls|
      calls.map { |wait| Thread.new { raises(error, "was killed", "open another") { wait.call } } }
    end
    eventually("the waits") { layer.stat(:receivers) == 2 && threads.all?(&:stop?) }
    own.kill
    lost = threads.map { |thread| within { thread.value } }.first(2)
    lost.each do |error|
      assert_equal "LAYER_UNCONFIRMED", error.status_name
      assert_kind_of ChannelLayer::Unconfirmed, error
    end
    (sends + waits).each do |wait|
      raises(ChannelLayer::ThreadKilled, "was killed") { within { wait.call } }
    end
    raises(ChannelLayer::Closed) { layer.receive(channel) { flunk } }
    raises(ChannelLayer::Closed) { layer.send_async(channel, {}) }
    within { layer.close }
    assert_equal :closed, layer.state
  end

  def test_a_block_that_kills_its_thread_ends_the_waits_too
    layer = open_layer
    channel = layer.new_channel
    killing = layer.receive(channel) { Thread.current.kill }
    other = layer.receive(layer.new_channel) { flunk }
    layer.send_packed_async(channel, "\x80".b)
    [killing, other].each do |receiver|
      assert_raises(ChannelLayer::ThreadKilled) { within { receiver.wait } }
    end
    assert_raises(ChannelLayer::ThreadKilled) { within { layer.receive_next(channel) } }
  end

  def test_nobody_knows_of_a_send_whose_thread_was_killed_until_the_layer_is_closed
    reader = open_layer(host: AMQP)
    within { reader.wait_ready }
    channel = reader.new_channel
    silence = Thread::Mutex.new
    layer, own = thread_of { open_layer(host: through_a_relay(silence)) }
    within { layer.wait_ready }
    pending = silence.synchronize do
      layer.send_async(channel, { "n" => 1 }).tap do |unconfirmed|
        own.kill
        raises(ChannelLayer::OutcomeLost, "nobody knows") { within { unconfirmed.wait } }
      end
    end
    # To send it again would have been wrong.
    assert_equal({ "n" => 1 }, reader.receive_next(channel, timeout: 10))
    within { layer.close }
    assert_nil pending.wait
  end

  # The URL of a relay to the broker, which passes nothing back while somebody holds the mutex.
  def through_a_relay(silence)
    broker = URI(AMQP)
    server = TCPServer.new("127.0.0.1", 0)
    Thread.new do
      loop do
        client = server.accept
        upstream = TCPSocket.new(broker.host, broker.port)
        relay(client, upstream) { |bytes| bytes }
        relay(upstream, client) { |bytes| silence.synchronize { bytes } }
      end
    end
    broker.dup.tap { |url| url.host, url.port = "127.0.0.1", server.local_address.ip_port }.to_s
  end

  def relay(from, into)
    Thread.new do
      loop { into.write(yield(from.readpartial(65_536))) }
    rescue IOError, SystemCallError
      into.close # one end is gone, and so is the other
    end
  end

  def test_what_is_told_counts_whether_the_thread_ends_before_or_after
    told = ChannelLayer::Full.new("full", 2)
    [%i[tell lose], %i[lose tell]].each do |order|
      pending = ChannelLayer::Pending.new(nil, ChannelLayer::OutcomeLost)
      steps = { tell: -> { pending.resolve(told) }, lose: -> { pending.abandoned } }
      order.each { |step| steps.fetch(step).call }
      assert_same told, assert_raises(ChannelLayer::Full) { pending.wait }
    end
  end

  def test_an_interrupt_on_the_way_back_from_a_call_leaves_what_was_begun
    # Its outcome comes when it is closed.
    silent = open_layer(host: "amqp://guest:guest@127.0.0.1:1/none", timeout: 60)
    layer = open_layer
    channel = layer.new_channel
    heard = Thread::Queue.new
    send = -> { silent.send_async("q!c", {}) { |error| heard << error } }
    receive = -> { layer.receive(channel) { |message| heard << message["n"] } }
    interrupted_in(:layer_send_async, send)
    interrupted_in(:layer_receive, receive)
    layer.send(channel, { "n" => 1 })
    assert_equal(1, within { heard.pop })
    silent.close
    assert_instance_of(ChannelLayer::Closed, within { heard.pop })
  end

  # Does the work on a thread that is raised at when this function of the library returns.
  def interrupted_in(function, work)
    inside = Thread::Queue.new
    raised = Thread::Queue.new
    thread = Thread.new do
      Thread.current.report_on_exception = false
      back = TracePoint.new(:c_return) do |call|
        next unless call.method_id == function

        inside << true
        raised.pop
      end
      back.enable(target_thread: Thread.current, &work)
    end
    within { inside.pop }
    thread.raise(IOError, "interrupted")
    raised << true
    assert_raises(IOError) { within { thread.join } }
  end

  def test_pulls_of_many_threads_share_a_channel
    layer = open_layer(local_capacity: 2_000, remote_capacity: 2_000)
    channel = layer.new_channel
    pull = -> { layer.receive_next(channel, timeout: 20)["n"] }
    threads = Array.new(8) { Thread.new { Array.new(50) { pull.call } } }
    400.times { |n| layer.send_async(channel, { "n" => n }) }
    assert_equal (0...400).to_a, threads.flat_map { |thread| within { thread.value } }.sort
  end

  def test_closing_while_threads_wait_ends_their_waits
    layer = open_layer
    threads = Array.new(4) do
      Thread.new { assert_raises(ChannelLayer::Closed) { layer.receive_next(layer.new_channel) } }
    end
    eventually("four receivers") { layer.stat(:receivers) == 4 }
    layer.close
    threads.each { |thread| within { thread.join } }
  end

  def test_an_outcome_is_told_to_its_block_and_to_all_who_wait
    layer = open_layer
    told = Thread::Queue.new
    pending = layer.send_async(layer.new_channel, {}) { |error| told << [error] }
    assert_equal([nil], within { told.pop })
    Array.new(3) { Thread.new { pending.wait } }.each { |thread| within { thread.join } }
    assert pending.done?
  end

  def test_another_ractor_is_told_that_it_cannot_use_a_layer
    told, = ruby(<<~RUBY)
      require "channel_layer"
      begin
        Ractor.new { ChannelLayer.open(host: "memory://x") }.take
      rescue Ractor::RemoteError => e
        puts e.cause.class
      end
      layer = ChannelLayer.open(host: "memory://x")
      channel = layer.new_channel
      counting = Ractor.new { Ractor.receive["n"] + 1 }
      layer.receive(channel) { |message| counting.send(message); :stop }
      layer.send(channel, { "n" => 1 })
      puts counting.take
    RUBY
    assert_match(/^Ractor::(UnsafeError|IsolationError)$/, told)
    assert_match(/^2$/, told)
  end
end
