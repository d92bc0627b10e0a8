# frozen_string_literal: true

require_relative "helper"

# The declarations are those of the header: nothing missing, nothing more.
class TestDeclarations < Minitest::Test
  API = JSON.parse(File.read(ENV.fetch("CHANNEL_LAYER_TEST_API")))
  Native = ChannelLayer::Native

  def signatures(kind)
    API.fetch(kind).to_h do |name, told|
      [name.to_sym, [told.fetch("result"), told.fetch("parameters").map(&:first)]]
    end
  end

  def test_functions_are_those_of_the_header
    assert_equal signatures("functions"), Native::FUNCTIONS
    Native::FUNCTIONS.each_key { |name| assert_respond_to Native, name }
  end

  def test_callbacks_are_those_of_the_header
    assert_equal signatures("callbacks"), Native::CALLBACKS
  end

  def test_enums_are_those_of_the_header
    told = API.fetch("enums").to_h do |name, enum|
      [name.to_sym, [enum.fetch("type"), enum.fetch("values").transform_keys(&:to_sym)]]
    end
    assert_equal told, Native::ENUMS
  end

  def test_constants_and_handles_are_those_of_the_header
    assert_equal API.fetch("constants").transform_keys(&:to_sym), Native::CONSTANTS
    assert_equal API.fetch("handles").map(&:to_sym), Native::HANDLES
  end

  def test_types_have_the_size_that_they_have_in_c
    sizes = { "int32_t" => 4, "uint32_t" => 4, "uint64_t" => 8, "int" => 4 }
    sizes.each { |name, size| assert_equal size, FFI.type_size(Native.ffi_type(name)) }
    ["size_t", "void *"].each do |name|
      assert_equal FFI::Pointer.size, FFI.type_size(Native.ffi_type(name))
    end
  end

  def test_every_status_has_a_class_of_its_own
    classes = Native::ENUMS.fetch(:layer_status_t).last.except(:LAYER_OK).map do |name, number|
      error = ChannelLayer::Error.of(number)
      assert_equal name.to_s, error.status_name
      error.class
    end
    assert_equal classes.uniq, classes
    refute_includes classes, ChannelLayer::Error
  end
end
