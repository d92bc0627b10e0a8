// Package channellayer sends messages to named channels and broadcasts to groups, between many
// server processes, over RabbitMQ. It is the Go form of the C library channel_layer, and speaks the
// same wire as the Python package channels_rabbitmq.
//
// All methods may be called from any goroutine. What waits takes a context and parks its goroutine,
// not a thread. Delivery is at most once.
package channellayer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Config says how to open a layer. Its zero value takes all defaults.
type Config struct {
	// Options are those of the C library, as {"host": "memory://example", "expiry": "30"}:
	// durations in decimal seconds, sizes in bytes. "dispatch" is this package's own.
	Options map[string]string
	// OnLog gets the log records, one at a time and in order, on a goroutine that the hooks of a layer
	// share. Where they fall behind by 1024, events are dropped and counted in StatEventsDropped. If
	// a hook panics, that is written to standard error, and the next event comes. A hook may wait, as
	// in Send: it holds up the hooks of its layer, and nothing else.
	OnLog func(level LogLevel, id, target, message string)
	// OnState gets the changes of state as OnLog gets records. generation counts the consuming
	// connections so far: where it grew, messages may have been missed in between.
	OnState func(state State, generation uint64)
	// OnIsolation is told, as OnLog gets records, when channels are isolated, what they lose by it,
	// and when that ends. IsolationBegan: count messages wait in memory. IsolationLost: channel has
	// lost count messages since its last event; "" stands for several that are not told apart.
	// IsolationEnded: count messages were lost in all since it began. Only IsolationLost has a
	// channel.
	OnIsolation func(event IsolationEvent, channel string, count uint64)
}

// Layer is an open layer: one queue on the broker, with any number of channels. Close it in the end.
// Open makes it; a copy is the same layer.
type Layer struct{ *layer }

// layer is what all copies of a Layer share. It has the finalizer, so that C's layer is not freed
// while there is a copy.
type layer struct {
	raw     rawLayer
	sink    rawSink
	file    *os.File
	timeout time.Duration // option timeout

	calls   calls
	closing atomic.Bool
	ended   chan struct{} // closed once no callback will come

	mu           sync.Mutex
	stateChanged chan struct{} // closed and made anew at each change of state
	channels     map[string]*channelState
	stashed      atomic.Int64 // messages in all stashes

	happenings    chan func()
	droppedEvents atomic.Uint64
}

const (
	drainAtOnce   = 256
	eventsAtMost  = 1024
	closingPeriod = 10 * time.Millisecond
)

// Version gives the version of the C library that is loaded, as "0.1.0".
func Version() string { return rawVersion() }

// Check gives the error that Open would give for this config, and opens nothing: there is no
// connection, no name look-up and no thread. It reads the files that Open would read.
func (config Config) Check() error {
	options, err := config.forC("check")
	if err != nil {
		return err
	}
	return rawCheck(options)
}

// forC gives the options as the C library takes them.
func (config Config) forC(op string) ([][2]string, error) {
	if found := rawABIVersion(); found != abiVersion {
		return nil, newError(op, StatusInternal, fmt.Sprintf(
			"the library that is loaded has ABI %d, this program was built for %d", found, abiVersion))
	}
	options := make([][2]string, 0, len(config.Options)+1)
	for name, value := range config.Options {
		if name == "dispatch" || name == "dispatch_threads" {
			return nil, newError(op, StatusInvalid, "option "+name+" is set by this package alone")
		}
		if err := checkText(op, name, value); err != nil {
			return nil, err
		}
		options = append(options, [2]string{name, value})
	}
	return append(options, [2]string{"dispatch", "poll"}), nil
}

