//go:build unix

package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestShutdown asks a server to end while requests are in flight: they are answered, and what they did stays.
func TestShutdown(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	s := d.start()
	const requests = 5
	var started []*slowRequest
	for range requests {
		started = append(started, s.begin(d.newPerson()))
	}
	s.terminate()
	s.awaitClosed()
	for _, r := range started {
		r.finish(t)
	}
	s.awaitEnd()
	again := d.start()
	for _, r := range started {
		var list struct{ Users []struct{ Email string } }
		again.root.Do("GET", "/v1/users?email="+r.person.email, nil).Want(http.StatusOK).JSON(&list)
		if len(list.Users) != 1 {
			t.Error("a user who was created during the shutdown is not there after it")
		}
	}
}

// A slowRequest is a sign-up whose body has not been sent to its end.
type slowRequest struct {
	person account
	conn   net.Conn
	reader *bufio.Reader
	rest   string
}

// begin sends a request but for the last byte of its body, and returns when the server is reading it: that is when it
// says 100 Continue.
func (s *server) begin(person account) *slowRequest {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(stopTimeout)); err != nil {
		s.t.Fatal(err)
	}
	body := fmt.Sprintf(`{"email":%q,"password":%q}`, person.email, person.password)
	_, err = fmt.Fprintf(conn, "POST /v1/users HTTP/1.1\r\nHost: strata\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", rootKey, len(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r := &slowRequest{person: person, conn: conn, reader: bufio.NewReader(conn), rest: body[len(body)-1:]}
	res, err := http.ReadResponse(r.reader, nil)
	if err != nil {
		s.t.Fatalf("the server does not take the request: %v", err)
	}
	if _ = res.Body.Close(); res.StatusCode != http.StatusContinue {
		s.t.Fatalf("the server does not take the request: %s", res.Status)
	}
	if _, err := conn.Write([]byte(body[:len(body)-1])); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// finish sends the end of the request and holds the answer to being that of a server at work.
func (r *slowRequest) finish(t *testing.T) {
	t.Helper()
	if _, err := r.conn.Write([]byte(r.rest)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(r.reader, nil)
	if err != nil {
		t.Fatalf("a request in flight is not answered: %v", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Errorf("a request in flight is answered with %s", res.Status)
	}
}

// awaitClosed returns when the server takes no more connections.
func (s *server) awaitClosed() {
	s.t.Helper()
	for deadline := time.Now().Add(stopTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			return
		}
		_ = conn.Close()
	}
	s.t.Fatalf("the server still listens %s after SIGTERM", stopTimeout)
}

// TestKill kills a server that is being written to. The next one has all that was acknowledged, each change with its
// event in a log that verifies, and works on.
func TestKill(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	s := d.start()
	ada := s.signUp()
	session := s.signIn(ada)
	acknowledged := s.writeUntilKilled(4, 100)
	again := d.start()
	session.at(again).wantLive(t)
	created := map[string]bool{}
	log := again.auditLog(t)
	events := log.list(map[string][]string{"limit": {"200"}, "action": {"user.created"}})
	for _, e := range events {
		created[e.Target.ID] = true
	}
	for _, id := range acknowledged {
		again.root.Do("GET", "/v1/users/"+id, nil).Want(http.StatusOK)
		if !created[id] {
			t.Errorf("%s is there, and not in the audit trail", id)
		}
	}
	var users struct{ Users []struct{ ID string } }
	again.root.Do("GET", "/v1/users?limit=200", nil).Want(http.StatusOK).JSON(&users)
	if len(users.Users) != len(events) {
		t.Errorf("%d users have %d events of their creation", len(users.Users), len(events))
	}
	session.at(again).Do("DELETE", "/v1/sessions/current", nil).Want(http.StatusNoContent)
	session.at(again).wantDead(t)
	log.awaitSealed(len(events))
	again.stop()
	again.auditVerify()
}

// writeUntilKilled creates users, several at a time, kills the server when so many have been acknowledged, and returns
// the ids of those and of what was acknowledged meanwhile.
func (s *server) writeUntilKilled(writers, enough int) []string {
	s.t.Helper()
	ids := make(chan string)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for {
				id, err := s.createUser()
				if err != nil {
					return // the server is gone
				}
				ids <- id
			}
		})
	}
	go func() {
		wg.Wait()
		close(ids)
	}()
	var acknowledged []string
	for id := range ids {
		if acknowledged = append(acknowledged, id); len(acknowledged) == enough {
			s.kill()
		}
	}
	if len(acknowledged) < enough {
		s.t.Fatalf("only %d users were created", len(acknowledged))
	}
	return acknowledged
}

// createUser creates a user without a password, which is quick. The error is that of a server that does not answer.
func (s *server) createUser() (id string, err error) {
	body := strings.NewReader(fmt.Sprintf(`{"email":%q}`, s.deployment.newPerson().email))
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/v1/users", body)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+rootKey)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var created struct{ ID string }
	if err := json.NewDecoder(res.Body).Decode(&created); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusCreated {
		s.t.Errorf("a user is created with %s", res.Status)
	}
	return created.ID, nil
}
