package channellayer_test

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	channellayer "example.org/channel-layer/bindings/go"
)

func onEachBroker(t *testing.T, test func(t *testing.T, host string)) {
	for _, broker := range brokers {
		t.Run(broker, func(t *testing.T) { test(t, hostOf(t, broker)) })
	}
}

// --- misuse -------------------------------------------------------------------------------------

func TestMisuseIsAnErrorWithTheTextOfC(t *testing.T) {
	layer := open(t, memoryHost())
	channel := newChannel(t, layer)
	ctx := soon(t)
	for name, each := range map[string]struct {
		err  error
		is   error
		says string
	}{
		"a reserved key":       {layer.Send(ctx, channel, map[string]any{"__asgi_channel__": "x"}), channellayer.ErrInvalid, "__asgi_channel__"},
		"a bad name":           {layer.Send(ctx, "no mark", nil), channellayer.ErrInvalid, "no mark"},
		"a long name":          {layer.Send(ctx, "a!"+strings.Repeat("b", 1000), nil), channellayer.ErrInvalid, "bbb"},
		"a NUL in a name":      {layer.Send(ctx, channel+"\x00more", nil), channellayer.ErrInvalid, "NUL"},
		"a value of no type":   {layer.Send(ctx, channel, map[string]any{"f": func() {}}), channellayer.ErrInvalid, "func"},
		"a time":               {layer.Send(ctx, channel, map[string]any{"at": time.Now()}), channellayer.ErrInvalid, "at"},
		"a large integer":      {layer.SendJSON(ctx, channel, `{"n": [18446744073709551616]}`), channellayer.ErrInvalid, "message.n[0]"},
		"no MessagePack":       {layer.SendPacked(ctx, channel, []byte{0xc1}), channellayer.ErrInvalid, ""},
		"no message":           {layer.SendPacked(ctx, channel, nil), channellayer.ErrInvalid, ""},
		"no done":              {layer.SendAsync(channel, []byte{0x80}, nil), channellayer.ErrInvalid, "done"},
		"no JSON":              {layer.SendJSON(ctx, channel, "{"), channellayer.ErrInvalid, ""},
		"a stranger's channel": {layer.GroupAdd(ctx, "group", "other!channel"), channellayer.ErrInvalid, "other!channel"},
	} {
		t.Run(name, func(t *testing.T) {
			var failed *channellayer.Error
			if !errors.Is(each.err, each.is) || !errors.As(each.err, &failed) {
				t.Fatalf("it is %v", each.err)
			}
			if failed.Text == "" || !strings.Contains(each.err.Error(), each.says) {
				t.Fatalf("%v does not say %q", each.err, each.says)
			}
		})
	}
	if _, err := layer.Stat(9999); !errors.Is(err, channellayer.ErrInvalid) {
		t.Errorf("an unknown statistic: %v", err)
	}
	_, err := channellayer.Open(channellayer.Config{Options: map[string]string{"dispatch": "thread"}})
	if !errors.Is(err, channellayer.ErrInvalid) {
		t.Errorf("option dispatch: %v", err)
	}
}

func TestACheckOfAConfigFailsAsOpeningDoes(t *testing.T) {
	invalid := channellayer.ErrInvalid
	for name, each := range map[string]struct {
		options map[string]string
		is      error
	}{
		"all defaults":             {nil, nil},
		"memory":                   {map[string]string{"host": memoryHost(), "expiry": "30"}, nil},
		"a wrong value":            {map[string]string{"expiry": "soon"}, invalid},
		"an unknown option":        {map[string]string{"no_such_option": "1"}, invalid},
		"an option of the package": {map[string]string{"dispatch": "thread"}, invalid},
		"a NUL":                    {map[string]string{"groups_exchange": "a\x00b"}, invalid},
		"TLS without encryption":   {map[string]string{"tls_ca_file": "/dev/null"}, invalid},
		"a file that is no PEM":    {map[string]string{"host": "amqps://nowhere.invalid/", "tls_ca_file": "/dev/null"}, invalid},
		"text that is no PEM":      {map[string]string{"host": "amqps://nowhere.invalid/", "tls_ca_pem": "none"}, invalid},
		"a certificate alone":      {map[string]string{"host": "amqps://nowhere.invalid/", "tls_cert_file": "/no/file"}, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			config := channellayer.Config{Options: each.options}
			checked := config.Check()
			if !errors.Is(checked, each.is) {
				t.Errorf("the check gave %v", checked)
			}
			layer, opened := channellayer.Open(config)
			if opened == nil {
				defer layer.Close(soon(t))
			}
			var check, open *channellayer.Error
			if errors.As(checked, &check) != errors.As(opened, &open) || check != nil && (check.Status != open.Status || check.Text != open.Text) {
				t.Errorf("the check gave %v, Open %v", checked, opened)
			}
		})
	}
}

func TestAClosedLayerIsUsedByManyGoroutinesWithoutHarm(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		layer := open(t, host)
		channel := newChannel(t, layer)
		started, ended := make(chan struct{}, 64), make(chan error, 64)
		for i := 0; i < 64; i++ {
			go func(receives bool) {
				for first := true; ; first = false {
					var err error
					if receives {
						_, err = layer.Receive(context.Background(), channel)
					} else {
						err = layer.Send(context.Background(), channel, map[string]any{"n": 1})
					}
					if err != nil && !errors.Is(err, channellayer.ErrFull) {
						ended <- err
						return
					}
					if first {
						started <- struct{}{}
					}
				}
			}(i%2 == 0)
		}
		for i := 0; i < 32; i++ {
			<-started
		}
		if err := layer.Close(soon(t)); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < 64; i++ {
			select {
			case err := <-ended:
				if !errors.Is(err, channellayer.ErrClosed) && !errors.Is(err, channellayer.ErrUnconfirmed) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(patience):
				t.Fatal("a call hangs in a closed layer")
			}
		}
	})
}

