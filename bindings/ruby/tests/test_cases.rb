# frozen_string_literal: true

require_relative "helper"

# Replays tests/bindings/cases.json: each case is a test for each broker that it names.
class TestCases < Minitest::Test
  # One run of one case.
  class Run
    include Minitest::Assertions
    attr_accessor :assertions

    def initialize(the_case, host)
      @case = the_case
      @host = host
      @assertions = 0
      @run = SecureRandom.hex(6)
      @names = {}
      @layers = {}
    end

    def run
      @case.fetch("layers").each do |name, options|
        @layers[name] = ChannelLayer.open(**{ host: @host }.merge(options.transform_keys(&:to_sym)))
      end
      steps(@case.fetch("steps"))
    ensure
      @layers.each_value(&:close)
    end

    private

    def steps(list)
      list.each { |step| step(step) }
    end

    def step(step)
      action = method("do_#{step.fetch("do")}")
      return action.call(step) unless step["status"]

      error = assert_raises(ChannelLayer::Error, step.inspect) { action.call(step) }
      assert_equal step["status"], error.status_name, step.inspect
      (step["says"] || []).each { |word| assert_includes error.message, name(word) }
    end

    def layer(step)
      @layers.fetch(step.fetch("layer"))
    end

    def name(text)
      return @names.fetch(text) if text.start_with?("$")

      text.start_with?("~") ? "#{text.delete_prefix("~")}-#{@run}" : text
    end

    def channel(step)
      name(step.fetch("channel"))
    end

    def group(step)
      name(step.fetch("group"))
    end

    def value(json)
      case json
      when Array then json.map { |item| value(item) }
      when Hash
        form?(json) ? special(*json.first) : json.transform_values { |item| value(item) }
      else json
      end
    end

    def form?(json)
      json.size == 1 && json.keys.first.start_with?("$")
    end

    FLOATS = { "nan" => Float::NAN, "inf" => Float::INFINITY, "-inf" => -Float::INFINITY }.freeze

    def special(form, argument)
      case form
      when "$bytes" then Base64.strict_decode64(argument)
      when "$int" then Integer(argument)
      when "$float" then FLOATS.fetch(argument) { Float(argument) }
      when "$repeat" then value(argument[0]) * argument[1]
      when "$nest" then (argument - 1).times.reduce([]) { |inner, _| [inner] }
      else flunk("an unknown form #{form}")
      end
    end

    # Equal with equal types, which Ruby's == does not ask for.
    def same(expected, got)
      return false unless expected.instance_of?(got.class)

      case expected
      when Hash then expected.keys == got.keys && expected.all? { |key, item| same(item, got[key]) }
      when Array then expected.size == got.size && expected.zip(got).all? { |pair| same(*pair) }
      when Float then expected.nan? ? got.nan? : expected == got
      when String then expected.encoding == got.encoding && expected == got
      else expected == got
      end
    end

    def assert_same_message(expected, got)
      assert same(value(expected), got),
             "expected #{expected.inspect[0, 300]}, got #{got.inspect[0, 300]}"
    end

    def do_open(step)
      options = { host: @host }.merge(step.fetch("options").transform_keys(&:to_sym))
      ChannelLayer.open(**options).close
    end

    def do_wait_ready(step) = layer(step).wait_ready
    def do_send(step) = layer(step).send(channel(step), value(step.fetch("message")))

    def do_send_async(step)
      layer(step).send_async(channel(step),
                             value(step.fetch("message"))).wait
    end

    def do_group_send(step) = layer(step).group_send(group(step), value(step.fetch("message")))

    def do_group_send_async(step)
      layer(step).group_send_async(group(step),
                                   value(step.fetch("message"))).wait
    end

    def do_send_json(step) = layer(step).send_json(channel(step), step.fetch("json"))
    def do_group_send_json(step) = layer(step).group_send_json(group(step), step.fetch("json"))

    def do_send_packed(step)
      layer(step).send_packed(channel(step),
                              [step.fetch("packed")].pack("H*"))
    end

    def do_group_add(step) = layer(step).group_add(group(step), channel(step))
    def do_group_discard(step) = layer(step).group_discard(group(step), channel(step))
    def do_channel_discard(step) = layer(step).channel_discard(channel(step))
    def do_close(step) = layer(step).close

    def do_new_channel(step)
      prefix = step.fetch("prefix")
      made = layer(step).new_channel(prefix)
      assert_includes made, "!#{prefix}"
      @names["$#{step.fetch("as")}"] = made
    end

    def do_receive(step)
      seconds = step.fetch("milliseconds", 5000) / 1000.0
      got = layer(step).receive_delivery(channel(step), timeout: seconds)
      assert_equal channel(step), got.channel
      assert_same_message(step["message"], got.message) if step.key?("message")
      assert_equal [step["type"]], [got.type] if step.key?("type")
      if step.key?("from_group")
        assert_equal [step["from_group"] && name(step["from_group"])],
                     [got.group]
      end
      assert_equal step["json"], got.json if step.key?("json")
    end

    def do_handle(step)
      taken = Thread::Queue.new
      receiver = layer(step).receive(channel(step)) { |message| taken << message }
      Timeout.timeout(5) do
        step.fetch("messages").each { |expected| assert_same_message(expected, taken.pop) }
      end
      receiver.cancel
      assert_empty taken
    end

    def do_decline(step)
      got = nil
      receiver = layer(step).receive(channel(step)) do |message|
        got = message
        :decline
      end
      Timeout.timeout(5) { receiver.wait }
      assert_same_message(step.fetch("message"), got)
    end

    def do_cancel(step)
      receiver = layer(step).receive(channel(step)) { |message| flunk("came: #{message}") }
      receiver.cancel
      Timeout.timeout(5) { receiver.wait }
    end

    def do_handle_until(step)
      receiver = layer(step).receive(channel(step)) { |message| flunk("came: #{message}") }
      steps(step.fetch("then"))
      error = assert_raises(ChannelLayer::Error) { Timeout.timeout(5) { receiver.wait } }
      assert_equal step.fetch("ends"), error.status_name
    end

    def do_stat(step)
      limit = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 5
      until (got = layer(step).stat(step.fetch("which").downcase)) == step.fetch("value")
        if Process.clock_gettime(Process::CLOCK_MONOTONIC) > limit
          flunk("#{step["which"]} is #{got}")
        end
        sleep 0.005
      end
    end

    def do_state(step)
      assert_equal step.fetch("state").downcase.to_sym, layer(step).state
    end
  end

  # Tells tests/bindings/table.py how a case ended, where that is wanted.
  def recorded(broker, name)
    result = "failed"
    yield
    result = "passed"
  ensure
    path = ENV.fetch("CHANNEL_LAYER_TEST_TABLE", nil)
    File.write(path, "#{broker} #{name} #{result}\n", mode: "a") if path
  end

  JSON.parse(File.read(File.join(ROOT,
                                 "tests/bindings/cases.json"))).fetch("cases").each do |the_case|
    the_case.fetch("brokers", %w[memory rabbitmq]).each do |broker|
      define_method("test_#{the_case.fetch("name")}_on_#{broker}") do
        host = broker == "memory" ? "memory://case-#{SecureRandom.hex(8)}" : AMQP
        run = Run.new(the_case, host)
        recorded(broker, the_case.fetch("name")) { run.run }
        self.assertions += run.assertions
      end
    end
  end
end
