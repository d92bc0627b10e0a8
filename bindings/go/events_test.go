package channellayer

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestPrometheusCountsWhatGoDropped is inside the package: no broker writes 1024 records in a
// moment, and so the events are put where the library's go.
func TestPrometheusCountsWhatGoDropped(t *testing.T) {
	told, block := make(chan struct{}, eventsAtMost+1), make(chan struct{})
	layer, err := Open(Config{
		Options: map[string]string{"host": fmt.Sprintf("memory://go-events-%d", os.Getpid())},
		OnLog: func(LogLevel, string, string, string) {
			told <- struct{}{}
			<-block
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		close(block)
		if err := layer.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	<-told // it connected, and OnLog does not return
	const dropped = 7
	for i := 0; i < eventsAtMost+dropped; i++ {
		layer.happen(func() {})
	}
	if count, err := layer.Stat(StatEventsDropped); err != nil || count != dropped {
		t.Fatalf("%d are counted as dropped, %v", count, err)
	}
	for labels, sample := range map[string]string{
		"": "channel_layer_events_dropped_total 7",
		"\nchannel_layer_events_dropped_total 1} 2": `channel_layer_events_dropped_total{site="` +
			`\nchannel_layer_events_dropped_total 1} 2"} 7`,
	} {
		var given map[string]string
		if labels != "" {
			given = map[string]string{"site": labels}
		}
		text, err := layer.Prometheus(given)
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, line := range strings.Split(text, "\n") {
			if strings.HasPrefix(line, "channel_layer_events_dropped_total") {
				found = append(found, line)
			}
		}
		if len(found) != 1 || found[0] != sample {
			t.Errorf("with label %q the samples are %q instead of %q", labels, found, sample)
		}
	}
}

func TestASampleThatIsMissingIsNotPassedOver(t *testing.T) {
	for _, text := range []string{"", "# HELP some_total x\n", "some_total_more 1\n", "some_total x\n"} {
		if got, err := addToSample(text, "some_total", 1); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
}
