// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/cleanstart-dev/cleanimg-init/probes"
)

// Prefix is what the names of all settings begin with, without the underscore.
const Prefix = "CLEANIMG_INIT"

// Config is everything that can be set. [ParseConfig] fills and validates it as
// a whole; each field is the variable [Prefix]_FIELD_NAME, its tags are the
// default and the text of the help. No name may end in _PORT or contain
// _SERVICE_: Kubernetes injects such variables for Services.
type Config struct {
	HooksDir      Dirs         `split_words:"true" default:"/etc/cleanimg-init/hooks.d" desc:"directories of the hooks to run before the command, separated by ':'; a later one overrides"`
	StopHooksDir  Dirs         `split_words:"true" default:"/etc/cleanimg-init/stop.d" desc:"the same for the hooks to run at the end, always"`
	HooksSkip     Names        `split_words:"true" desc:"names of hooks that are not run, or *"`
	HooksParallel Count        `split_words:"true" default:"1" desc:"above 1, hooks with the same leading number run together"`
	StepTimeout   Duration     `split_words:"true" default:"10m" desc:"time for each try of a step; 0 is none"`
	StepTimeouts  StepTimeouts `split_words:"true" desc:"the same by name: 20-migrate:30m,30-warm:30s"`

	HooksDeadline  Duration    `split_words:"true" default:"0" desc:"time for all hooks together; 0 is none"`
	CommandTimeout Duration    `split_words:"true" default:"0" desc:"time for the command; 0 is none"`
	TimeoutMode    TimeoutMode `split_words:"true" default:"throttle" desc:"throttle: timeouts of steps and command stop while the CPU limit throttles the container; scale: they are longer by as much as the limit is smaller than TIMEOUT_CPUS; wall: plain time"`
	TimeoutCpus    Cores       `split_words:"true" default:"1" desc:"CPUs that the timeouts were written for"`
	TimeoutStretch Factor      `split_words:"true" default:"10" desc:"in wall time no timeout becomes longer than by this factor"`
	KillGrace      Duration    `split_words:"true" default:"5s" desc:"from TERM to KILL, for a step that timed out and for what a dead command left"`
	GracePeriod    Duration    `split_words:"true" default:"0" desc:"time for the whole shutdown, a little under terminationGracePeriodSeconds; 0: the command is never killed"`
	DrainDelay     Duration    `split_words:"true" default:"0" desc:"from readiness false to the stop signal; a second signal skips it"`

	StopSignals   Signals `split_words:"true" default:"TERM,INT" desc:"signals that begin the shutdown"`
	SignalTarget  Target  `split_words:"true" default:"main" desc:"who gets the signals: main, group, tree"`
	SignalRewrite Rewrite `split_words:"true" desc:"signals to change on the way: TERM:QUIT, or USR1: to drop one"`

	HTTPListen     Address      `split_words:"true" default:":10101" desc:"address of the probes, or off"`
	StartupCheck   CheckURL     `split_words:"true" desc:"when the command is up: tcp://HOST:PORT, http://HOST:PORT/PATH, unix:///PATH, file:///PATH or exec:/PATH?arg=A&arg=B, with #period=3s&timeout=1s&success=1&failure=3"`
	LivenessCheck  CheckURL     `split_words:"true" desc:"the same for whether it still works"`
	ReadinessCheck CheckURL     `split_words:"true" desc:"the same for whether it can serve"`
	Notify         Notify       `split_words:"true" default:"off" desc:"who may say READY=1 and the like by sd_notify: main, all (its descendants too), or off"`
	Watchdog       Duration     `split_words:"true" default:"0" desc:"how often the command is to say WATCHDOG=1, with NOTIFY; 0: not at all"`
	Mode           Mode         `split_words:"true" default:"supervise" desc:"supervise, or exec: run the hooks, then be replaced by the command"`
	User           User         `split_words:"true" desc:"who runs the command: uid:gid or names"`
	EnvFiles       Globs        `split_words:"true" desc:"names or globs: for X, X_FILE=/path becomes X with the content of the file"`
	HookOutput     HookOutput   `split_words:"true" default:"plain" desc:"plain; prefix: each line with the step's name; inherit: untouched, no line remembered"`
	LogFormat      LogFormat    `split_words:"true" default:"text" desc:"text, json"`
	LogLevel       LogLevel     `split_words:"true" default:"info" desc:"debug, info, warn, error"`
	ReportFile     AbsolutePath `split_words:"true" desc:"where the report of the run is written at the end, as JSON"`
	TerminationLog AbsolutePath `split_words:"true" default:"/dev/termination-log" desc:"where a failure is explained; never created"`

	Flags   `ignored:"true"` // what only an option can say
	Command []string         `ignored:"true"` // the command and its arguments; empty: hooks only
	named   map[string]bool  // the fields that were set, by variable without the prefix
}

