// Coraza for the benches: what judging costs in process, and a server behind it.
//
//	coraza cost RULES… < REQUESTS    microseconds of CPU for each kind of request, one line a kind
//	coraza serve ADDRESS RULES…      answers at / without and at /judged/ with the rules
//
// Owns the use of Coraza as its documentation shows it, default build and settings. REQUESTS are what
// `crates/waf/examples/cost.rs --requests` prints, so both engines are asked the same.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/corazawaf/coraza/v3"
	txhttp "github.com/corazawaf/coraza/v3/http"
	"github.com/corazawaf/coraza/v3/types"
)

const (
	rounds     = 15
	round      = 150 * time.Millisecond
	greeting   = "Hello from Vedette\n"
	scoresRule = 949110
)

type request struct {
	Name, Method, Target string
	Headers              [][2]string
	Body                 []byte
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	switch {
	case len(words) > 1 && words[0] == "cost":
		return cost(words[1:])
	case len(words) > 2 && words[0] == "serve":
		return serve(words[1], words[2:])
	}
	return errors.New("usage: coraza cost RULES… < REQUESTS | coraza serve ADDRESS RULES…")
}

func load(rules []string) (coraza.WAF, error) {
	config := coraza.NewWAFConfig()
	for _, file := range rules {
		config = config.WithDirectivesFromFile(file)
	}
	return coraza.NewWAF(config)
}

func cost(rules []string) error {
	// One thread judges, as one worker does; the collector's work is in the figure wherever it runs.
	runtime.GOMAXPROCS(1)
	waf, err := load(rules)
	if err != nil {
		return err
	}
	kinds, order, err := read(os.Stdin)
	if err != nil {
		return err
	}
	for _, name := range order {
		micros, err := median(waf, kinds[name])
		if err != nil {
			return err
		}
		fmt.Printf("%s\t%.1f\n", name, micros)
	}
	return nil
}

func read(lines io.Reader) (kinds map[string][]request, order []string, err error) {
	kinds = map[string][]request{}
	decoder := json.NewDecoder(bufio.NewReader(lines))
	for {
		var one request
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return kinds, order, nil
		} else if err != nil {
			return nil, nil, err
		}
		if _, known := kinds[one.Name]; !known {
			order = append(order, one.Name)
		}
		kinds[one.Name] = append(kinds[one.Name], one)
	}
}

// The median of the rounds' means, in microseconds of CPU.
func median(waf coraza.WAF, variants []request) (float64, error) {
	means := make([]float64, 0, rounds)
	next := 0
	for range rounds {
		began, cpu, runs := time.Now(), cpuTime(), 0
		for ; runs == 0 || time.Since(began) < round; runs++ {
			if err := judge(waf, &variants[next%len(variants)]); err != nil {
				return 0, err
			}
			next++
		}
		means = append(means, float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(runs))
	}
	slices.Sort(means)
	return means[rounds/2], nil
}

func judge(waf coraza.WAF, one *request) (err error) {
	tx := waf.NewTransaction()
	defer func() { err = errors.Join(err, tx.Close()) }()
	tx.ProcessConnection("192.0.2.1", 40000, "192.0.2.2", 443)
	tx.ProcessURI(one.Target, one.Method, "HTTP/1.1")
	for _, header := range one.Headers {
		tx.AddRequestHeader(header[0], header[1])
	}
	if stopped := tx.ProcessRequestHeaders(); stopped != nil {
		return refused(one, stopped)
	}
	if stopped, _, err := tx.WriteRequestBody(one.Body); err != nil || stopped != nil {
		return errors.Join(err, refused(one, stopped))
	}
	stopped, err := tx.ProcessRequestBody()
	tx.ProcessLogging()
	return errors.Join(err, refused(one, stopped))
}

// Stopped by the sum of the scores, a request has been through all rules; stopped by another, it would be measured short.
func refused(one *request, by *types.Interruption) error {
	if by == nil || by.RuleID == scoresRule {
		return nil
	}
	return fmt.Errorf("%s was refused by rule %d", one.Name, by.RuleID)
}

// User and system time of the process, all of its threads.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func serve(address string, rules []string) error {
	waf, err := load(rules)
	if err != nil {
		return err
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, greeting)
	})
	mux := http.NewServeMux()
	mux.Handle("/", answer)
	mux.Handle("/judged/", txhttp.WrapHandler(waf, answer))
	return http.ListenAndServe(address, mux)
}
