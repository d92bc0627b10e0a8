# frozen_string_literal: true

require_relative "helper"

# Messages that no layer sends, as another client of the broker may publish them.
class TestForeign < Minitest::Test
  include Helper

  # As much of an AMQP client as publishes one message.
  class Publisher
    METHOD, HEADER, BODY = 1, 2, 3

    def initialize(url)
      url = URI(url)
      @socket = TCPSocket.new(url.host, url.port)
      @socket.write("AMQP\x00\x00\x09\x01".b)
      expect(10, 10) # connection.start
      login = "\0#{url.user}\0#{url.password}"
      call(0, 10, 11, [0, 5, "PLAIN", login.bytesize, login, 5, "en_US"].pack("NCa*Na*Ca*"))
      channel_max, @frame_max = expect(10, 30).unpack("nN") # connection.tune
      call(0, 10, 31, [channel_max, @frame_max, 0].pack("nNn"))
      call(0, 10, 40, "#{short(url.path.delete_prefix("/"))}\0\0")
      expect(10, 41)
      call(1, 20, 10, short(""))
      expect(20, 11)
    end

    def publish(queue, body)
      call(1, 60, 40, "\0\0#{short("")}#{short(queue)}\0")
      frame(HEADER, 1, [60, 0, body.bytesize, 0].pack("nnQ>n"))
      0.step(body.bytesize - 1, @frame_max - 8) do |from|
        frame(BODY, 1, body.byteslice(from, @frame_max - 8))
      end
    end

    # After which the broker has all that was published.
    def close
      call(1, 20, 40, "\0\0#{short("")}\0\0\0\0")
      expect(20, 41)
      @socket.close
    end

    private

    def short(text)
      [text.bytesize].pack("C") + text.b
    end

    def call(channel, class_id, method_id, arguments)
      frame(METHOD, channel, [class_id, method_id].pack("nn") + arguments.b)
    end

    def frame(type, channel, payload)
      @socket.write([type, channel, payload.bytesize].pack("CnN"), payload, "\xCE".b)
    end

    def expect(*wanted)
      _, _, size = @socket.read(7).unpack("CnN")
      payload = @socket.read(size + 1)
      got = payload.unpack("nn")
      raise "AMQP method #{got}, expected #{wanted}: #{payload.inspect}" unless got == wanted

      payload.byteslice(4..)
    end
  end

  # Deeper than what msgpack unpacks, which is 128.
  DEPTHS = [200, 1_000_000].freeze

  def publish(channel, depths = DEPTHS)
    publisher = Publisher.new(AMQP)
    depths.each do |depth|
      body = "\x82".b + MessagePack.pack("__asgi_channel__") + MessagePack.pack(channel) +
             MessagePack.pack("a") + ("\x91".b * depth) + "\xC0".b
      publisher.publish(channel[/\A[^!]+/], body)
    end
    publisher.close
  end

  { "one_argument" => ->(heard) { ->(message) { heard << message } },
    "a_delivery" => ->(heard) { ->(message, _delivery) { heard << message } } }.each do |name, make|
    define_method("test_a_message_too_deep_to_unpack_is_reported_and_a_block_of_#{name}_goes_on") do
      heard = Thread::Queue.new
      errors = Thread::Queue.new
      layer = open_layer(host: AMQP, on_error: ->(*told) { errors << told })
      within { layer.wait_ready }
      channel = layer.new_channel
      receiver = layer.receive(channel, &make.call(heard))
      publish(channel)
      DEPTHS.each do
        error, where = within { errors.pop }
        assert_kind_of MessagePack::UnpackError, error
        assert_includes where, channel
      end
      layer.send(channel, { "n" => 1 })
      assert_equal({ "n" => 1 }, within { heard.pop })
      refute receiver.ended?
    end
  end

  def test_receive_next_raises_for_a_message_too_deep_to_unpack_and_then_gives_the_next
    layer = open_layer(host: AMQP)
    within { layer.wait_ready }
    channel = layer.new_channel
    publish(channel, [200])
    assert_raises(MessagePack::UnpackError) { layer.receive_next(channel, timeout: DEADLINE) }
    layer.send(channel, { "n" => 1 })
    assert_equal({ "n" => 1 }, layer.receive_next(channel, timeout: DEADLINE))
    publish(channel, [200])
    delivery = layer.receive_delivery(channel, timeout: DEADLINE)
    assert_equal "\x91".b * 200, delivery.packed[-201...-1]
  end
end
