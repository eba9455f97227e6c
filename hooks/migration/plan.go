// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A step is one migration to run.
type step struct {
	file      *file
	number    int64
	direction direction
	previous  int64 // the version before it
	target    int64 // the version after it
	resumed   record
	rest      []statement // of the file, without what was done before
	all       []statement
	units     []unit // of the rest
}

// done is the number of statements that took effect in an earlier run.
func (s step) done() int { return len(s.all) - len(s.rest) }

// whole reports whether the step is one transaction with its version.
func (s step) whole() bool {
	return s.resumed.name == "" && len(s.units) == 1 && s.units[0].transactional()
}

// A plan is what a command means for a database in a certain state.
type plan struct {
	steps    []step
	warnings []string
	assumed  []version // that the history does not know, but the version implies
	force    *int64    // only write this version
}

func (p plan) empty() bool { return len(p.steps) == 0 && p.force == nil }

// A planner knows the files and what is allowed.
type planner struct {
	dialect    dialect
	files      files
	outOfOrder bool
	strict     bool
	noWrap     bool // x-no-tx-wrap: every file as if it asked for no transaction
}

// judged are the files as the database has them.
type judged struct {
	applied, late, pending, assumed []version
}

// judge compares files and state. What the history knows of is applied. What it
// does not know was applied by another tool if it is above everything in the
// history (such a tool goes on from the version), and else is late.
func (p planner) judge(st state) judged {
	known := noVersion
	for n, r := range st.history {
		if r.complete() && n <= st.version {
			known = max(known, n)
		}
	}
	var j judged
	for _, v := range p.files.versions {
		r, recorded := st.history[v.number]
		switch {
		case v.number > st.version:
			j.pending = append(j.pending, v)
		case recorded && r.complete():
			j.applied = append(j.applied, v)
		case v.number < known:
			j.late = append(j.late, v)
		default:
			j.applied, j.assumed = append(j.applied, v), append(j.assumed, v)
		}
	}
	return j
}

// settle turns the state of a database in which a migration was begun by us
// into the one before it.
func settle(st state) (state, record, bool, error) {
	r, begun := st.begun()
	switch {
	case begun && st.dirty:
		st.version, st.dirty = r.previous, false
	case st.dirty:
		return st, r, false, fmt.Errorf("the database is dirty at version %d: another tool has begun that migration and not completed it. "+
			"See what of it took effect, complete or undo it by hand, then say which version that is: force %[1]d, or force %d", st.version, max(noVersion, st.version-1))
	}
	return st, r, begun, nil
}

// unsure is the error for a migration that must not be resumed unasked.
func unsure(st state, r record) error {
	if !st.dirty {
		return nil
	}
	at := fmt.Sprintf("%s is incomplete: %d of its %d statements took effect", r.name, r.done, r.total)
	switch r.progress {
	case failedAt:
		return fmt.Errorf("the database is dirty at version %d: %s, the next one failed (%s): %s. Correct the file from that statement on, then run: resume",
			r.version, at, r.message, r.statement)
	case within:
		return fmt.Errorf("the database is dirty at version %d: %s, and the next one was running when the connection was lost: %s. "+
			"See whether it took effect, then run: resume (to run it again), or resume --skip-statement (when it did)",
			r.version, at, r.statement)
	}
	return nil
}

// up plans at most n migrations (0: all) to a version of at most last.
func (p planner) up(st state, n int, last int64) (plan, error) {
	before := st
	st, r, begun, err := settle(st)
	if err != nil {
		return plan{}, err
	}
	j := p.judge(st)
	result := plan{assumed: j.assumed}
	if begun {
		if _, ours := p.files.find(r.version); !ours && r.version > p.files.highest() {
			result.warnings = append(result.warnings, fmt.Sprintf("a newer image has begun version %d", r.version))
			begun = false
		}
	}
	if begun {
		if r.direction == down {
			return plan{}, fmt.Errorf("the way down from version %d was begun and is incomplete: complete it with: down 1", r.version)
		}
		if err := unsure(before, r); err != nil {
			return plan{}, err
		}
		s, err := p.resume(st, r, 0)
		if err != nil {
			return plan{}, err
		}
		result.steps = append(result.steps, s)
		isIt := func(v version) bool { return v.number == r.version }
		j.late, j.pending = slices.DeleteFunc(j.late, isIt), slices.DeleteFunc(j.pending, isIt)
	}
	if len(j.late) > 0 && !p.outOfOrder {
		return plan{}, fmt.Errorf("never applied, although the database is at version %d already: %s. "+
			"Give what is new a higher number, or allow it with --allow-out-of-order", st.version, names(j.late))
	}
	notes, err := p.notes(st, j)
	if err != nil {
		return plan{}, err
	}
	result.warnings = append(result.warnings, notes...)
	version := st.version
	if len(result.steps) > 0 {
		version = result.steps[0].target
	}
	var errs []error
	for _, v := range append(j.late, j.pending...) {
		if n > 0 && len(result.steps) >= n || v.number > last {
			break
		}
		s, err := p.step(v, up, version, max(version, v.number))
		errs = append(errs, err)
		result.steps = append(result.steps, s)
		version = s.target
	}
	return result, errors.Join(errs...)
}

