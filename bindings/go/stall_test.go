package channellayer_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	channellayer "example.org/channel-layer/bindings/go"
)

// A done that waits holds up the outcome that it waits for.
func TestACallInsideDoneEndsByItself(t *testing.T) {
	ctx := context.Background()
	for what, call := range map[string]func(layer *channellayer.Layer, channel string) error{
		"Send": func(layer *channellayer.Layer, channel string) error {
			return layer.Send(ctx, channel, nil)
		},
		"SendJSON": func(layer *channellayer.Layer, channel string) error {
			return layer.SendJSON(ctx, channel, "{}")
		},
		"GroupSend": func(layer *channellayer.Layer, _ string) error {
			return layer.GroupSend(ctx, "group", nil)
		},
		"GroupSendJSON": func(layer *channellayer.Layer, _ string) error {
			return layer.GroupSendJSON(ctx, "group", "{}")
		},
		"GroupAdd": func(layer *channellayer.Layer, channel string) error {
			return layer.GroupAdd(ctx, "group", channel)
		},
	} {
		call := call
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			layer, err := channellayer.Open(channellayer.Config{
				Options: map[string]string{"host": memoryHost(), "timeout": "0.3"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := layer.WaitReady(soon(t)); err != nil {
				t.Fatal(err)
			}
			channel := newChannel(t, layer)
			inside, began := make(chan error, 1), time.Now()
			if err := layer.SendAsync(channel, []byte{0x80}, func(error) { inside <- call(layer, channel) }); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-inside:
				if took := time.Since(began); took < 300*time.Millisecond {
					t.Errorf("it ended after %s", took)
				}
				if !errors.Is(err, channellayer.ErrTimeout) || !strings.Contains(err.Error(), "done") ||
					!strings.Contains(err.Error(), "holds up") {
					t.Errorf("it ended with %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("it does not end")
			}
			works(t, layer)
			if err := layer.Close(soon(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// The hooks have a goroutine of their own, and hold up no outcome.
func TestAHookMaySend(t *testing.T) {
	sent, start := make(chan error, 1), make(chan func() error, 1)
	layer := openWith(t, channellayer.Config{
		Options: map[string]string{"host": memoryHost(), "timeout": "5"},
		OnState: func(state channellayer.State, _ uint64) {
			if state == channellayer.StateReady {
				sent <- (<-start)()
			}
		},
	})
	channel := newChannel(t, layer)
	start <- func() error { return layer.Send(context.Background(), channel, nil) }
	select {
	case err := <-sent:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}
