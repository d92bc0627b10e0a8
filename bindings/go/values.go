package channellayer

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Pack encodes a message as MessagePack, as Send does. A message that is sent many times is packed
// once and then sent by SendPacked.
//
// It holds nil, booleans, integers from -2^63 to 2^64-1, floats, strings, []byte, slices, arrays and
// maps with string keys, also by types of these kinds: a time.Duration is its integer of nanoseconds.
// A type that implements msgpack.CustomEncoder or msgpack.Marshaler encodes itself, as one of these.
// All else is ErrInvalid, with the path to it: other structs, pointers, errors of any kind, complex
// numbers, chans and funcs. So are maps, slices and arrays that nest deeper than 128, the message
// included, and what holds itself.
func Pack(message map[string]any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := msgpack.GetEncoder()
	defer msgpack.PutEncoder(encoder)
	encoder.Reset(&buffer)
	encoder.UseCompactInts(true)
	if message == nil {
		message = map[string]any{} // nil would become MessagePack's nil, which is no message
	}
	if err := checkValue(message, 0); err != nil {
		return nil, &Error{StatusInvalid, "pack", err.Error(), err}
	}
	if err := encoder.Encode(message); err != nil {
		return nil, &Error{StatusInvalid, "pack", err.Error(), err}
	}
	return buffer.Bytes(), nil
}

// Unpack decodes one message. Integers arrive as int64, and as uint64 if they are above its range, so
// that no value is lost and no type depends on how a sender encoded it; floats as float64, strings as string, bytes as []byte, arrays as []any,
// maps as map[string]any, in whatever size they were encoded. Bytes that nest deeper than 1024 are
// ErrInvalid.
func Unpack(packed []byte) (map[string]any, error) {
	if err := checkPacked(packed); err != nil {
		return nil, &Error{StatusInvalid, "unpack", err.Error(), err}
	}
	decoder := msgpack.GetDecoder()
	defer msgpack.PutDecoder(decoder)
	decoder.Reset(bytes.NewReader(packed))
	decoder.SetMapDecoder(func(d *msgpack.Decoder) (any, error) { return d.DecodeMap() })
	message, err := decoder.DecodeMap()
	if err != nil {
		return nil, &Error{StatusInvalid, "unpack", err.Error(), err}
	}
	if err := widen(message); err != nil {
		return nil, &Error{StatusInvalid, "unpack", err.Error(), err}
	}
	return message, nil
}

// widen gives the numbers in a map one type each, whatever size they were encoded in. It changes
// the map and the arrays in it.
func widen(message map[string]any) error {
	for key, value := range message {
		wide, err := widened(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		message[key] = wide
	}
	return nil
}

func widened(value any) (any, error) {
	switch value := value.(type) {
	case nil, bool, int64, float64, string, []byte:
		return value, nil
	case int8:
		return int64(value), nil
	case int16:
		return int64(value), nil
	case int32:
		return int64(value), nil
	case uint8:
		return int64(value), nil
	case uint16:
		return int64(value), nil
	case uint32:
		return int64(value), nil
	case uint64:
		if value>>63 != 0 {
			return value, nil
		}
		return int64(value), nil
	case float32:
		return float64(value), nil
	case []any:
		for i := range value {
			wide, err := widened(value[i])
			if err != nil {
				return nil, err
			}
			value[i] = wide
		}
		return value, nil
	case map[string]any:
		return value, widen(value)
	}
	return nil, fmt.Errorf("a value of Go's type %T, which messages have not", value)
}
