// An application in Go: an http.Handler, served by Jimu under every worker class.
//
//	go build -buildmode=c-shared -o libhello_go_app.so .
//	host ./libhello_go_app.so
//
// The routes are those of the example in Rust, ../hello.
package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"syscall"
	"time"

	"jimu.example/hello/jimu"
)

func init() {
	routes := http.NewServeMux()
	routes.HandleFunc("/", hello)
	routes.HandleFunc("/echo", echo)
	routes.HandleFunc("/sleep", sleep)
	routes.HandleFunc("/stream", stream)
	routes.HandleFunc("/whole", whole)
	routes.HandleFunc("/headers", headers)
	routes.HandleFunc("/tls", session)
	routes.HandleFunc("/pid", pid)
	routes.HandleFunc("/until-gone", untilGone)
	routes.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("a client asked for a panic") })
	routes.HandleFunc("/nil", func(http.ResponseWriter, *http.Request) { _ = *absent })
	routes.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { syscall.Kill(os.Getpid(), syscall.SIGABRT) })
	jimu.Create(func() (http.Handler, error) {
		if reason := os.Getenv("HELLO_GO_REFUSES"); reason != "" {
			return nil, fmt.Errorf("%s", reason)
		}
		return routes, nil
	})
}

// A library has none, but the Go compiler asks for it.
func main() {}

func hello(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.Error(w, "There is nothing here.", http.StatusNotFound)
		return
	}
	io.WriteString(w, "Hello, world!\n")
}

// echo sends the body back while it still arrives.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	io.Copy(w, r.Body)
}

func sleep(w http.ResponseWriter, r *http.Request) {
	ms := number(r, "ms", 1000)
	// A goroutine sleeps: other requests are served during that time, also under a cooperative class.
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		fmt.Fprintf(w, "Slept for %d ms.\n", ms)
	case <-r.Context().Done():
	}
}

// stream sends n parts of size bytes, each as soon as it is written.
func stream(w http.ResponseWriter, r *http.Request) {
	part := bytes.Repeat([]byte("."), number(r, "size", 1024))
	w.Header().Set("Content-Type", "application/octet-stream")
	for count := number(r, "n", 10); count > 0; count-- {
		if _, err := w.Write(part); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
}

func whole(w http.ResponseWriter, r *http.Request) {
	body := bytes.Repeat([]byte("."), number(r, "size", 1024))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func headers(w http.ResponseWriter, r *http.Request) {
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(w, "%s %s %s from %s\nHost: %s\n", r.Method, r.RequestURI, r.Proto, r.RemoteAddr, r.Host)
	for _, name := range names {
		for _, value := range r.Header[name] {
			fmt.Fprintf(w, "%s: %s\n", name, value)
		}
	}
}

func session(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil {
		io.WriteString(w, "http\n")
		return
	}
	fmt.Fprintf(w, "https\n%x\n%s\n", r.TLS.Version, r.TLS.ServerName)
	for _, certificate := range r.TLS.PeerCertificates {
		fmt.Fprintln(w, hex.EncodeToString(certificate.Raw))
	}
}

func pid(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, os.Getpid())
}

// untilGone responds, and then waits for the client's disconnect, which it logs.
func untilGone(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "waiting\n")
	w.(http.Flusher).Flush()
	<-r.Context().Done()
	fmt.Fprintln(os.Stderr, "hello-go: the client has disconnected")
}

func number(r *http.Request, name string, otherwise int) int {
	value, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil || value < 0 || value > 64<<20 {
		return otherwise
	}
	return value
}

var absent *int
