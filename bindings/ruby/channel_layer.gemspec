# frozen_string_literal: true

require_relative "lib/channel_layer/version"

Gem::Specification.new do |spec|
  spec.name = "channel_layer"
  spec.version = ChannelLayer::VERSION
  spec.summary = "Messages to named channels and to groups, over RabbitMQ"
  spec.description = "A channel layer on RabbitMQ for Ruby servers: send to named channels, " \
                     "broadcast to groups, with back-pressure; on the wire of channels_rabbitmq."
  spec.authors = ["The channel-layer authors"]
  spec.licenses = ["MIT", "Apache-2.0"]
  spec.homepage = "https://rubygems.org/gems/channel_layer"
  spec.required_ruby_version = ">= 3.1"
  spec.files = Dir.chdir(__dir__) { Dir["lib/**/*.rb", "README.md"] }
  spec.add_dependency "ffi", "~> 1.15"
  spec.add_dependency "msgpack", "~> 1.4"
  spec.metadata["rubygems_mfa_required"] = "true"
end
