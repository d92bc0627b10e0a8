package channellayer_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	channellayer "example.org/channel-layer/bindings/go"
)

type sharedCase struct {
	Name    string                       `json:"name"`
	Brokers []string                     `json:"brokers"`
	Layers  map[string]map[string]string `json:"layers"`
	Steps   []map[string]json.RawMessage `json:"steps"`
}

// TestSharedCases replays the cases that all bindings have in common.
func TestSharedCases(t *testing.T) {
	text, err := os.ReadFile("../../tests/bindings/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []sharedCase `json:"cases"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) == 0 {
		t.Fatal("there are no cases")
	}
	for _, broker := range brokers {
		t.Run(broker, func(t *testing.T) {
			for _, each := range file.Cases {
				if each.Brokers != nil && !contains(each.Brokers, broker) {
					continue
				}
				t.Run(each.Name, func(t *testing.T) {
					t.Cleanup(func() { record(t, broker, each.Name) })
					replay(t, each, hostOf(t, broker))
				})
			}
		})
	}
}

// record tells tests/bindings/table.py how a case ended, where that is wanted.
func record(t *testing.T, broker, name string) {
	path := os.Getenv("CHANNEL_LAYER_TEST_TABLE")
	if path == "" {
		return
	}
	result := "passed"
	if t.Failed() {
		result = "failed"
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	_, err = fmt.Fprintf(file, "%s %s %s\n", broker, name, result)
	if closed := file.Close(); err != nil || closed != nil {
		t.Errorf("%s: %v, %v", path, err, closed)
	}
}

func contains(list []string, wanted string) bool {
	for _, each := range list {
		if each == wanted {
			return true
		}
	}
	return false
}

// run is one run of a case.
type run struct {
	t      *testing.T
	host   string
	suffix string
	layers map[string]*channellayer.Layer
	names  map[string]string
}

func replay(t *testing.T, each sharedCase, host string) {
	r := &run{
		t:      t,
		host:   host,
		suffix: fmt.Sprintf("-%d-%d", os.Getpid(), unique.Add(1)),
		layers: make(map[string]*channellayer.Layer),
		names:  make(map[string]string),
	}
	for name, options := range each.Layers {
		layer, err := r.open(options)
		if err != nil {
			t.Fatal(err)
		}
		defer layer.Close(context.Background())
		r.layers[name] = layer
	}
	for number, arguments := range each.Steps {
		r.do(fmt.Sprintf("step %d", number+1), arguments)
	}
}

func (r *run) open(options map[string]string) (*channellayer.Layer, error) {
	all := map[string]string{"host": r.host}
	for name, value := range options {
		all[name] = value
	}
	return channellayer.Open(channellayer.Config{Options: all})
}

// step is what a step says, asked by name; what nobody asked for is a failure.
type step struct {
	run       *run
	where     string
	arguments map[string]json.RawMessage
	asked     map[string]bool
}

func (s *step) has(name string) bool {
	s.asked[name] = true
	_, there := s.arguments[name]
	return there
}

func (s *step) read(name string, into any) {
	s.run.t.Helper()
	if !s.has(name) {
		s.run.t.Fatalf("%s has no %s", s.where, name)
	}
	if err := json.Unmarshal(s.arguments[name], into); err != nil {
		s.run.t.Fatalf("%s: %s: %v", s.where, name, err)
	}
}

func (s *step) text(name string) string {
	s.run.t.Helper()
	var text string
	s.read(name, &text)
	return s.run.named(text)
}

func (r *run) named(text string) string {
	if strings.HasPrefix(text, "~") {
		return text[1:] + r.suffix
	}
	if strings.HasPrefix(text, "$") {
		return r.names[text[1:]]
	}
	return text
}

func (s *step) layer() *channellayer.Layer {
	s.run.t.Helper()
	return s.run.layers[s.text("layer")]
}

func (s *step) message(name string) map[string]any {
	s.run.t.Helper()
	return valueOf(s.run.t, s.arguments[name], s, name).(map[string]any)
}

func (r *run) do(where string, arguments map[string]json.RawMessage) {
	t := r.t
	t.Helper()
	s := &step{run: r, where: where, arguments: arguments, asked: map[string]bool{}}
	what := s.text("do")
	s.where += " (" + what + ")"
	s.asked["status"], s.asked["says"] = true, true
	err := r.perform(s, what)
	for name := range arguments {
		if !s.asked[name] {
			t.Fatalf("%s: nobody asked for %s", s.where, name)
		}
	}
	if !s.has("status") {
		if err != nil {
			t.Fatalf("%s: %v", s.where, err)
		}
		return
	}
	expectStatus(t, s.where, err, s.text("status"))
	if s.has("says") {
		var says []string
		s.read("says", &says)
		for _, words := range says {
			if words = r.named(words); !strings.Contains(err.Error(), words) {
				t.Fatalf("%s: %q does not say %q", s.where, err, words)
			}
		}
	}
}

func expectStatus(t *testing.T, where string, err error, name string) {
	t.Helper()
	var failed *channellayer.Error
	if !errors.As(err, &failed) {
		t.Fatalf("%s: %v is no *Error; %s was due", where, err, name)
	}
	if failed.Status.String() != name {
		t.Fatalf("%s: %v, where %s was due", where, err, name)
	}
	if failed.Text == "" {
		t.Fatalf("%s: the error has no text", where)
	}
}

func (r *run) perform(s *step, what string) error {
	t := r.t
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch what {
	case "open":
		var options map[string]string
		s.read("options", &options)
		layer, err := r.open(options)
		if err != nil {
			return err
		}
		return layer.Close(ctx)
	case "wait_ready":
		return s.layer().WaitReady(ctx)
	case "new_channel":
		name, err := s.layer().NewChannel(s.text("prefix"))
		r.names[s.text("as")] = name
		return err
	case "send":
		return s.layer().Send(ctx, s.text("channel"), s.message("message"))
	case "group_send":
		return s.layer().GroupSend(ctx, s.text("group"), s.message("message"))
	case "send_async", "group_send_async":
		packed, err := channellayer.Pack(s.message("message"))
		if err != nil {
			return err
		}
		outcome := make(chan error, 1)
		done := func(err error) { outcome <- err }
		if what == "send_async" {
			err = s.layer().SendAsync(s.text("channel"), packed, done)
		} else {
			err = s.layer().GroupSendAsync(s.text("group"), packed, done)
		}
		if err != nil {
			return err
		}
		select {
		case err := <-outcome:
			return err
		case <-ctx.Done():
			t.Fatalf("%s: no outcome", s.where)
		}
		return nil
	case "send_json":
		return s.layer().SendJSON(ctx, s.text("channel"), s.text("json"))
	case "group_send_json":
		return s.layer().GroupSendJSON(ctx, s.text("group"), s.text("json"))
	case "send_packed":
		packed, err := hex.DecodeString(s.text("packed"))
		if err != nil {
			t.Fatal(err)
		}
		return s.layer().SendPacked(ctx, s.text("channel"), packed)
	case "receive":
		return r.receive(s)
	case "handle":
		return r.handle(ctx, s)
	case "decline":
		return s.layer().Handle(ctx, s.text("channel"), func(message *channellayer.Message) channellayer.Flow {
			expectMessage(t, s.where, message, s.message("message"))
			return channellayer.Decline
		})
	case "cancel":
		given, giveUp := context.WithCancel(ctx)
		layer, before := s.layer(), uint64(0)
		before = statOf(t, layer, channellayer.StatReceivers)
		ended := make(chan error, 1)
		channel := s.text("channel")
		go func() {
			_, err := layer.Receive(given, channel)
			ended <- err
		}()
		eventually(t, "the receiver waits", func() bool {
			return statOf(t, layer, channellayer.StatReceivers) > before
		})
		giveUp()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: ended with %v", s.where, err)
		}
		return nil
	case "handle_until":
		return r.handleUntil(ctx, s)
	case "group_add":
		return s.layer().GroupAdd(ctx, s.text("group"), s.text("channel"))
	case "group_discard":
		return s.layer().GroupDiscard(s.text("group"), s.text("channel"))
	case "channel_discard":
		return s.layer().ChannelDiscard(s.text("channel"))
	case "stat":
		return r.stat(s)
	case "state":
		state, err := s.layer().State()
		if err == nil && state != states[s.text("state")] {
			t.Fatalf("%s: it is %d", s.where, state)
		}
		return err
	case "close":
		return s.layer().Close(ctx)
	}
	t.Fatalf("%s: this binding does not know it", s.where)
	return nil
}

