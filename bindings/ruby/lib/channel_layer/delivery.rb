# frozen_string_literal: true

require "msgpack"

module ChannelLayer
  # Hashes to MessagePack and back. Binary strings are bytes, all others text.
  module Codec
    def self.pack(message)
      raise TypeError, "a message is a Hash, not #{message.class}" unless message.is_a?(Hash)

      begin
        MessagePack.pack(message)
      rescue NoMethodError, RangeError => e
        # Where msgpack has failed is not in its error.
        refuse(message, "message")
        raise e
      end
    rescue SystemStackError
      raise Invalid.new("message: maps and arrays nest too deep, or hold themselves",
                        Native::LAYER_INVALID)
    end

    INTEGERS = (-(2**63)..((2**64) - 1))
    private_constant :INTEGERS

    # Raises for the first value that msgpack does not take, with its path.
    def self.refuse(value, path)
      case value
      when Hash
        value.each do |key, item|
          refuse(key, "a key of #{path}")
          refuse(item, path + step(key.to_s))
        end
      when Array
        value.each_with_index { |item, index| refuse(item, "#{path}[#{index}]") }
      when Integer
        return if INTEGERS.cover?(value)

        raise RangeError, "#{path} is #{value}, and an integer in a message is from -2^63 to 2^64-1"
      else
        return if value.respond_to?(:to_msgpack)

        raise TypeError, "#{path} is a #{value.class}, and a message holds nil, true, false, " \
                         "Integer, Float, String, Symbol, Array and Hash alone: convert it"
      end
    end

    # A step of a path, as the library writes it.
    def self.step(key)
      key.match?(/\A[A-Za-z_][A-Za-z0-9_]*\z/) ? ".#{key}" : "[#{key[0, 40].inspect}]"
    end
    private_class_method :refuse, :step

    # What a pointer to a layer_message_t holds.
    def self.unpack(pointer)
      MessagePack.unpack(bytes(pointer), allow_unknown_ext: true)
    end

    def self.bytes(pointer)
      length = FFI::MemoryPointer.new(:size_t)
      Native.layer_message_data(pointer, length).read_bytes(length.read(:size_t))
    end
  end
  private_constant :Codec

  # A message with what is known of its way here. Immutable; may be kept, by any thread; outlives
  # its layer.
  class Delivery
    # A reference to a message, freed by the garbage collector.
    class Handle < FFI::AutoPointer
      def self.release(pointer)
        Native.layer_message_free(pointer)
      end
    end
    private_constant :Handle

    # Takes a message that is ours.
    # @api private
    def initialize(pointer)
      @handle = Handle.new(pointer)
    end

    # The message as a Hash, a new one each time.
    def message
      Codec.unpack(@handle)
    end

    # The message as MessagePack.
    def packed
      Codec.bytes(@handle)
    end

    # The message as JSON text; bytes are U+FFFF and base64. Raises Invalid for what JSON cannot
    # hold.
    def json
      slot = FFI::MemoryPointer.new(:pointer)
      Error.check { |error| Native.layer_message_json(@handle, slot, error) }
      slot.read_pointer.read_string.force_encoding(Encoding::UTF_8)
    end

    # The channel that it was delivered on.
    def channel
      text(Native.layer_message_channel(@handle))
    end

    # The group that it was sent to, or nil.
    def group
      text(Native.layer_message_group(@handle))
    end

    # The value of the key "type", or nil.
    def type
      text(Native.layer_message_type(@handle))
    end

    private

    def text(bytes)
      bytes&.dup&.force_encoding(Encoding::UTF_8)
    end
  end
end
