module github.com/cleanstart-dev/cleanimg-init

go 1.26.0

require (
	github.com/kelseyhightower/envconfig v1.4.0 // indirect
	github.com/moby/sys/user v0.5.0 // indirect
	github.com/oklog/run v1.2.0 // indirect
	github.com/prometheus/procfs v0.23.0 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
