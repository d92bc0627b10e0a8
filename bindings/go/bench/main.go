// Bench does in Go what benches/programs/layer_send.c does in C, with the same arguments, and
// prints the same line of JSON: messages from one layer to a channel of another, each counted once
// it was both confirmed and received; or how long one takes from its send to the handler.
//
//	bench measure=throughput|latency body=BYTES window=N prefetch=N seconds=S warmup=S
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	channellayer "example.org/channel-layer/bindings/go"
)

const (
	capacity = 100000
	backlog  = 50000
	ring     = 1 << 17 // above backlog and window, so that no two messages meet

	confirmed = 1
	received  = 2
)

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", arguments...)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

type options struct {
	measure                string
	body, window, prefetch int
	seconds, warmup        float64
	url                    string
}

func readOptions() options {
	o := options{measure: "throughput", body: 200, window: 1000, prefetch: 1000, seconds: 5, warmup: 1}
	for _, argument := range os.Args[1:] {
		name, value, _ := strings.Cut(argument, "=")
		var err error
		switch name {
		case "measure":
			o.measure = value
		case "body":
			o.body, err = strconv.Atoi(value)
		case "window":
			o.window, err = strconv.Atoi(value)
		case "prefetch":
			o.prefetch, err = strconv.Atoi(value)
		case "seconds":
			o.seconds, err = strconv.ParseFloat(value, 64)
		case "warmup":
			o.warmup, err = strconv.ParseFloat(value, 64)
		default:
			fail("there is no argument %s", argument)
		}
		check(err)
	}
	if o.url = os.Getenv("CHANNEL_LAYER_TEST_AMQP"); o.url == "" {
		fail("CHANNEL_LAYER_TEST_AMQP is not set")
	}
	if o.window < 1 || o.window > backlog || o.seconds <= 0 {
		fail("window or seconds cannot be so")
	}
	return o
}

func open(o options) *channellayer.Layer {
	settings := map[string]string{
		"host":            o.url,
		"local_capacity":  strconv.Itoa(capacity),
		"remote_capacity": strconv.Itoa(capacity),
		"expiry":          "60",
	}
	if o.prefetch != 0 {
		settings["prefetch_count"] = strconv.Itoa(o.prefetch)
	}
	layer, err := channellayer.Open(channellayer.Config{
		Options: settings,
		OnLog: func(level channellayer.LogLevel, id, target, message string) {
			if level <= channellayer.LogWarn {
				fmt.Fprintf(os.Stderr, "%s: %s: %s\n", target, id, message)
			}
		},
	})
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	check(layer.WaitReady(ctx))
	return layer
}

var seqKey = []byte("\xa3seq\xcf")

// newBody makes a message of the size and the keys of the C program's, and says where its number is.
func newBody(size int) (body []byte, seqAt int) {
	head := "\x83\xa4type\xadbench.message" + string(seqKey) + "\x00\x00\x00\x00\x00\x00\x00\x00\xa4text"
	body = []byte(head)
	switch text := size - len(head); {
	case text < 2:
		fail("a body has at least %d bytes", len(head)+2)
	case text <= 2+0xff:
		body = append(body, 0xd9, byte(text-2))
	case text <= 3+0xffff:
		body = append(body, 0xda, byte((text-3)>>8), byte(text-3))
	default:
		body = append(body, 0xdb)
		body = binary.BigEndian.AppendUint32(body, uint32(text-5))
	}
	body = append(body, bytes.Repeat([]byte{'x'}, size-len(body))...)
	return body, bytes.Index(body, seqKey) + len(seqKey)
}

func seqOf(message *channellayer.Message) uint64 {
	packed := message.Packed()
	at := bytes.Index(packed, seqKey)
	if at < 0 {
		fail("a message arrived that this program did not send")
	}
	return binary.BigEndian.Uint64(packed[at+len(seqKey):])
}

// tally counts a message once it was both confirmed and received, in whichever order.
type tally struct {
	state    [ring]atomic.Uint32
	complete atomic.Uint64
	received atomic.Uint64
	inFlight atomic.Int64
	stop     atomic.Bool

	mu      sync.Mutex
	changed sync.Cond
	waiting atomic.Bool
}

func (t *tally) mark(seq uint64, what uint32) {
	state := &t.state[seq%ring]
	for {
		before := state.Load()
		if before&what != 0 {
			fail("message %d came twice", seq)
		}
		after := before | what
		if before != 0 {
			after = 0
		}
		if state.CompareAndSwap(before, after) {
			if before != 0 {
				t.complete.Add(1)
			}
			return
		}
	}
}

