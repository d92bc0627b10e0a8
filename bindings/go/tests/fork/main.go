// Fork leaves its process by a bare fork, as C code in a Go program may, and lets the child ask what
// its parent's layer answers. The parent goes on with it.
//
// Of the Go runtime the child has the one thread that forked, so that it can do no more than make
// calls that do not wait, and a child may be born while another thread held a lock: one that says
// nothing is ended, and the next is tried.
package main

/*
#include <unistd.h>
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	channellayer "example.org/channel-layer/bindings/go"
)

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	os.Exit(2)
}

// child gives its exit status: 0 where each call was told that it is in a child.
func child(layer *channellayer.Layer, channel string) int {
	_, state := layer.State()
	_, name := layer.NewChannel("")
	send := layer.SendAsync(channel, []byte{0x80}, func(error) {})
	discard := layer.GroupDiscard("group", channel)
	for _, err := range [...]error{state, name, send, discard} {
		if !errors.Is(err, channellayer.ErrForked) || !strings.Contains(err.Error(), "fork") {
			return 1
		}
	}
	return 0
}

func fork(layer *channellayer.Layer, channel string) (status syscall.WaitStatus, ended bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection needs the other threads
	pid := int(C.fork())
	if pid == 0 {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(child(layer, channel)), 0, 0)
	}
	if pid < 0 {
		fail("fork", errors.New("it failed"))
	}
	stuck := time.AfterFunc(5*time.Second, func() { syscall.Kill(pid, syscall.SIGKILL) })
	defer stuck.Stop()
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		fail("wait", err)
	}
	return status, status.Exited()
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	layer, err := channellayer.Open(channellayer.Config{Options: map[string]string{"host": os.Args[1]}})
	if err != nil {
		fail("open", err)
	}
	if err := layer.WaitReady(ctx); err != nil {
		fail("wait until ready", err)
	}
	channel, err := layer.NewChannel("")
	if err != nil {
		fail("new channel", err)
	}
	status, ended := fork(layer, channel)
	for tries := 1; !ended && tries < 5; tries++ {
		status, ended = fork(layer, channel)
	}
	if !ended || status.ExitStatus() != 0 {
		fail("the child", fmt.Errorf("ended: %v, status %#x", ended, status))
	}
	if err := layer.Send(ctx, channel, map[string]any{"n": 1}); err != nil {
		fail("the parent sends", err)
	}
	if _, err := layer.Receive(ctx, channel); err != nil {
		fail("the parent receives", err)
	}
	if err := layer.Close(ctx); err != nil {
		fail("the parent closes", err)
	}
}
