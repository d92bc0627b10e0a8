# frozen_string_literal: true

require_relative "helper"

# The example, on servers that fork their workers.
class TestServers < Minitest::Test
  include Helper

  EXAMPLE = File.join(BINDING, "example")

  def port
    TCPServer.open("127.0.0.1", 0) { |server| server.addr[1] }
  end

  def serve(*command, port:)
    log = Tempfile.new("server")
    pid = Process.spawn({ "AMQP_URL" => AMQP, "RUBYLIB" => LIB }, *command, chdir: EXAMPLE,
                                                                            out: log, err: log)
    eventually("the server") do
      flunk(File.read(log.path)) if Process.wait(pid, Process::WNOHANG)
      TCPSocket.new("127.0.0.1", port).close
      true
    rescue Errno::ECONNREFUSED
      false
    end
    yield
    # Threads that Puma finds before it forks.
    refute_includes File.read(log.path), "started in app boot"
  ensure
    if pid
      Process.kill(:TERM, pid)
      begin
        Timeout.timeout(10) { Process.wait(pid) }
      rescue Timeout::Error
        Process.kill(:KILL, pid)
        Process.wait(pid)
      end
    end
    log&.close!
  end

  # A client that listens: its socket and the process that serves it.
  def listen(port, room)
    socket = TCPSocket.new("127.0.0.1", port)
    socket.write("GET /#{room} HTTP/1.1\r\nHost: x\r\n\r\n")
    process = nil
    within do
      until (line = socket.gets).include?("listening")
        process = line[/\d+/].to_i if line.downcase.start_with?("x-process")
      end
    end
    [socket, process]
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  def say(port, room, text)
    TCPSocket.open("127.0.0.1", port) do |socket|
      socket.write("POST /#{room} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" \
                   "Content-Length: #{text.bytesize}\r\n\r\n#{text}")
      answer = within { socket.read }
      assert_includes answer, " 204 "
    end
  end

  def next_event(socket)
    within do
      loop do
        line = socket.gets.force_encoding(Encoding::UTF_8)
        return JSON.parse(line[/\{.*\}/]) if line.start_with?("data: {")
      end
    end
  end

  def test_two_puma_processes_broadcast_to_each_other
    port = self.port
    serve("puma", "-w", "2", "--preload", "-t", "16:16", "-b", "tcp://127.0.0.1:#{port}",
          "config.ru", port:) do
      clients = []
      eventually("a client on each process") do
        clients << listen(port, "lobby")
        clients.map(&:last).uniq.size == 2
      end
      say(port, "lobby", "hello, 世界")
      clients.each do |socket, _|
        assert_equal "hello, 世界", next_event(socket)["text"]
        socket.close
      end
    end
  end

  def test_puma_stops_within_a_second_of_term_though_streams_are_open
    port = self.port
    clients = []
    stopping = nil
    serve("puma", "-w", "2", "--preload", "-t", "16:16", "-b", "tcp://127.0.0.1:#{port}",
          "config.ru", port:) do
      20.times { clients << listen(port, "lobby") }
      assert_equal 2, clients.map(&:last).uniq.size, "one process has all the clients"
      stopping = now
    end
    assert_operator now - stopping, :<, 3 # a second, on a machine that does more than this
    clients.each { |socket, _| within { socket.read } }
  ensure
    clients&.each { |socket, _| socket.close }
  end

  def test_two_unicorn_workers_broadcast_to_each_other
    port = self.port
    serve("unicorn", "-c", "unicorn.rb", "-l", "127.0.0.1:#{port}", "config.ru", port:) do
      socket, process = listen(port, "lobby")
      say(port, "lobby", "hello") # the only worker that is free is the other one
      event = next_event(socket)
      assert_equal "hello", event["text"]
      refute_equal process, event["from"]
      socket.close
    end
  end
end
