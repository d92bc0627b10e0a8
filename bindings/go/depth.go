package channellayer

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// The encoder and the decoder of MessagePack recurse without a limit, and Go ends a program whose
// stack overflows. And the encoder sends what it finds in a value that no message holds: of a struct
// some of its fields, of an error mostly nothing. So what they are given is checked first.

const (
	// maxPackedDepth is how deep the C library lets maps and arrays nest in what is sent. The
	// message itself is the first.
	maxPackedDepth = 128
	// maxUnpackedDepth is how deep they may nest in what is received. Foreign senders nest deeper
	// than the C library; 1024 is what the msgpack of Python reads.
	maxUnpackedDepth = 1024
)

var (
	errPackedDepth = fmt.Errorf("maps, slices and arrays nest deeper than %d, or one holds itself", maxPackedDepth)
	errTruncated   = errors.New("the bytes end within a value")
)

// --- what is sent -----------------------------------------------------------------------------

// valueError says which value of a message is none that a message holds.
type valueError struct {
	ofKey bool   // it is a key of the map at the path
	path  string // from the message on, as `["a"][2]`
	what  string // as "a chan int"
}

func (e *valueError) Error() string {
	key := ""
	if e.ofKey {
		key = "a key of "
	}
	return key + "message" + e.path + " is " + e.what + ", and a message holds nil, booleans, integers, floats, " +
		"strings, []byte, slices and maps with string keys alone: convert it"
}

func refused(typ reflect.Type) error { return &valueError{what: "a " + typ.String()} }

// within adds the step to a value to the path of the error that was found in it. Paths are made
// where a value is refused, and so cost nothing else.
func within(err error, step string) error {
	if refused, ok := err.(*valueError); ok {
		refused.path = step + refused.path
	}
	return err
}

func keyStep(key string) string  { return fmt.Sprintf("[%.40q]", key) }
func indexStep(index int) string { return fmt.Sprintf("[%d]", index) }

// checkValue refuses what no message holds, and what the encoder would follow too deep. depth counts
// the maps, slices and arrays around the value.
func checkValue(value any, depth int) error {
	switch value := value.(type) {
	case nil, string, []byte, bool, float64, float32,
		int, int64, int32, int16, int8, uint, uint64, uint32, uint16, uint8:
		return nil
	case map[string]any:
		if value == nil {
			return nil
		}
		if depth >= maxPackedDepth {
			return errPackedDepth
		}
		for key, each := range value {
			if err := checkValue(each, depth+1); err != nil {
				return within(err, keyStep(key))
			}
		}
		return nil
	case []any:
		if value == nil {
			return nil
		}
		if depth >= maxPackedDepth {
			return errPackedDepth
		}
		for i, each := range value {
			if err := checkValue(each, depth+1); err != nil {
				return within(err, indexStep(i))
			}
		}
		return nil
	}
	return checkReflected(reflect.ValueOf(value), depth)
}

// checkReflected is checkValue for all types.
func checkReflected(v reflect.Value, depth int) error {
	typ := v.Type()
	kind := typ.Kind()
	switch {
	case isPlain(typ):
		return nil
	case kind == reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return checkReflected(v.Elem(), depth)
	case encodesItself(v):
		return nil
	case typ.Implements(errorType):
		return refused(typ) // of whatever kind it is, as syscall.Errno
	case isBasic(kind):
		return nil
	}
	switch kind {
	case reflect.Map:
		if v.IsNil() {
			return nil
		}
		if depth >= maxPackedDepth {
			return errPackedDepth
		}
		plainKeys := isPlain(typ.Key()) && typ.Key().Kind() == reflect.String
		if plainKeys && isPlain(typ.Elem()) {
			return nil
		}
		for each := v.MapRange(); each.Next(); {
			if !plainKeys {
				if err := checkKey(each.Key()); err != nil {
					return err
				}
			}
			if err := checkReflected(each.Value(), depth+1); err != nil {
				return within(err, keyStep(fmt.Sprint(each.Key())))
			}
		}
		return nil
	case reflect.Slice, reflect.Array:
		if typ.Elem().Kind() == reflect.Uint8 || kind == reflect.Slice && v.IsNil() {
			return nil
		}
		if depth >= maxPackedDepth {
			return errPackedDepth
		}
		if isPlain(typ.Elem()) {
			return nil
		}
		for i := 0; i < v.Len(); i++ {
			if err := checkReflected(v.Index(i), depth+1); err != nil {
				return within(err, indexStep(i))
			}
		}
		return nil
	}
	return refused(typ)
}

// checkKey refuses a key that the encoder would not write as a string.
func checkKey(key reflect.Value) error {
	if key.Kind() == reflect.Interface {
		if key.IsNil() {
			return &valueError{ofKey: true, what: "nil"}
		}
		key = key.Elem()
	}
	typ := key.Type()
	if encodesItself(key) ||
		typ.Kind() == reflect.String && !typ.Implements(binaryMarshaler) && !typ.Implements(textMarshaler) {
		return nil
	}
	return &valueError{ofKey: true, what: "a " + typ.String()}
}

