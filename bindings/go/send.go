package channellayer

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// Send sends a message to a channel, of any process, and waits for the broker's confirm, at most
// for option timeout. While the layer is not ready or max_in_flight sends are in flight, it waits
// within that time.
//
// It ends by itself, half a second after option timeout with ErrTimeout, even where a done of
// SendAsync waits and so holds up the outcome; nobody knows then whether the message arrives.
//
// Where ctx ends before the outcome is known, nobody knows whether the message arrives; the error
// is then that of ctx. What a message holds is said at Pack; all else is ErrInvalid.
func (l *Layer) Send(ctx context.Context, channel string, message map[string]any) error {
	packed, err := Pack(message)
	if err != nil {
		return err
	}
	return l.send(ctx, false, channel, body{packed: packed})
}

// SendPacked is Send with a message that is MessagePack already, one map.
func (l *Layer) SendPacked(ctx context.Context, channel string, packed []byte) error {
	return l.send(ctx, false, channel, body{packed: packed})
}

// SendJSON is Send with a message as JSON text, one object. A string of U+FFFF followed by base64
// becomes bytes.
func (l *Layer) SendJSON(ctx context.Context, channel, json string) error {
	return l.send(ctx, false, channel, body{json: json, isJSON: true})
}

// GroupSend sends a message to every member of a group, in all processes, as Send does to a
// channel. ErrFull says that at least one process refused it; the others have it.
func (l *Layer) GroupSend(ctx context.Context, group string, message map[string]any) error {
	packed, err := Pack(message)
	if err != nil {
		return err
	}
	return l.send(ctx, true, group, body{packed: packed})
}

// GroupSendPacked is GroupSend with a message that is MessagePack already.
func (l *Layer) GroupSendPacked(ctx context.Context, group string, packed []byte) error {
	return l.send(ctx, true, group, body{packed: packed})
}

// GroupSendJSON is GroupSend with JSON text, as in SendJSON.
func (l *Layer) GroupSendJSON(ctx context.Context, group, json string) error {
	return l.send(ctx, true, group, body{json: json, isJSON: true})
}

// SendAsync is Send without waiting: the outcome goes to done, which is called once, unless this
// returns an error. With max_in_flight sends in flight that is ErrBusy. message is a map[string]any,
// or a []byte that is MessagePack already, as Pack gives it; anything else is ErrInvalid.
//
// done runs on the goroutine that takes everything from the library: it must not wait, and so call
// nothing here that takes a context. SendAsync itself is allowed. While done waits, no call of the
// layer gets its outcome and no receiver is woken up. A Send, GroupSend or GroupAdd in it, in whatever
// form, waits for what only the end of done brings, and so ends with ErrTimeout half a second after
// option timeout, and nobody knows whether its message arrives; a Receive or WaitReady in it may never end. Let a
// goroutine do it: go layer.Send(…).
func (l *Layer) SendAsync(channel string, message any, done func(error)) error {
	return l.sendAsync(false, channel, message, done)
}

// SendJSONAsync is SendAsync with a message as JSON text.
func (l *Layer) SendJSONAsync(channel, json string, done func(error)) error {
	return l.submit(false, channel, body{json: json, isJSON: true}, done)
}

// GroupSendAsync is SendAsync to a group.
func (l *Layer) GroupSendAsync(group string, message any, done func(error)) error {
	return l.sendAsync(true, group, message, done)
}

// GroupSendJSONAsync is SendJSONAsync to a group.
func (l *Layer) GroupSendJSONAsync(group, json string, done func(error)) error {
	return l.submit(true, group, body{json: json, isJSON: true}, done)
}

// body is a message in one of the two forms that C takes.
type body struct {
	packed []byte
	json   string
	isJSON bool
}

// waiter is what a call that waits for its outcome waits with.
type waiter struct {
	result chan error
	timer  *time.Timer
}

var waiters = sync.Pool{New: func() any {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &waiter{make(chan error, 1), timer}
}}

// lateBy is how long after option timeout a call gives its outcome up: the library tells one within
// the option, and what takes it from there is held up.
const lateBy = 500 * time.Millisecond

// await waits for the outcome of a call that C has taken. The call is op and name, put together only
// where that is told. forgotten is what is to be said of a call
// whose outcome nobody waits for any more.
func (l *layer) await(ctx context.Context, op, name string, token uint64, w *waiter, forgotten string) error {
	w.timer.Reset(l.timeout + lateBy)
	select {
	case err := <-w.result:
		if w.timer.Stop() { // else it may still put the time into its channel
			waiters.Put(w)
		}
		return err
	case <-ctx.Done():
		w.timer.Stop()
		l.calls.forget(token) // the channel may get its outcome all the same: nobody uses it again
		return contextError(ctx, op+name, forgotten)
	case <-w.timer.C:
		select {
		case err := <-w.result:
			return err
		default:
		}
		l.calls.forget(token)
		return newError(op+name, StatusTimeout, forgotten+"; it did not come within option timeout: a callback of the layer, "+
			"a done that waits, as by this call, holds up its outcomes")
	}
}

func (l *layer) send(ctx context.Context, toGroup bool, name string, body body) error {
	defer runtime.KeepAlive(l)
	if err := checkText("send to", name, body.json); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx, "send to "+name, "not sent")
	}
	w := waiters.Get().(*waiter)
	token, err := l.calls.enter(ctx, l.timeout,
		call{op: "send to", name: name, place: true, result: w.result})
	if err != nil {
		waiters.Put(w)
		return err
	}
	if raw := rawSubmit(l.raw, l.sink, toGroup, name, body, token); raw.status != 0 {
		if l.calls.drop(token) {
			waiters.Put(w)
		}
		return rawTake("send to "+name, raw)
	}
	return l.await(ctx, "send to ", name, token, w, "the outcome is not known yet")
}

func (l *layer) sendAsync(toGroup bool, name string, message any, done func(error)) error {
	switch message := message.(type) {
	case []byte:
		return l.submit(toGroup, name, body{packed: message}, done)
	case map[string]any:
		packed, err := Pack(message)
		if err != nil {
			return err
		}
		return l.submit(toGroup, name, body{packed: packed}, done)
	}
	return newError("send to "+name, StatusInvalid, fmt.Sprintf(
		"message is of type %T: pass a map[string]any, or a []byte that is MessagePack", message))
}

func (l *layer) submit(toGroup bool, name string, body body, done func(error)) error {
	defer runtime.KeepAlive(l)
	if err := checkText("send to", name, body.json); err != nil {
		return err
	}
	if done == nil {
		return newError("send to "+name, StatusInvalid, "done is nil")
	}
	token := l.calls.add(call{op: "send to", name: name, place: true, done: done})
	raw := rawSubmit(l.raw, l.sink, toGroup, name, body, token)
	if raw.status == 0 {
		return nil
	}
	err := rawTake("send to "+name, raw)
	if !l.calls.drop(token) {
		return nil // the layer has ended meanwhile, and done was told
	}
	return err
}
