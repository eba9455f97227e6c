// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// interpreterLine is how much of a #! line the kernel reads.
const interpreterLine = 256

// inspectFormat tells why the kernel would refuse the content of the file:
// execve(2) says ENOENT for a missing interpreter and for a missing loader as
// well, which reads as if the program itself was missing.
func inspectFormat(file, shown string) (problem string, code int) {
	// Not os.Open, which would set the poller up: the first dozen system calls
	// of a start, before anything has run.
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", 0 // a program need not be readable
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	head := make([]byte, interpreterLine)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Sprintf("%s: %v", shown, err), codeNotExecutable
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		return inspectScript(shown, head)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return inspectELF(f, shown, head)
	case n == 0:
		return shown + " is empty", codeNotExecutable
	default:
		return shown + " is neither an ELF program nor a script: its first line must be #! and the path of the interpreter", codeNotExecutable
	}
}

func inspectScript(shown string, head []byte) (problem string, code int) {
	line, _, _ := strings.Cut(string(head[2:]), "\n")
	fields := strings.Fields(line)
	switch {
	case strings.HasSuffix(line, "\r"):
		return shown + " has a #! line that ends in CRLF: save the file with LF line ends", codeNotExecutable
	case len(fields) == 0:
		return shown + " has a #! line without an interpreter: write its path after #!", codeNotExecutable
	}
	interpreter := fields[0]
	info, err := os.Stat(interpreter)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Sprintf("%s needs the interpreter %s, which is not in this image: let a step file (NAME.yaml) or CMD name one that is, before the file, or use a static program",
			shown, interpreter), codeNotFound
	case err != nil:
		return fmt.Sprintf("%s needs the interpreter %s: %v", shown, interpreter, errors.Unwrap(err)), codeNotExecutable
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return fmt.Sprintf("%s needs the interpreter %s, which is not executable", shown, interpreter), codeNotExecutable
	}
	return "", 0
}

// ELF: the few fields that decide whether a program can run here. debug/elf
// would do, at a price that every start of PID 1 pays.
const (
	elfClass32, elfClass64     = 1, 2
	elfDataLittle, elfDataBig  = 1, 2
	elfTypeExec, elfTypeDyn    = 2, 3
	elfInterp                  = 3 // type of the program header that names the loader
	elf386, elfARM             = 3, 40
	elfPPC64, elfS390          = 21, 22
	elfAMD64, elfARM64         = 62, 183
	elfRISCV, elfLoong         = 243, 258
	elfHeader32, elfHeader64   = 52, 64
	elfSegment32, elfSegment64 = 32, 56
)

// runs tells whether this machine runs programs for e_machine. Kernels for
// amd64 and arm64 run 32-bit programs too.
func runs(machine uint16) bool {
	switch runtime.GOARCH {
	case "amd64":
		return machine == elfAMD64 || machine == elf386
	case "arm64":
		return machine == elfARM64 || machine == elfARM
	case "386":
		return machine == elf386
	case "arm":
		return machine == elfARM
	case "ppc64", "ppc64le":
		return machine == elfPPC64
	case "s390x":
		return machine == elfS390
	case "riscv64":
		return machine == elfRISCV
	case "loong64":
		return machine == elfLoong
	default:
		return true // let the kernel say
	}
}

func machineName(machine uint16) string {
	names := map[uint16]string{
		elf386: "386", elfARM: "arm", elfPPC64: "ppc64", elfS390: "s390x",
		elfAMD64: "amd64", elfARM64: "arm64", elfRISCV: "riscv64", elfLoong: "loong64",
	}
	if name, ok := names[machine]; ok {
		return name
	}
	return fmt.Sprintf("another machine (ELF number %d)", machine)
}

func inspectELF(f io.ReaderAt, shown string, head []byte) (problem string, code int) {
	if len(head) < elfHeader32 || head[4] == elfClass64 && len(head) < elfHeader64 {
		return shown + " is an ELF file that was cut off", codeNotExecutable
	}
	order := byteOrder(head[5])
	if kind := order.Uint16(head[16:]); kind != elfTypeExec && kind != elfTypeDyn {
		return shown + " is an ELF file, but not a program", codeNotExecutable
	}
	machine := order.Uint16(head[18:])
	if !runs(machine) {
		return fmt.Sprintf("%s has the wrong architecture: it is for %s, this machine is %s: build the image for this platform",
			shown, machineName(machine), runtime.GOARCH), codeNotExecutable
	}
	loader := elfLoader(f, head, order)
	if loader == "" {
		return "", 0
	}
	if _, err := os.Stat(loader); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Sprintf("%s needs the loader %s, which is not in this image: link the program statically (Go: CGO_ENABLED=0), or use an image with its C library",
			shown, loader), codeNotFound
	}
	return "", 0
}

func byteOrder(data byte) binary.ByteOrder {
	if data == elfDataBig {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// elfLoader returns the path of the program's dynamic loader, or "" when it
// needs none.
func elfLoader(f io.ReaderAt, head []byte, order binary.ByteOrder) string {
	wide := head[4] == elfClass64
	offset, size, count := int64(order.Uint32(head[28:])), elfSegment32, int(order.Uint16(head[44:]))
	if wide {
		offset, size, count = int64(order.Uint64(head[32:])), elfSegment64, int(order.Uint16(head[56:]))
	}
	segment := make([]byte, size)
	for i := range count {
		if _, err := f.ReadAt(segment, offset+int64(i*size)); err != nil {
			return ""
		}
		if order.Uint32(segment) != elfInterp {
			continue
		}
		at, length := int64(order.Uint32(segment[4:])), int64(order.Uint32(segment[16:]))
		if wide {
			at, length = int64(order.Uint64(segment[8:])), int64(order.Uint64(segment[32:]))
		}
		path := make([]byte, min(max(length, 0), unix.PathMax))
		if _, err := f.ReadAt(path, at); err != nil {
			return ""
		}
		loader, _, _ := strings.Cut(string(path), "\x00")
		return loader
	}
	return ""
}
