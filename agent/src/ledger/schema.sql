-- The embedded store. Every column but the chain's own is computed from `raw`, so none can disagree with it.
CREATE TABLE IF NOT EXISTS audit (
  seq INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  node TEXT NOT NULL,
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL,
  raw TEXT NOT NULL,
  ts INTEGER AS (coalesce(raw ->> 'ts', 0)),
  kind TEXT AS (raw ->> 'kind'),
  session_id TEXT AS (coalesce(raw ->> 'session_id', '')),
  request_id TEXT AS (coalesce(raw ->> 'request_id', '')),
  workload TEXT AS (coalesce(raw ->> 'workload', '')),
  owner TEXT AS (coalesce(raw ->> 'owner', '')),
  user TEXT AS (coalesce(raw ->> 'user', '')),
  "groups" TEXT AS (coalesce(raw -> 'groups', '[]')),
  identity_class TEXT AS (coalesce(raw ->> 'identity_class', '')),
  pid INTEGER AS (coalesce(raw ->> 'pid', 0)),
  start_time INTEGER AS (coalesce(raw ->> 'start_time', 0)),
  exe TEXT AS (coalesce(raw ->> 'exe', '')),
  exe_sha256 TEXT AS (coalesce(raw ->> 'exe_sha256', '')),
  uid INTEGER AS (coalesce(raw ->> 'uid', 0)),
  cgroup TEXT AS (coalesce(raw ->> 'cgroup', '')),
  container TEXT AS (coalesce(raw ->> 'container', '')),
  dst_ip TEXT AS (coalesce(raw ->> 'dst_ip', '')),
  dst_port INTEGER AS (coalesce(raw ->> 'dst_port', 0)),
  host TEXT AS (coalesce(raw ->> 'host', '')),
  protocol TEXT AS (coalesce(raw ->> 'protocol', '')),
  target TEXT AS (coalesce(raw ->> 'target', '')),
  effects TEXT AS (coalesce(raw -> 'effects', '[]')),
  relations TEXT AS (coalesce(raw -> 'relations', '[]')),
  columns TEXT AS (coalesce(raw -> 'columns', '[]')),
  statement TEXT AS (coalesce(raw ->> 'statement', '')),
  method TEXT AS (coalesce(raw ->> 'method', '')),
  path TEXT AS (coalesce(raw ->> 'path', '')),
  status TEXT AS (coalesce(raw ->> 'status', '')),
  model TEXT AS (coalesce(raw ->> 'model', '')),
  tokens_in INTEGER AS (coalesce(raw ->> 'tokens_in', 0)),
  tokens_out INTEGER AS (coalesce(raw ->> 'tokens_out', 0)),
  decision TEXT AS (raw ->> 'decision'),
  rule TEXT AS (coalesce(raw ->> 'rule', '')),
  reason TEXT AS (coalesce(raw ->> 'reason', '')),
  policy_commit TEXT AS (coalesce(raw ->> 'policy_commit', '')),
  policy_sha TEXT AS (coalesce(raw ->> 'policy_sha', '')),
  masked TEXT AS (coalesce(raw -> 'masked', '{}')),
  "rows" INTEGER AS (coalesce(raw ->> 'rows', 0)),
  bytes_up INTEGER AS (coalesce(raw ->> 'bytes_up', 0)),
  bytes_down INTEGER AS (coalesce(raw ->> 'bytes_down', 0)),
  upstream_bytes INTEGER AS (coalesce(raw ->> 'upstream_bytes', 0)),
  duration_us INTEGER AS (coalesce(raw ->> 'duration_us', 0)),
  overhead_us INTEGER AS (coalesce(raw ->> 'overhead_us', 0)),
  approval_id TEXT AS (coalesce(raw ->> 'approval_id', '')),
  approver TEXT AS (coalesce(raw ->> 'approver', '')),
  ticket TEXT AS (coalesce(raw ->> 'ticket', '')),
  durability TEXT AS (raw ->> 'durability')
) STRICT;

-- Facts about the store itself: `ledger` (its id), `anchor_*` (the newest record that retention removed).
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;