// Flags are tini's options that have no variable.
type Flags struct {
	NoHooks     bool
	ParentDeath syscall.Signal // 0: none
	Remap       []int          // exit codes that become 0
	WarnReaped  bool
	Compat
}

// Compat is what another init does and we do in its place only.
type Compat struct {
	Setsid        bool // the command leads a session, and gets the terminal if it is ours
	SuspendSelf   bool // TSTP, TTIN and TTOU stop us too, unless we are PID 1
	KeepSignals   bool // children ignore and block what we were started with so
	ForwardMore   bool // also the signals that users have no reason to send
	ForwardFaults bool // and those that report faults
	DropStops     bool // SIGNAL_REWRITE may drop stop signals
	ExecFailure   int  // exit code for a command that cannot be executed; 0: 126 and 127
}

// Named tells whether the setting, by the name of its variable without the
// prefix, was given and not left at its default.
func (c *Config) Named(variable string) bool { return c.named[variable] }

// HTTP tells whether to serve probes: not where they were turned off, nor, as
// Kubernetes allows no probes for init containers, for hooks without a command
// unless an address was given.
func (c *Config) HTTP() bool {
	return c.HTTPListen != "off" && (len(c.Command) > 0 || c.Named("HTTP_LISTEN"))
}

// A Variable is a setting as the help shows it.
type Variable struct {
	Name    string // without the prefix
	Default string
	Desc    string
}

// Variables returns every setting in the order of [Config].
func Variables() []Variable {
	t := reflect.TypeFor[Config]()
	var all []Variable
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("split_words") == "true" {
			all = append(all, Variable{variableName(f.Name), f.Tag.Get("default"), f.Tag.Get("desc")})
		}
	}
	return all
}

// variableName is envconfig's split_words: HTTPListen is HTTP_LISTEN.
func variableName(field string) string {
	upper := func(i int) bool { return i < len(field) && field[i] >= 'A' && field[i] <= 'Z' }
	var b strings.Builder
	for i := range len(field) {
		if i > 0 && upper(i) && (!upper(i-1) || !upper(i+1) && i+1 < len(field)) {
			b.WriteByte('_')
		}
		b.WriteByte(field[i])
	}
	return strings.ToUpper(b.String())
}

// ParseConfig makes a Config of the variables in environ and of the options,
// which win; both by the name of the variable without the prefix. An empty
// value means the default. The error joins everything that is wrong, one line
// each; an address that is wrong is left empty. warnings name the variables
// with our prefix that mean nothing.
//
// envconfig reads the environment of the process, so ParseConfig uses the
// variables with our prefix there for its work, and leaves none behind.
func ParseConfig(environ []string, options map[string]string, flags Flags, command []string) (c Config, warnings []string, err error) {
	given, warnings := given(environ, options)
	c = Config{Flags: flags, Command: command, named: map[string]bool{}}
	var problems []error
	fields := reflect.ValueOf(&c).Elem()
	for i := range fields.NumField() {
		field := fields.Type().Field(i)
		if field.Tag.Get("split_words") != "true" {
			continue
		}
		name := variableName(field.Name)
		value, isGiven := given[name]
		if c.named[name] = isGiven; !isGiven {
			setDefault(fields.Field(i), field.Tag.Get("default"))
			continue
		}
		if err := process(field, fields.Field(i), name, value); err != nil {
			problems = append(problems, settingError(name, options, value, err))
			c.named[name] = false // the default is in its place
			if name == "HTTP_LISTEN" {
				c.HTTPListen = "" // not here: nobody wants it, and it may be another container's
			}
		}
	}
	if err = errors.Join(problems...); err == nil {
		err = c.validate()
	}
	return c, warnings, err
}