// notes are the warnings about a state; with strict they are errors.
func (p planner) notes(st state, j judged) (warnings []string, err error) {
	if st.version > p.files.highest() {
		warnings = append(warnings, fmt.Sprintf("the database is at version %d, newer than the newest file of %s (%d): this image is older than the database",
			st.version, p.files.dir, p.files.highest()))
	} else if _, ok := p.files.find(st.version); !ok && st.version != noVersion {
		warnings = append(warnings, fmt.Sprintf("the database is at version %d, which %s has no file for", st.version, p.files.dir))
	}
	for _, v := range j.applied {
		if r := st.history[v.number]; v.up != nil && r.sum != "" && r.sum != v.up.sum {
			warnings = append(warnings, fmt.Sprintf("%s has changed since it was applied (%s)", v.up.name, r.at))
		}
	}
	if p.strict && len(warnings) > 0 {
		return nil, errors.New(strings.Join(warnings, "; ") + " (--strict)")
	}
	return warnings, nil
}

// down plans at most n migrations back (-1: all), none below the version first.
func (p planner) down(st state, n int, first int64) (plan, error) {
	before := st
	st, r, begun, err := settle(st)
	if err != nil {
		return plan{}, err
	}
	j := p.judge(st)
	result := plan{assumed: j.assumed}
	if begun {
		if r.direction == up {
			return plan{}, fmt.Errorf("version %d was begun and is incomplete (%d of %d statements): complete it with: up, or resume", r.version, r.done, r.total)
		}
		if err := unsure(before, r); err != nil {
			return plan{}, err
		}
		s, err := p.resume(st, r, 0)
		if err != nil {
			return plan{}, err
		}
		result.steps = append(result.steps, s)
		st.version = s.target
		j = p.judge(st)
	}
	if _, ok := p.files.find(st.version); !ok && st.version != noVersion {
		return plan{}, fmt.Errorf("the database is at version %d, which %s has no file for: nothing to go down by", st.version, p.files.dir)
	}
	var errs []error
	for i := len(j.applied) - 1; i >= 0; i-- {
		v, target := j.applied[i], noVersion
		if n >= 0 && len(result.steps) >= n || v.number <= first {
			break
		}
		if i > 0 {
			target = j.applied[i-1].number
		}
		s, err := p.step(v, down, v.number, target)
		errs = append(errs, err)
		result.steps = append(result.steps, s)
	}
	return result, errors.Join(errs...)
}

// to plans the way to a version.
func (p planner) to(st state, number int64) (plan, error) {
	if _, ok := p.files.find(number); !ok {
		return plan{}, fmt.Errorf("version %d: %s has no file for it; it has %s", number, p.files.dir, p.numbers())
	}
	settled, _, _, err := settle(st)
	if err != nil {
		return plan{}, err
	}
	if number < settled.version {
		return p.down(st, -1, number)
	}
	return p.up(st, 0, number)
}

// continued plans the rest of a migration that was begun, whatever is known of
// the statement at which it stopped, and without its first skip statements.
func (p planner) continued(st state, skip int) (plan, error) {
	st, r, begun, err := settle(st)
	if err != nil {
		return plan{}, err
	}
	if !begun {
		return plan{}, nil
	}
	s, err := p.resume(st, r, skip)
	return plan{steps: []step{s}}, err
}

func (p planner) numbers() string {
	var all []string
	for _, v := range p.files.versions {
		all = append(all, fmt.Sprint(v.number))
	}
	if len(all) > 20 {
		all = append(append(all[:5:5], "…"), all[len(all)-5:]...)
	}
	return strings.Join(all, ", ")
}

func names(versions []version) string {
	var all []string
	for _, v := range versions {
		all = append(all, v.name())
	}
	return strings.Join(all, ", ")
}

// step makes the step of a migration that has not been begun.
func (p planner) step(v version, d direction, previous, target int64) (step, error) {
	s := step{file: v.up, number: v.number, direction: d, previous: previous, target: target}
	if d == down {
		s.file = v.down
		if s.file == nil {
			return s, fmt.Errorf("%s has no way back: there is no %d_….down.sql beside it", v.name(), v.number)
		}
	}
	if s.file == nil {
		// There is a way down only: nothing to do on the way up.
		s.file = &file{name: v.down.name}
	}
	return s, p.parse(&s, 0)
}

// resume makes the step that completes a migration.
func (p planner) resume(st state, r record, skip int) (step, error) {
	v, ok := p.files.find(r.version)
	if !ok {
		return step{}, fmt.Errorf("version %d is incomplete, but %s has no file for it (it was %s)", r.version, p.files.dir, r.name)
	}
	s, err := p.step(v, r.direction, r.previous, max(r.previous, r.version))
	if err != nil {
		return s, err
	}
	if r.direction == down {
		s.target = noVersion
		for _, applied := range p.judge(st).applied {
			if applied.number < r.version {
				s.target = applied.number
			}
		}
	}
	s.resumed = r
	if r.done > len(s.all) || sumOf(s.all[:r.done]) != r.doneSum {
		return s, fmt.Errorf("%s: its first %d statements took effect, and have been changed since: restore them, and change only what comes after", s.file.name, r.done)
	}
	return s, p.parse(&s, min(r.done+skip, len(s.all)))
}

// parse reads the statements of the step's file behind the first done ones.
func (p planner) parse(s *step, done int) error {
	var err error
	if s.all, err = split(p.dialect, s.file.text); err == nil {
		s.rest = s.all[done:]
		s.units, err = units(p.dialect, s.rest, p.noWrap || noTransaction(s.file.text))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.file.name, err)
	}
	return nil
}
