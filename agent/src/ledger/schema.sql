-- The embedded store: the chain with the exact bytes that were hashed.
CREATE TABLE IF NOT EXISTS record (
  seq INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  node TEXT NOT NULL,
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL,
  raw TEXT NOT NULL
) STRICT;

-- The columns, computed from `raw` when they are asked for: they cost nothing to write and cannot disagree with it.
CREATE VIEW IF NOT EXISTS audit AS
SELECT seq, epoch, node, prev_hash, hash, raw,
  coalesce(raw ->> 'ts', 0) AS ts,
  raw ->> 'kind' AS kind,
  coalesce(raw ->> 'session_id', '') AS session_id,
  coalesce(raw ->> 'request_id', '') AS request_id,
  coalesce(raw ->> 'workload', '') AS workload,
  coalesce(raw ->> 'owner', '') AS owner,
  coalesce(raw ->> 'user', '') AS user,
  coalesce(raw -> 'groups', '[]') AS "groups",
  coalesce(raw ->> 'identity_class', '') AS identity_class,
  coalesce(raw ->> 'pid', 0) AS pid,
  coalesce(raw ->> 'start_time', 0) AS start_time,
  coalesce(raw ->> 'exe', '') AS exe,
  coalesce(raw ->> 'exe_sha256', '') AS exe_sha256,
  coalesce(raw ->> 'uid', 0) AS uid,
  coalesce(raw ->> 'cgroup', '') AS cgroup,
  coalesce(raw ->> 'container', '') AS container,
  coalesce(raw ->> 'dst_ip', '') AS dst_ip,
  coalesce(raw ->> 'dst_port', 0) AS dst_port,
  coalesce(raw ->> 'host', '') AS host,
  coalesce(raw ->> 'protocol', '') AS protocol,
  coalesce(raw ->> 'target', '') AS target,
  coalesce(raw -> 'effects', '[]') AS effects,
  coalesce(raw -> 'relations', '[]') AS relations,
  coalesce(raw -> 'columns', '[]') AS columns,
  coalesce(raw ->> 'statement', '') AS statement,
  coalesce(raw ->> 'method', '') AS method,
  coalesce(raw ->> 'path', '') AS path,
  coalesce(raw ->> 'status', '') AS status,
  coalesce(raw ->> 'model', '') AS model,
  coalesce(raw ->> 'tokens_in', 0) AS tokens_in,
  coalesce(raw ->> 'tokens_out', 0) AS tokens_out,
  raw ->> 'decision' AS decision,
  coalesce(raw ->> 'rule', '') AS rule,
  coalesce(raw ->> 'reason', '') AS reason,
  coalesce(raw ->> 'policy_commit', '') AS policy_commit,
  coalesce(raw ->> 'policy_sha', '') AS policy_sha,
  coalesce(raw -> 'masked', '{}') AS masked,
  coalesce(raw ->> 'rows', 0) AS "rows",
  coalesce(raw ->> 'bytes_up', 0) AS bytes_up,
  coalesce(raw ->> 'bytes_down', 0) AS bytes_down,
  coalesce(raw ->> 'upstream_bytes', 0) AS upstream_bytes,
  coalesce(raw ->> 'weir_bytes', 0) AS weir_bytes,
  coalesce(raw ->> 'duration_us', 0) AS duration_us,
  coalesce(raw ->> 'overhead_us', 0) AS overhead_us,
  coalesce(raw ->> 'approval_id', '') AS approval_id,
  coalesce(raw ->> 'approver', '') AS approver,
  coalesce(raw ->> 'ticket', '') AS ticket,
  raw ->> 'durability' AS durability
FROM record;

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
WITH outcome AS MATERIALIZED (
  SELECT request_id, seq, decision, status, masked, "rows", tokens_in, tokens_out, bytes_up, bytes_down,
    upstream_bytes, duration_us, overhead_us
  FROM audit WHERE kind = 'outcome'
)
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
FROM audit v LEFT JOIN outcome o ON o.request_id = v.request_id
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

-- One row a connection that has ended: what was written to its sockets towards the server, the workload's and weir's own.
CREATE VIEW IF NOT EXISTS connections AS
SELECT ts, node, session_id, workload, owner, user, exe, host, dst_ip, dst_port, protocol, target, decision, rule, reason,
  upstream_bytes, weir_bytes, upstream_bytes + weir_bytes AS wire_bytes, duration_us, seq
FROM audit WHERE kind = 'connection';

-- Acts on weir itself: starts, policy changes, detach, losses.
CREATE VIEW IF NOT EXISTS admin AS
SELECT ts, node, epoch, effects, method, user, decision, reason, policy_commit, policy_sha, seq
FROM audit WHERE kind = 'admin';

-- Connections that the kernel turned against those that the agent took; `failed` rows are differences that stayed.
CREATE VIEW IF NOT EXISTS coverage AS
SELECT ts, node, epoch, decision,
  CAST(substr(' ' || reason, instr(' ' || reason, ' turned=') + 8) AS INTEGER) AS turned,
  CAST(substr(' ' || reason, instr(' ' || reason, ' published=') + 11) AS INTEGER) AS published,
  CAST(substr(' ' || reason, instr(' ' || reason, ' handed=') + 8) AS INTEGER) AS handed,
  CAST(substr(' ' || reason, instr(' ' || reason, ' accepted=') + 10) AS INTEGER) AS accepted,
  CAST(substr(' ' || reason, instr(' ' || reason, ' aborted=') + 9) AS INTEGER) AS aborted,
  CAST(substr(' ' || reason, instr(' ' || reason, ' in_handshake=') + 14) AS INTEGER) AS in_handshake,
  CAST(substr(' ' || reason, instr(' ' || reason, ' waiting=') + 9) AS INTEGER) AS waiting,
  CAST(substr(' ' || reason, instr(' ' || reason, ' lost=') + 6) AS INTEGER) AS lost,
  CAST(substr(' ' || reason, instr(' ' || reason, ' unexplained=') + 13) AS INTEGER) AS unexplained,
  reason, seq
FROM audit WHERE kind = 'admin' AND method = 'coverage';

-- Which names each workload looked up, and to which addresses they led. Refused questions have no status.
CREATE VIEW IF NOT EXISTS lookups AS
WITH answer AS MATERIALIZED (
  SELECT request_id, status, reason FROM audit WHERE kind = 'outcome' AND protocol = 'dns'
)
SELECT q.ts AS ts, q.node AS node, q.workload AS workload, q.owner AS owner, q.user AS user, q.exe AS exe,
  q.host AS name, q.method AS type, q.dst_ip AS server, q.decision AS decision, q.reason AS reason,
  coalesce(a.status, '') AS status, coalesce(a.reason, '') AS addresses, q.seq AS seq
FROM audit q LEFT JOIN answer a ON a.request_id = q.request_id
WHERE q.kind = 'dns';

-- Monitor mode: what would have been refused, masked or held.
CREATE VIEW IF NOT EXISTS would AS
SELECT ts, node, workload, owner, user, host, protocol, effects, relations, statement, method, path, decision, rule,
  reason, policy_commit, request_id, seq
FROM audit WHERE decision IN ('would_deny', 'would_mask', 'would_hold');