// Open opens a layer. It connects in the background and tries again for ever: a broker that is down
// does not fail this call, a bad option does, with ErrInvalid.
func Open(config Config) (*Layer, error) {
	options, err := config.forC("open")
	if err != nil {
		return nil, err
	}
	sink := rawNewSink()
	raw, err := rawNew(options, sink)
	if err != nil {
		rawFreeSink(sink)
		return nil, err
	}
	file, err := rawFile(raw)
	var conn syscall.RawConn
	if err == nil {
		if conn, err = file.SyscallConn(); err != nil {
			file.Close()
		}
	}
	if err != nil {
		rawFree(raw)
		rawFreeSink(sink)
		return nil, &Error{StatusInternal, "open", err.Error(), err}
	}
	l := &layer{
		raw:          raw,
		sink:         sink,
		file:         file,
		timeout:      time.Duration(numberOf(config.Options, "timeout", 10) * float64(time.Second)),
		ended:        make(chan struct{}),
		stateChanged: make(chan struct{}),
		channels:     make(map[string]*channelState),
	}
	l.calls.most = int(numberOf(config.Options, "max_in_flight", 10000))
	if config.OnLog != nil || config.OnState != nil || config.OnIsolation != nil {
		l.happenings = make(chan func(), eventsAtMost)
		go tell(l.happenings)
	}
	// The goroutine below refers to the layer until it is closed and all has ended; only then can
	// this run, so that no call can meet a freed handle.
	runtime.SetFinalizer(l, (*layer).free)
	go (&pump{layer: l, conn: conn, config: config}).run()
	return &Layer{l}, nil
}

func (l *layer) free() {
	rawFree(l.raw)
	rawFreeSink(l.sink)
}

// numberOf reads an option that the C library has found to be a number.
func numberOf(options map[string]string, name string, otherwise float64) float64 {
	if number, err := strconv.ParseFloat(options[name], 64); err == nil {
		return number
	}
	return otherwise
}

// checkText refuses what C would read in part.
func checkText(op string, texts ...string) error {
	for _, text := range texts {
		if strings.IndexByte(text, 0) >= 0 {
			return newError(op, StatusInvalid, fmt.Sprintf("%q holds a NUL", text))
		}
	}
	return nil
}

func milliseconds(duration time.Duration) uint32 {
	// Rounded up: a wait of less than one is still a wait. Not by adding before the division: a
	// deadline may be as far away as a Duration reaches.
	count := duration / time.Millisecond
	if duration%time.Millisecond > 0 {
		count++
	}
	switch {
	case count < 0:
		return 0
	case count > math.MaxUint32:
		return math.MaxUint32
	}
	return uint32(count)
}

// contextError is the error of a wait that its context ended. It is the context's error, and
// ErrTimeout where that was a deadline.
func contextError(ctx context.Context, op, text string) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{StatusTimeout, op, text, err}
	}
	return fmt.Errorf("channellayer: %s: %s: %w", op, text, err)
}

// --- what comes from C ------------------------------------------------------------------------

// tell runs the hooks. One may end the goroutine, by runtime.Goexit or what calls it, as t.FailNow:
// then another goroutine runs those that follow.
func tell(happenings <-chan func()) {
	ended := false
	defer func() {
		if !ended {
			go tell(happenings)
		}
	}()
	for happening := range happenings {
		runHook(happening)
	}
	ended = true
}

// runHook keeps a panic of a hook from ending the program: the hooks only watch a layer, which works
// without them. The stack names the hook.
func runHook(happening func()) {
	defer func() {
		if problem := recover(); problem != nil {
			fmt.Fprintf(os.Stderr, "channellayer: a hook panicked: %v\n%s", problem, debug.Stack())
		}
	}()
	happening()
}

// happen hands an event to the user's goroutine.
func (l *layer) happen(happening func()) {
	select {
	case l.happenings <- happening:
	default:
		l.droppedEvents.Add(1)
	}
}

// pump is what takes all that the library tells. It is of one goroutine at a time.
type pump struct {
	*layer
	conn   syscall.RawConn
	config Config
	events []rawEvent // that were taken, and are still to be told
	ended  bool       // no callback will come
}