-- The outbox: borders and token of each batch are here before its first try; a retry is the same rows and token.
CREATE TABLE IF NOT EXISTS batch (
  from_seq INTEGER PRIMARY KEY,
  to_seq INTEGER NOT NULL,
  token TEXT NOT NULL,
  confirmed INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One row an act: its verdict, and its outcome where there is one yet.
CREATE VIEW IF NOT EXISTS acts AS
SELECT v.ts AS ts, v.node AS node, v.session_id AS session_id, v.request_id AS request_id, v.workload AS workload,
  v.owner AS owner, v.user AS user, v."groups" AS "groups", v.identity_class AS identity_class, v.exe AS exe,
  v.dst_ip AS dst_ip, v.dst_port AS dst_port, v.host AS host, v.protocol AS protocol, v.target AS target,
  v.effects AS effects, v.relations AS relations, v.columns AS columns, v.statement AS statement, v.method AS method,
  v.path AS path, v.model AS model, v.decision AS decision, v.rule AS rule, v.reason AS reason,
  v.policy_commit AS policy_commit, v.approval_id AS approval_id, v.approver AS approver, v.ticket AS ticket,
  v.durability AS durability, v.seq AS seq,
  coalesce(o.seq, 0) AS outcome_seq, coalesce(o.decision, '') AS outcome, coalesce(o.status, '') AS status,
  coalesce(o.masked, '{}') AS masked, coalesce(o."rows", 0) AS "rows", coalesce(o.tokens_in, 0) AS tokens_in,
  coalesce(o.tokens_out, 0) AS tokens_out, coalesce(o.bytes_up, 0) AS bytes_up,
  coalesce(o.bytes_down, 0) AS bytes_down, coalesce(o.upstream_bytes, 0) AS upstream_bytes,
  coalesce(o.duration_us, 0) AS duration_us, coalesce(o.overhead_us, 0) AS overhead_us
FROM audit v LEFT JOIN audit o ON o.request_id = v.request_id AND o.kind = 'outcome'
WHERE v.kind = 'verdict';

-- What was refused, and by which rule.
CREATE VIEW IF NOT EXISTS denials AS
SELECT ts, node, workload, owner, user, host, dst_ip, dst_port, protocol, effects, relations, statement, method, path,
  decision, rule, reason, policy_commit, request_id, kind, seq
FROM audit WHERE decision IN ('denied', 'expired', 'failed') AND kind <> 'admin';

-- What people were asked, and what they answered.
CREATE VIEW IF NOT EXISTS approvals AS
SELECT ts, node, approval_id, approver, ticket, decision, rule, reason, workload, owner, user, host, statement, method,
  path, policy_commit, request_id, kind, seq
FROM audit WHERE approval_id <> '' OR decision IN ('held', 'approved', 'expired');

-- Which classes of protected values were hidden, from whom and on the way where.
CREATE VIEW IF NOT EXISTS masks AS
SELECT a.ts AS ts, a.node AS node, a.workload AS workload, a.owner AS owner, a.user AS user, a.host AS host,
  a.dst_ip AS dst_ip, a.target AS target, a.rule AS rule, m.key AS class, m.value AS hidden, a.request_id AS request_id,
  a.seq AS seq
FROM audit a, json_each(a.masked) m WHERE a.kind = 'outcome';

-- Who reaches what.
CREATE VIEW IF NOT EXISTS destinations AS
SELECT workload, host, dst_ip, dst_port, protocol, count(*) AS acts,
  sum(decision IN ('denied', 'expired', 'failed')) AS denied, sum(upstream_bytes) AS upstream_bytes,
  min(ts) AS first_ts, max(ts) AS last_ts
FROM acts GROUP BY workload, host, dst_ip, dst_port, protocol;

-- What each workload does.
CREATE VIEW IF NOT EXISTS workloads AS
SELECT workload, owner, count(*) AS acts, sum(decision = 'masked') AS masked,
  sum(decision IN ('denied', 'expired', 'failed')) AS denied, sum(approval_id <> '') AS approvals,
  count(DISTINCT session_id) AS sessions, sum("rows") AS "rows", sum(tokens_in) AS tokens_in,
  sum(tokens_out) AS tokens_out, min(ts) AS first_ts, max(ts) AS last_ts
FROM acts GROUP BY workload, owner;

-- Acts on weir itself: starts, policy changes, detach, losses.
CREATE VIEW IF NOT EXISTS admin AS
SELECT ts, node, epoch, effects, user, decision, reason, policy_commit, policy_sha, seq
FROM audit WHERE kind = 'admin';

-- Monitor mode: what would have been refused, masked or held.
CREATE VIEW IF NOT EXISTS would AS
SELECT ts, node, workload, owner, user, host, protocol, effects, relations, statement, method, path, decision, rule,
  reason, policy_commit, request_id, seq
FROM audit WHERE decision IN ('would_deny', 'would_mask', 'would_hold');
