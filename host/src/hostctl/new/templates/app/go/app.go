// An application that greets: an http.Handler, which Jimu serves under every worker class.
package main

import (
	"fmt"
	"net/http"

	"example.com/{{name}}/jimu"
)

func init() {
	jimu.Serve(http.HandlerFunc(greet))
}

// A library has none, but the Go compiler asks for it.
func main() {}

func greet(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "You asked for %s\n", r.URL.Path)
}
