// A chat over HTTP: each browser (or curl) listens to a room by server-sent events, and posts what
// it says. Any number of these servers on one broker share their rooms.
//
//	go run ./example -listen 127.0.0.1:8080 -host amqp://guest:guest@127.0.0.1/asgi
//	curl -N http://127.0.0.1:8080/rooms/kitchen
//	curl -d 'Anybody there?' http://127.0.0.1:8080/rooms/kitchen
//
// With -check it runs two servers by itself, has a visitor of the one hear a visitor of the other,
// and exits with status 0 if all went as it should.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	channellayer "example.org/channel-layer/bindings/go"
)

const largestText = 4096

type server struct{ layer *channellayer.Layer }

// ServeHTTP answers GET /rooms/NAME with what is said there, and takes what POST says.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	room := strings.TrimPrefix(r.URL.Path, "/rooms/")
	if room == r.URL.Path || room == "" {
		http.NotFound(w, r)
		return
	}
	var err error
	switch r.Method {
	case http.MethodGet:
		err = s.listen(w, r, "room."+room)
	case http.MethodPost:
		err = s.say(w, r, "room."+room)
	default:
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
	if err != nil && r.Context().Err() == nil {
		log.Print(err)
		http.Error(w, err.Error(), statusOf(err))
	}
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, channellayer.ErrInvalid):
		return http.StatusBadRequest
	default:
		return http.StatusServiceUnavailable
	}
}

func (s *server) listen(w http.ResponseWriter, r *http.Request, room string) error {
	flusher, ok := w.(http.Flusher)
	if !ok {
		return errors.New("this server cannot stream")
	}
	channel, err := s.layer.NewChannel("visitor.")
	if err != nil {
		return err
	}
	// Whatever ends the visit, the channel and its memberships go.
	defer s.layer.ChannelDiscard(channel)
	if err := s.layer.GroupAdd(r.Context(), room, channel); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, ": welcome\n\n")
	flusher.Flush()
	// Once something was written, an error can no more become a status: the stream just ends.
	s.layer.Handle(r.Context(), channel, func(message *channellayer.Message) channellayer.Flow {
		said, err := message.Map()
		if err != nil {
			log.Print(err)
			return channellayer.Continue
		}
		text, _ := said["text"].(string)
		for _, line := range strings.Split(text, "\n") {
			fmt.Fprintf(w, "data: %s\n", line)
		}
		fmt.Fprint(w, "\n")
		flusher.Flush()
		return channellayer.Continue
	})
	return nil
}

func (s *server) say(w http.ResponseWriter, r *http.Request, room string) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestText))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return nil
	}
	err = s.layer.GroupSend(r.Context(), room, map[string]any{"type": "chat.text", "text": string(text)})
	if err != nil && !errors.Is(err, channellayer.ErrFull) { // a slow server misses it, the others do not
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func openLayer(host string) (*channellayer.Layer, error) {
	return channellayer.Open(channellayer.Config{
		Options: map[string]string{"host": host},
		OnLog: func(level channellayer.LogLevel, id, target, message string) {
			if level <= channellayer.LogWarn {
				log.Printf("%s: %s: %s", target, id, message)
			}
		},
	})
}

func serve(host, address string) error {
	layer, err := openLayer(host)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	web := &http.Server{Addr: address, Handler: &server{layer}}
	failed := make(chan error, 1)
	go func() { failed <- web.ListenAndServe() }()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	// The layer first: it ends the streams, for which the web server would else wait.
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if closeErr := layer.Close(last); err == nil {
		err = closeErr
	}
	if closeErr := web.Shutdown(last); err == nil {
		err = closeErr
	}
	return err
}

func check(host string) error {
	var addresses [2]string
	for i := range addresses {
		layer, err := openLayer(host)
		if err != nil {
			return err
		}
		web := httptest.NewServer(&server{layer})
		defer web.Close()
		defer layer.Close(context.Background())
		addresses[i] = web.URL + "/rooms/kitchen"
	}
	client := http.Client{Timeout: 20 * time.Second}
	stream, err := client.Get(addresses[0])
	if err != nil {
		return err
	}
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	lines.Scan() // the welcome: it is a member now
	answer, err := client.Post(addresses[1], "text/plain", strings.NewReader("Grüße\naus dem Flur"))
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the post was answered by %s", answer.Status)
	}
	for _, expected := range []string{"", "data: Grüße", "data: aus dem Flur"} {
		if !lines.Scan() || lines.Text() != expected {
			return fmt.Errorf("heard %q, expected %q (%v)", lines.Text(), expected, lines.Err())
		}
	}
	return nil
}

func main() {
	host := flag.String("host", "memory://chat", "the layer's `URL`")
	address := flag.String("listen", "127.0.0.1:8080", "the `address` of the web server")
	self := flag.Bool("check", false, "check yourself, and exit")
	flag.Parse()
	var err error
	if *self {
		err = check(*host)
	} else {
		err = serve(*host, *address)
	}
	if err != nil {
		log.Fatal(err)
	}
}