func (r *run) receive(s *step) error {
	t := r.t
	wait := 5000
	if s.has("milliseconds") {
		s.read("milliseconds", &wait)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(wait)*time.Millisecond)
	defer cancel()
	channel := s.text("channel")
	message, err := s.layer().Receive(ctx, channel)
	if err != nil {
		return err
	}
	if message.Channel() != channel {
		t.Fatalf("%s: delivered on %s", s.where, message.Channel())
	}
	if s.has("message") {
		expectMessage(t, s.where, message, s.message("message"))
	}
	if s.has("type") && message.Type() != s.text("type") {
		t.Fatalf("%s: its type is %q", s.where, message.Type())
	}
	if s.has("from_group") && message.Group() != s.text("from_group") {
		t.Fatalf("%s: it is from group %q", s.where, message.Group())
	}
	if s.has("json") {
		text, err := message.JSON()
		if err != nil {
			return err
		}
		if text != s.text("json") {
			t.Fatalf("%s: its JSON is %s", s.where, text)
		}
	}
	return nil
}

func (r *run) handle(ctx context.Context, s *step) error {
	var messages []json.RawMessage
	s.read("messages", &messages)
	given, giveUp := context.WithCancel(ctx)
	defer giveUp()
	taken := 0
	err := s.layer().Handle(given, s.text("channel"), func(message *channellayer.Message) channellayer.Flow {
		if taken == len(messages) {
			r.t.Fatalf("%s: one message too many", s.where)
		}
		expectMessage(r.t, s.where, message, valueOf(r.t, messages[taken], s, "messages").(map[string]any))
		if taken++; taken == len(messages) {
			giveUp()
		}
		return channellayer.Continue
	})
	if !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (r *run) handleUntil(ctx context.Context, s *step) error {
	var then []map[string]json.RawMessage
	s.read("then", &then)
	layer, channel, ends := s.layer(), s.text("channel"), s.text("ends")
	before := statOf(r.t, layer, channellayer.StatReceivers)
	subscription := layer.Messages(ctx, channel)
	eventually(r.t, "the receiver waits", func() bool {
		return statOf(r.t, layer, channellayer.StatReceivers) > before
	})
	for number, arguments := range then {
		r.do(fmt.Sprintf("%s, then %d", s.where, number+1), arguments)
	}
	for message := range subscription.C {
		r.t.Fatalf("%s: a message came: %v", s.where, message)
	}
	expectStatus(r.t, s.where, subscription.Err(), ends)
	return nil
}

func (r *run) stat(s *step) error {
	var value uint64
	s.read("value", &value)
	which, known := stats[s.text("which")]
	if !known {
		r.t.Fatalf("%s: which?", s.where)
	}
	layer, deadline := s.layer(), time.Now().Add(5*time.Second)
	for {
		found, err := layer.Stat(which)
		if err != nil || found == value {
			return err
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: it is %d, and %d was due", s.where, found, value)
		}
		time.Sleep(time.Millisecond)
	}
}

func expectMessage(t *testing.T, where string, message *channellayer.Message, expected map[string]any) {
	t.Helper()
	found, err := message.Map()
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if !equal(found, expected) {
		t.Fatalf("%s: received %.200v, and %.200v was due", where, found, expected)
	}
}

// valueOf reads a value as tests/bindings/README.md writes it.
func valueOf(t *testing.T, text json.RawMessage, s *step, name string) any {
	t.Helper()
	s.asked[name] = true
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: %v", s.where, err)
	}
	return unfold(t, value)
}

