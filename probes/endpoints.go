// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"strconv"
	"unicode/utf8"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// Endpoints serves the paths of a run. It calls snapshot for each request; the
// report that it returns is only read. Nil means that nothing has happened
// yet.
//
//	/health/startup /startupz           200 once [report.Report.Up], for ever after
//	/health/live    /livez    /healthz  200 unless the liveness check fails while the command runs
//	/health/ready   /readyz             200 while the command runs, is up, is not asked to stop and its check passes
//	/status                             the report
//	/                                   a page that shows it to people
//
// What is not 200 is 503, 410 for a watchdog that was missed, or after a failure
// the status of its cause. The bodies are small JSON without output, arguments
// or environment: the port is open to the whole cluster.
func Endpoints(snapshot func() *report.Report) Handler {
	return func(path string) Response {
		var answer func(*report.Report) Response
		switch path {
		case "/health/startup", "/startupz":
			answer = startup
		case "/health/live", "/livez", "/healthz":
			answer = live
		case "/health/ready", "/readyz":
			answer = ready
		case "/status":
			answer = status
		case "/":
			return pageResponse()
		default:
			return Response{Status: 404, Body: appendError(nil, "no such path; there are /health/startup, /health/live, /health/ready, /status, /metrics and /")}
		}
		r := snapshot()
		if r == nil {
			r = &report.Report{Version: report.Version, Phase: report.Starting}
		}
		return answer(r)
	}
}

func startup(r *report.Report) Response {
	switch {
	case r.Up():
		return passed(r, report.StartupCheck)
	case r.Failure != nil:
		return failed(r)
	case r.WatchdogMissed():
		return gone(r)
	default:
		return unavailable(r, why(r))
	}
}

// live is 200 whatever the hooks do: to kill the container because one of them
// takes long is not what a liveness probe is for. They have their timeouts. The
// same holds at the end.
func live(r *report.Report) Response {
	check := r.Check(report.LivenessCheck)
	switch {
	case r.Phase != report.Running || !r.Started || r.Notify != nil && r.Notify.Stopping:
		return passed(r, "")
	case r.WatchdogMissed():
		return gone(r)
	case check != nil && check.State == report.CheckFailing:
		return unavailable(r, whyNot(check))
	default:
		return passed(r, report.LivenessCheck)
	}
}

func ready(r *report.Report) Response {
	check := r.Check(report.ReadinessCheck)
	switch {
	case r.Failure != nil:
		return failed(r)
	case !r.Started || r.Phase != report.Running:
		return unavailable(r, why(r))
	case r.WatchdogMissed():
		return gone(r)
	case !r.Up():
		return unavailable(r, why(r))
	case r.Notify != nil && r.Notify.Stopping:
		return unavailable(r, "the command says that it is stopping")
	case check != nil && check.State != report.CheckPassing:
		return unavailable(r, whyNot(check))
	default:
		return passed(r, report.ReadinessCheck)
	}
}

func status(r *report.Report) Response { return Response{Status: 200, Body: r.JSON()} }

// passed says whose word it is: that of a check, the command's own, or, so that
// nobody takes it for that, none.
func passed(r *report.Report, name string) Response {
	word, check := "none", r.Check(name)
	switch {
	case check != nil && check.Passed:
		word = "ok"
	case check != nil:
		word = "pending" // a liveness check has the benefit of the doubt
	case r.Notify != nil && (name != report.LivenessCheck && name != "" || r.Notify.Watchdog == report.WatchdogFed):
		word = "notify"
	}
	b := append(beginBody("ok", r), `,"check":"`...)
	return Response{Status: 200, Body: append(append(b, word...), "\"}\n"...)}
}

func unavailable(r *report.Report, reason string) Response {
	b := beginBody("unavailable", r)
	b = appendString(append(b, `,"reason":`...), reason)
	return Response{Status: 503, Body: append(b, "}\n"...)}
}

// gone is for a watchdog that was not fed.
func gone(r *report.Report) Response {
	resp := unavailable(r, "the command did not feed its watchdog")
	resp.Status = 410
	return resp
}

func failed(r *report.Report) Response {
	b := beginBody("failed", r)
	if r.Failure.Step != "" {
		b = appendString(append(b, `,"step":`...), r.Failure.Step)
	}
	b = appendString(append(b, `,"cause":`...), string(r.Failure.Cause))
	b = strconv.AppendInt(append(b, `,"code":`...), int64(r.Failure.Code), 10)
	b = appendString(append(b, `,"reason":`...), r.Failure.Summary())
	return Response{Status: r.Failure.HTTPStatus(), Body: append(b, "}\n"...)}
}

// why returns the reason for a 503.
func why(r *report.Report) string {
	switch r.Phase {
	case report.Starting:
		return "starting"
	case report.Hooks:
		return whichStep(r)
	case report.Running:
		return whyNotUp(r)
	case report.Draining:
		return "a stop signal was received"
	case report.Ended:
		return "the run has ended"
	default:
		return "stopping"
	}
}

func whyNotUp(r *report.Report) string {
	check := r.Check(report.StartupCheck)
	switch {
	case !r.Started:
		return "the command has not been started yet"
	case check != nil && !check.Passed:
		return whyNot(check)
	default:
		return "the command has not said READY=1 yet"
	}
}

// whyNot returns why a check does not pass.
func whyNot(c *report.Check) string {
	reason := c.Reason
	switch {
	case c.Runs == 0:
		reason = "has not run yet"
	case reason == "": // it fails until it has passed a few times
		reason = "has not passed often enough yet"
	}
	return c.Name + " check: " + reason
}

func whichStep(r *report.Report) string {
	first, n := "", 0
	for i := range r.Steps {
		if r.Steps[i].Result == report.ResultRunning {
			if n++; n == 1 {
				first = r.Steps[i].Name
			}
		}
	}
	switch n {
	case 0:
		return "between two steps"
	case 1:
		return "step " + first + " is running"
	default:
		return "step " + first + " and " + strconv.Itoa(n-1) + " more are running"
	}
}

// beginBody begins a body. Most fit in the room that it makes.
func beginBody(status string, r *report.Report) []byte {
	b := append(make([]byte, 0, 160), `{"status":"`...)
	b = append(b, status...)
	return appendString(append(b, `","phase":`...), string(r.Phase))
}

func appendError(b []byte, reason string) []byte {
	b = appendString(append(b, `{"status":"error","reason":`...), reason)
	return append(b, "}\n"...)
}

// appendString adds s as a JSON string. A step's name is a file's, which may
// be any bytes.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r) // U+FFFD for a byte that is not UTF-8
		}
	}
	return append(b, '"')
}
