// Shows what this instance says of itself in /readyz and /metrics, and what all say of the modules. Nothing leaves the
// page: the key is kept in memory, and goes to this server alone.
"use strict";

const every = 2000; // milliseconds between two looks
const span = 15;    // looks that rates are taken over

const at = (id) => document.getElementById(id);
const looks = []; // {time, metrics}, the newest last
let key = "";

// parse reads the Prometheus text format: by name, the samples with their labels.
function parse(text) {
  const metrics = new Map();
  for (const line of text.split("\n")) {
    const match = /^([a-z_0-9]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    if (!metrics.has(match[1])) metrics.set(match[1], []);
    metrics.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return metrics;
}

const matches = (labels, want) => Object.entries(want).every(([name, value]) => labels[name] === value);

// sum adds a metric's samples that have these labels.
function sum(metrics, name, want = {}) {
  return (metrics.get(name) || []).filter((s) => matches(s.labels, want)).reduce((total, s) => total + s.value, 0);
}

// now is the newest value, grown what a counter has gained within the window, and rate that per second.
const newest = () => looks[looks.length - 1];
const now = (name, want) => sum(newest().metrics, name, want);
const grown = (name, want) => Math.max(0, now(name, want) - sum(looks[0].metrics, name, want));
const seconds = () => Math.max(1, (newest().time - looks[0].time) / 1000);
const rate = (name, want) => grown(name, want) / seconds();

// quantile estimates a histogram's quantile within the window as the upper border of its bucket, in seconds.
function quantile(name, want, q) {
  const borders = [...new Set((newest().metrics.get(name + "_bucket") || []).map((s) => s.labels.le))].sort((a, b) => border(a) - border(b));
  const total = grown(name + "_count", want);
  if (total === 0) return "–";
  const found = borders.find((le) => grown(name + "_bucket", { ...want, le }) >= q * total);
  return found === "+Inf" ? "> " + duration(border(borders[borders.length - 2])) : "≤ " + duration(border(found));
}

const border = (le) => (le === "+Inf" ? Infinity : Number(le));
const duration = (s) => (s < 1 ? +(s * 1000).toPrecision(3) + " ms" : +s.toPrecision(3) + " s");
const number = (n) => (n >= 100 ? Math.round(n) : +n.toPrecision(2)).toLocaleString("en");
const share = (part, whole) => (whole ? ((100 * part) / whole).toFixed(1) + " %" : "–");
const bytes = (n) => (n / 2 ** 20).toFixed(1) + " MiB";
const values = (name, label) => [...new Set((newest().metrics.get(name) || []).map((s) => s.labels[label]))].sort();

// Text is set as text: what a server says is never taken for markup.
function element(tag, content, className = "") {
  const e = document.createElement(tag);
  e.textContent = content;
  e.className = className;
  return e;
}

function row(...cells) {
  const tr = document.createElement("tr");
  for (const cell of cells) tr.append(Array.isArray(cell) ? element("td", ...cell) : element("td", cell));
  return tr;
}

function facts(id, all) {
  at(id).replaceChildren(...all.map(([name, value, bad]) => {
    const div = document.createElement("div");
    div.append(element("dt", name), element("dd", value, bad ? "bad" : ""));
    return div;
  }));
}

const alarm = (value, bad) => [value, bad ? "bad" : ""];

function showMetrics() {
  const http = "strata_http_request_duration_seconds";
  at("window").textContent = duration(seconds());
  at("requests").replaceChildren(...values(http + "_count", "route").flatMap((route) =>
    values(http + "_count", "method").filter((method) => grown(http + "_count", { route, method }) > 0).map((method) => {
      const want = { route, method };
      const failed = values(http + "_count", "status").filter((s) => s >= "500").reduce((n, status) => n + rate(http + "_count", { ...want, status }), 0);
      return row(method + " " + route, number(rate(http + "_count", want)), alarm(number(failed), failed > 0),
        quantile(http, want, 0.5), quantile(http, want, 0.99));
    })));

  const reads = "strata_cache_reads_total", checks = "strata_cache_checks_total";
  at("cache").replaceChildren(...values(reads, "kind").map((kind) => {
    const total = grown(reads, { kind });
    const tier = (name) => share(grown(reads, { kind, tier: name }), total);
    const stale = now(checks, { kind, result: "stale" });
    return row(kind, number(total / seconds()), tier("process"), tier("redis"), tier("database"),
      number(grown("strata_cache_bypasses_total", { kind })), number(now(checks, { kind })), alarm(number(stale), stale > 0));
  }));
  facts("protocol", [
    ["entries", number(now("strata_cache_process_entries"))],
    ["size", bytes(now("strata_cache_process_bytes"))],
    ["process tier leased", share(now("strata_cache_process_leased_ratio"), 1)],
    ["Redis unanswered", share(now("strata_cache_breaker_open_ratio"), 1), now("strata_cache_breaker_open_ratio") > 0],
    ["relay", now("strata_cache_relay_leading") ? "this instance" : "another instance"],
    ["relay lag p99", quantile("strata_cache_relay_lag_seconds", {}, 0.99)],
    ["wait of writes p99", quantile("strata_cache_write_wait_seconds", {}, 0.99)],
    ["live instances", number(now("strata_cache_instances"))],
  ]);
  facts("pool", [
    ["connections", now("go_sql_open_connections") + " of " + now("go_sql_max_open_connections")],
    ["in use", number(now("go_sql_in_use_connections"))],
    ["waits per second", number(rate("strata_pool_waits_total"))],
    ["refused per second", number(rate("strata_pool_refusals_total")), rate("strata_pool_refusals_total") > 0],
    ["events wait to be sealed", duration(now("strata_audit_seal_lag_seconds"))],
  ]);
  facts("process", [
    ["memory", bytes(now("process_resident_memory_bytes"))],
    ["CPU", share(rate("process_cpu_seconds_total"), 1)],
    ["goroutines", number(now("go_goroutines"))],
    ["requests in flight", number(now("strata_http_requests_in_flight"))],
    ["running since", new Date(1000 * now("process_start_time_seconds")).toISOString().slice(0, 19) + "Z"],
  ]);
}

function showReadiness(ready) {
  at("status").replaceChildren(element("span", ready.status.replace("_", " "), ready.status === "ready" ? "good" : "bad"));
  at("checks").textContent = Object.entries(ready.checks || {}).map(([name, outcome]) => name + ": " + outcome).join(" · ");
}

function showModules(modules) {
  const path = (p) => (p && p.calls ? p.p50_ms + " / " + p.p99_ms + " ms" : "–");
  at("modules").replaceChildren(...modules.map((m) => row(m.name, m.stage, m.percent + " %",
    alarm(m.instances.acked + " of " + m.instances.live, m.instances.acked < m.instances.live),
    number(m.compared), alarm(number(m.mismatched), m.mismatched > 0), path(m.paths[0]), path(m.paths[1]),
    m.safe_to_advance.value ? ["yes", "good"] : m.safe_to_advance.reasons.join("; "))));
}

async function look() {
  try {
    const [ready, metrics] = await Promise.all([fetch("/readyz?verbose"), fetch("/metrics")]);
    showReadiness(await ready.json());
    looks.push({ time: Date.now(), metrics: parse(await metrics.text()) });
    if (looks.length > span + 1) looks.shift();
    showMetrics();
    await lookAtModules();
  } catch {
    at("status").replaceChildren(element("span", "this instance does not answer", "bad"));
    looks.length = 0; // its counters may start anew
  }
  setTimeout(look, every);
}

async function lookAtModules() {
  if (!key) return;
  const answer = await fetch("/v1/modules", { headers: { Authorization: "Bearer " + key } });
  const body = await answer.json();
  at("refused").textContent = answer.ok ? "" : body.detail || body.title;
  if (answer.ok) showModules(body.modules);
  else key = "";
}

at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("credential").value.trim();
  at("credential").value = "";
  lookAtModules().catch(() => {});
});
look();