func TestIntegersOf64BitsArriveWithAndWithoutASign(t *testing.T) {
	layer := open(t, memoryHost())
	channel := newChannel(t, layer)
	sent := map[string]any{
		"least": int64(math.MinInt64), "signed": uint64(math.MaxInt64),
		"above": uint64(math.MaxInt64) + 1, "most": uint64(math.MaxUint64),
	}
	wanted := map[string]any{
		"least": int64(math.MinInt64), "signed": int64(math.MaxInt64),
		"above": uint64(math.MaxInt64) + 1, "most": uint64(math.MaxUint64),
	}
	if err := layer.Send(soon(t), channel, sent); err != nil {
		t.Fatal(err)
	}
	text := `{"above":9223372036854775808,"least":-9223372036854775808,` +
		`"most":18446744073709551615,"signed":9223372036854775807}`
	if err := layer.SendJSON(soon(t), channel, text); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 2; i++ {
		message, err := layer.Receive(soon(t), channel)
		if err != nil {
			t.Fatal(err)
		}
		got, err := message.Map()
		if err != nil || !reflect.DeepEqual(got, wanted) {
			t.Errorf("%v arrived as %v, %v", wanted, got, err)
		}
	}
	for _, beyond := range []string{"18446744073709551616", "-9223372036854775809"} {
		err := layer.SendJSON(soon(t), channel, `{"n": [0, `+beyond+`]}`)
		if !errors.Is(err, channellayer.ErrInvalid) || !strings.Contains(err.Error(), "message.n[1]") {
			t.Errorf("%s: %v", beyond, err)
		}
	}
}

func TestAnOtherProgramIsStartedBesideAnOpenLayer(t *testing.T) {
	layer := open(t, memoryHost())
	if output, err := exec.Command("true").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if state, err := layer.State(); err != nil || state != channellayer.StateReady {
		t.Fatalf("it is %d, %v", state, err)
	}
}

func TestALayerFromBeforeAForkSaysSo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "fork")
	if output, err := exec.Command("go", "build", "-o", program, "./tests/fork").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	onEachBroker(t, func(t *testing.T, host string) {
		if output, err := exec.CommandContext(soon(t), program, host).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	})
}

// --- waiting ------------------------------------------------------------------------------------

