// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/template"
)

// numberFunctions calculate: with whole numbers as long as all are, else with
// floating point ones.
var numberFunctions = template.FuncMap{
	"int":   toInt,
	"float": func(value any) (float64, error) { f, _, err := number(value); return f, err },
	"bool":  toBool,
	"add": calculation(func(a, b int64) (int64, error) {
		if c := a + b; (c > a) == (b > 0) {
			return c, nil
		}
		return 0, errRange
	}, func(a, b float64) float64 { return a + b }),
	"sub": calculation(func(a, b int64) (int64, error) {
		if c := a - b; (c < a) == (b > 0) {
			return c, nil
		}
		return 0, errRange
	}, func(a, b float64) float64 { return a - b }),
	"mul": calculation(func(a, b int64) (int64, error) {
		if c := a * b; a == 0 || c/a == b && (a != -1 || b != math.MinInt64) {
			return c, nil
		}
		return 0, errRange
	}, func(a, b float64) float64 { return a * b }),
	"div": calculation(func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, errors.New("division by zero")
		}
		return a / b, nil
	}, func(a, b float64) float64 { return a / b }),
	"mod": calculation(func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, errors.New("division by zero")
		}
		return a % b, nil
	}, math.Mod),
	"max":   calculation(func(a, b int64) (int64, error) { return max(a, b), nil }, math.Max),
	"min":   calculation(func(a, b int64) (int64, error) { return min(a, b), nil }, math.Min),
	"ceil":  rounded(math.Ceil),
	"floor": rounded(math.Floor),
	"round": rounded(math.Round),
	"seq": func(from, to int) ([]any, error) {
		if to-from >= longestList {
			return nil, fmt.Errorf("seq: more than %d numbers", longestList)
		}
		numbers := []any{}
		for i := from; i <= to; i++ {
			numbers = append(numbers, int64(i))
		}
		return numbers, nil
	},
	"until": func(n int) ([]any, error) {
		if n > longestList {
			return nil, fmt.Errorf("until: more than %d numbers", longestList)
		}
		numbers := []any{}
		for i := range max(n, 0) {
			numbers = append(numbers, int64(i))
		}
		return numbers, nil
	},
}

const longestList = 1 << 20

var errRange = errors.New("the result is too large for a whole number")

// number returns a number, or a text that is one, and whether it is whole.
func number(value any) (f float64, whole bool, err error) {
	switch v := value.(type) {
	case absent:
		return 0, true, nil
	case float64:
		return v, false, nil
	case float32:
		return float64(v), false, nil
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			return float64(n), true, nil
		}
		if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, false, nil
		}
		return 0, false, errors.New("a text that is not a number") // it may be a secret
	}
	if n, ok := integer(value); ok {
		return float64(n), true, nil
	}
	return 0, false, fmt.Errorf("%s is not a number", typeName(value))
}

// toInt makes a whole number of a number or a text, cutting off what is behind
// the point.
func toInt(value any) (int64, error) {
	if s, ok := value.(string); ok {
		if n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64); err == nil {
			return n, nil
		}
	}
	if n, ok := integer(value); ok {
		return n, nil
	}
	if b, ok := value.(bool); ok {
		if b {
			return 1, nil
		}
		return 0, nil
	}
	f, _, err := number(value)
	if err == nil && (f >= math.MaxInt64 || f <= math.MinInt64) {
		err = errRange
	}
	return int64(f), err
}

func toBool(value any) (bool, error) {
	if b, ok := value.(bool); ok {
		return b, nil
	}
	s, err := text(value)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0", "":
		return false, nil
	}
	return false, errors.New("bool: accepted are true, yes, on, 1, false, no, off, 0")
}

func calculation(whole func(a, b int64) (int64, error), broken func(a, b float64) float64) func(a any, more ...any) (any, error) {
	return func(a any, more ...any) (any, error) {
		isWhole := true
		for _, v := range append([]any{a}, more...) {
			_, w, err := number(v)
			if err != nil {
				return nil, err
			}
			isWhole = isWhole && w
		}
		if isWhole {
			sum, _ := toInt(a)
			for _, v := range more {
				n, _ := toInt(v)
				var err error
				if sum, err = whole(sum, n); err != nil {
					return nil, err
				}
			}
			return sum, nil
		}
		sum, _, _ := number(a)
		for _, v := range more {
			n, _, _ := number(v)
			sum = broken(sum, n)
		}
		if math.IsNaN(sum) || math.IsInf(sum, 0) {
			return nil, errors.New("the result is no number: division by zero?")
		}
		return sum, nil
	}
}

func rounded(how func(float64) float64) func(any) (int64, error) {
	return func(value any) (int64, error) {
		f, whole, err := number(value)
		if err != nil || whole {
			if err != nil {
				return 0, err
			}
			return toInt(value)
		}
		return toInt(how(f))
	}
}
