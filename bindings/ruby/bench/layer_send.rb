# frozen_string_literal: true

# Messages from one layer to a channel of another, as benches/programs/layer_send.c does it: how
# many are both confirmed and received each second; or how long one takes from its send to the
# block.
#
#     layer_send.rb [measure=throughput|latency] [body=BYTES] [window=N] [prefetch=N]
#                   [seconds=S] [warmup=S]

require_relative "../lib/channel_layer"
require "json"

$stdout.sync = true

# Ends the program from any of its threads, at once.
def fail_with(text)
  warn("layer_send.rb: #{text}")
  exit!(1)
end

DEFAULTS = { "measure" => "throughput", "body" => "200", "window" => "1000", "prefetch" => "1000",
             "seconds" => "5", "warmup" => "1" }.freeze
GIVEN = ARGV.to_h { |word| word.partition("=").values_at(0, 2) }
GIVEN.each_key { |name| fail_with("there is no argument #{name}") unless DEFAULTS.key?(name) }
OPTIONS = DEFAULTS.merge(GIVEN)
BODY = Integer(OPTIONS["body"])
WINDOW = Integer(OPTIONS["window"])
SECONDS = Float(OPTIONS["seconds"])
WARMUP = Float(OPTIONS["warmup"])
CAPACITY = 100_000
BACKLOG = 50_000 # messages on their way, at most
FIRST_SEQ = 1 << 40 # so that MessagePack gives each number 9 bytes
fail_with("window or seconds cannot be so") unless WINDOW.between?(1, BACKLOG) && SECONDS.positive?

def now
  Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

def cpu_time
  Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
end

def message(seq, fill = FILL)
  { "type" => "bench", "n" => FIRST_SEQ + seq, "data" => fill }
end

# What makes a message take so many bytes of MessagePack.
def fill_of(body)
  [1, 2, 3, 5].each do |header| # of the text, which begins with its length
    fill = "x" * [body - MessagePack.pack(message(0, "")).size + 1 - header, 0].max
    return fill if MessagePack.pack(message(0, fill)).size == body
  end
  fail_with("there is no message of #{body} bytes")
end
FILL = fill_of(BODY)

def open_layer
  ChannelLayer.open(host: ENV.fetch("CHANNEL_LAYER_TEST_AMQP"), prefetch_count: OPTIONS["prefetch"],
                    local_capacity: CAPACITY, remote_capacity: CAPACITY, expiry: 60).wait_ready
end

def throughput(sending, receiving, channel)
  received = confirmed = sent = 0
  room = Thread::Queue.new
  receiver = receiving.receive(channel) do |got|
    if got["n"] != FIRST_SEQ + received
      fail_with("message #{got["n"] - FIRST_SEQ} where #{received} was due")
    end
    received += 1
    room << true if (received % (BACKLOG / 4)).zero?
  end
  stop = false
  outcome = lambda do |error|
    fail_with("a send failed: #{error.message}") if error
    confirmed += 1
    room << true if (confirmed % 64).zero?
  end
  sender = Thread.new do
    until stop
      room.pop while sent - confirmed >= WINDOW || sent - received >= BACKLOG
      sending.send_async(channel, message(sent), &outcome)
      sent += 1
    end
  end
  complete = -> { [received, confirmed].min }
  sleep WARMUP
  begin_count = complete.call
  begin_time = now
  begin_cpu = cpu_time
  sleep SECONDS
  count = complete.call - begin_count
  seconds = now - begin_time
  cpu = cpu_time - begin_cpu
  stop = true
  room << true
  sender.join
  sleep 0.001 while complete.call < sent
  receiver.cancel
  fail_with("no message was confirmed and received in the time that was measured") if count.zero?
  puts JSON.generate(seconds: seconds.round(3), messages: count,
                     per_second: (count / seconds).round(1),
                     mb_per_second: (count * BODY / seconds / 1e6).round(3),
                     cpu_us_per_message: (cpu * 1e6 / count).round(2))
end

def latency(sending, receiving, channel)
  arrival = Thread::Queue.new
  receiver = receiving.receive(channel) { arrival << now }
  samples = []
  start = now + WARMUP
  seq = 0
  while (sent = now) < start + SECONDS
    sending.send(channel, message(seq))
    took = arrival.pop - sent
    samples << took if sent >= start
    seq += 1
  end
  receiver.cancel
  fail_with("no message arrived in the time that was measured") if samples.empty?
  samples.sort!
  at = ->(percent) { (samples[(percent / 100.0 * samples.size).ceil - 1] * 1e6).round(1) }
  puts JSON.generate(messages: samples.size, p50_us: at[50], p99_us: at[99], p999_us: at[99.9],
                     max_us: (samples.last * 1e6).round(1))
end

Thread.new do
  sleep SECONDS + WARMUP + 60
  fail_with("it hangs")
end
receiving = open_layer
sending = open_layer
channel = receiving.new_channel("bench.")
case OPTIONS["measure"]
when "throughput" then throughput(sending, receiving, channel)
when "latency" then latency(sending, receiving, channel)
else fail_with("measure=#{OPTIONS["measure"]}: throughput or latency can be measured")
end
sending.close
receiving.close
