# frozen_string_literal: true

require "minitest/autorun"
require "base64"
require "fileutils"
require "json"
require "open3"
require "rbconfig"
require "securerandom"
require "socket"
require "tempfile"
require "timeout"
require "tmpdir"
require "uri"

ENV["CHANNEL_LAYER_LIBRARY"] ||= File.join(ENV.fetch("CHANNEL_LAYER_TEST_LIBRARY"),
                                           "libchannel_layer.so")
# An installed gem can be tested instead of this folder.
LIB = ENV.fetch("CHANNEL_LAYER_TEST_RUBY_LIB") { File.expand_path("../lib", __dir__) }
$LOAD_PATH.unshift(LIB)
require "channel_layer"

BINDING = File.expand_path("..", __dir__)
ROOT = File.expand_path("../..", BINDING)
AMQP = ENV.fetch("CHANNEL_LAYER_TEST_AMQP")

module Helper
  DEADLINE = 30 # seconds: what takes longer has failed

  def memory
    "memory://ruby-#{SecureRandom.hex(8)}"
  end

  # Layers that are closed at the end of the test.
  def open_layer(**options)
    layer = ChannelLayer.open(host: memory, **options)
    (@layers ||= []) << layer
    layer
  end

  def teardown
    (@layers || []).each(&:close)
    super
  end

  # Waits until the block is true, for what nothing tells of.
  def eventually(what)
    limit = Process.clock_gettime(Process::CLOCK_MONOTONIC) + DEADLINE
    until yield
      flunk("#{what} did not come") if Process.clock_gettime(Process::CLOCK_MONOTONIC) > limit
      sleep 0.005
    end
  end

  def within(seconds = DEADLINE, &)
    Timeout.timeout(seconds, Minitest::Assertion, "not done within #{seconds} s", &)
  end

  def raises(error, *words, &)
    caught = assert_raises(error, &)
    words.each { |word| assert_includes(caught.message, word) }
    caught
  end

  # Runs a Ruby program of its own, and gives what it said.
  def ruby(program, *arguments)
    out, status = Open3.capture2e({ "CHANNEL_LAYER_TEST_AMQP" => AMQP }, "timeout", "-k", "5", "60",
                                  RbConfig.ruby, "-I", LIB, "-e", program, *arguments)
    [out, status]
  end
end