// run takes what the library tells, in one call however much it is, and rests in Go's poller, not
// in a thread, while there is nothing. A function that gets an outcome may end the goroutine, by
// runtime.Goexit or what calls it, as t.FailNow: then another goroutine goes on after it. A panic
// ends the program.
func (p *pump) run() {
	done := false
	defer func() {
		if !done {
			go p.run()
		}
	}()
	p.tell()
	for !p.ended {
		// The poller tells a descriptor's changes, so all that is due has to be run each time.
		err := p.conn.Read(func(uintptr) bool {
			for more := true; more && !p.ended; {
				p.events, more, p.ended = rawDrain(p.raw, p.sink, drainAtOnce)
				more = more || len(p.events) != 0
				p.calls.resolve(p.events)
				p.tell()
			}
			return p.ended
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			panic("channellayer: cannot wait for the library's descriptor: " + err.Error())
		}
		if !p.ended {
			// Close has set a deadline. What is left then ends without a sign at the descriptor.
			p.setDeadline(time.Time{})
			if p.closing.Load() {
				p.setDeadline(time.Now().Add(closingPeriod))
			}
		}
	}
	p.calls.end()
	if p.happenings != nil {
		close(p.happenings)
	}
	p.changeState()
	close(p.layer.ended)
	p.file.Close()
	done = true
}

func (l *layer) setDeadline(at time.Time) {
	if err := l.file.SetReadDeadline(at); err != nil {
		select {
		case <-l.ended: // by a second Close: the file is closed
		default:
			panic("channellayer: cannot set a deadline: " + err.Error())
		}
	}
}

// tell tells the events that were taken.
func (p *pump) tell() {
	for len(p.events) != 0 {
		event := &p.events[0]
		p.events = p.events[1:]
		switch event.kind {
		case eventDone, eventWake:
			p.calls.finish(event)
		case eventLog:
			level, id := LogLevel(event.status), takeText(event.id)
			target, message := takeText(event.more), takeText(event.text)
			if hook := p.config.OnLog; hook != nil {
				p.happen(func() { hook(level, id, target, message) })
			}
		case eventState:
			state, generation := State(event.status), uint64(event.number)
			p.changeState()
			if hook := p.config.OnState; hook != nil {
				p.happen(func() { hook(state, generation) })
			}
		case eventIsolation:
			what, channel, count := IsolationEvent(event.status), takeText(event.text), uint64(event.number)
			if hook := p.config.OnIsolation; hook != nil {
				p.happen(func() { hook(what, channel, count) })
			}
		}
	}
}

func (l *layer) changeState() {
	l.mu.Lock()
	close(l.stateChanged)
	l.stateChanged = make(chan struct{})
	l.mu.Unlock()
}

// --- the layer itself -------------------------------------------------------------------------

// WaitReady waits until both connections stand and every group is bound. It fails with ErrRefused at
// once where every host refuses us.
func (l *Layer) WaitReady(ctx context.Context) error {
	defer runtime.KeepAlive(l.layer)
	for {
		l.mu.Lock()
		changed := l.stateChanged
		l.mu.Unlock()
		err := rawWaitReady(l.raw)
		if !errors.Is(err, ErrTimeout) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return contextError(ctx, "wait for the layer to be ready", "it is not ready yet")
		}
	}
}

// State gives the state now.
func (l *Layer) State() (State, error) {
	defer runtime.KeepAlive(l.layer)
	return rawState(l.raw)
}

// Stat gives a counter or gauge, of a closed layer too.
func (l *Layer) Stat(which Stat) (uint64, error) {
	defer runtime.KeepAlive(l.layer)
	value, err := rawStat(l.raw, which)
	if which == StatEventsDropped {
		value += l.droppedEvents.Load()
	}
	return value, err
}

// Prometheus gives all counters and gauges in the text format of Prometheus, to be served as
// "text/plain; version=0.0.4", with these labels on each; nil for none. Callbacks are counted there
// as the library runs them: what goroutines do with a message is not part of their time. Control
// characters in a label's value, other than a line's end, are refused with ErrInvalid.
func (l *Layer) Prometheus(labels map[string]string) (string, error) {
	defer runtime.KeepAlive(l.layer)
	pairs := make([]string, 0, len(labels))
	for name, value := range labels {
		pairs = append(pairs, name+`="`+labelEscapes.Replace(value)+`"`)
	}
	sort.Strings(pairs)
	text := strings.Join(pairs, ",")
	if err := checkText("prometheus", text); err != nil {
		return "", err
	}
	text, err := rawPrometheus(l.raw, text)
	if err != nil {
		return "", err
	}
	return addToSample(text, "channel_layer_events_dropped_total", l.droppedEvents.Load())
}

