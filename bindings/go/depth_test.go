package channellayer_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	channellayer "example.org/channel-layer/bindings/go"
)

// inOwnProcess runs a test in a process of its own: an overflow of the stack cannot be recovered.
func inOwnProcess(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	const variable = "CHANNEL_LAYER_TEST_OWN_PROCESS"
	if os.Getenv(variable) == t.Name() {
		debug.SetMaxStack(32 << 20) // so that an overflow takes little memory
		test(t)
		return
	}
	command := exec.CommandContext(soon(t), os.Args[0], "-test.v", "-test.count=1",
		"-test.run=^"+regexp.QuoteMeta(t.Name())+"$")
	command.Env = append(os.Environ(), variable+"="+t.Name())
	output, err := command.CombinedOutput()
	if err != nil || !bytes.Contains(output, []byte("--- PASS: "+t.Name()+" ")) {
		if len(output) > 2000 {
			output = output[:2000]
		}
		t.Fatalf("%v: %s", err, output)
	}
}

type (
	treeOfMaps  map[string]treeOfMaps
	pointerSelf *pointerSelf
	listNode    struct{ Next *listNode }
	embedsSelf  struct {
		*embedsSelf
		N int
	}
	embedsOneOfTwo struct{ *embedsTwoOfTwo }
	embedsTwoOfTwo struct{ *embedsOneOfTwo }
	embedsPointer  struct{ *holdsPointer }
	holdsPointer   struct{ P pointerSelf }
	valueByName    struct{ self *valueByName }
)

func (v *valueByName) MarshalMsgpack() ([]byte, error) { return []byte{0xa1, 'v'}, nil }

// nested gives a message with so many maps and slices around one another, itself included.
func nested(depth int) map[string]any {
	var value any = []any{}
	for i := 2; i < depth; i++ {
		value = []any{value}
	}
	return map[string]any{"a": value}
}

