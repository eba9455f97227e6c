// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const mountPoint = "/sys/fs/cgroup"

// A group is a control group with a CPU limit.
type group struct {
	dir     *os.File // v2: where a process is begun
	add     func(pid int) error
	cpuTime func() (time.Duration, error)
	remove  func() error
}

// newGroup makes one for periods of 100 ms.
func newGroup(millicores int64) (*group, error) {
	name := fmt.Sprintf("/cleanimg-init-throttling-%d-%d", os.Getpid(), time.Now().UnixNano())
	quota, period := millicores*100, uint64(100_000)
	if cgroups.Mode() == cgroups.Unified {
		return newV2(name, &cgroup2.Resources{CPU: &cgroup2.CPU{Max: cgroup2.NewCPUMax(&quota, &period)}})
	}
	return newV1(name, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}})
}

func newV1(name string, limits *specs.LinuxResources) (*group, error) {
	hierarchy := func() ([]cgroup1.Subsystem, error) {
		return []cgroup1.Subsystem{cgroup1.NewCpu(mountPoint), cgroup1.NewCpuacct(mountPoint)}, nil
	}
	g, err := cgroup1.New(cgroup1.StaticPath(name), limits, cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		return nil, err
	}
	return &group{
		add: func(pid int) error { return g.AddProc(uint64(pid)) },
		cpuTime: func() (time.Duration, error) {
			stat, err := g.Stat()
			if err != nil {
				return 0, err
			}
			return time.Duration(stat.CPU.Usage.Total), nil
		},
		remove: g.Delete,
	}, nil
}

func newV2(name string, limits *cgroup2.Resources) (*group, error) {
	g, err := cgroup2.NewManager(mountPoint, name, limits)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Join(mountPoint, name))
	if err != nil {
		return nil, errors.Join(err, g.Delete())
	}
	return &group{
		dir: dir,
		add: func(int) error { return nil }, // it was begun there
		cpuTime: func() (time.Duration, error) {
			stat, err := g.StatFiltered(cgroup2.StatCPU)
			if err != nil {
				return 0, err
			}
			return time.Duration(stat.CPU.UsageUsec) * time.Microsecond, nil
		},
		remove: func() error { return errors.Join(dir.Close(), g.Delete()) },
	}, nil
}
