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

OPTIONS = { "measure" => "throughput", "body" => "200", "window" => "1000", "prefetch" => "1000",
            "seconds" => "5", "warmup" => "1" }.merge(ARGV.to_h { |word| word.split("=", 2) })
BODY = OPTIONS["body"].to_i
WINDOW = OPTIONS["window"].to_i
SECONDS = OPTIONS["seconds"].to_f
WARMUP = OPTIONS["warmup"].to_f
FIRST_SEQ = 1 << 40 # so that MessagePack gives each number 9 bytes
# What a body holds beside its filling, of which the length takes two or more bytes.
REST = MessagePack.pack({ "type" => "bench", "n" => FIRST_SEQ, "data" => "" }).size + 1
FILL = "x" * [BODY - REST, 0].max

def now
  Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

def cpu_time
  Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
end

def message(seq)
  { "type" => "bench", "n" => FIRST_SEQ + seq, "data" => FILL }
end

def open_layer
  ChannelLayer.open(host: ENV.fetch("CHANNEL_LAYER_TEST_AMQP"), prefetch_count: OPTIONS["prefetch"],
                    local_capacity: 1000, remote_capacity: 100_000).wait_ready
end

def throughput(sending, receiving, channel)
  received = confirmed = sent = 0
  room = Thread::Queue.new
  receiver = receiving.receive(channel) do |got|
    if got["n"] != FIRST_SEQ + received
      abort("message #{got["n"] - FIRST_SEQ} where #{received} was due")
    end
    received += 1
  end
  stop = false
  outcome = lambda do |error|
    abort("a send failed: #{error.message}") if error
    confirmed += 1
    room << true if (confirmed % 64).zero?
  end
  sender = Thread.new do
    until stop
      room.pop while sent - confirmed >= WINDOW
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
  samples.sort!
  at = ->(part) { (samples[[(samples.size * part).floor, samples.size - 1].min] * 1e6).round(1) }
  puts JSON.generate(messages: samples.size, p50_us: at[0.5], p90_us: at[0.9], p99_us: at[0.99],
                     p999_us: at[0.999], max_us: (samples.last * 1e6).round(1))
end

receiving = open_layer
sending = open_layer
channel = receiving.new_channel("bench.")
if OPTIONS["measure"] == "latency"
  latency(sending, receiving, channel)
else
  throughput(sending, receiving, channel)
end
sending.close
receiving.close
