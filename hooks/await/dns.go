// SPDX-License-Identifier: Apache-2.0

package await

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// DNS is dns://name or, as in RFC 4501, dns://server:53/name?type=A: there is a
// record, #count=N of them, and #expect=VALUE among them. Without a type any
// address counts, as the resolver of the machine finds it.
func DNS() Scheme {
	return Scheme{names: []string{"dns"}, port: "53", options: []string{"count", "expect"}, parse: parseDNS}
}

// lookups are the types of records, and how their values look.
var lookups = map[string]func(ctx context.Context, r *net.Resolver, name string) ([]string, error){
	"": func(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
		return r.LookupHost(ctx, name)
	},
	"A": func(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
		return addresses(ctx, r, "ip4", name)
	},
	"AAAA": func(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
		return addresses(ctx, r, "ip6", name)
	},
	"CNAME": func(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
		cname, err := r.LookupCNAME(ctx, name)
		return []string{strings.TrimSuffix(cname, ".")}, err
	},
	"TXT": func(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
		return r.LookupTXT(ctx, name)
	},
	"MX": func(ctx context.Context, r *net.Resolver, name string) (values []string, err error) {
		records, err := r.LookupMX(ctx, name)
		for _, mx := range records {
			values = append(values, strings.TrimSuffix(mx.Host, "."))
		}
		return values, err
	},
	"NS": func(ctx context.Context, r *net.Resolver, name string) (values []string, err error) {
		records, err := r.LookupNS(ctx, name)
		for _, ns := range records {
			values = append(values, strings.TrimSuffix(ns.Host, "."))
		}
		return values, err
	},
	"SRV": func(ctx context.Context, r *net.Resolver, name string) (values []string, err error) {
		_, records, err := r.LookupSRV(ctx, "", "", name)
		for _, srv := range records {
			values = append(values, net.JoinHostPort(strings.TrimSuffix(srv.Target, "."), strconv.Itoa(int(srv.Port))))
		}
		return values, err
	},
}

func addresses(ctx context.Context, r *net.Resolver, network, name string) (values []string, err error) {
	found, err := r.LookupNetIP(ctx, network, name)
	for _, ip := range found {
		values = append(values, ip.Unmap().String())
	}
	return values, err
}

func parseDNS(t *target) (Check, error) {
	var errs []error
	resolver := &net.Resolver{PreferGo: true}
	name := t.Opaque // dns:name
	switch path := strings.Trim(t.Path, "/"); {
	case name != "":
	case path == "":
		name = t.Host // dns://name
	default:
		name = path
		if t.Host != "" { // dns://server/name
			server, err := t.host()
			errs = append(errs, err)
			resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, server)
			}
		}
	}
	if name == "" || strings.ContainsAny(name, "/ ") {
		errs = append(errs, errors.New("not a name: dns://NAME or dns://SERVER/NAME?type=A is accepted"))
	}
	kind := strings.ToUpper(t.Query().Get("type"))
	lookup, ok := lookups[kind]
	if !ok {
		errs = append(errs, fmt.Errorf("unknown type %q, accepted are A, AAAA, CNAME, MX, NS, SRV and TXT", kind))
	}
	count, err := t.number("count", 1)
	errs = append(errs, err)
	expect := t.options.Get("expect")
	return func(ctx context.Context) error {
		found, err := lookup(ctx, resolver, name)
		switch {
		case err != nil:
			return err
		case len(found) < count:
			return fmt.Errorf("%d of %d records", len(found), count)
		case expect != "" && !slices.Contains(found, expect):
			return fmt.Errorf("%s is not among %s", expect, cut(strings.Join(found, ", "), 100))
		}
		return nil
	}, errors.Join(errs...)
}
