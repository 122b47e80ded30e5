-- ClickHouse: made on start where the user may; else make them by hand from this file (the shipper needs INSERT on
-- `audit`, and SELECT for `weir audit query|verify --clickhouse`). Statements end with a semicolon at a line's end.
-- The window makes a retry with the same token the same insert; it must outlast the inserts of all agents between a
-- try and its retry. Plain MergeTree, because in a replacing engine whoever may INSERT could overwrite a row.
CREATE TABLE IF NOT EXISTS audit (
  ts DateTime64(9, 'UTC'),
  node LowCardinality(String),
  epoch UInt64,
  seq UInt64,
  prev_hash String,
  hash String,
  kind LowCardinality(String),
  session_id String,
  request_id String,
  workload LowCardinality(String),
  owner LowCardinality(String),
  `user` LowCardinality(String),
  `groups` Array(LowCardinality(String)),
  identity_class LowCardinality(String),
  pid UInt64,
  start_time UInt64,
  exe LowCardinality(String),
  exe_sha256 LowCardinality(String),
  uid UInt64,
  cgroup LowCardinality(String),
  container LowCardinality(String),
  dst_ip LowCardinality(String),
  dst_port UInt64,
  host LowCardinality(String),
  protocol LowCardinality(String),
  target LowCardinality(String),
  effects Array(LowCardinality(String)),
  relations Array(LowCardinality(String)),
  `columns` Array(LowCardinality(String)),
  statement String,
  method LowCardinality(String),
  path String,
  status LowCardinality(String),
  model LowCardinality(String),
  tokens_in UInt64,
  tokens_out UInt64,
  decision LowCardinality(String),
  rule LowCardinality(String),
  reason String,
  policy_commit LowCardinality(String),
  policy_sha LowCardinality(String),
  masked Map(LowCardinality(String), UInt64),
  `rows` UInt64,
  bytes_up UInt64,
  bytes_down UInt64,
  upstream_bytes UInt64,
  weir_bytes UInt64,
  duration_us UInt64,
  overhead_us UInt64,
  approval_id String,
  approver LowCardinality(String),
  ticket LowCardinality(String),
  durability LowCardinality(String),
  raw String CODEC(ZSTD(3))
) ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (node, epoch, seq)
SETTINGS non_replicated_deduplication_window = 100000;

-- Frames of recorded sessions.
CREATE TABLE IF NOT EXISTS recording (
  ts DateTime64(9, 'UTC'),
  node LowCardinality(String),
  session_id String,
  request_id String,
  frame UInt64,
  direction LowCardinality(String),
  kind LowCardinality(String),
  workload LowCardinality(String),
  `user` LowCardinality(String),
  content String CODEC(ZSTD(3))
) ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (node, session_id, frame)
SETTINGS non_replicated_deduplication_window = 100000;

-- One row an act: its verdict, and its outcome where there is one yet.
CREATE VIEW IF NOT EXISTS acts AS
SELECT v.ts AS ts, v.node AS node, v.session_id AS session_id, v.request_id AS request_id, v.workload AS workload,
  v.owner AS owner, v.`user` AS `user`, v.`groups` AS `groups`, v.identity_class AS identity_class, v.exe AS exe,
  v.dst_ip AS dst_ip, v.dst_port AS dst_port, v.host AS host, v.protocol AS protocol, v.target AS target,
  v.effects AS effects, v.relations AS relations, v.`columns` AS `columns`, v.statement AS statement,
  v.method AS method, v.path AS path, v.model AS model, v.decision AS decision, v.rule AS rule, v.reason AS reason,
  v.policy_commit AS policy_commit, v.approval_id AS approval_id, v.approver AS approver, v.ticket AS ticket,
  v.durability AS durability, v.seq AS seq,
  o.seq AS outcome_seq, o.decision AS outcome, o.status AS status, o.masked AS masked, o.`rows` AS `rows`,
  o.tokens_in AS tokens_in, o.tokens_out AS tokens_out, o.bytes_up AS bytes_up, o.bytes_down AS bytes_down,
  o.upstream_bytes AS upstream_bytes, o.duration_us AS duration_us, o.overhead_us AS overhead_us
FROM (SELECT * FROM audit WHERE kind = 'verdict') AS v
LEFT JOIN (SELECT * FROM audit WHERE kind = 'outcome') AS o ON o.node = v.node AND o.request_id = v.request_id;

-- What was refused, and by which rule.
CREATE VIEW IF NOT EXISTS denials AS
SELECT ts, node, workload, owner, `user`, host, dst_ip, dst_port, protocol, effects, relations, statement, method,
  path, decision, rule, reason, policy_commit, request_id, kind, seq
FROM audit WHERE decision IN ('denied', 'expired', 'failed') AND kind <> 'admin';

