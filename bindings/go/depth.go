package channellayer

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

// The encoder and the decoder of MessagePack recurse without a limit, and Go ends a program whose
// stack overflows. So what they are given is checked first.

const (
	// maxPackedDepth is how deep the C library lets maps and arrays nest in what is sent. The
	// message itself is the first.
	maxPackedDepth = 128
	// maxUnpackedDepth is how deep they may nest in what is received. Foreign senders nest deeper
	// than the C library; 1024 is what the msgpack of Python reads.
	maxUnpackedDepth = 1024
	// maxHops bounds what the encoder follows without beginning a map or an array: pointers, and
	// structs that are embedded in one another.
	maxHops = 128
)

var (
	errPackedDepth = fmt.Errorf("maps, slices and structs nest deeper than %d, or one holds itself", maxPackedDepth)
	errHops        = fmt.Errorf("pointers or embedded structs nest deeper than %d, or one holds itself", maxHops)
	errTruncated   = errors.New("the bytes end within a value")
)

// --- what is sent -----------------------------------------------------------------------------

// checkValue refuses what the encoder would follow too deep. depth counts the maps, arrays and
// structs around the value.
func checkValue(value any, depth int) error {
	switch value := value.(type) {
	case nil, string, []byte, bool, int, int64, uint64, float64:
		return nil
	case map[string]any:
		if value == nil {
			return nil
		}
		if depth >= maxPackedDepth {
			return errPackedDepth
		}
		for _, each := range value {
			if err := checkValue(each, depth+1); err != nil {
				return err
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
		for _, each := range value {
			if err := checkValue(each, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return checkReflected(reflect.ValueOf(value), depth, 0)
}

// checkReflected is checkValue for all types. hops counts the pointers and embedded structs since the
// innermost container.
func checkReflected(v reflect.Value, depth, hops int) error {
	typ := v.Type()
	if encodesItself(typ) {
		return nil
	}
	if hops > maxHops {
		return errHops
	}
	switch typ.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return checkReflected(v.Elem(), depth, hops)
	case reflect.Pointer:
		if err := checkPointers(typ); err != nil || v.IsNil() {
			return err
		}
		return checkReflected(v.Elem(), depth, hops+1)
	case reflect.Map:
		if v.IsNil() {
			return nil
		}
		if depth >= maxPackedDepth {
			return errPackedDepth
		}
		if isScalar(typ.Key()) && isScalar(typ.Elem()) {
			return nil
		}
		for each := v.MapRange(); each.Next(); {
			if err := checkReflected(each.Key(), depth+1, 0); err != nil {
				return err
			}
			if err := checkReflected(each.Value(), depth+1, 0); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		if typ.Elem().Kind() == reflect.Uint8 || typ.Kind() == reflect.Slice && v.IsNil() {
			return nil
		}
		if depth >= maxPackedDepth {
			return errPackedDepth
		}
		if isScalar(typ.Elem()) {
			return nil
		}
		for i := 0; i < v.Len(); i++ {
			if err := checkReflected(v.Index(i), depth+1, 0); err != nil {
				return err
			}
		}
	case reflect.Struct:
		if depth >= maxPackedDepth {
			return errPackedDepth
		}
		if err := checkFieldTypes(typ, 0); err != nil {
			return err
		}
		return checkFields(v, depth+1, 0)
	}
	return nil
}

// checkFields checks the fields of a struct, and those of the structs that are embedded in it: the
// encoder writes them as fields of the outer one.
func checkFields(v reflect.Value, depth, hops int) error {
	if hops > maxHops {
		return errHops
	}
	typ := v.Type()
	for i := 0; i < typ.NumField(); i++ {
		field, value := typ.Field(i), v.Field(i)
		if !isEncoded(field) {
			continue
		}
		if isInlined(field) {
			for value.Kind() == reflect.Pointer && !value.IsNil() { // checkFieldTypes has bounded them
				value = value.Elem()
			}
			if value.Kind() == reflect.Struct && !encodesItself(value.Type()) {
				if err := checkFields(value, depth, hops+1); err != nil {
					return err
				}
				continue
			}
		}
		if err := checkReflected(value, depth, 0); err != nil {
			return err
		}
	}
	return nil
}

// checkFieldTypes refuses a type that the encoder would follow without end, whatever its value is.
func checkFieldTypes(typ reflect.Type, hops int) error {
	if hops > maxHops {
		return errHops
	}
	for i := 0; i < typ.NumField(); i++ {
		field := typ.Field(i)
		if !isEncoded(field) {
			continue
		}
		if err := checkPointers(field.Type); err != nil {
			return err
		}
		if !isInlined(field) {
			continue
		}
		embedded := field.Type
		for embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		if embedded.Kind() == reflect.Struct && !encodesItself(embedded) {
			if err := checkFieldTypes(embedded, hops+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPointers refuses a type such as `type P *P`.
func checkPointers(typ reflect.Type) error {
	for hops := 0; typ.Kind() == reflect.Pointer; hops++ {
		if hops > maxHops {
			return errHops
		}
		typ = typ.Elem()
	}
	return nil
}

// isEncoded says whether the encoder looks at the field of a struct.
func isEncoded(field reflect.StructField) bool {
	name, _, _ := strings.Cut(field.Tag.Get("msgpack"), ",")
	return name != "-" && (field.PkgPath == "" || field.Anonymous)
}

// isInlined says whether the encoder writes the fields of an embedded struct as those of the outer one.
func isInlined(field reflect.StructField) bool {
	_, options, _ := strings.Cut(field.Tag.Get("msgpack"), ",")
	return field.Anonymous && !strings.Contains(options, "noinline")
}

func isScalar(typ reflect.Type) bool {
	kind := typ.Kind()
	return kind >= reflect.Bool && kind <= reflect.Float64 || kind == reflect.String
}

var (
	errorType   = reflect.TypeOf((*error)(nil)).Elem()
	ownEncoders = []reflect.Type{
		reflect.TypeOf((*msgpack.CustomEncoder)(nil)).Elem(),
		reflect.TypeOf((*msgpack.Marshaler)(nil)).Elem(),
		reflect.TypeOf((*encoding.BinaryMarshaler)(nil)).Elem(),
		reflect.TypeOf((*encoding.TextMarshaler)(nil)).Elem(),
	}
)

// encodesItself says whether the encoder calls a method of the type, instead of looking into it.
func encodesItself(typ reflect.Type) bool {
	if typ.PkgPath() == "" && isScalar(typ) {
		return false // the usual case
	}
	for _, own := range ownEncoders {
		if typ.Implements(own) || typ.Kind() != reflect.Pointer && reflect.PointerTo(typ).Implements(own) {
			return true
		}
	}
	return typ == errorType
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
