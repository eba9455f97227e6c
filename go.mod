module github.com/cleanstart-dev/cleanimg-init

go 1.26.0

require (
	github.com/kelseyhightower/envconfig v1.4.0
	github.com/moby/sys/user v0.5.0
	github.com/oklog/run v1.2.0
	github.com/prometheus/procfs v0.23.0
	github.com/stretchr/testify v1.12.1
	go.yaml.in/yaml/v3 v3.0.6
	golang.org/x/sys v0.49.0
)

require github.com/spf13/pflag v1.1.0