func TestAMessageThatHoldsItselfIsInvalid(t *testing.T) {
	inOwnProcess(t, func(t *testing.T) {
		message := map[string]any{}
		message["self"] = message
		slice := make([]any, 1)
		slice[0] = slice
		array := new([1]any)
		array[0] = array
		tree := treeOfMaps{}
		tree["self"] = tree
		node := new(listNode)
		node.Next = node
		var pointer any
		pointer = &pointer
		var typed pointerSelf
		typed = &typed
		embedded := new(embedsSelf)
		embedded.embedsSelf = embedded
		for name, value := range map[string]any{
			"map": message, "slice": slice, "array": array, "typed map": tree, "struct": node,
			"pointer": pointer, "typed pointer": typed, "nil pointer": pointerSelf(nil),
			"key": map[any]any{pointer: 1}, "slice in a typed map": map[string][]any{"a": slice},
			"embedded": embedded, "type that embeds itself": embedsSelf{},
			"types that embed one another": embedsOneOfTwo{}, "field of an embedded type": embedsPointer{},
		} {
			packed, err := channellayer.Pack(map[string]any{"a": value})
			if !errors.Is(err, channellayer.ErrInvalid) {
				t.Errorf("%s: %x, %v", name, packed, err)
			}
		}
		layer := open(t, memoryHost())
		channel := newChannel(t, layer)
		for name, err := range map[string]error{
			"Send":           layer.Send(soon(t), channel, message),
			"GroupSend":      layer.GroupSend(soon(t), "group", message),
			"SendAsync":      layer.SendAsync(channel, message, func(error) {}),
			"GroupSendAsync": layer.GroupSendAsync("group", message, func(error) {}),
		} {
			if !errors.Is(err, channellayer.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestABodyThatNestsDeeplyIsInvalid(t *testing.T) {
	inOwnProcess(t, func(t *testing.T) {
		for name, opening := range map[string][]byte{
			"arrays": {0x91}, "arrays of 16 bits": {0xdc, 0, 1}, "arrays of 32 bits": {0xdd, 0, 0, 0, 1},
			"maps": {0x81, 0xa1, 'a'}, "maps of 16 bits": {0xde, 0, 1, 0xa1, 'a'},
			"maps of 32 bits": {0xdf, 0, 0, 0, 1, 0xa1, 'a'},
			"arrays beside":   {0x93, 0xc0, 0x90},
		} {
			body := append([]byte{0x81, 0xa1, 'a'}, bytes.Repeat(opening, 2_000_000)...)
			if _, err := channellayer.Unpack(append(body, 0xc0)); !errors.Is(err, channellayer.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
			// The decoder skips the head of an extension before a map.
			if _, err := channellayer.Unpack(append([]byte{0xd4, 1}, body...)); !errors.Is(err, channellayer.ErrInvalid) {
				t.Errorf("%s after an extension: %v", name, err)
			}
		}
	})
}

func TestPackNestsAsDeepAsTheLibrary(t *testing.T) {
	layer := open(t, memoryHost())
	channel := newChannel(t, layer)
	if err := layer.Send(soon(t), channel, nested(128)); err != nil {
		t.Fatal(err)
	}
	message, err := layer.Receive(soon(t), channel)
	if err != nil {
		t.Fatal(err)
	}
	expectMessage(t, "128 deep", message, nested(128))
	if packed, err := channellayer.Pack(nested(129)); !errors.Is(err, channellayer.ErrInvalid) {
		t.Errorf("129 deep: %x, %v", packed, err)
	}
	deep := append([]byte{0x81, 0xa1, 'a'}, append(bytes.Repeat([]byte{0x91}, 127), 0x90)...)
	if err := layer.SendPacked(soon(t), channel, deep); !errors.Is(err, channellayer.ErrInvalid) {
		t.Errorf("the library takes 129: %v", err)
	}
}

// A foreign sender may nest deeper than this package does.
func TestUnpackReadsWhatNests1024Deep(t *testing.T) {
	body := func(depth int) []byte {
		return append([]byte{0x81, 0xa1, 'a'}, append(bytes.Repeat([]byte{0x91}, depth-2), 0x90)...)
	}
	if got, err := channellayer.Unpack(body(1024)); err != nil || !reflect.DeepEqual(got, nested(1024)) {
		t.Errorf("1024 deep: %v", err)
	}
	if _, err := channellayer.Unpack(body(1025)); !errors.Is(err, channellayer.ErrInvalid) {
		t.Errorf("1025 deep: %v", err)
	}
}

func TestABodyThatEndsTooEarlyIsInvalid(t *testing.T) {
	packed, err := channellayer.Pack(map[string]any{
		"array": make([]any, 20), "bytes": make([]byte, 300), "text": strings.Repeat("x", 300),
		"map": map[string]any{"n": 1 << 40, "f": 0.5, "g": float32(0.5)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channellayer.Unpack(packed); err != nil {
		t.Errorf("all of it: %v", err)
	}
	for length := range packed {
		if got, err := channellayer.Unpack(packed[:length]); !errors.Is(err, channellayer.ErrInvalid) {
			t.Fatalf("the first %d of %d bytes: %v, %v", length, len(packed), got, err)
		}
	}
}

func TestPackTakesWhatDoesNotHoldItself(t *testing.T) {
	shared := []any{"shared"}
	custom := new(valueByName)
	custom.self = custom
	for name, each := range map[string]struct{ value, wanted any }{
		"the same slice twice":       {[]any{shared, shared}, []any{shared, shared}},
		"a type that encodes itself": {custom, "v"},
	} {
		packed, err := channellayer.Pack(map[string]any{"a": each.value})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := channellayer.Unpack(packed)
		if err != nil || !reflect.DeepEqual(got["a"], each.wanted) {
			t.Errorf("%s: %v instead of %v, %v", name, got["a"], each.wanted, err)
		}
	}
}