func TestAContextEndsAWait(t *testing.T) {
	layer, err := channellayer.Open(channellayer.Config{Options: map[string]string{
		"host": "amqp://guest:guest@127.0.0.1:1/nothing-listens"}})
	if err != nil {
		t.Fatal(err)
	}
	defer layer.Close(context.Background())
	channel := newChannel(t, layer)
	for name, wait := range map[string]func(ctx context.Context) error{
		"WaitReady": layer.WaitReady,
		"Send":      func(ctx context.Context) error { return layer.Send(ctx, channel, nil) },
		"SendJSON":  func(ctx context.Context) error { return layer.SendJSON(ctx, channel, "{}") },
		"GroupAdd":  func(ctx context.Context) error { return layer.GroupAdd(ctx, "group", channel) },
		"Receive":   func(ctx context.Context) error { _, err := layer.Receive(ctx, channel); return err },
		"Handle":    func(ctx context.Context) error { return layer.Handle(ctx, channel, nil) },
		"Messages":  func(ctx context.Context) error { return layer.Messages(ctx, channel).Err() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			err := wait(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, channellayer.ErrTimeout) {
				t.Errorf("a deadline: %v", err)
			}
			ctx, cancel = context.WithCancel(context.Background())
			cancel()
			if err := wait(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
}

func TestASendWaitsForAPlace(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		layer := open(t, host, "max_in_flight", "4", "remote_capacity", "10000", "local_capacity", "10000")
		channel := newChannel(t, layer)
		const senders, each = 64, 20
		var wait sync.WaitGroup
		for i := 0; i < senders; i++ {
			wait.Add(1)
			go func() {
				defer wait.Done()
				for n := 0; n < each; n++ {
					if err := layer.Send(soon(t), channel, map[string]any{"n": n}); err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
		wait.Wait()
		for n := 0; n < senders*each; n++ {
			if _, err := layer.Receive(soon(t), channel); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestSendAsyncIsBusyWithoutAPlace(t *testing.T) {
	layer, err := channellayer.Open(channellayer.Config{Options: map[string]string{
		"host": "amqp://guest:guest@127.0.0.1:1/nothing-listens", "max_in_flight": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan error, 2)
	for i := 0; i < 2; i++ {
		if err := layer.SendAsync("a!b", []byte{0x80}, func(err error) { outcomes <- err }); err != nil {
			t.Fatal(err)
		}
	}
	err = layer.SendAsync("a!b", []byte{0x80}, func(error) { t.Error("done, though it failed") })
	if !errors.Is(err, channellayer.ErrBusy) {
		t.Errorf("it is %v", err)
	}
	if err := layer.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 2; i++ {
		if err := <-outcomes; err == nil {
			t.Error("sent, to nobody")
		}
	}
}

func TestSendsWithoutWaitingTakeMapsBytesAndJSON(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		layer := open(t, host)
		channel := newChannel(t, layer)
		if err := layer.GroupAdd(soon(t), "g", channel); err != nil {
			t.Fatal(err)
		}
		packed, err := channellayer.Pack(map[string]any{"n": 1})
		if err != nil {
			t.Fatal(err)
		}
		outcomes := make(chan error, 6)
		done := func(err error) { outcomes <- err }
		for i, err := range []error{
			layer.SendAsync(channel, map[string]any{"n": 0}, done),
			layer.SendAsync(channel, packed, done),
			layer.SendJSONAsync(channel, `{"n": 2}`, done),
			layer.GroupSendAsync("g", map[string]any{"n": 3}, done),
			layer.GroupSendJSONAsync("g", `{"n": 4}`, done),
			layer.SendJSONAsync("channels_none!gone", "{}", done),
		} {
			if err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		}
		for n := int64(0); n < 5; n++ {
			message, err := layer.Receive(soon(t), channel)
			if err != nil {
				t.Fatal(err)
			}
			if said, err := message.Map(); err != nil || said["n"] != n {
				t.Errorf("message %d is %v, %v", n, said, err)
			}
		}
		gone := 0
		for i := 0; i < 6; i++ {
			if err := <-outcomes; errors.Is(err, channellayer.ErrNoChannel) {
				gone++
			} else if err != nil {
				t.Error(err)
			}
		}
		if gone != 1 {
			t.Errorf("%d of the sends went nowhere", gone)
		}
		never := func(error) { t.Error("done, though it failed") }
		for _, err := range []error{
			layer.SendAsync(channel, "{}", never),
			layer.GroupSendAsync("g", nil, never),
			layer.SendAsync(channel, map[string]any{"a": make(chan int)}, never),
			layer.SendJSONAsync(channel, `{"twin": 1, "twin": 2}`, never),
			layer.SendJSONAsync(channel, "{}\x00", never),
			layer.GroupSendJSONAsync("g", "{}", nil),
		} {
			if !errors.Is(err, channellayer.ErrInvalid) {
				t.Errorf("it is %v", err)
			}
		}
	})
}

// threads gives how many threads of the system this process has.
func threads(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestSendsOfJSONThatWaitTakeNoThreads(t *testing.T) {
	const senders = 200
	layer, err := channellayer.Open(channellayer.Config{Options: map[string]string{
		"host": "amqp://guest:guest@127.0.0.1:1/nothing-listens"}})
	if err != nil {
		t.Fatal(err)
	}
	before := threads(t)
	ended := make(chan error, senders)
	for i := 0; i < senders; i++ {
		go func() { ended <- layer.SendJSON(context.Background(), "a!b", "{}") }()
	}
	for until := time.Now().Add(patience); statOf(t, layer, channellayer.StatInFlight) < senders; {
		if time.Now().After(until) {
			t.Fatalf("%d of %d are in flight", statOf(t, layer, channellayer.StatInFlight), senders)
		}
		time.Sleep(time.Millisecond)
	}
	if now := threads(t); now > before+senders/4 {
		t.Errorf("%d threads for %d sends", now-before, senders)
	}
	if err := layer.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < senders; i++ {
		if err := <-ended; !errors.Is(err, channellayer.ErrClosed) && !errors.Is(err, channellayer.ErrDisconnected) {
			t.Errorf("it is %v", err)
		}
	}
}

func TestACloseEndsWithItsContextAndTheLayerIsClosedAllTheSame(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		layer := open(t, host)
		channel := newChannel(t, layer)
		received := make(chan error, 1)
		go func() {
			_, err := layer.Receive(context.Background(), channel)
			received <- err
		}()
		cancelled, cancel := context.WithCancel(context.Background())
		cancel()
		if err := layer.Close(cancelled); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if err := layer.Send(soon(t), channel, nil); !errors.Is(err, channellayer.ErrClosed) {
			t.Errorf("a send afterwards: %v", err)
		}
		const closers = 16
		closed := make(chan error, closers)
		for i := 0; i < closers; i++ {
			go func() { closed <- layer.Close(soon(t)) }()
		}
		for i := 0; i < closers; i++ {
			if err := <-closed; err != nil {
				t.Errorf("again: %v", err)
			}
		}
		if err := <-received; !errors.Is(err, channellayer.ErrClosed) {
			t.Errorf("the receiver: %v", err)
		}
		if err := layer.Close(cancelled); err != nil {
			t.Errorf("of a closed layer: %v", err)
		}
	})
}

func TestACloseIsBoundedThoughAnOutcomeIsNotTaken(t *testing.T) {
	layer := open(t, memoryHost(), "timeout", "0.2")
	channel := newChannel(t, layer)
	inside, goOn := make(chan struct{}), make(chan struct{})
	err := layer.SendAsync(channel, map[string]any{}, func(error) {
		close(inside)
		<-goOn // it must not wait
	})
	if err != nil {
		t.Fatal(err)
	}
	<-inside
	if err := layer.Close(context.Background()); !errors.Is(err, channellayer.ErrTimeout) {
		t.Errorf("it is %v", err)
	}
	close(goOn)
	if err := layer.Close(soon(t)); err != nil {
		t.Errorf("again: %v", err)
	}
}

// proxy is between a layer and its broker, and can hold back what the broker answers.
type proxy struct {
	url  string
	open sync.RWMutex // locked while answers are held back
}

func startProxy(t *testing.T, broker string) *proxy {
	t.Helper()
	address, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	target := address.Host
	if address.Port() == "" {
		target = net.JoinHostPort(address.Hostname(), "5672")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	address.Host = listener.Addr().String()
	p := &proxy{url: address.String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				t.Errorf("the broker: %v", err)
				client.Close()
				return
			}
			go p.relay(server, client, func() {})
			go p.relay(client, server, func() {
				p.open.RLock()
				p.open.RUnlock()
			})
		}
	}()
	return p
}

// relay passes on what comes, until either side ends.
func (p *proxy) relay(to, from net.Conn, wait func()) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 1<<16)
	for {
		count, err := from.Read(buffer)
		wait()
		if count != 0 {
			if _, err := to.Write(buffer[:count]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func TestACloseWithAFarDeadlineWaitsForConfirms(t *testing.T) {
	broker := hostOf(t, "rabbitmq")
	for name, far := range map[string]time.Duration{"of 292 years": math.MaxInt64, "of 60 days": 60 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			between := startProxy(t, broker)
			sender, receiver := open(t, between.url), open(t, broker)
			channel := newChannel(t, receiver)
			between.open.Lock()
			var once sync.Once
			release := func() { once.Do(between.open.Unlock) }
			defer release()
			outcome := make(chan error, 1)
			if err := sender.SendAsync(channel, []byte{0x80}, func(err error) { outcome <- err }); err != nil {
				t.Fatal(err)
			}
			if _, err := receiver.Receive(soon(t), channel); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), far)
			defer cancel()
			closed := make(chan error, 1)
			go func() { closed <- sender.Close(ctx) }()
			eventually(t, "it closes", func() bool {
				return errors.Is(sender.SendAsync(channel, []byte{0x80}, func(error) {}), channellayer.ErrClosed)
			})
			release()
			for what, result := range map[string]chan error{"the send": outcome, "Close": closed} {
				select {
				case err := <-result:
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
				case <-time.After(patience):
					t.Fatalf("%s does not end", what)
				}
			}
		})
	}
}

// TestOutcomesAreTrueWhenClosingRunsOutOfTime: a message that was sent is not said to be refused by
// a closed layer, or whoever is told that sends it again.
func TestOutcomesAreTrueWhenClosingRunsOutOfTime(t *testing.T) {
	late := 0
	for round := 0; round < 3000; round++ {
		const messages = 50
		layer, err := channellayer.Open(channellayer.Config{Options: map[string]string{
			"host": memoryHost(), "local_capacity": "1000", "remote_capacity": "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := layer.WaitReady(soon(t)); err != nil {
			t.Fatal(err)
		}
		channel := newChannel(t, layer)
		outcomes := make(chan error, messages)
		for n := 0; n < messages; n++ {
			if err := layer.SendAsync(channel, []byte{0x80}, func(err error) { outcomes <- err }); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 0)
		err = layer.Close(ctx)
		cancel()
		if errors.Is(err, channellayer.ErrTimeout) {
			late++
		} else if err != nil {
			t.Fatal(err)
		}
		sent := 0
		for n := 0; n < messages; n++ {
			select {
			case err := <-outcomes:
				switch {
				case err == nil:
					sent++
				case !errors.Is(err, channellayer.ErrClosed) && !errors.Is(err, channellayer.ErrUnconfirmed):
					t.Fatal(err)
				}
			case <-time.After(patience):
				t.Fatal("an outcome is missing")
			}
		}
		if confirmed := statOf(t, layer, channellayer.StatSendsConfirmed); uint64(sent) != confirmed {
			t.Fatalf("round %d: %d were sent, and %d were told so", round, confirmed, sent)
		}
	}
	if late == 0 {
		t.Error("closing was in time always: that tests nothing")
	}
	t.Logf("closing was late in %d rounds", late)
}

// --- receiving ----------------------------------------------------------------------------------

func TestMessagesComeByAGoChannelInOrder(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		layer := open(t, host)
		channel := newChannel(t, layer)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		subscription := layer.Messages(ctx, channel)
		for n := 0; n < 50; n++ {
			if err := layer.Send(soon(t), channel, map[string]any{"n": n}); err != nil {
				t.Fatal(err)
			}
		}
		for n := 0; n < 25; n++ {
			expectMessage(t, "in order", <-subscription.C, map[string]any{"n": int64(n)})
		}
		// The goroutine behind the Go channel holds the next one. Nobody takes it from there: it goes back.
		eventually(t, "one is held", func() bool {
			return statOf(t, layer, channellayer.StatReceived) == 26 &&
				statOf(t, layer, channellayer.StatBacklog) == 24
		})
		cancel()
		if err := subscription.Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("it ended with %v", err)
		}
		for range subscription.C {
			t.Fatal("a message came after the end")
		}
		for next := 25; next < 50; next++ {
			message, err := layer.Receive(soon(t), channel)
			if err != nil {
				t.Fatal(err)
			}
			expectMessage(t, "given back", message, map[string]any{"n": int64(next)})
		}
	})
}

func TestAChannelThatIsDiscardedEndsMessagesThatHoldsAMessage(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		layer := open(t, host)
		channel := newChannel(t, layer)
		subscription := layer.Messages(context.Background(), channel)
		if err := layer.Send(soon(t), channel, map[string]any{"n": 1}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the message is held", func() bool {
			return statOf(t, layer, channellayer.StatReceived) == 1
		})
		if err := layer.ChannelDiscard(channel); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- subscription.Err() }()
		select {
		case err := <-ended:
			if !errors.Is(err, channellayer.ErrCancelled) {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("it goes on after its channel was discarded")
		}
		if message, ok := <-subscription.C; ok {
			t.Errorf("%v came from the channel that was discarded", message.Packed())
		}
		cancelled, cancel := context.WithCancel(context.Background())
		cancel()
		if message, err := layer.Receive(cancelled, channel); !errors.Is(err, context.Canceled) {
			t.Errorf("what was held came back: %v, %v", message, err)
		}
	})
}

