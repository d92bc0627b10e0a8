package channellayer_test

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	channellayer "example.org/channel-layer/bindings/go"
	"github.com/vmihailenco/msgpack/v5"
)

type (
	name        string
	level       int8
	ratio       float32
	flag        bool
	names       []name
	byName      map[name]any
	point       struct{ X, y int }
	stamped     struct{ time.Time }
	textError   string
	textKey     string
	selfEncoded struct{ value string }
	reports     struct{ text string }
)

func (textError) Error() string                    { return "of a string" }
func (textKey) MarshalText() ([]byte, error)       { return []byte("key"), nil }
func (r *reports) Error() string                   { return r.text }
func (r *reports) MarshalMsgpack() ([]byte, error) { return []byte{0xa1, 'r'}, nil }
func (e selfEncoded) EncodeMsgpack(to *msgpack.Encoder) error {
	return to.EncodeString(e.value)
}

func TestAValueThatNoMessageHoldsIsInvalid(t *testing.T) {
	number := 7
	text := "x"
	for what, each := range map[string]struct {
		value any
		says  string
	}{
		"an error":                   {errors.New("e"), `message["a"] is a *errors.errorString, and a message holds `},
		"an error in a slice":        {[]any{1, "b", errors.New("e")}, `message["a"][2] is a *errors.errorString, and a message holds `},
		"an error in []error":        {[]error{nil, errors.New("e")}, `message["a"][1] is a *errors.errorString, and `},
		"an error of an integer":     {syscall.ENOENT, `message["a"] is a syscall.Errno, and `},
		"errors of a string":         {[]textError{"x"}, `message["a"][0] is a channellayer_test.textError, and `},
		"an error of the system":     {&os.PathError{}, `message["a"] is a *fs.PathError, and `},
		"a struct":                   {point{1, 2}, `message["a"] is a channellayer_test.point, and `},
		"a struct in maps":           {map[string]any{"b": map[string]any{"c d": point{}}}, `message["a"]["b"]["c d"] is a channellayer_test.point, and `},
		"a struct in typed maps":     {map[string]point{"b": {}}, `message["a"]["b"] is a channellayer_test.point, and `},
		"a struct without a name":    {struct{}{}, `message["a"] is a struct {}, and `},
		"a time":                     {time.Now(), `message["a"] is a time.Time, and `},
		"a pointer to a time":        {&time.Time{}, `message["a"] is a *time.Time, and `},
		"a struct that holds a time": {stamped{time.Now()}, `message["a"] is a channellayer_test.stamped, and `},
		"a pointer":                  {&number, `message["a"] is a *int, and `},
		"a pointer to a string":      {[]*string{&text}, `message["a"][0] is a *string, and `},
		"a nil pointer":              {(*int)(nil), `message["a"] is a *int, and `},
		"a chan":                     {make(chan int), `message["a"] is a chan int, and `},
		"a chan in an array":         {[2]any{nil, make(chan int)}, `message["a"][1] is a chan int, and `},
		"a nil chan":                 {(chan int)(nil), `message["a"] is a chan int, and `},
		"a func":                     {func() {}, `message["a"] is a func(), and `},
		"a complex number":           {complex(1, 2), `message["a"] is a complex128, and `},
		"complex numbers":            {[]complex64{1}, `message["a"][0] is a complex64, and `},
		"a uintptr":                  {uintptr(1), `message["a"] is a uintptr, and `},
		"uintptrs":                   {[]uintptr{1}, `message["a"][0] is a uintptr, and `},
		"an unsafe pointer":          {unsafe.Pointer(&number), `message["a"] is a unsafe.Pointer, and `},
		"a map with integers":        {map[int]string{1: "x"}, `a key of message["a"] is a int, and `},
		"a map of any":               {[]any{map[any]any{1.5: "x"}}, `a key of message["a"][0] is a float64, and `},
		"a map with nil":             {map[any]any{nil: "x"}, `a key of message["a"] is nil, and `},
		"a key that gives bytes":     {map[textKey]int{"x": 1}, `a key of message["a"] is a channellayer_test.textKey, and `},
		"a key that is long":         {map[string]any{strings.Repeat("k", 100): point{}}, `message["a"]["` + strings.Repeat("k", 40) + `"] is a `},
	} {
		packed, err := channellayer.Pack(map[string]any{"a": each.value})
		if !errors.Is(err, channellayer.ErrInvalid) || !strings.Contains(err.Error(), "pack: "+each.says) {
			t.Errorf("%s: %x, %v", what, packed, err)
		}
	}
	layer := open(t, memoryHost())
	channel := newChannel(t, layer)
	message := map[string]any{"error": errors.New("e")}
	for what, err := range map[string]error{
		"Send":           layer.Send(soon(t), channel, message),
		"GroupSend":      layer.GroupSend(soon(t), "group", message),
		"SendAsync":      layer.SendAsync(channel, message, func(error) {}),
		"GroupSendAsync": layer.GroupSendAsync("group", message, func(error) {}),
	} {
		if !errors.Is(err, channellayer.ErrInvalid) || !strings.Contains(err.Error(), `message["error"] is a *errors.errorString`) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPackTakesTypesOfTheKindsThatAMessageHolds(t *testing.T) {
	for what, each := range map[string]struct{ value, wanted any }{
		"a string type":          {name("n"), "n"},
		"an integer type":        {level(-3), int64(-3)},
		"a float type":           {ratio(0.5), 0.5},
		"a bool type":            {flag(true), true},
		"a duration":             {2 * time.Second, int64(2_000_000_000)},
		"durations":              {[]time.Duration{1}, []any{int64(1)}},
		"a slice type":           {names{"n", "m"}, []any{"n", "m"}},
		"a map type":             {byName{"n": name("m")}, map[string]any{"n": "m"}},
		"a map of any":           {map[any]any{"n": 1, name("m"): 2}, map[string]any{"n": int64(1), "m": int64(2)}},
		"an array":               {[2]uint16{1, 2}, []any{int64(1), int64(2)}},
		"an array of bytes":      {[2]byte{1, 2}, []byte{1, 2}},
		"strings":                {[]string{"a"}, []any{"a"}},
		"a map of strings":       {map[string]string{"a": "b"}, map[string]any{"a": "b"}},
		"a map of integers":      {map[string]int{"a": 1}, map[string]any{"a": int64(1)}},
		"a uint":                 {uint(1 << 63), uint64(1 << 63)},
		"a nil slice":            {[]int(nil), nil},
		"a nil map":              {map[string]point(nil), nil},
		"a nil error in a slice": {[]error{nil}, []any{nil}},
		"a custom encoder":       {selfEncoded{"v"}, "v"},
		"custom encoders":        {map[string]selfEncoded{"a": {"v"}}, map[string]any{"a": "v"}},
		"a pointer to one":       {&selfEncoded{"v"}, "v"},
		"a nil marshaler":        {(*valueByName)(nil), nil},
		"marshalers in a slice":  {[]valueByName{{}}, []any{"v"}},
		"an error that is one":   {&reports{"e"}, "r"},
	} {
		packed, err := channellayer.Pack(map[string]any{"a": each.value})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		got, err := channellayer.Unpack(packed)
		if err != nil || !reflect.DeepEqual(got["a"], each.wanted) {
			t.Errorf("%s: %#v instead of %#v, %v", what, got["a"], each.wanted, err)
		}
	}
}
