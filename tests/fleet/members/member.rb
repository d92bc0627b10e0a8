# frozen_string_literal: true

# The member of the fleet in Ruby; README.md of the fleet says what it does.

require "channel_layer"

HOST, GROUP, NAME = ARGV
OUTPUT = Mutex.new

def say(text)
  OUTPUT.synchronize do
    $stdout.puts(text)
    $stdout.flush
  end
end

def message_of(sender)
  {
    "type" => "fleet.message",
    "from" => sender,
    "nothing" => nil,
    "yes" => true,
    "no" => false,
    "least" => -(2**63),
    "most" => (2**63) - 1,
    "tenth" => 0.1,
    "whole" => 1.0,
    "text" => "Grüße, 世界, 😀",
    "bytes" => "\x00\xFF\xFE\x80".b,
    "nested" => [1, [2.5, nil, "\x07".b], { "clé" => { "" => -1 } }]
  }
end

# A value beside its type, so that 1 and 1.0, text and bytes differ.
def typed(value)
  case value
  when Hash then value.to_h { |key, each| [key, typed(each)] }
  when Array then value.map { |each| typed(each) }
  when String then [value.encoding, value.bytes]
  else [value.class, value]
  end
end

# What is not as it was sent, or nil.
def fault_of(message, sender)
  expected = message_of(sender)
  return "the keys are #{message.keys}" unless message.keys.sort == expected.keys.sort

  key, = expected.find { |name, value| typed(message[name]) != typed(value) }
  key && "#{key} is #{message[key].inspect}"
end

ChannelLayer.open(host: HOST) do |layer|
  channel = layer.new_channel("fleet.")
  layer.receive(channel) do |message|
    sender = message["from"]
    fault = fault_of(message, sender)
    say(fault ? "wrong #{sender}: #{fault}" : "got #{sender}")
  end
  layer.group_add(GROUP, channel)
  say("joined")
  while $stdin.gets
    begin
      layer.group_send(GROUP, message_of(NAME))
      say("sent")
    rescue ChannelLayer::Error => e
      say("failed #{e.message}")
    end
  end
  layer.group_discard(GROUP, channel)
end