// A wake-up that is not for its receiver's end leaves the message where it is.
func TestMessagesKeepsWhatItHoldsWhenAnotherDeclines(t *testing.T) {
	layer := open(t, memoryHost())
	channel := newChannel(t, layer)
	subscription := layer.Messages(soon(t), channel)
	for n := int64(0); n < 2; n++ {
		if err := layer.Send(soon(t), channel, map[string]any{"n": n}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the message was taken", func() bool {
			return n == 1 || statOf(t, layer, channellayer.StatReceived) == 1
		})
	}
	err := layer.Handle(soon(t), channel, func(message *channellayer.Message) channellayer.Flow {
		expectMessage(t, "the other", message, map[string]any{"n": int64(1)})
		return channellayer.Decline
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(0); n < 2; n++ {
		select {
		case message := <-subscription.C:
			expectMessage(t, "of the subscription", message, map[string]any{"n": n})
		case <-time.After(patience):
			t.Fatalf("message %d does not come", n)
		}
	}
}

// TestMessagesThatNobodyRefersToAreFreed: what C keeps of a message is memory that the collector does
// not see.
func TestMessagesThatNobodyRefersToAreFreed(t *testing.T) {
	const some, many, pad, bound = 3000, 10000, 10000, 40 << 20 // all of them take 100 MB
	layer := open(t, memoryHost(), "local_capacity", "2000", "remote_capacity", "2000")
	channel := newChannel(t, layer)
	message := map[string]any{"pad": make([]byte, pad)}
	ctx := context.Background() // one for each call, as soon makes, would be kept until the end
	receive := func(count int) int {
		for n := 0; n < count; n++ {
			if err := layer.Send(ctx, channel, message); err != nil {
				t.Fatal(err)
			}
			if _, err := layer.Receive(ctx, channel); err != nil {
				t.Fatal(err)
			}
		}
		return resident(t)
	}
	before := receive(some)
	grown := receive(many) - before
	for i := 0; i < 100 && grown > bound; i++ { // finalizers run some time after a collection
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
		grown = resident(t) - before
	}
	if grown > bound {
		t.Fatalf("%d messages of %d bytes have left %d bytes behind", many, pad, grown)
	}
	t.Logf("grown by %d bytes", grown)
}

// resident gives the memory of this process that is resident, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestADeclinedMessageWakesAnother(t *testing.T) {
	layer := open(t, memoryHost())
	channel := newChannel(t, layer)
	holding, decline := make(chan struct{}), make(chan struct{})
	go layer.Handle(context.Background(), channel, func(*channellayer.Message) channellayer.Flow {
		close(holding)
		<-decline
		return channellayer.Decline
	})
	if err := layer.Send(soon(t), channel, map[string]any{"n": 1}); err != nil {
		t.Fatal(err)
	}
	<-holding
	taken := make(chan error, 1)
	go func() {
		_, err := layer.Receive(soon(t), channel)
		taken <- err
	}()
	eventually(t, "the other waits", func() bool { return statOf(t, layer, channellayer.StatReceivers) == 1 })
	close(decline)
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	if left := statOf(t, layer, channellayer.StatReceivers); left != 0 {
		t.Fatalf("%d receivers are left", left)
	}
}

