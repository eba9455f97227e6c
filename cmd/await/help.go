// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"strings"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
	"github.com/cleanstart-dev/cleanimg-init/hooks/await"
)

const about = `Waits until all services are ready, asking all of them at the same time, each by
its own protocol. Then it ends with 0, or becomes the command (same pid).

  HOST:PORT, tcp://HOST:PORT   connections are accepted, nothing more
  unix:///run/app.sock         the same for a socket
  http:// https:// h2c://      status 200 to 399; #status=204 #body=TEXT
                               #header=NAME:VALUE of the answer
                               #request-header=NAME:VALUE to send
  grpc:// grpcs://HOST:PORT/SERVICE   the health service says SERVING
  postgres://                  accepts connections, as pg_isready; with
                               #query=SQL #table=NAME #schema-version=N it logs in
  mysql:// mariadb://          a login succeeds, the same options
  redis:// rediss://           answers PING with PONG
  kafka:// kafkas://           a broker answers; #brokers=N #topic=NAME
                               #sasl=plain|scram-sha-256|scram-sha-512
  amqp:// amqps://  nats://    a login succeeds
  mongodb:// mongodb+srv://    primary or secondary; #primary
  dns://NAME                   resolves; ?type=A|AAAA|CNAME|MX|NS|SRV|TXT
                               #count=N #expect=VALUE
  file:///path                 exists; #contains=TEXT
  exec:/path?arg=A&arg=B       ends with 0

After the # stands what belongs to the check: the above, where there are passwords
#password-file=PATH or #password-env=NAME, and for TLS #ca=PATH, #cert=PATH with
#key=PATH, #servername=NAME, #insecure. Several are joined by &.
Passwords may also come from PGPASSWORD, MYSQL_PWD, REDIS_PASSWORD, REDISCLI_AUTH,
KAFKA_PASSWORD, RABBITMQ_PASSWORD, NATS_PASSWORD, each with _FILE for a file.

What waiting does not mend (a bad URL, a wrong password) ends with 125 at once;
names that don't resolve, refused connections and bad certificates are retried.`

const notes = `Examples:
  await --service postgres.database.svc:5432 --service redis.cache.svc:6379 --timeout 5m
  await "postgres://app@db/shop#schema-version=12&password-file=/run/secrets/db" -- /app
  await --json "https://api/ready#status=204&ca=/tls/ca.pem" redis://cache`

// protocols are the schemes of ports that are often checked only as TCP.
var protocols = map[string]string{
	"5432": "postgres", "3306": "mysql", "6379": "redis", "9092": "kafka", "5672": "amqp", "4222": "nats", "27017": "mongodb",
}

// hintTCP says that a port of a database accepts connections before the
// database does its work.
func hintTCP(p *cli.Process, services []await.Service) {
	var better []string
	for _, s := range services {
		address, ok := strings.CutPrefix(s.String(), "tcp://")
		if _, port, err := net.SplitHostPort(address); ok && err == nil && protocols[port] != "" {
			better = append(better, protocols[port]+"://"+address)
		}
	}
	if len(better) > 0 {
		p.Log.Info("of these only the port is checked; as URLs they would be asked whether they are ready", "urls", strings.Join(better, " "))
	}
}
