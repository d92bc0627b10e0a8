# frozen_string_literal: true

require_relative "helper"

class TestProcesses < Minitest::Test
  include Helper

  def load_with(library)
    Open3.capture2e({ "CHANNEL_LAYER_LIBRARY" => library }, "timeout", "-k", "5", "60",
                    RbConfig.ruby, "-I", LIB, "-e",
                    "require 'channel_layer'; print ChannelLayer.library_version")
  end

  def test_the_library_is_loaded_from_a_file_or_a_folder_and_its_variable_is_named
    file = ENV.fetch("CHANNEL_LAYER_LIBRARY")
    Dir.mktmpdir do |folder|
      empty = File.join(folder, "empty")
      FileUtils.mkdir(empty)
      FileUtils.ln_s(File.expand_path(file), File.join(folder, "libchannel_layer.so.0"))
      [file, folder].each do |named|
        out, status = load_with(named)
        assert status.success?, out
        assert_equal ChannelLayer.library_version, out
      end
      [empty, File.join(folder, "none.so")].each do |named|
        out, status = load_with(named)
        refute status.success?
        ["LoadError", "CHANNEL_LAYER_LIBRARY", named].each { |word| assert_includes(out, word) }
      end
    end
  end

  def test_a_handle_from_before_a_fork_says_so_and_the_child_opens_its_own
    [memory, AMQP].each do |host|
      out, status = ruby(<<~'RUBY', host)
        require "channel_layer"
        layer = ChannelLayer.open(host: ARGV[0]).wait_ready
        channel = layer.new_channel
        pid = fork do
          calls = [-> { layer.send(channel, {}) }, -> { layer.receive_next(channel) }, -> { layer.close },
                   -> { layer.group_add("g", channel) }, -> { layer.state }, -> { layer.receive(channel) {} }]
          calls.each do |call|
            call.call
            puts "nothing raised"
          rescue ChannelLayer::Forked => e
            puts "forked: #{e.message}"
          end
          ChannelLayer.open(host: ARGV[0]) do |own|
            mine = own.new_channel
            own.send(mine, { "n" => 1 })
            puts "own: #{own.receive_next(mine, timeout: 10)['n']}"
          end
        end
        Process.wait(pid)
        puts "child: #{$?.exitstatus}"
        layer.send(channel, { "n" => 2 })
        puts "parent: #{layer.receive_next(channel, timeout: 10)['n']}"
        layer.close
      RUBY
      assert status.success?, out
      assert_equal 6, out.scan(/^forked: .*fork/).size, out
      assert_includes out, "own: 1"
      assert_includes out, "child: 0"
      assert_includes out, "parent: 2"
    end
  end

  def test_each_wait_from_before_a_fork_raises_forked_in_the_child_and_goes_on_in_the_parent
    out, status = ruby(<<~'RUBY')
      require "channel_layer"
      away = ChannelLayer.open(host: "amqp://guest:guest@127.0.0.1:1/none", timeout: 60)
      here = ChannelLayer.open(host: "memory://x")
      channel = away.new_channel
      done = here.send_async(here.new_channel, {})
      done.wait
      waits = { sent: away.send_async("q!c", {}), added: away.group_add_async("g", channel),
                receiver: away.receive(channel) {}, done:, closing: here.close_async }
      fork do
        waits.each do |name, waiting|
          waiting.wait
          puts "#{name}: nothing raised"
        rescue ChannelLayer::Forked => e
          puts "#{name}: #{e.status_name}"
        end
      end
      Process.wait
      puts "child: #{$?.exitstatus}"
      away.close
      %i[sent receiver].each do |name|
        waits.fetch(name).wait
      rescue ChannelLayer::Closed => e
        puts "#{name}: #{e.status_name}"
      end
    RUBY
    assert status.success?, out
    forked = %w[sent added receiver done closing].map { |name| "#{name}: LAYER_FORKED" }
    parent = ["child: 0", "sent: LAYER_CLOSED", "receiver: LAYER_CLOSED"]
    assert_equal forked + parent, out.lines(chomp: true)
  end

  EXIT = <<~'RUBY'
    require "channel_layer"
    layer = ChannelLayer.open(host: ARGV[0])
    channel = layer.new_channel
    first = Thread::Queue.new
    layer.receive(channel) { first << true }
    Thread.new do
      loop do
        layer.send_async(channel, { "n" => 1 })
      rescue ChannelLayer::Busy
        Thread.pass
      end
    end
    first.pop
    puts "leaving"
  RUBY

  def test_a_program_exits_with_an_open_layer_under_load
    runs = Integer(ENV.fetch("CHANNEL_LAYER_TEST_EXITS", "100"))
    runs.times do |n|
      out, status = ruby(EXIT, n.even? ? AMQP : memory)
      assert status.success?, "run #{n}: #{status} #{out}"
      assert_equal "leaving\n", out
    end
  end

  def test_a_program_exits_while_a_block_sleeps
    out, status = ruby(<<~'RUBY')
      require "channel_layer"
      layer = ChannelLayer.open(host: "memory://x")
      inside = Thread::Queue.new
      channel = layer.new_channel
      layer.receive(channel) { inside << true; sleep }
      layer.send_async(channel, {})
      inside.pop
      puts "leaving"
    RUBY
    assert status.success?, "#{status} #{out}"
    assert_equal "leaving\n", out
  end

  def test_exit_in_a_block_ends_the_program
    out, status = ruby(<<~'RUBY')
      require "channel_layer"
      layer = ChannelLayer.open(host: "memory://x")
      channel = layer.new_channel
      layer.receive(channel) { exit 7 }
      layer.send_async(channel, {})
      sleep
    RUBY
    assert_equal 7, status.exitstatus, out
  end

  def test_messages_flow_again_after_the_broker_is_restarted_under_load
    Open3.popen2("python3", File.join(ROOT, "tests/bindings/node.py")) do |orders, answers, _|
      host = within(90) { answers.gets.chomp }
      layer = open_layer(host:, timeout: 2).wait_ready(timeout: 30)
      channel = layer.new_channel
      layer.group_add("g", channel)
      received = []
      layer.receive(channel) { |message| received << message["n"] }
      stop = false
      failed = []
      sender = Thread.new do
        0.step do |n|
          break if stop

          begin
            layer.group_send("g", { "n" => n })
          rescue ChannelLayer::Disconnected, ChannelLayer::Unconfirmed, ChannelLayer::TimedOut,
                 ChannelLayer::Busy, ChannelLayer::Full => e
            failed << e
          end
        end
      end
      eventually("the first messages") { received.size > 100 }
      orders.puts("kill9")
      within(60) { answers.gets }
      orders.puts("start")
      within(90) { answers.gets }
      layer.wait_ready(timeout: 30)
      before = received.size
      eventually("messages after the restart") { received.size > before + 100 }
      stop = true
      within { sender.join }
      assert_operator layer.stat(:generation), :>=, 2
      refute_empty failed
      layer.close
      assert_equal received.uniq, received, "a message came twice"
      orders.close
    end
  end

  def test_the_example_of_the_readme_runs
    text = File.read(File.join(BINDING, "README.md"))
    example = text[/^```ruby\n(# A first program.*?)^```$/m, 1]
    refute_nil example
    assert_operator example.lines.size, :<=, 22
    [[], [AMQP]].each do |arguments|
      out, status = ruby(example, *arguments)
      assert status.success?, out
      assert_equal "hello\nhello, everyone\n", out
    end
  end

  def test_no_thread_is_started_before_the_first_layer
    out, status = ruby(<<~RUBY)
      threads = -> { [Thread.list.size, Dir.children("/proc/self/task").size] }
      before = threads.call
      require "channel_layer"
      ChannelLayer.check(host: "amqp://nowhere.invalid/")
      begin
        ChannelLayer.open(expiry: "soon")
      rescue ChannelLayer::Invalid
        puts threads.call == before
      end
      ChannelLayer.open(host: "memory://x") { puts threads.call == before }
    RUBY
    assert status.success?, out
    assert_equal "true\nfalse\n", out
  end

  def test_exit_in_a_block_ends_the_program_though_there_is_an_on_error
    out, status = ruby(<<~RUBY)
      require "channel_layer"
      layer = ChannelLayer.open(host: "memory://x", on_error: ->(*told) { p told })
      channel = layer.new_channel
      layer.receive(channel) { exit 7 }
      layer.send_async(channel, {})
      sleep
    RUBY
    assert_equal [7, ""], [status.exitstatus, out]
  end

  def test_the_gem_is_built_and_works_where_it_is_installed
    Dir.mktmpdir do |home|
      file = File.join(home, "channel_layer.gem")
      out, status = Open3.capture2e("gem", "build", "channel_layer.gemspec", "-o", file,
                                    chdir: BINDING)
      assert status.success?, out
      refute_includes out, "WARNING"
      environment = { "GEM_HOME" => File.join(home, "gems") }
      out, status = Open3.capture2e(environment, "gem", "install", "--local", "--no-document", file)
      assert status.success?, out
      out, status = Open3.capture2e(environment, RbConfig.ruby, "-e", <<~RUBY, chdir: home)
        require "channel_layer"
        ChannelLayer.open(host: "memory://x") do |layer|
          channel = layer.new_channel
          layer.send(channel, { "n" => 1 })
          puts layer.receive_next(channel, timeout: 5)
        end
        puts $LOADED_FEATURES.grep(%r{/channel_layer.rb$})
      RUBY
      assert status.success?, out
      assert_includes out, %({"n"=>1})
      assert_includes out, home
    end
  end
end
