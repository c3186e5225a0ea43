package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/strata-accounts/strata/platform/web"
)

// modulesClient calls the modules API of a running server.
type modulesClient struct {
	url string // "http://127.0.0.1:8080"
	key string // with the scopes rollout:read and rollout:write
}

// moduleStatus is what the commands show of a module.
type moduleStatus struct {
	Name       string
	Stage      string
	Percent    float64
	Instances  struct{ Acked, Live int }
	Compared   uint64
	Mismatched uint64
	Errors     uint64
	Paths      []struct {
		Name string
		P50  float64 `json:"p50_ms"`
		P99  float64 `json:"p99_ms"`
	}
	SafeToAdvance struct {
		Value   bool
		Reasons []string
	} `json:"safe_to_advance"`
}

// modulesCommand returns the command modules. It calls setUp when it runs.
func modulesCommand(setUp func() (modulesClient, error)) *cobra.Command {
	parent := &cobra.Command{
		Use:   "modules",
		Short: "Look at the ladder of a running server, and move modules on it",
		Long: "Calls the server at STRATA_URL, or on this machine where the configuration says that it listens. The API key is\n" +
			"STRATA_API_KEY, or the root key that is configured or kept in the state directory.",
	}
	parent.AddCommand(modulesListCommand(setUp), modulesSetCommand(setUp), modulesWatchCommand(setUp))
	return parent
}

func modulesListCommand(setUp func() (modulesClient, error)) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the modules and their stages", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := setUp()
			if err != nil {
				return err
			}
			list, err := client.list(cmd.Context())
			if err != nil {
				return err
			}
			return printModules(cmd.OutOrStdout(), list)
		},
	}
}

