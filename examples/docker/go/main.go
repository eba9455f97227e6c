// SPDX-License-Identifier: Apache-2.0

// Command go is the web application of the examples: it reads the
// configuration that generate-config has written, talks to the database that
// migrate has prepared, and drains when it is told to stop. It waits for
// nothing and retries nothing: that was done before it started.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.yaml.in/yaml/v3"
)

// config is the file at $CONFIG_PATH. Without one there is no database.
type config struct {
	Server struct {
		Host string
		Port int
	}
	Database struct {
		Host, Name, Username, SSLMode string
		Port                          int
	}
	Logging struct{ Level, Format string }
}

func main() {
	if err := run(); err != nil {
		slog.Error("web application stopped", "err", err)
		os.Exit(1)
	}
}

func run() error {
	var cfg config
	cfg.Server.Port = 8080
	if path := os.Getenv("CONFIG_PATH"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := yaml.Unmarshal(data, &cfg); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	var pool *pgxpool.Pool
	if cfg.Database.Host != "" {
		// The password is not in the file: pgx takes it from PGPASSWORD.
		var err error
		pool, err = pgxpool.New(context.Background(), fmt.Sprintf("host=%s port=%d dbname=%s user=%s sslmode=%s",
			cfg.Database.Host, cfg.Database.Port, cfg.Database.Name, cfg.Database.Username, cfg.Database.SSLMode))
		if err != nil {
			return err
		}
		defer pool.Close()
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{
		Addr:    net.JoinHostPort(cfg.Server.Host, strconv.Itoa(cfg.Server.Port)),
		Handler: routes(pool), ReadHeaderTimeout: 5 * time.Second,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	slog.Info("serving", "address", server.Addr, "level", cfg.Logging.Level)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	slog.Info("draining")
	if err := server.Shutdown(context.Background()); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	slog.Info("drained")
	return nil
}

// routes serves /livez, which says that the process works, /readyz, which says
// that its database does too, and /, which asks the database.
func routes(pool *pgxpool.Pool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if pool == nil {
			return
		}
		if err := pool.Ping(r.Context()); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if pool == nil {
			fmt.Fprintln(w, "hello")
			return
		}
		var users int
		if err := pool.QueryRow(r.Context(), "SELECT count(*) FROM users WHERE role = 'user'").Scan(&users); err != nil {
			slog.Error("query", "err", err)
			http.Error(w, "the database does not answer", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%d users\n", users)
	})
	return mux
}
