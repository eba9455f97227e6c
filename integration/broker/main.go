// SPDX-License-Identifier: Apache-2.0

// Command broker is a Kafka broker for a container of the tests: in memory, on
// port 9092 of every address, with the topics of its arguments.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.SeedTopics(2, os.Args[1:]...),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, ":9092") }))
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker:", err)
		os.Exit(1)
	}
	defer cluster.Close()
	<-ctx.Done()
}
