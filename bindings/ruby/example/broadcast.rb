# frozen_string_literal: true

require "channel_layer"
require "json"

# Streams that anybody subscribes to and broadcasts on, across all processes of a server, as
# ActionCable has them.
class Broadcast
  def initialize(**options)
    @options = options
    @mutex = Mutex.new
    @layer = nil
    @pid = nil
    @queues = []
  end

  # Sends a Hash to every subscriber of a stream, in every process.
  def broadcast(stream, message)
    layer.group_send(stream, message)
  end

  # A queue that gets what is broadcast on the stream, until the block ends. It is closed with the
  # process.
  def subscribe(stream)
    layer = self.layer
    channel = layer.new_channel("stream.")
    queue = Thread::Queue.new
    @mutex.synchronize { @queues << queue }
    layer.receive(channel) { |message| queue << message }
    layer.group_add(stream, channel)
    yield queue
  ensure
    @mutex.synchronize { @queues.delete(queue) }
    layer.channel_discard(channel) if channel && layer.state != :closed
  end

  # Ends all subscriptions of this process, and closes its layer.
  def close
    layer, queues = @mutex.synchronize { [@layer, @queues.dup] }
    queues.each(&:close)
    layer&.close(timeout: 1)
  end

  private

  # Opened by the worker that uses it: one from before a fork would be of no use to it.
  def layer
    @mutex.synchronize do
      if @pid != Process.pid
        @layer = ChannelLayer.open(**@options)
        @pid = Process.pid
        @queues = []
        close_at_term
      end
      @layer
    end
  end

  # A server that is told to stop waits for the answers that it is writing, and a stream of events
  # has no end. What the server does at TERM is done after this.
  def close_at_term
    server = Signal.trap("TERM") do
      Thread.new { close } # a trap must not wait for a mutex
      server.respond_to?(:call) ? server.call : exit
    end
  end
end

# GET /ROOM gives what is said in a room, as server-sent events; POST /ROOM says the body there.
class Chat
  # What Rack writes to a client as it comes.
  class Events
    def initialize(broadcast, room)
      @broadcast = broadcast
      @room = room
    end

    def each
      @broadcast.subscribe(@room) do |queue|
        yield "data: listening\n\n"
        while (message = queue.pop)
          yield "data: #{JSON.generate(message)}\n\n"
        end
      end
    end
  end

  def initialize(broadcast)
    @broadcast = broadcast
  end

  def call(env)
    room = env["PATH_INFO"].delete_prefix("/")
    headers = { "X-Process" => Process.pid.to_s }
    case env["REQUEST_METHOD"]
    when "GET"
      [200, headers.merge("Content-Type" => "text/event-stream"), Events.new(@broadcast, room)]
    when "POST"
      text = env["rack.input"].read.force_encoding(Encoding::UTF_8)
      @broadcast.broadcast(room, "type" => "chat.text", "text" => text, "from" => Process.pid)
      [204, headers, []]
    else
      [405, headers, []]
    end
  rescue ChannelLayer::Error => e
    [e.is_a?(ChannelLayer::Invalid) ? 400 : 503, { "Content-Type" => "text/plain" }, [e.message]]
  end
end