func unfold(t *testing.T, value any) any {
	t.Helper()
	switch value := value.(type) {
	case json.Number:
		return integer(t, value.String())
	case []any:
		for i := range value {
			value[i] = unfold(t, value[i])
		}
		return value
	case map[string]any:
		if len(value) == 1 {
			for form, argument := range value {
				if strings.HasPrefix(form, "$") {
					return special(t, form, argument)
				}
			}
		}
		for key := range value {
			value[key] = unfold(t, value[key])
		}
	}
	return value
}

func integer(t *testing.T, text string) int64 {
	t.Helper()
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func special(t *testing.T, form string, argument any) any {
	t.Helper()
	switch form {
	case "$bytes":
		bytes, err := base64.StdEncoding.DecodeString(argument.(string))
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	case "$int":
		if number, err := strconv.ParseUint(argument.(string), 10, 64); err == nil && number>>63 != 0 {
			return number
		}
		return integer(t, argument.(string))
	case "$float":
		number, err := strconv.ParseFloat(argument.(string), 64)
		if err != nil {
			t.Fatal(err)
		}
		return number
	case "$repeat":
		pair := argument.([]any)
		count := int(integer(t, pair[1].(json.Number).String()))
		switch what := unfold(t, pair[0]).(type) {
		case string:
			return strings.Repeat(what, count)
		case []byte:
			return []byte(strings.Repeat(string(what), count))
		case []any:
			var many []any
			for i := 0; i < count; i++ {
				many = append(many, what...)
			}
			return many
		}
	case "$nest":
		value := []any{}
		for i := integer(t, argument.(json.Number).String()); i > 1; i-- {
			value = []any{value}
		}
		return value
	}
	t.Fatalf("there is no value %s", form)
	return nil
}

// equal compares values with their types; NaN equals NaN.
func equal(left, right any) bool {
	switch left := left.(type) {
	case float64:
		right, ok := right.(float64)
		return ok && math.Float64bits(left) == math.Float64bits(right) ||
			ok && math.IsNaN(left) && math.IsNaN(right)
	case []any:
		right, ok := right.([]any)
		if !ok || len(left) != len(right) {
			return false
		}
		for i := range left {
			if !equal(left[i], right[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		right, ok := right.(map[string]any)
		if !ok || len(left) != len(right) {
			return false
		}
		for key := range left {
			other, there := right[key]
			if !there || !equal(left[key], other) {
				return false
			}
		}
		return true
	case []byte:
		right, ok := right.([]byte)
		return ok && string(left) == string(right)
	}
	return reflect.DeepEqual(left, right)
}