// addToSample adds to the number of a metric that has one sample: `name 1`, or `name{labels} 1`.
// No label holds a line's end, so that a line that begins with the name is the sample.
func addToSample(text, name string, more uint64) (string, error) {
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		rest := strings.TrimPrefix(line, name)
		if rest == line || rest == "" || (rest[0] != ' ' && rest[0] != '{') {
			continue
		}
		space := strings.LastIndexByte(line, ' ')
		number, err := strconv.ParseUint(strings.TrimSuffix(line[space+1:], "\n"), 10, 64)
		if err != nil {
			return "", &Error{StatusInternal, "prometheus", fmt.Sprintf("%q is no sample", line), err}
		}
		lines[i] = line[:space+1] + strconv.FormatUint(number+more, 10) + "\n"
		return strings.Join(lines, ""), nil
	}
	return "", newError("prometheus", StatusInternal, "the library tells nothing of "+name)
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// NewChannel makes up a channel name, `<queue name>!<prefix><12 random letters>`. Nothing is
// registered: a channel begins with its first message or receiver.
func (l *Layer) NewChannel(prefix string) (string, error) {
	defer runtime.KeepAlive(l.layer)
	if err := checkText("new channel", prefix); err != nil {
		return "", err
	}
	return rawNewChannel(l.raw, prefix)
}

// GroupAdd adds a channel of this layer to a group, and returns once the broker routes the group
// here. The membership is recorded at once: it stays where the wait ends earlier, by ctx or by
// option timeout, and is bound on reconnection. It expires once nobody has received from the channel,
// nor added it again, for option group_expiry.
func (l *Layer) GroupAdd(ctx context.Context, group, channel string) error {
	defer runtime.KeepAlive(l.layer)
	if err := checkText("group add", group, channel); err != nil {
		return err
	}
	w := waiters.Get().(*waiter)
	token := l.calls.add(call{op: "group add", name: group, result: w.result})
	if err := rawGroupAdd(l.raw, l.sink, group, channel, token); err != nil {
		if l.calls.drop(token) {
			waiters.Put(w)
		}
		return err
	}
	return l.await(ctx, "group add", "", token, w, "the membership stays, and is bound later")
}

// GroupDiscard removes a channel of this layer from a group. It never waits.
func (l *Layer) GroupDiscard(group, channel string) error {
	defer runtime.KeepAlive(l.layer)
	if err := checkText("group discard", group, channel); err != nil {
		return err
	}
	return rawGroupDiscard(l.raw, group, channel)
}

// Close refuses new calls, waits for confirms, closes the connections, and ends the receivers with
// ErrClosed. Messages that nobody received are dropped. It waits as long as ctx allows, or for
// option timeout where ctx has no deadline; whatever it returns, the layer is closed, or goes on
// closing by itself. A second call does no harm.
func (l *Layer) Close(ctx context.Context) error {
	defer runtime.KeepAlive(l.layer)
	timeout := l.timeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	select {
	case <-l.ended:
		return nil
	default:
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	result := make(chan error, 1)
	token := l.calls.add(call{op: "close", result: result})
	if err := rawClose(l.raw, l.sink, milliseconds(timeout), token); err != nil {
		l.calls.drop(token)
		return err
	}
	// Where it runs out of time, the library ends after the outcome, without a sign at the descriptor.
	defer func() {
		l.closing.Store(true)
		l.setDeadline(time.Now())
	}()
	select {
	case err := <-result:
		if err != nil && !errors.Is(err, ErrClosed) {
			return err
		}
	case <-l.ended: // by an earlier call: nobody takes the outcome of this one any more
		l.calls.forget(token)
		return nil
	case <-ctx.Done():
		select {
		case err := <-result:
			return err
		default:
		}
		l.calls.forget(token)
		return contextError(ctx, "close", "the layer goes on closing")
	}
	<-l.ended // soon: the library has ended all that was under way
	return nil
}