// TestReceiversCancelledInFlightLoseNothing: 10,000 receivers are cancelled at whatever moment it
// happens to be, while messages come.
func TestReceiversCancelledInFlightLoseNothing(t *testing.T) {
	const receivers, messages = 10000, 5000
	onEachBroker(t, func(t *testing.T, host string) {
		layer := open(t, host, "local_capacity", "20000", "remote_capacity", "20000", "prefetch_count", "1000")
		channel := newChannel(t, layer)
		var seen [messages]atomic.Int32
		take := func(message *channellayer.Message) {
			found, err := message.Map()
			if err != nil {
				t.Error(err)
				return
			}
			seen[found["n"].(int64)].Add(1)
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for n := 0; n < messages; n++ {
				if err := layer.Send(context.Background(), channel, map[string]any{"n": n}); err != nil {
					t.Error(err)
				}
			}
		}()
		var wait sync.WaitGroup
		var taken, cancelled atomic.Int64
		places := make(chan struct{}, 64)
		for i := 0; i < receivers; i++ {
			places <- struct{}{}
			ctx, cancel := context.WithCancel(context.Background())
			wait.Add(1)
			go func() {
				defer wait.Done()
				defer func() { <-places }()
				message, err := layer.Receive(ctx, channel)
				switch {
				case err == nil:
					taken.Add(1)
					take(message)
				case errors.Is(err, context.Canceled):
					cancelled.Add(1)
				default:
					t.Error(err)
				}
			}()
			// From before it begins to wait to after a message has come.
			time.AfterFunc(time.Duration(rand.Intn(2000))*time.Microsecond, cancel)
		}
		wait.Wait()
		<-sent
		left := messages - int(taken.Load())
		t.Logf("%d took a message, %d were cancelled", taken.Load(), cancelled.Load())
		if taken.Load()+cancelled.Load() != receivers || cancelled.Load() == 0 || taken.Load() == 0 {
			t.Fatal("that is not all of them, or all went one way")
		}
		for ; left > 0; left-- {
			message, err := layer.Receive(soon(t), channel)
			if err != nil {
				t.Fatalf("%d are lost: %v", left, err)
			}
			take(message)
		}
		for n := range seen {
			if count := seen[n].Load(); count != 1 {
				t.Fatalf("message %d came %d times", n, count)
			}
		}
		if left := statOf(t, layer, channellayer.StatReceivers); left != 0 {
			t.Fatalf("%d receivers are left", left)
		}
	})
}

// --- events -------------------------------------------------------------------------------------

