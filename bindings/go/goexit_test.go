package channellayer_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	channellayer "example.org/channel-layer/bindings/go"
)

// works fails where a layer does not send, receive and add to a group within 5 s.
func works(t *testing.T, layer *channellayer.Layer) {
	t.Helper()
	channel := newChannel(t, layer)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := layer.GroupAdd(ctx, "works", channel); err != nil {
		t.Fatal(err)
	}
	received := make(chan error, 1)
	go func() {
		_, err := layer.Receive(ctx, channel)
		received <- err
	}()
	if err := layer.Send(ctx, channel, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-received; err != nil {
		t.Fatal(err)
	}
}

func TestADoneThatEndsItsGoroutineEndsNoOtherCall(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		const sends = 200
		layer := open(t, host, "local_capacity", "1000", "remote_capacity", "1000")
		channel := newChannel(t, layer)
		outcomes := make(chan error, sends)
		for n := 0; n < sends; n++ {
			exits := n%2 == 0
			err := layer.SendAsync(channel, []byte{0x80}, func(err error) {
				outcomes <- err
				if exits {
					runtime.Goexit()
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for n := 0; n < sends; n++ {
			select {
			case err := <-outcomes:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("%d of %d outcomes came", n, sends)
			}
		}
		works(t, layer)
	})
}

func TestALayerClosesThoughEachDoneEndsItsGoroutine(t *testing.T) {
	for round := 0; round < 100; round++ {
		const sends = 50
		layer := open(t, memoryHost(), "local_capacity", "1000", "remote_capacity", "1000")
		channel := newChannel(t, layer)
		outcomes := make(chan error, sends)
		var exits sync.WaitGroup
		for n := 0; n < sends; n++ {
			exits.Add(1)
			err := layer.SendAsync(channel, []byte{0x80}, func(err error) {
				defer exits.Done()
				outcomes <- err
				runtime.Goexit()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		past, cancel := context.WithTimeout(context.Background(), 0)
		err := layer.Close(past)
		cancel()
		if err != nil && !errors.Is(err, channellayer.ErrTimeout) {
			t.Fatal(err)
		}
		for n := 0; n < sends; n++ {
			select {
			case err := <-outcomes:
				if err != nil && !errors.Is(err, channellayer.ErrClosed) && !errors.Is(err, channellayer.ErrUnconfirmed) {
					t.Fatal(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("%d of %d outcomes came", n, sends)
			}
		}
		exits.Wait()
		// While it still ends, a second call gets the outcome of the first.
		eventually(t, "it has ended", func() bool {
			err := layer.Close(soon(t))
			if err != nil && !errors.Is(err, channellayer.ErrTimeout) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
}

func TestMoreEventsComeAfterAHookEndedItsGoroutine(t *testing.T) {
	states := make(chan channellayer.State, 100)
	layer := openWith(t, channellayer.Config{
		Options: map[string]string{"host": memoryHost()},
		OnLog:   func(channellayer.LogLevel, string, string, string) { runtime.Goexit() },
		OnState: func(state channellayer.State, _ uint64) {
			states <- state
			runtime.Goexit()
		},
	})
	works(t, layer)
	if err := layer.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case state := <-states:
			if state == channellayer.StateClosed {
				return
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no hook is called after one ended its goroutine")
		}
	}
}

func TestAPanicOfDoneEndsTheProgram(t *testing.T) {
	const variable = "CHANNEL_LAYER_TEST_PANICS"
	if os.Getenv(variable) != "" {
		layer := open(t, memoryHost())
		err := layer.SendAsync(newChannel(t, layer), []byte{0x80}, func(error) { panic("of done") })
		if err != nil {
			t.Fatal(err)
		}
		<-soon(t).Done()
		t.Fatal("the program goes on")
	}
	command := exec.CommandContext(soon(t), os.Args[0], "-test.count=1", "-test.run=^"+t.Name()+"$")
	command.Env = append(os.Environ(), variable+"=1")
	output, err := command.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("it ended with %v", err)
	}
	for _, words := range []string{"panic: of done\n", "goexit_test.go:"} {
		if !bytes.Contains(output, []byte(words)) {
			t.Errorf("it does not say %q: %s", words, output)
		}
	}
}
