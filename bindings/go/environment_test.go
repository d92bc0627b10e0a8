package channellayer_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	channellayer "example.org/channel-layer/bindings/go"
)

const patience = 30 * time.Second

func environment(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; tests/run.sh says what it takes", name)
	}
	return value
}

func root(t *testing.T) string {
	t.Helper()
	folder, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

var unique atomic.Int64

// memoryHost gives an in-process broker that nobody else uses.
func memoryHost() string {
	return fmt.Sprintf("memory://go-%d-%d", os.Getpid(), unique.Add(1))
}

var brokers = []string{"memory", "rabbitmq"}

func hostOf(t *testing.T, broker string) string {
	t.Helper()
	if broker == "memory" {
		return memoryHost()
	}
	return environment(t, "CHANNEL_LAYER_TEST_AMQP")
}

// soon is a context that ends where a test would else hang.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// open opens a layer that is ready, and closes it after the test.
func open(t *testing.T, host string, options ...string) *channellayer.Layer {
	t.Helper()
	config := channellayer.Config{Options: map[string]string{"host": host}}
	for i := 0; i < len(options); i += 2 {
		config.Options[options[i]] = options[i+1]
	}
	return openWith(t, config)
}

func openWith(t *testing.T, config channellayer.Config) *channellayer.Layer {
	t.Helper()
	layer, err := channellayer.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := layer.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := layer.WaitReady(soon(t)); err != nil {
		t.Fatal(err)
	}
	return layer
}

func newChannel(t *testing.T, layer *channellayer.Layer) string {
	t.Helper()
	channel, err := layer.NewChannel("")
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

func statOf(t *testing.T, layer *channellayer.Layer, which channellayer.Stat) uint64 {
	t.Helper()
	value, err := layer.Stat(which)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// eventually asks until the answer is yes; the library tells of these in no other way.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// node is a RabbitMQ node of a test's own, driven by tests/bindings/node.py.
type node struct {
	t       *testing.T
	url     string
	orders  io.WriteCloser
	answers *bufio.Reader
}

func startNode(t *testing.T) *node {
	t.Helper()
	command := exec.Command("python3", "../../tests/bindings/node.py")
	command.Stderr = os.Stderr
	orders, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, orders: orders, answers: bufio.NewReader(answers)}
	t.Cleanup(func() {
		orders.Close() // at which it ends its node
		if err := command.Wait(); err != nil {
			t.Errorf("tests/bindings/node.py: %v", err)
		}
	})
	n.url = n.answer()
	return n
}

func (n *node) answer() string {
	n.t.Helper()
	line, err := n.answers.ReadString('\n')
	if err != nil {
		n.t.Fatalf("tests/bindings/node.py: %v", err)
	}
	return strings.TrimSpace(line)
}

func (n *node) do(order string) {
	n.t.Helper()
	if _, err := fmt.Fprintln(n.orders, order); err != nil {
		n.t.Fatalf("tests/bindings/node.py: %v", err)
	}
	if answer := n.answer(); answer != "done" {
		n.t.Fatalf("tests/bindings/node.py: %s: %s", order, answer)
	}
}