func TestStatesAndLogRecordsAreTold(t *testing.T) {
	states, records := make(chan channellayer.State, 100), make(chan string, 100)
	layer := openWith(t, channellayer.Config{
		Options: map[string]string{"host": hostOf(t, "rabbitmq")},
		OnState: func(state channellayer.State, generation uint64) {
			if state == channellayer.StateReady && generation != 1 {
				t.Errorf("ready for the first time, and generation is %d", generation)
			}
			states <- state
		},
		OnLog: func(level channellayer.LogLevel, id, target, message string) {
			if id == "" || target == "" || message == "" || level < channellayer.LogError || level > channellayer.LogDebug {
				t.Errorf("a record is %d %q %q %q", level, id, target, message)
			}
			records <- id
		},
	})
	for state := range states {
		if state == channellayer.StateReady {
			break
		}
	}
	if id := <-records; id != "connected" {
		t.Errorf("the first record is of id %q", id)
	}
	if err := layer.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	for state := range states {
		if state == channellayer.StateClosed {
			break
		}
	}
}

// isolationTold is what OnIsolation was called with.
type isolationTold struct {
	event   channellayer.IsolationEvent
	channel string
	count   uint64
}

// isolatingSoon: one channel uses all credit up with two messages, and then keeps no more than these.
func isolatingSoon(host string, hook func(channellayer.IsolationEvent, string, uint64)) channellayer.Config {
	return channellayer.Config{
		Options: map[string]string{
			"host": host, "local_capacity": "1", "prefetch_count": "1", "channel_capacity": "2",
			"remote_capacity": "100", "stall_after": "0.1",
		},
		OnIsolation: hook,
	}
}

func sendSix(t *testing.T, layer *channellayer.Layer, channel string) {
	t.Helper()
	for n := 0; n < 6; n++ {
		if err := layer.Send(soon(t), channel, map[string]any{"n": n}); err != nil {
			t.Fatal(err)
		}
	}
}

// within takes an event that has to come.
func within(t *testing.T, events <-chan isolationTold) isolationTold {
	t.Helper()
	select {
	case event := <-events:
		return event
	case <-time.After(patience):
		t.Fatalf("no event within %s", patience)
		return isolationTold{}
	}
}

func TestIsolationNamesTheChannelThatLosesMessages(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		events := make(chan isolationTold, 100)
		layer := openWith(t, isolatingSoon(host, func(event channellayer.IsolationEvent, channel string, count uint64) {
			events <- isolationTold{event, channel, count}
		}))
		channel := newChannel(t, layer)
		sendSix(t, layer, channel)

		if began := within(t, events); began != (isolationTold{channellayer.IsolationBegan, "", 2}) {
			t.Fatalf("it began with %+v", began)
		}
		lost := uint64(0)
		for lost < 4 {
			next := within(t, events)
			if next.event != channellayer.IsolationLost || next.channel != channel || next.count == 0 {
				t.Fatalf("a loss of %s is %+v", channel, next)
			}
			lost += next.count
		}
		for which, wanted := range map[channellayer.Stat]uint64{
			channellayer.StatIsolating:          1,
			channellayer.StatIsolations:         1,
			channellayer.StatDroppedChannelFull: 4,
			channellayer.StatDroppedTotalFull:   0,
		} {
			if value := statOf(t, layer, which); value != wanted {
				t.Errorf("statistic %d is %d instead of %d", which, value, wanted)
			}
		}

		for n := 0; n < 2; n++ {
			message, err := layer.Receive(soon(t), channel)
			if err != nil {
				t.Fatal(err)
			}
			expectMessage(t, "kept", message, map[string]any{"n": int64(n)})
		}
		if ended := within(t, events); ended != (isolationTold{channellayer.IsolationEnded, "", lost}) || lost != 4 {
			t.Fatalf("%d were lost, and it ended with %+v", lost, ended)
		}
		if isolating := statOf(t, layer, channellayer.StatIsolating); isolating != 0 {
			t.Errorf("it has ended, and the statistic is %d", isolating)
		}
	})
}

