// SPDX-License-Identifier: Apache-2.0

// Command newdb makes the directory $PGDATA from the empty cluster in the
// image, whose path is its argument, and sets the passwords. Where there is a
// database already it does nothing. That "where" is why it is a program: a step
// file has no "if".
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Getenv("PGDATA")); err != nil {
		fmt.Fprintln(os.Stderr, "newdb:", err)
		os.Exit(1)
	}
}

func run(cluster, data string) error {
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); !errors.Is(err, fs.ErrNotExist) {
		return err // nil: there is a database
	}
	sql, err := statements()
	if err != nil {
		return err
	}
	syscall.Umask(0o077) // postgres refuses what others may read
	next := data + ".new"
	if err := os.RemoveAll(next); err != nil { // what an interrupted try has left
		return err
	}
	if err := os.CopyFS(next, os.DirFS(cluster)); err != nil {
		return err
	}
	if err := execute(sql, next); err != nil {
		return err
	}
	syscall.Sync() // first the content is on the disk, then its name
	// Only if it is empty: what has something in it is not ours.
	if err := os.Remove(data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(next, data)
}

// statements sets the superuser's password and, where APP_USER is set, makes
// that role and a database of its name.
func statements() (string, error) {
	password, err := secret("POSTGRES_PASSWORD")
	if err != nil {
		return "", err
	}
	sql := "ALTER ROLE postgres PASSWORD " + quote(password, "'") + ";\n"
	if user := os.Getenv("APP_USER"); user != "" {
		if password, err = secret("APP_PASSWORD"); err != nil {
			return "", err
		}
		name := quote(user, `"`)
		sql += "CREATE ROLE " + name + " LOGIN PASSWORD " + quote(password, "'") + ";\nCREATE DATABASE " + name + " OWNER " + name + ";\n"
	}
	return sql, nil
}

// secret is the value of a variable, or the content of the file that it names
// with _FILE added.
func secret(name string) (string, error) {
	value := os.Getenv(name)
	if path := os.Getenv(name + "_FILE"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("%s_FILE: %w", name, err)
		}
		value = strings.TrimSuffix(string(data), "\n")
	}
	if value == "" {
		return "", fmt.Errorf("there is no password: set %s_FILE, or %[1]s", name)
	}
	return value, nil
}

func quote(text, mark string) string {
	return mark + strings.ReplaceAll(text, mark, mark+mark) + mark
}

// execute runs SQL in a server on the directory that only we can reach: by a
// socket in a directory of our own.
func execute(sql, data string) error {
	private, err := os.MkdirTemp("", "newdb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	hba := filepath.Join(private, "pg_hba.conf")
	if err := os.WriteFile(hba, []byte("local all all trust\n"), 0o600); err != nil {
		return err
	}
	// Statements are never logged: there are passwords in them.
	server := exec.Command("postgres", "-D", data, "-k", private, "-c", "listen_addresses=", "-c", "hba_file="+hba, "-c", "log_min_error_statement=panic")
	server.Stdout, server.Stderr = os.Stderr, os.Stderr
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	for {
		psql := exec.Command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse", "-h", private, "-U", "postgres", "-d", "postgres", "-f", "-")
		psql.Stdin = strings.NewReader(sql)
		out, failed := psql.CombinedOutput()
		if psql.ProcessState == nil || psql.ProcessState.ExitCode() != 2 { // 2: no connection yet
			_ = server.Process.Signal(syscall.SIGINT)
			if err := <-ended; err != nil || failed == nil {
				return err
			}
			return fmt.Errorf("psql: %w: %s", failed, bytes.TrimSpace(out))
		}
		select {
		case err := <-ended:
			return fmt.Errorf("postgres ended early: %v; psql: %s", err, bytes.TrimSpace(out))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
