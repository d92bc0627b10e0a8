# frozen_string_literal: true

module ChannelLayer
  VERSION = "0.1.0"
end
