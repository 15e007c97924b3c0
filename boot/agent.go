package boot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
)

// The agent is the harness's hand inside the machine: a program on a serial
// line of its own that runs commands as root and tells how they ended. It is
// started only when the kernel command line asks for it with [AgentWord].
//
// Both directions carry frames: one line each, the CRC-32C of the JSON text in
// eight hexadecimal digits, a blank, the JSON text. The host may send frames
// at any time; replies of several commands may be interleaved.

// MaxFrame bounds the length of a frame in bytes; MaxChunk bounds Data so that
// a frame with it stays below (base64 costs a third).
const (
	MaxFrame = 64 << 10
	MaxChunk = 4 << 10
)

// Request asks the agent for something. Exactly one of Argv and Cancel is used.
type Request struct {
	ID     uint64   `json:"id"`               // chosen by the host, unique on this line
	Argv   []string `json:"argv,omitempty"`   // program and arguments; the program is looked up in PATH
	Env    []string `json:"env,omitempty"`    // added to the agent's environment, "K=V"
	Dir    string   `json:"dir,omitempty"`    // working directory; empty: "/"
	Stdin  []byte   `json:"stdin,omitempty"`  // whole standard input; MaxChunk at most
	Cancel bool     `json:"cancel,omitempty"` // kill the command with this ID
}

// Reply is one thing the agent says. A command produces any number of replies
// with Data, then exactly one with Exit or Error set, which may have Data as well.
type Reply struct {
	ID     uint64 `json:"id"`
	Hello  string `json:"hello,omitempty"`  // first frame, and the answer to a Request without Argv: agent's build id
	Stream int    `json:"stream,omitempty"` // 1 standard output, 2 standard error
	Data   []byte `json:"data,omitempty"`
	Exit   *int   `json:"exit,omitempty"`   // exit status; 128+n when killed by signal n
	Signal string `json:"signal,omitempty"` // name of that signal
	Error  string `json:"error,omitempty"`  // the command could not be started
}

// AppendFrame appends v, a Request or Reply, as one frame with its newline.
func AppendFrame(b []byte, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return b, err
	}
	if len(body) > MaxFrame {
		return b, fmt.Errorf("boot: agent frame of %d bytes, the limit is %d", len(body), MaxFrame)
	}
	return fmt.Appendf(b, "%08x %s\n", crc32.Checksum(body, castagnoli), body), nil
}

// ParseFrame decodes one frame (with or without line end) into v.
func ParseFrame(line []byte, v any) error {
	line = bytes.TrimRight(line, "\r\n")
	sum, body, ok := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {
		return fmt.Errorf("boot: damaged agent frame: %.120q", line)
	}
	return json.Unmarshal(body, v)
}
