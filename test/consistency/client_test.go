//go:build unix

package consistency

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"time"
)

// A client keeps one connection to one instance and sends requests that were made up beforehand. It knows just enough
// HTTP for Strata's answers: on the machine that the servers share, net/http would take half of it.
type client struct {
	addr string
	conn net.Conn // nil until it is needed
	in   *bufio.Reader
	body []byte
}

// An answer is valid until the next.
type answer struct {
	status int
	etag   string // where asked for
	body   []byte
}

// request makes up a request. The headers are complete lines.
func request(method, path, credential, headers, body string) []byte {
	length := ""
	if body != "" {
		length = fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: strata\r\nAuthorization: Bearer %s\r\n%s%s\r\n%s",
		method, path, credential, headers, length, body)
}

// send writes requests, one or several in a row, whose answers must all have come within the timeout.
func (c *client) send(requests []byte, timeout time.Duration) error {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.addr, timeout)
		if err != nil {
			return err
		}
		c.conn, c.in = conn, bufio.NewReaderSize(conn, 16<<10)
	}
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(requests)
	return err
}

// receive reads the next answer.
func (c *client) receive(wantETag bool) (answer, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return answer{}, err
	}
	var a answer
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return a, fmt.Errorf("not a status line: %q", line)
	}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, err
	}
	length := 0
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return a, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return a, err
			}
		} else if value, ok := bytes.CutPrefix(line, []byte("Etag: ")); ok && wantETag {
			a.etag = string(value)
		}
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	a.body = c.body[:length]
	for n := 0; n < length; {
		m, err := c.in.Read(a.body[n:])
		if err != nil {
			return a, err
		}
		n += m
	}
	return a, nil
}

// do sends one request and reads its answer.
func (c *client) do(request []byte, timeout time.Duration) (answer, error) {
	if err := c.send(request, timeout); err != nil {
		c.close()
		return answer{}, err
	}
	a, err := c.receive(true)
	if err != nil {
		c.close()
	}
	return a, err
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
