# frozen_string_literal: true

# puma -w 2 --preload config.ru, or unicorn -c unicorn.rb config.ru
require_relative "broadcast"

run Chat.new(Broadcast.new(host: ENV.fetch("AMQP_URL", "amqp://guest:guest@127.0.0.1/asgi")))