func modulesSetCommand(setUp func() (modulesClient, error)) *cobra.Command {
	var reason string
	set := &cobra.Command{
		Use: "set <module> <stage> [percent]", Short: "Move a module to a stage", Args: cobra.RangeArgs(2, 3),
		Long:    "Without percent the percentage stays as it is.",
		Example: `  strata modules set users repository 5 --reason "30,000 comparisons without a difference"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			change := map[string]any{"stage": args[1], "reason": reason}
			if len(args) == 3 {
				percent, err := strconv.ParseFloat(strings.TrimSuffix(args[2], "%"), 64)
				if err != nil {
					return fmt.Errorf("percent: must be a number from 0 to 100")
				}
				change["percent"] = percent
			}
			client, err := setUp()
			if err != nil {
				return err
			}
			moved, err := client.set(cmd.Context(), args[0], change)
			if err != nil {
				return err
			}
			return printModules(cmd.OutOrStdout(), []moduleStatus{moved})
		},
	}
	set.Flags().StringVar(&reason, "reason", "", "why, for the history (required)")
	_ = set.MarkFlagRequired("reason") // fails only for a flag that does not exist
	return set
}

func modulesWatchCommand(setUp func() (modulesClient, error)) *cobra.Command {
	var every time.Duration
	watch := &cobra.Command{
		Use: "watch", Short: "Follow the modules in the terminal until interrupted", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return fmt.Errorf("interval: must be at least 100ms")
			}
			client, err := setUp()
			if err != nil {
				return err
			}
			return client.watch(cmd.Context(), cmd.OutOrStdout(), every)
		},
	}
	watch.Flags().DurationVar(&every, "interval", time.Second, "between two looks")
	return watch
}

// setUpModules finds the server and a key.
func setUpModules() (modulesClient, error) {
	cfg, err := loadConfig(os.Environ())
	if err != nil {
		return modulesClient{}, err
	}
	c := modulesClient{url: os.Getenv("STRATA_URL"), key: cmp.Or(os.Getenv("STRATA_API_KEY"), cfg.Server.RootKey)}
	if c.url == "" {
		addr, err := net.ResolveTCPAddr("tcp", cfg.Server.Addr)
		if err != nil {
			return c, fmt.Errorf("server.addr: %w", err)
		}
		c.url = "http://" + reachable(addr)
	}
	if c.key == "" {
		stored, err := os.ReadFile(filepath.Join(cfg.StateDir, keyName))
		if err != nil {
			return c, fmt.Errorf("no API key: set STRATA_API_KEY to one with the scopes rollout:read and rollout:write")
		}
		c.key = strings.TrimSpace(string(stored))
	}
	return c, nil
}

func (c modulesClient) list(ctx context.Context) ([]moduleStatus, error) {
	var answer struct{ Modules []moduleStatus }
	_, err := c.call(ctx, http.MethodGet, "", nil, "", &answer)
	return answer.Modules, err
}

// set moves a module from where it is now.
func (c modulesClient) set(ctx context.Context, name string, change map[string]any) (moduleStatus, error) {
	var m moduleStatus
	etag, err := c.call(ctx, http.MethodGet, "/"+url.PathEscape(name), nil, "", &m)
	if err != nil {
		return m, err
	}
	_, err = c.call(ctx, http.MethodPatch, "/"+url.PathEscape(name), change, etag, &m)
	return m, err
}

// watch prints the modules again and again: over what it printed before on a terminal, else below it.
func (c modulesClient) watch(ctx context.Context, out io.Writer, every time.Duration) error {
	const redraw = "\x1b[H\x1b[2J"
	f, ok := out.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		list, err := c.list(ctx)
		if ctx.Err() != nil {
			return nil // interrupted, which is how it ends
		}
		var page bytes.Buffer
		if terminal {
			page.WriteString(redraw)
		}
		fmt.Fprintf(&page, "%s  %s\n\n", c.url, time.Now().Format(time.TimeOnly))
		if err != nil {
			fmt.Fprintln(&page, err)
		} else if err := printModules(&page, list); err != nil {
			return err
		}
		if _, err := out.Write(page.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// call makes a call and decodes its answer. Errors: the code and detail of a problem.
func (c modulesClient) call(ctx context.Context, method, path string, body any, ifMatch string, answer any) (etag string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return "", err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+"/v1/modules"+path, content)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Content-Type", "application/json")
	if ifMatch != "" {
		req.Header.Set("If-Match", ifMatch)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var p web.Problem
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
			return "", fmt.Errorf("%s %s: %s", method, req.URL.Path, res.Status)
		}
		return "", problemError(p)
	}
	return res.Header.Get("ETag"), json.NewDecoder(res.Body).Decode(answer)
}

// problemError is a problem in one line.
func problemError(p web.Problem) error {
	var text strings.Builder
	text.WriteString(p.Code + ": " + p.Detail)
	for _, v := range p.Errors {
		place := v.Parameter
		if v.Pointer != nil {
			place = *v.Pointer
		}
		text.WriteString(" " + place + ": " + v.Message)
	}
	return errors.New(text.String())
}

// printModules prints a table, and below it what speaks against advancing.
func printModules(out io.Writer, list []moduleStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODULE\tSTAGE\tPERCENT\tINSTANCES\tCOMPARED\tMISMATCHED\tERRORS\tP50 ms\tP99 ms\tSAFE TO ADVANCE")
	for _, m := range list {
		p50, p99 := make([]string, len(m.Paths)), make([]string, len(m.Paths))
		for i, p := range m.Paths {
			p50[i], p99[i] = fmt.Sprintf("%s %.2f", p.Name, p.P50), fmt.Sprintf("%s %.2f", p.Name, p.P99)
		}
		safe := "no"
		if m.SafeToAdvance.Value {
			safe = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%v\t%d/%d\t%d\t%d\t%d\t%s\t%s\t%s\n", m.Name, m.Stage, m.Percent, m.Instances.Acked,
			m.Instances.Live, m.Compared, m.Mismatched, m.Errors, strings.Join(p50, ", "), strings.Join(p99, ", "), safe)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, m := range list {
		for _, reason := range m.SafeToAdvance.Reasons {
			if _, err := fmt.Fprintf(out, "\n%s: %s", m.Name, reason); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintln(out)
	return err
}