-- What people were asked, and what they answered.
CREATE VIEW IF NOT EXISTS approvals AS
SELECT ts, node, approval_id, approver, ticket, decision, rule, reason, workload, owner, `user`, host, statement,
  method, path, policy_commit, request_id, kind, seq
FROM audit WHERE approval_id <> '' OR decision IN ('held', 'approved', 'expired');

-- Which classes of protected values were hidden, from whom and on the way where.
CREATE VIEW IF NOT EXISTS masks AS
SELECT ts, node, workload, owner, `user`, host, dst_ip, target, rule, class, hidden, request_id, seq
FROM audit ARRAY JOIN mapKeys(masked) AS class, mapValues(masked) AS hidden WHERE kind = 'outcome';

-- Who reaches what.
CREATE VIEW IF NOT EXISTS destinations AS
SELECT workload, host, dst_ip, dst_port, protocol, count() AS acts,
  countIf(decision IN ('denied', 'expired', 'failed')) AS denied, sum(a.upstream_bytes) AS upstream_bytes,
  min(ts) AS first_ts, max(ts) AS last_ts
FROM acts AS a GROUP BY workload, host, dst_ip, dst_port, protocol;

-- What each workload does.
CREATE VIEW IF NOT EXISTS workloads AS
SELECT workload, owner, count() AS acts, countIf(decision = 'masked') AS masked,
  countIf(decision IN ('denied', 'expired', 'failed')) AS denied, countIf(approval_id <> '') AS approvals,
  uniqExact(session_id) AS sessions, sum(a.`rows`) AS `rows`, sum(a.tokens_in) AS tokens_in,
  sum(a.tokens_out) AS tokens_out, min(ts) AS first_ts, max(ts) AS last_ts
FROM acts AS a GROUP BY workload, owner;

-- Acts on weir itself: starts, policy changes, detach, losses.
CREATE VIEW IF NOT EXISTS admin AS
SELECT ts, node, epoch, effects, method, `user`, decision, reason, policy_commit, policy_sha, seq
FROM audit WHERE kind = 'admin';

-- Connections that the kernel turned against those that the agent took; `failed` rows are differences that stayed.
CREATE VIEW IF NOT EXISTS coverage AS
SELECT ts, node, epoch, decision,
  toUInt64OrZero(extract(reason, '\\bturned=([0-9]+)')) AS turned,
  toUInt64OrZero(extract(reason, '\\bpublished=([0-9]+)')) AS published,
  toUInt64OrZero(extract(reason, '\\bhanded=([0-9]+)')) AS handed,
  toUInt64OrZero(extract(reason, '\\baccepted=([0-9]+)')) AS accepted,
  toUInt64OrZero(extract(reason, '\\baborted=([0-9]+)')) AS aborted,
  toUInt64OrZero(extract(reason, '\\bin_handshake=([0-9]+)')) AS in_handshake,
  toUInt64OrZero(extract(reason, '\\bwaiting=([0-9]+)')) AS waiting,
  toUInt64OrZero(extract(reason, '\\blost=([0-9]+)')) AS lost,
  toUInt64OrZero(extract(reason, '\\bunexplained=([0-9]+)')) AS unexplained,
  reason, seq
FROM audit WHERE kind = 'admin' AND method = 'coverage';

-- Which names each workload looked up, and to which addresses they led. Refused questions have no status.
CREATE VIEW IF NOT EXISTS lookups AS
SELECT q.ts AS ts, q.node AS node, q.workload AS workload, q.owner AS owner, q.`user` AS `user`, q.exe AS exe,
  q.host AS name, q.method AS type, q.dst_ip AS server, q.decision AS decision, q.reason AS reason,
  a.status AS status, a.reason AS addresses, q.seq AS seq
FROM (SELECT * FROM audit WHERE kind = 'dns') AS q
LEFT JOIN (SELECT * FROM audit WHERE kind = 'outcome' AND protocol = 'dns') AS a
  ON a.node = q.node AND a.request_id = q.request_id;

-- Monitor mode: what would have been refused, masked or held.
CREATE VIEW IF NOT EXISTS would AS
SELECT ts, node, workload, owner, `user`, host, protocol, effects, relations, statement, method, path, decision,
  rule, reason, policy_commit, request_id, seq
FROM audit WHERE decision IN ('would_deny', 'would_mask', 'would_hold');

-- Last, since it asks for a right of its own (ALTER): a table of an earlier version lacks the column.
ALTER TABLE audit ADD COLUMN IF NOT EXISTS weir_bytes UInt64 AFTER upstream_bytes;

-- One row a connection that has ended: what was written to its sockets towards the server, the workload's and weir's own.
CREATE VIEW IF NOT EXISTS connections AS
SELECT ts, node, session_id, workload, owner, `user`, exe, host, dst_ip, dst_port, protocol, target, decision, rule,
  reason, upstream_bytes, weir_bytes, upstream_bytes + weir_bytes AS wire_bytes, duration_us, seq
FROM audit WHERE kind = 'connection';