// wake wakes the sender up where it waits. It says so before it looks: one of us sees the other.
func (t *tally) wake() {
	if t.waiting.Load() {
		t.mu.Lock()
		t.changed.Signal()
		t.mu.Unlock()
	}
}

func (t *tally) waitUntil(holds func() bool) {
	t.mu.Lock()
	t.waiting.Store(true)
	for !holds() {
		t.changed.Wait()
	}
	t.waiting.Store(false)
	t.mu.Unlock()
}

func throughput(o options, sending, receiving *channellayer.Layer, channel string) {
	t := &tally{}
	t.changed.L = &t.mu
	go receiving.Handle(context.Background(), channel, func(message *channellayer.Message) channellayer.Flow {
		seq, expected := seqOf(message), t.received.Load()
		if seq != expected {
			fail("message %d arrived where %d was due", seq, expected)
		}
		t.mark(seq, received)
		t.received.Store(expected + 1)
		if (expected+1)%(backlog/4) == 0 {
			t.wake()
		}
		return channellayer.Continue
	})
	sent := make(chan uint64)
	go func() {
		body, seqAt := newBody(o.body)
		refillAt := int64(o.window * 3 / 4)
		seq := uint64(0)
		for ; !t.stop.Load(); seq++ {
			if t.inFlight.Load() >= int64(o.window) {
				t.waitUntil(func() bool { return t.inFlight.Load() <= refillAt })
			}
			if seq-t.received.Load() >= backlog {
				t.waitUntil(func() bool { return seq-t.received.Load() <= backlog/2 })
			}
			binary.BigEndian.PutUint64(body[seqAt:], seq)
			t.inFlight.Add(1)
			number := seq
			check(sending.SendAsync(channel, body, func(err error) {
				check(err)
				t.mark(number, confirmed)
				if t.inFlight.Add(-1) <= refillAt {
					t.wake()
				}
			}))
		}
		sent <- seq
	}()
	time.Sleep(time.Duration(o.warmup * 1e9))
	cpu, complete, start := cpuSeconds(), t.complete.Load(), time.Now()
	time.Sleep(time.Duration(o.seconds * 1e9))
	messages := t.complete.Load() - complete
	seconds := time.Since(start).Seconds()
	cpu = cpuSeconds() - cpu
	t.stop.Store(true)
	for all := <-sent; t.complete.Load() < all; time.Sleep(time.Millisecond) {
	}
	if messages == 0 {
		fail("no message was confirmed and received in the time that was measured")
	}
	perSecond := float64(messages) / seconds
	fmt.Printf("{\"seconds\": %.3f, \"messages\": %d, \"per_second\": %.1f, \"mb_per_second\": %.2f, "+
		"\"cpu_us_per_message\": %.2f}\n", seconds, messages, perSecond,
		perSecond*float64(o.body)/1e6, cpu*1e6/float64(messages))
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func latency(o options, sending, receiving *channellayer.Layer, channel string) {
	arrivals := make(chan time.Time, 1)
	go receiving.Handle(context.Background(), channel, func(*channellayer.Message) channellayer.Flow {
		arrivals <- time.Now()
		return channellayer.Continue
	})
	body, seqAt := newBody(o.body)
	begin := time.Now().Add(time.Duration(o.warmup * 1e9))
	end := begin.Add(time.Duration(o.seconds * 1e9))
	var samples []float64
	for seq := uint64(0); ; seq++ {
		binary.BigEndian.PutUint64(body[seqAt:], seq)
		sent := time.Now()
		if sent.After(end) {
			break
		}
		check(sending.SendPacked(context.Background(), channel, body))
		arrived := <-arrivals
		if sent.After(begin) {
			samples = append(samples, float64(arrived.Sub(sent).Nanoseconds())/1e3)
		}
	}
	if len(samples) == 0 {
		fail("no message arrived in the time that was measured")
	}
	sort.Float64s(samples)
	percentile := func(percent float64) float64 {
		rank := int(math.Ceil(percent / 100 * float64(len(samples))))
		return samples[rank-1]
	}
	fmt.Printf("{\"messages\": %d, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
		len(samples), percentile(50), percentile(99), percentile(99.9), samples[len(samples)-1])
}

func main() {
	o := readOptions()
	time.AfterFunc(time.Duration((o.seconds+o.warmup+60)*1e9), func() { fail("it hangs") })
	receiving, sending := open(o), open(o)
	channel, err := receiving.NewChannel("")
	check(err)
	switch o.measure {
	case "throughput":
		throughput(o, sending, receiving, channel)
	case "latency":
		latency(o, sending, receiving, channel)
	default:
		fail("measure=%s: throughput or latency can be measured", o.measure)
	}
	check(sending.Close(context.Background()))
	check(receiving.Close(context.Background()))
}