func TestALayerMayBeClosedWhileItsChannelsAreIsolated(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		for _, inside := range []bool{false, true} {
			var layer *channellayer.Layer
			began := make(chan error, 1)
			layer, err := channellayer.Open(isolatingSoon(host, func(event channellayer.IsolationEvent, _ string, _ uint64) {
				if event != channellayer.IsolationBegan {
					return
				}
				if inside {
					began <- layer.Close(context.Background())
				} else {
					began <- nil
				}
			}))
			if err != nil {
				t.Fatal(err)
			}
			channel := newChannel(t, layer)
			for n := 0; n < 6; n++ {
				// Where the hook closes the layer, sends may already be refused.
				err := layer.Send(soon(t), channel, map[string]any{"n": n})
				if err != nil && (!inside || errors.Is(err, channellayer.ErrFull)) {
					t.Fatal(err)
				}
			}
			select {
			case err := <-began:
				if err != nil {
					t.Fatalf("closed by its hook: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("isolation does not begin, or its hook does not return")
			}
			if err := layer.Close(soon(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := layer.Receive(soon(t), channel); !errors.Is(err, channellayer.ErrClosed) {
				t.Fatalf("a closed layer says %v", err)
			}
		}
	})
}

func TestAPanicOfAHookIsWrittenToStandardErrorAndMoreEventsCome(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stderr
	os.Stderr = writer
	lost := make(chan isolationTold, 100)
	layer := openWith(t, isolatingSoon(memoryHost(), func(event channellayer.IsolationEvent, channel string, count uint64) {
		if event == channellayer.IsolationBegan {
			panic("of isolation")
		}
		lost <- isolationTold{event, channel, count}
	}))
	sendSix(t, layer, newChannel(t, layer))
	next := within(t, lost)
	os.Stderr = before
	writer.Close()
	written, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if next.event != channellayer.IsolationLost {
		t.Errorf("the event after the panic is %+v", next)
	}
	for _, words := range []string{"a hook panicked: of isolation\n", "behaviour_test.go:"} {
		if !strings.Contains(string(written), words) {
			t.Errorf("standard error does not say %q: %s", words, written)
		}
	}
}

func TestAChannelThatIsReceivedFromStaysInItsGroup(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		expired := make(chan string, 100)
		layer := openWith(t, channellayer.Config{
			Options: map[string]string{"host": host, "group_expiry": "0.3"},
			OnLog: func(_ channellayer.LogLevel, id, _, message string) {
				if id == "memberships_expired" {
					expired <- message
				}
			},
		})
		group := fmt.Sprintf("go-%d-%d", os.Getpid(), unique.Add(1))
		received, idle := newChannel(t, layer), newChannel(t, layer)
		subscription := layer.Messages(soon(t), received)
		eventually(t, "it waits", func() bool { return statOf(t, layer, channellayer.StatReceivers) == 1 })
		for _, channel := range []string{received, idle} {
			if err := layer.GroupAdd(soon(t), group, channel); err != nil {
				t.Fatal(err)
			}
		}
		// The one that was added first would have expired no later.
		select {
		case message := <-expired:
			if !strings.Contains(message, idle) || strings.Contains(message, received) {
				t.Errorf("the record says: %s", message)
			}
		case <-time.After(patience):
			t.Fatal("the other does not expire")
		}
		if err := layer.GroupSend(soon(t), group, map[string]any{"n": 1}); err != nil {
			t.Fatal(err)
		}
		message, there := <-subscription.C
		if !there {
			t.Fatal(subscription.Err())
		}
		expectMessage(t, "to the group", message, map[string]any{"n": int64(1)})
		left, gone := statOf(t, layer, channellayer.StatMemberships), statOf(t, layer, channellayer.StatMembershipsExpired)
		if left != 1 || gone != 1 {
			t.Errorf("%d memberships are left, %d have expired", left, gone)
		}
	})
}

func TestStatisticsComeAsTextForPrometheus(t *testing.T) {
	layer := open(t, hostOf(t, "memory"))
	if err := layer.WaitReady(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := layer.Send(soon(t), newChannel(t, layer), map[string]any{"n": 1}); err != nil {
		t.Fatal(err)
	}
	text, err := layer.Prometheus(map[string]string{"site": "a \"b\"\n\\", "zone": "c"})
	if err != nil {
		t.Fatal(err)
	}
	line := `channel_layer_sends_total{site="a \"b\"\n\\",zone="c"} 1` + "\n"
	if !strings.Contains(text, line) {
		t.Errorf("there is no %q in %s", line, text)
	}
	if text, err = layer.Prometheus(nil); err != nil || !strings.Contains(text, "channel_layer_ready 1\n") {
		t.Errorf("without labels: %v, %s", err, text)
	}
	for _, labels := range []map[string]string{{"1": ""}, {"reason": ""}, {"a": "\x00"}} {
		if _, err := layer.Prometheus(labels); !errors.Is(err, channellayer.ErrInvalid) {
			t.Errorf("labels %q: %v", labels, err)
		}
	}
}

// --- faults -------------------------------------------------------------------------------------

func TestABrokerRestartedUnderLoadGoesOn(t *testing.T) {
	broker := startNode(t)
	sending := open(t, broker.url, "timeout", "2")
	receiving := open(t, broker.url, "timeout", "2")
	channel := newChannel(t, receiving)
	ctx, cancel := context.WithCancel(context.Background())
	var received, failed, numbers atomic.Int64
	seen := make(map[int64]bool) // the handler's alone
	handled := make(chan error, 1)
	go func() {
		handled <- receiving.Handle(ctx, channel, func(message *channellayer.Message) channellayer.Flow {
			found, err := message.Map()
			if number, ok := found["n"].(int64); err != nil || !ok {
				t.Errorf("a message is %v, %v", found, err)
			} else if seen[number] {
				t.Errorf("message %d came twice", number)
			} else {
				seen[number] = true
			}
			received.Add(1)
			return channellayer.Continue
		})
	}()
	var wait sync.WaitGroup
	for i := 0; i < 32; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for ctx.Err() == nil {
				err := sending.Send(ctx, channel, map[string]any{"n": numbers.Add(1)})
				switch {
				case err == nil, ctx.Err() != nil:
				case errors.Is(err, channellayer.ErrInvalid), errors.Is(err, channellayer.ErrClosed),
					errors.Is(err, channellayer.ErrInternal):
					t.Error(err)
					return
				default:
					failed.Add(1)
				}
			}
		}()
	}
	goOn := func() {
		before := received.Load()
		eventually(t, "messages flow", func() bool { return received.Load() >= before+1000 })
	}
	goOn()
	for _, order := range []string{"restart", "kill9"} {
		broker.do(order)
		if order == "kill9" {
			broker.do("start")
		}
		for _, layer := range []*channellayer.Layer{sending, receiving} {
			layer := layer
			eventually(t, "a second connection", func() bool {
				state, err := layer.State()
				return err == nil && state == channellayer.StateReady
			})
		}
		goOn()
	}
	if statOf(t, receiving, channellayer.StatGeneration) < 3 || failed.Load() == 0 {
		t.Error("the broker was restarted, and nobody noticed")
	}
	cancel()
	wait.Wait()
	if err := <-handled; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAProgramExitsWithAnOpenLayer(t *testing.T) {
	runs := 100
	if text := os.Getenv("CHANNEL_LAYER_TEST_EXITS"); text != "" {
		var err error
		if runs, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "exit")
	if output, err := exec.Command("go", "build", "-o", program, "./tests/exit").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	onEachBroker(t, func(t *testing.T, host string) {
		for i := 0; i < runs/2; i++ {
			how := []string{"return", "exit"}[i%2]
			ctx := soon(t)
			if output, err := exec.CommandContext(ctx, program, host, how).CombinedOutput(); err != nil {
				t.Fatalf("run %d (%s): %v: %s", i, how, err, output)
			}
		}
	})
}

