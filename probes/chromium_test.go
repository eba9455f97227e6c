// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A browser is a headless Chromium, driven by its DevTools protocol over a pair
// of pipes: JSON messages that end with a zero byte.
type browser struct {
	to      *os.File
	answers chan message
	id      int

	mu   sync.Mutex
	said map[string][]string // errors and warnings of the pages, and of their policy, by session
}

// A tab is a page in it. There is one at a time.
type tab struct {
	*browser
	t       *testing.T
	session string
}

type message struct {
	ID     int                       `json:"id,omitempty"`
	Method string                    `json:"method,omitempty"`
	Params json.RawMessage           `json:"params,omitempty"`
	Result json.RawMessage           `json:"result,omitempty"`
	Error  *struct{ Message string } `json:"error,omitempty"`

	SessionID string `json:"sessionId,omitempty"`
}

// openBrowser starts a Chromium that ends with the test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	theirIn, to, err := os.Pipe()
	require.NoError(t, err)
	from, theirOut, err := os.Pipe()
	require.NoError(t, err)
	// --no-sandbox: it refuses to run as root with one.
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--hide-scrollbars", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "TZ=UTC")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	require.NoError(t, cmd.Start())
	theirIn.Close()
	theirOut.Close()
	b := &browser{to: to, answers: make(chan message), said: map[string][]string{}}
	read := make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(read)
		b.read(bufio.NewReader(from), over)
	}()
	t.Cleanup(func() {
		close(over)
		to.Close() // which ends it
		ended := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		ended.Stop()
		from.Close()
		<-read
	})
	return b
}

// tab opens a new one, which is closed at the end of the test.
func (b *browser) tab(t *testing.T) *tab {
	t.Helper()
	p := &tab{browser: b, t: t}
	var target struct{ TargetID string }
	p.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	p.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p.session = attached.SessionID
	t.Cleanup(func() {
		p.session = ""
		p.call("Target.closeTarget", map[string]any{"targetId": target.TargetID}, nil)
	})
	for _, domain := range []string{"Page", "Runtime", "Log", "DOM"} {
		p.call(domain+".enable", nil, nil)
	}
	return p
}

// read hands the answers on and remembers what the page complained of.
func (b *browser) read(r *bufio.Reader, over <-chan struct{}) {
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			close(b.answers)
			return
		}
		var m message
		if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
			continue
		}
		switch {
		case m.ID != 0:
			select {
			case b.answers <- m:
			case <-over:
			}
		case m.Method == "Log.entryAdded" || m.Method == "Runtime.exceptionThrown" || m.Method == "Runtime.consoleAPICalled" ||
			m.Method == "Page.javascriptDialogOpening":
			b.mu.Lock()
			b.said[m.SessionID] = append(b.said[m.SessionID], string(m.Params))
			b.mu.Unlock()
		}
	}
}

// complaints are what the page has had to say of errors so far.
func (b *tab) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said[b.session])
}

func (b *tab) call(method string, params, result any) {
	b.t.Helper()
	b.id++
	m := message{ID: b.id, Method: method, SessionID: b.session}
	if params != nil {
		var err error
		m.Params, err = json.Marshal(params)
		require.NoError(b.t, err)
	}
	text, err := json.Marshal(m)
	require.NoError(b.t, err)
	_, err = b.to.Write(append(text, 0))
	require.NoError(b.t, err)
	select {
	case got, ok := <-b.answers:
		require.True(b.t, ok, "chromium ended during %s", method)
		require.Nil(b.t, got.Error, "%s: %s", method, got.Error)
		require.Equal(b.t, b.id, got.ID)
		if result != nil {
			require.NoError(b.t, json.Unmarshal(got.Result, result))
		}
	case <-time.After(3 * time.Minute): // a browser has much to do at its start
		require.FailNow(b.t, "chromium does not answer", "%s", method)
	}
}

func (b *tab) open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil)
}

// eval returns what an expression in the page is, as text.
func (b *tab) eval(expression string) string {
	b.t.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &got)
	require.Empty(b.t, got.ExceptionDetails, "%s", got.ExceptionDetails)
	return fmt.Sprint(got.Result.Value)
}

// text is what a person reads.
func (b *tab) text() string {
	b.t.Helper()
	return b.eval("document.body ? document.body.innerText : ''")
}

// shows waits until the page shows a text.
func (b *tab) shows(text string) {
	b.t.Helper()
	last := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if last = b.text(); strings.Contains(last, text) {
			return
		}
	}
	require.FailNow(b.t, "the page does not show it", "%q in:\n%s\n%s", text, last, b.complaints())
}

// device makes the window one of so many CSS pixels, light or dark.
func (b *tab) device(width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// screenshot is a PNG of the whole page.
func (b *tab) screenshot() []byte {
	b.t.Helper()
	var got struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &got)
	image, err := base64.StdEncoding.DecodeString(got.Data)
	require.NoError(b.t, err)
	return image
}

// choose picks a file in the page's file input.
func (b *tab) choose(file string) {
	b.t.Helper()
	var document struct{ Root struct{ NodeID int } }
	b.call("DOM.getDocument", nil, &document)
	var input struct{ NodeID int }
	b.call("DOM.querySelector", map[string]any{"nodeId": document.Root.NodeID, "selector": "input[type=file]"}, &input)
	b.call("DOM.setFileInputFiles", map[string]any{"nodeId": input.NodeID, "files": []string{file}}, nil)
}
