// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// crowd is how probes fare while others want something, too.
type crowd struct {
	asked, failed     int
	p50, p99, slowest float64 // milliseconds
	rss, most         float64 // kB, before and at the most
}

const (
	probesPerSecond = 2000
	idleClients     = 500
	slowClients     = 100 // a byte each 100 ms
)

// measureCrowd asks for the readiness of cleanimg-init at a steady rate,
// whatever the answers take, among clients that keep their connections open. It
// is sent away by none of them, and opens the ones that are closed again.
func (b *bench) measureCrowd() error {
	c := b.find(withProbes)
	box, err := b.start(c, false, "idle")
	if err != nil {
		return err
	}
	defer box.kill()
	if err := box.await("ready"); err != nil {
		return err
	}
	addr := strings.TrimPrefix(c.env[0], "CLEANIMG_INIT_HTTP_LISTEN=")
	if err := askUntil(addr, time.Now().Add(10*time.Second)); err != nil {
		return err
	}
	status := fmt.Sprintf("/proc/%d/status", box.pid)
	b.crowd.rss = float64(statusField(status, "VmRSS"))

	over := make(chan struct{})
	var clients sync.WaitGroup
	for i := range idleClients + slowClients {
		clients.Go(func() { keepOpen(addr, i >= idleClients, over) })
	}
	time.Sleep(time.Second) // all are there
	took := b.ask(addr)
	b.crowd.most = float64(statusField(status, "VmHWM"))
	close(over)
	clients.Wait()

	b.crowd.asked = len(took)
	for _, ms := range took {
		if ms < 0 {
			b.crowd.failed++
		}
	}
	same := func(ms float64) float64 { return ms }
	b.crowd.p50, b.crowd.p99, b.crowd.slowest = quantile(took, same, 0.5), quantile(took, same, 0.99), most(took, same)
	return nil
}

// ask makes the probes, each at its time, and returns what they took in
// milliseconds, below 0 for those that failed.
func (b *bench) ask(addr string) []float64 {
	took := make([]float64, probesPerSecond*int(b.load/time.Second))
	begin := time.Now()
	var all sync.WaitGroup
	for i := range took {
		at := begin.Add(time.Duration(i) * time.Second / probesPerSecond)
		time.Sleep(time.Until(at))
		all.Go(func() {
			took[i] = -1
			if probe(addr) == nil {
				took[i] = float64(time.Since(at).Microseconds()) / 1e3
			}
		})
	}
	all.Wait()
	return took
}

// askUntil waits for an answer.
func askUntil(addr string, end time.Time) error {
	for {
		err := probe(addr)
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// probe asks once, as the kubelet does it: a connection of its own, and a second
// for all of it.
func probe(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(c, "GET /health/ready HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.33\r\nAccept: */*\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		err = errors.New("not ready")
	}
	return err
}

// keepOpen keeps a connection open that says nothing, or little.
func keepOpen(addr string, slow bool, over <-chan struct{}) {
	for {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = io.Copy(io.Discard, c)
		}()
		tick := time.NewTicker(100 * time.Millisecond)
		for closed := false; !closed; {
			select {
			case <-over:
				tick.Stop()
				c.Close()
				<-gone
				return
			case <-gone:
				closed = true
			case <-tick.C:
				if slow {
					_, _ = io.WriteString(c, "G")
				}
			}
		}
		tick.Stop()
		c.Close()
	}
}