// --- README -------------------------------------------------------------------------------------

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writeExample writes the program of the README into a folder of its own, and gives its file.
func writeExample(t *testing.T) string {
	t.Helper()
	_, after, found := strings.Cut(readme(t), "```go\npackage main")
	code, _, ended := strings.Cut(after, "```")
	if !found || !ended {
		t.Fatal("README.md has no program")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte("package main"+code), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// command runs a program in a folder and gives what it printed; variables are added to the environment.
func command(t *testing.T, folder string, variables []string, name string, arguments ...string) string {
	t.Helper()
	program := exec.Command(name, arguments...)
	program.Dir = folder
	program.Env = append(os.Environ(), variables...)
	output, err := program.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, arguments, err, output)
	}
	return string(output)
}

// needs tells whether a program asks for the shared library when it starts.
func needs(t *testing.T, program, library string) bool {
	t.Helper()
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range libraries {
		if name == library {
			return true
		}
	}
	return false
}

// TestAModuleElsewhereUsesThisOneAsTheREADMESays, with the shared library and with the static one.
func TestAModuleElsewhereUsesThisOneAsTheREADMESays(t *testing.T) {
	_, after, found := strings.Cut(readme(t), "\n    go mod edit ")
	line, _, _ := strings.Cut(after, "\n")
	edit := strings.Fields(strings.ReplaceAll(line, "/path/to/channel-layer", root(t)))
	_, after, tagged := strings.Cut(readme(t), "\n    go build -tags ")
	tag, _, _ := strings.Cut(after, "\n")
	if !found || !tagged || !strings.Contains(line, "/path/to/channel-layer") {
		t.Fatal("README.md has no command 'go mod edit' or 'go build -tags'")
	}
	folder := filepath.Dir(writeExample(t))
	there := []string{"GOFLAGS=-mod=mod"}
	command(t, folder, there, "go", "mod", "init", "elsewhere")
	command(t, folder, there, "go", append([]string{"mod", "edit"}, edit...)...)
	// In the place of the network, which `go mod tidy` would ask.
	for _, replaced := range replacements(t) {
		command(t, folder, there, "go", "mod", "edit", "-replace", replaced)
	}
	const library = "libchannel_layer.so.0"
	for _, how := range []struct {
		name   string
		flags  []string
		shared bool
	}{{"shared", nil, true}, {"static", []string{"-tags", tag}, false}} {
		t.Run(how.name, func(t *testing.T) {
			program := filepath.Join(folder, how.name)
			command(t, folder, there, "go", append(append([]string{"build", "-o", program}, how.flags...), ".")...)
			if needs(t, program, library) != how.shared {
				t.Fatalf("it needs %s: %v", library, !how.shared)
			}
			variables := []string{}
			if !how.shared {
				variables = []string{"LD_LIBRARY_PATH="}
			}
			if output := command(t, folder, variables, program); output != "hello\n" {
				t.Fatal(output)
			}
		})
	}
}

// replacements gives the modules that the tests have in folders, as `go mod edit -replace` takes them.
func replacements(t *testing.T) []string {
	t.Helper()
	for _, flag := range strings.Fields(environment(t, "GOFLAGS")) {
		if file := strings.TrimPrefix(flag, "-modfile="); file != flag {
			var module struct {
				Replace []struct{ Old, New struct{ Path string } }
			}
			if err := json.Unmarshal([]byte(command(t, ".", nil, "go", "mod", "edit", "-json", file)), &module); err != nil {
				t.Fatal(err)
			}
			var pairs []string
			for _, each := range module.Replace {
				pairs = append(pairs, each.Old.Path+"="+each.New.Path)
			}
			return pairs
		}
	}
	t.Fatal("GOFLAGS has no -modfile")
	return nil
}

func TestTheModuleCanBeGivenAnotherPath(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "go")
	command(t, ".", nil, "cp", "-R", ".", folder)
	module := strings.TrimSpace(command(t, folder, nil, "sed", "-n", "s/^module //p", "go.mod"))
	const other = "somewhere.test/else/bindings/go"
	command(t, folder, nil, "./rename_module.sh", other)
	if output, err := exec.Command("grep", "-rF", module, folder, "--include=*.go", "--include=go.mod", "--include=README.md").Output(); err == nil {
		t.Errorf("the old path is left: %s", output)
	}
	modfile := filepath.Join(t.TempDir(), "go.mod")
	command(t, folder, nil, "cp", "go.mod", modfile)
	for _, replaced := range replacements(t) {
		command(t, folder, nil, "go", "mod", "edit", "-replace", replaced, modfile)
	}
	command(t, folder, []string{"GOFLAGS=-mod=mod -modfile=" + modfile}, "go", "vet", "./...")
}

func TestTheExampleOfTheREADMERuns(t *testing.T) {
	file := writeExample(t)
	output, err := exec.Command("go", "run", file).CombinedOutput()
	if err != nil || string(output) != "hello\n" {
		t.Fatalf("%v: %s", err, output)
	}
}

func TestTheExampleProgramServesAChat(t *testing.T) {
	onEachBroker(t, func(t *testing.T, host string) {
		output, err := exec.Command("go", "run", "./example", "-host", host, "-check").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	})
}
