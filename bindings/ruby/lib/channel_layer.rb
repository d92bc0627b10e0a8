# frozen_string_literal: true

require_relative "channel_layer/version"
require_relative "channel_layer/native"
require_relative "channel_layer/errors"
require_relative "channel_layer/callbacks"
require_relative "channel_layer/outcome"
require_relative "channel_layer/pending"
require_relative "channel_layer/delivery"
require_relative "channel_layer/receiver"
require_relative "channel_layer/watch"
require_relative "channel_layer/dispatcher"
require_relative "channel_layer/layer"

# Messages to named channels and to groups, over RabbitMQ.
module ChannelLayer
  # Opens a layer, which connects in the background and for ever tries again. Options are those of
  # the library; durations are seconds, sizes bytes. `on_log` is called with a level, an id, a
  # target and a text, `on_state` with a state and the number of connections so far, `on_isolation`
  # with :began, :lost or :ended, a channel (nil except with :lost, and where several channels are
  # not reported separately) and a number of messages: those that wait, those that the channel has
  # lost since the last call, those that were lost in all. `on_error` is called with an exception
  # that left a block or one of these, and a text that says which; without it, they are written to
  # stderr. All are called on the layer's thread, and must not wait.
  # With a block: gives it the layer, and closes it at the end.
  def self.open(**options)
    layer = Layer.new(**options)
    return layer unless block_given?

    begin
      yield layer
    ensure
      layer.close
    end
  end

  # Raises the error that `open` would raise for these options, and opens nothing: there is no
  # connection, no name look-up and no thread. It reads the files that `open` would read.
  def self.check(**options)
    Layer.check(options)
    nil
  end

  # The version of the library that is loaded.
  def self.library_version
    Native.layer_version
  end
end
