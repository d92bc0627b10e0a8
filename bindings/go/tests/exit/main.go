// Exit ends while its layer is open and its goroutines send and receive, by a return from main or,
// with the argument "exit", by os.Exit.
package main

import (
	"context"
	"fmt"
	"os"

	channellayer "example.org/channel-layer/bindings/go"
)

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

func main() {
	layer, err := channellayer.Open(channellayer.Config{Options: map[string]string{"host": os.Args[1], "remote_capacity": "100000"}})
	if err != nil {
		fail(err)
	}
	channel, err := layer.NewChannel("")
	if err != nil {
		fail(err)
	}
	arrived := make(chan struct{}, 1)
	go layer.Handle(context.Background(), channel, func(*channellayer.Message) channellayer.Flow {
		select {
		case arrived <- struct{}{}:
		default:
		}
		return channellayer.Continue
	})
	for i := 0; i < 16; i++ {
		go func() {
			for {
				err := layer.Send(context.Background(), channel, map[string]any{"n": 1})
				if err != nil {
					fail(err)
				}
			}
		}()
	}
	for i := 0; i < 20; i++ {
		<-arrived
	}
	if os.Args[2] == "exit" {
		os.Exit(0)
	}
}
