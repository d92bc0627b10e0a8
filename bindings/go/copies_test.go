package channellayer_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	channellayer "example.org/channel-layer/bindings/go"
)

// collect returns once the finalizers of what was unreachable have run.
func collect() {
	for i := 0; i < 2; i++ {
		ran := make(chan struct{})
		runtime.SetFinalizer(new([64]byte), func(*[64]byte) { close(ran) })
		runtime.GC()
		<-ran
	}
}

func copyOfAReceivedMessage(t *testing.T, layer *channellayer.Layer, channel string) channellayer.Message {
	t.Helper()
	message, err := layer.Receive(soon(t), channel)
	if err != nil {
		t.Fatal(err)
	}
	return *message
}

func TestACopyOfAMessageOutlivesTheOriginal(t *testing.T) {
	layer := open(t, memoryHost())
	channel, other := newChannel(t, layer), newChannel(t, layer)
	if err := layer.GroupAdd(soon(t), "copied", channel); err != nil {
		t.Fatal(err)
	}
	if err := layer.GroupSend(soon(t), "copied", map[string]any{"type": "copied.message"}); err != nil {
		t.Fatal(err)
	}
	kept := copyOfAReceivedMessage(t, layer, channel)
	collect()
	ctx := context.Background() // one for each call, as soon makes, would be kept until the end
	for n := 0; n < 1000; n++ {
		if err := layer.Send(ctx, other, map[string]any{"type": "other.message"}); err != nil {
			t.Fatal(err)
		}
		if _, err := layer.Receive(ctx, other); err != nil {
			t.Fatal(err)
		}
	}
	if got := kept.Channel(); got != channel {
		t.Errorf("its channel is %q instead of %q", got, channel)
	}
	if got := kept.Group(); got != "copied" {
		t.Errorf("its group is %q", got)
	}
	if got := kept.Type(); got != "copied.message" {
		t.Errorf("its type is %q", got)
	}
	if got, err := kept.JSON(); err != nil || got != `{"type":"copied.message"}` {
		t.Errorf("its JSON is %q, %v", got, err)
	}
	expectMessage(t, "the copy", &kept, map[string]any{"type": "copied.message"})
}

func TestAMessageThatWasNotReceivedIsEmpty(t *testing.T) {
	var message channellayer.Message
	if message.Channel() != "" || message.Group() != "" || message.Type() != "" || len(message.Packed()) != 0 {
		t.Errorf("it has %q, %q, %q, %x", message.Channel(), message.Group(), message.Type(), message.Packed())
	}
	if _, err := message.JSON(); !errors.Is(err, channellayer.ErrInvalid) {
		t.Errorf("its JSON: %v", err)
	}
	if _, err := message.Map(); !errors.Is(err, channellayer.ErrInvalid) {
		t.Errorf("its map: %v", err)
	}
}

// copyOfALayer drops the only reference to the original.
func copyOfALayer(t *testing.T) channellayer.Layer {
	t.Helper()
	layer, err := channellayer.Open(channellayer.Config{Options: map[string]string{"host": memoryHost()}})
	if err != nil {
		t.Fatal(err)
	}
	return *layer
}

func TestACopyOfALayerSendsAndReceivesBesideTheOriginal(t *testing.T) {
	original := open(t, memoryHost())
	copied := *original
	channel := newChannel(t, original)
	for n := int64(0); n < 10; n++ {
		for _, layer := range []*channellayer.Layer{original, &copied} {
			if err := layer.Send(soon(t), channel, map[string]any{"n": n}); err != nil {
				t.Fatal(err)
			}
		}
		for _, layer := range []*channellayer.Layer{&copied, original} {
			message, err := layer.Receive(soon(t), channel)
			if err != nil {
				t.Fatal(err)
			}
			expectMessage(t, "of a copied layer", message, map[string]any{"n": n})
		}
	}
}

func TestACopyOfAClosedLayerIsClosedAfterACollection(t *testing.T) {
	copied := copyOfALayer(t)
	channel := newChannel(t, &copied)
	if err := copied.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	collect()
	for n := 0; n < 100; n++ {
		if err := copied.Send(soon(t), channel, nil); !errors.Is(err, channellayer.ErrClosed) {
			t.Fatalf("a send: %v", err)
		}
		if _, err := copied.Receive(soon(t), channel); !errors.Is(err, channellayer.ErrClosed) {
			t.Fatalf("a receive: %v", err)
		}
	}
	if err := copied.Close(soon(t)); err != nil {
		t.Errorf("a second close: %v", err)
	}
}

func TestACopyOfASubscriptionGivesTheReasonOfItsEnd(t *testing.T) {
	layer := open(t, memoryHost())
	ctx, cancel := context.WithCancel(context.Background())
	copied := *layer.Messages(ctx, newChannel(t, layer))
	cancel()
	if err := copied.Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