// isBasic says whether a message holds values of the kind. It holds no uintptr, at which the encoder
// panics.
func isBasic(kind reflect.Kind) bool {
	return kind >= reflect.Bool && kind <= reflect.Float64 && kind != reflect.Uintptr || kind == reflect.String
}

// isPlain says whether it is one of Go's own types of these kinds, which have no methods.
func isPlain(typ reflect.Type) bool { return isBasic(typ.Kind()) && typ.PkgPath() == "" }

var (
	errorType       = reflect.TypeOf((*error)(nil)).Elem()
	customEncoder   = reflect.TypeOf((*msgpack.CustomEncoder)(nil)).Elem()
	marshaler       = reflect.TypeOf((*msgpack.Marshaler)(nil)).Elem()
	binaryMarshaler = reflect.TypeOf((*encoding.BinaryMarshaler)(nil)).Elem()
	textMarshaler   = reflect.TypeOf((*encoding.TextMarshaler)(nil)).Elem()
)

// encodesItself says whether the encoder calls a method of the value for MessagePack, instead of
// looking into it. One of the pointer is called only where the value has an address.
func encodesItself(v reflect.Value) bool {
	typ := v.Type()
	if typ.Implements(customEncoder) || typ.Implements(marshaler) {
		return true
	}
	if !v.CanAddr() {
		return false
	}
	pointer := reflect.PointerTo(typ)
	return pointer.Implements(customEncoder) || pointer.Implements(marshaler)
}

// --- what is received -------------------------------------------------------------------------

// checkPacked refuses bytes that are no map, that end too early or that nest too deep. It looks at
// the head of each value, and keeps for each open map and array how many values are left.
func checkPacked(packed []byte) error {
	if len(packed) != 0 {
		if code := packed[0]; code>>4 != 0x8 && code != 0xde && code != 0xdf && code != 0xc0 {
			return fmt.Errorf("it begins with the byte 0x%02x, and so is no map", code)
		}
	}
	left := make([]uint64, 0, 32)
	for at := 0; ; {
		head, err := readHead(packed[at:])
		if err != nil {
			return fmt.Errorf("at byte %d: %w", at, err)
		}
		at += head.size
		if head.isContainer {
			if len(left) >= maxUnpackedDepth {
				return fmt.Errorf("at byte %d: maps and arrays nest deeper than %d", at, maxUnpackedDepth)
			}
			left = append(left, head.values+1) // itself, and those in it
		}
		for {
			if len(left) == 0 {
				return nil
			}
			last := len(left) - 1
			if left[last]--; left[last] != 0 {
				break
			}
			left = left[:last]
		}
	}
}

// head is what the first bytes of a value say of it.
type head struct {
	size        int // of a container: of its head alone
	isContainer bool
	values      uint64 // in a container: keys count, too
}

func readHead(packed []byte) (head, error) {
	if len(packed) == 0 {
		return head{}, errTruncated
	}
	// length reads a length of so many bytes, and adds what else is in the head.
	length := func(bytes, more int) (uint64, error) {
		if len(packed) < 1+bytes {
			return 0, errTruncated
		}
		var wide [8]byte
		copy(wide[8-bytes:], packed[1:1+bytes])
		return binary.BigEndian.Uint64(wide[:]) + uint64(1+bytes+more), nil
	}
	var size uint64 = 1
	var err error
	switch code := packed[0]; {
	case code>>4 == 0x8:
		return head{1, true, 2 * uint64(code&0xf)}, nil
	case code>>4 == 0x9:
		return head{1, true, uint64(code & 0xf)}, nil
	case code>>5 == 0x5:
		size += uint64(code & 0x1f)
	case code == 0xdc, code == 0xdd, code == 0xde, code == 0xdf:
		bytes := 2 << (code & 1)
		count, err := length(bytes, -1-bytes)
		if code >= 0xde {
			count *= 2
		}
		return head{1 + bytes, true, count}, err
	case code >= 0xc4 && code <= 0xc6:
		size, err = length(1<<(code-0xc4), 0)
	case code >= 0xc7 && code <= 0xc9:
		size, err = length(1<<(code-0xc7), 1)
	case code == 0xca:
		size += 4
	case code == 0xcb:
		size += 8
	case code >= 0xcc && code <= 0xcf:
		size += 1 << (code - 0xcc)
	case code >= 0xd0 && code <= 0xd3:
		size += 1 << (code - 0xd0)
	case code >= 0xd4 && code <= 0xd8:
		size += 1 + 1<<(code-0xd4)
	case code >= 0xd9 && code <= 0xdb:
		size, err = length(1<<(code-0xd9), 0)
	case code == 0xc1:
		return head{}, errors.New("no value begins with the byte 0xc1")
	}
	if err == nil && size > uint64(len(packed)) {
		err = errTruncated
	}
	return head{size: int(size)}, err
}