// process lets envconfig read one setting: it would stop at the first error of
// several. It is given the name, because to find that out by itself it would use
// regular expressions, which is too dear at every start of every container.
func process(field reflect.StructField, to reflect.Value, name, value string) error {
	if err := os.Setenv(Prefix+"_"+name, value); err != nil {
		return err
	}
	defer os.Unsetenv(Prefix + "_" + name) // nothing else reads it
	tag := reflect.StructTag(`envconfig:"` + name + `"`)
	part := reflect.New(reflect.StructOf([]reflect.StructField{{Name: field.Name, Type: field.Type, Tag: tag}}))
	err := envconfig.Process(Prefix, part.Interface())
	var bad *envconfig.ParseError
	if errors.As(err, &bad) {
		setDefault(to, field.Tag.Get("default")) // so that the rest can be checked
		return bad.Err
	}
	to.Set(part.Elem().Field(0))
	return err
}

// setDefault sets a field to its default, or leaves it at zero.
func setDefault(field reflect.Value, value string) {
	if value == "" {
		return
	}
	if d, ok := field.Addr().Interface().(envconfig.Decoder); ok {
		if err := d.Decode(value); err != nil {
			panic("default " + value + ": " + err.Error()) // every test would see it
		}
	}
}

// given collects the settings from both sources by their names, and what looks
// like a setting but is none.
func given(environ []string, options map[string]string) (values map[string]string, warnings []string) {
	values = map[string]string{}
	var known []Variable
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(name, Prefix+"_")
		if !ours {
			continue
		}
		if known == nil {
			known = Variables()
		}
		switch {
		case slices.ContainsFunc(known, func(v Variable) bool { return v.Name == name }):
			values[name] = value
		case !passedOn(name):
			warnings = append(warnings, Prefix+"_"+name)
		}
	}
	maps.Copy(values, options)
	maps.DeleteFunc(values, func(_, value string) bool { return value == "" })
	return values, warnings
}

// passedOn tells whether a variable with our prefix is not a setting on
// purpose: what we give to hooks and command, which an instance below us
// inherits, and what Kubernetes injects for a Service that is named like us.
func passedOn(name string) bool {
	switch name {
	case "PID", "ENV", "STEP", "STEP_ID", "ATTEMPT", "EXIT_CODE", "CHECK_ID", "CPU_LIMIT", "MEMORY_LIMIT", "PORT":
		return true
	}
	return strings.HasPrefix(name, "SERVICE_") || strings.HasPrefix(name, "PORT_")
}

// settingError names the setting the way it was given, without what may be
// secret in a URL.
func settingError(name string, options map[string]string, value string, err error) error {
	if strings.HasSuffix(name, "_CHECK") {
		value = probes.HideCheck(value)
	}
	if _, ok := options[name]; ok {
		return fmt.Errorf("option %s %q: %w", OptionName(name), value, err)
	}
	return fmt.Errorf("%s_%s=%q: %w", Prefix, name, value, err)
}

// OptionName is the option of a variable: --step-timeout for STEP_TIMEOUT.
func OptionName(variable string) string {
	return "--" + strings.ReplaceAll(strings.ToLower(variable), "_", "-")
}

// validate checks what one setting alone can't tell.
func (c *Config) validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	name := func(variable string) string { return Prefix + "_" + variable }

	if c.GracePeriod.Duration > 0 && c.DrainDelay.Duration >= c.mainGrace() {
		bad("%s=%v does not fit in %s=%v: %v of that are kept for the processes that the command leaves and the stop hooks, and the command needs time after it; want less than %v",
			name("DRAIN_DELAY"), c.DrainDelay, name("GRACE_PERIOD"), c.GracePeriod, c.reserve(), c.mainGrace())
	}
	for _, sig := range c.StopSignals {
		if to, ok := c.SignalRewrite[sig]; ok && to == 0 && !c.DropStops {
			bad("%s drops %s, which is one of %s=%s: the command could never be stopped",
				name("SIGNAL_REWRITE"), SignalName(sig), name("STOP_SIGNALS"), c.StopSignals)
		}
	}
	if c.Watchdog.Duration > 0 && c.Notify == NotifyOff {
		bad("%s=%v needs %s=main or all: nobody would hear the command", name("WATCHDOG"), c.Watchdog, name("NOTIFY"))
	}
	return errors.Join(problems...)
}

// mainGrace is the part of GracePeriod that drain delay and command have.
func (c *Config) mainGrace() time.Duration { return c.GracePeriod.Duration - c.reserve() }

// reserve is the part of GracePeriod that is kept for what the command leaves
// and for the stop hooks.
func (c *Config) reserve() time.Duration {
	return min(c.GracePeriod.Duration/4, 5*time.Second)
}
