// The member of the fleet in Go; README.md of the fleet says what it does.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"math"
	"os"
	"reflect"
	"sync"

	channellayer "example.org/channel-layer/bindings/go"
)

func messageOf(sender string) map[string]any {
	return map[string]any{
		"type":    "fleet.message",
		"from":    sender,
		"nothing": nil,
		"yes":     true,
		"no":      false,
		"least":   int64(math.MinInt64),
		"most":    int64(math.MaxInt64),
		"tenth":   0.1,
		"whole":   1.0,
		"text":    "Grüße, 世界, 😀",
		"bytes":   []byte{0x00, 0xff, 0xfe, 0x80},
		"nested": []any{
			int64(1),
			[]any{2.5, nil, []byte{7}},
			map[string]any{"clé": map[string]any{"": int64(-1)}},
		},
	}
}

// faultOf says what is not as it was sent, or "".
func faultOf(message map[string]any, sender string) string {
	expected := messageOf(sender)
	if len(message) != len(expected) {
		return fmt.Sprintf("there are %d keys", len(message))
	}
	for key, value := range expected {
		if !reflect.DeepEqual(message[key], value) {
			return fmt.Sprintf("%s is %#v", key, message[key])
		}
	}
	return ""
}

var output sync.Mutex

func say(format string, arguments ...any) {
	output.Lock()
	defer output.Unlock()
	fmt.Printf(format+"\n", arguments...)
}

func show(message *channellayer.Message) channellayer.Flow {
	values, err := message.Map()
	if err != nil {
		say("wrong nobody: %v", err)
		return channellayer.Continue
	}
	sender, _ := values["from"].(string)
	if fault := faultOf(values, sender); fault != "" {
		say("wrong %s: %s", sender, fault)
	} else {
		say("got %s", sender)
	}
	return channellayer.Continue
}

func run(host, group, name string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	layer, err := channellayer.Open(channellayer.Config{Options: map[string]string{"host": host}})
	if err != nil {
		return err
	}
	channel, err := layer.NewChannel("fleet.")
	if err != nil {
		return err
	}
	ended := make(chan error)
	receiving, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- layer.Handle(receiving, channel, show) }()
	if err := layer.GroupAdd(ctx, group, channel); err != nil {
		return err
	}
	say("joined")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := layer.GroupSend(ctx, group, messageOf(name)); err != nil {
			say("failed %v", err)
		} else {
			say("sent")
		}
	}
	if err := layer.GroupDiscard(group, channel); err != nil {
		return err
	}
	stop()
	<-ended
	return layer.Close(ctx)
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: member HOST GROUP NAME")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal("member in Go: ", err)
	}
}
