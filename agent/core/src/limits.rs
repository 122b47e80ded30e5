//! Every bound in the system with the reason for its value. A bare number in a loop or a buffer elsewhere is a mistake.

/// Bytes of one read from a socket; also the most that one step of a session adds to an output queue per input.
pub const READ_BYTES: usize = 64 * 1024;
/// A session stops reading one side while the other side's queue holds this much (back-pressure).
pub const QUEUE_BYTES: usize = 256 * 1024;

/// First bytes a client may send before the protocol must be known. A TLS ClientHello with post-quantum key shares
/// is about 1.8 KB; 16 KiB is one whole TLS record.
pub const SNIFF_BYTES: usize = 16 * 1024;
/// A client that has begun to speak gets this long to finish its first message.
pub const SNIFF_NS: u64 = 3_000_000_000;
/// Silence after which a connection counts as server-first.
pub const SERVER_FIRST_NS: u64 = 50_000_000;

/// HTTP/1: bytes of one head, of one line, number of fields (RFC 9112 leaves them to us; larger is 431).
pub const HTTP_HEAD_BYTES: usize = 64 * 1024;
pub const HTTP_LINE_BYTES: usize = 16 * 1024;
pub const HTTP_FIELDS: usize = 200;
/// Bytes of one chunk-size line, with extensions.
pub const HTTP_CHUNK_LINE_BYTES: usize = 256;
/// A body that a rule must see whole is held up to this size; beyond it the request is refused with 413.
pub const HTTP_BODY_BYTES: usize = 8 * 1024 * 1024;
/// The rest of a refused request's body is read and dropped up to this size, so that the connection stays usable.
pub const HTTP_DRAIN_BYTES: usize = 1024 * 1024;
/// A request head that has begun must end within this time; slower clients hold a connection on purpose (slow loris).
/// Connections that are idle between requests have all the time they want.
pub const HTTP_HEAD_NS: u64 = 30 * 1_000_000_000;
/// A request body that weir holds for a rule, or reads to drop it, gets this long, and beyond it the time that its bytes
/// take at the slowest bearable rate. With `HTTP_BODY_BYTES` this bounds what a stalled client can make weir hold, and for
/// how long (17 minutes for 8 MiB). A body that streams to the server holds no memory while it stalls, and has no deadline.
pub const HTTP_BODY_NS: u64 = 30 * 1_000_000_000;
/// The slowest bearable rate: 8 KiB a second.
pub const HTTP_BODY_BYTE_NS: u64 = 1_000_000_000 / (8 * 1024);
/// Requests of one connection that may wait for their answers (pipelining).
pub const HTTP_PIPELINE: usize = 64;

/// JSON nesting beyond this is refused where a rule has to read it.
pub const JSON_DEPTH: usize = 128;

/// PostgreSQL: start-up packet (MAX_STARTUP_PACKET_LENGTH in the server).
pub const PG_STARTUP_BYTES: usize = 10_000;
/// PostgreSQL: authentication messages (PG_MAX_AUTH_TOKEN_LENGTH).
pub const PG_AUTH_BYTES: usize = 65_535;
/// PostgreSQL: a message that must be read whole to be judged (Query, Parse, Bind) is held up to this size.
pub const PG_JUDGED_BYTES: usize = 16 * 1024 * 1024;
/// PostgreSQL: a row that holds a masked cell is held up to this size.
pub const PG_ROW_BYTES: usize = 16 * 1024 * 1024;
/// PostgreSQL: short control messages (Describe, Execute, Close, Sync, CopyFail …), as in the server.
pub const PG_CONTROL_BYTES: usize = 10_000;
/// PostgreSQL: largest message the protocol lets a server send.
pub const PG_MESSAGE_BYTES: usize = 0x3fff_ffff;
/// PostgreSQL: replies that may be outstanding on one connection.
pub const PG_LEDGER: usize = 10_000;
/// PostgreSQL: prepared statements and portals remembered for one session.
pub const PG_STATEMENTS: usize = 10_000;
/// PostgreSQL: columns of one result (the server's own bound is 1664).
pub const PG_COLUMNS: usize = 1664;
/// PostgreSQL: rows of the catalog that weir reads (relations, columns); a larger catalog cannot be guarded and is refused.
pub const PG_CATALOG_ROWS: usize = 400_000;
/// PostgreSQL: other sessions' changes to the catalog are noticed after this long: the digest is asked for again before the
/// next statement outside a transaction.
pub const PG_CATALOG_AGE_NS: u64 = 10_000_000_000;
/// PostgreSQL: bytes of catalog rows that weir keeps; with the rows' bound this holds the memory of one connection.
pub const PG_CATALOG_BYTES: usize = 64 * 1024 * 1024;
/// Inheritance and view steps followed from a column to the columns it shows.
pub const PG_LINEAGE_DEPTH: usize = 64;

/// SQL texts longer than this are not parsed: they are `unknown`.
pub const SQL_BYTES: usize = 256 * 1024;
/// Nodes deep that a parsed statement is walked; deeper is `unknown`.
pub const SQL_DEPTH: usize = 1_000;
/// Analyses kept by exact text, per worker thread.
pub const SQL_CACHE: usize = 4_096;

/// Bytes of a statement, path or reason kept in an audit row; longer values are cut and marked.
pub const AUDIT_TEXT_BYTES: usize = 4_096;

/// A held act waits this long when its rule does not say (`within`).
pub const APPROVAL_NS: u64 = 15 * 60 * 1_000_000_000;
/// Bytes of the text shown to an approver.
pub const QUESTION_BYTES: usize = 64 * 1024;

/// A masked value never grows beyond this.
pub const MASKED_BYTES: usize = 4 * 1024 * 1024;
/// Longest text a single regular-expression match may span (private keys are the longest class).
pub const MATCH_BYTES: usize = 16 * 1024;

/// DNS: bytes of one message (its length over TCP is 16 bits).
pub const DNS_MESSAGE_BYTES: usize = 65_535;
/// DNS: bytes of one datagram that weir promises to servers and keeps to with clients (RFC 6891, 6.2.5: 4096 is the most
/// that is sensible); what is larger goes over TCP.
pub const DNS_UDP_BYTES: u16 = 4_096;
/// DNS: records of one reply that are walked; a full message of the smallest records would hold 5 000.
pub const DNS_RECORDS: usize = 4_096;
/// DNS: aliases (CNAME) followed from the name asked for to its addresses, as resolvers do.
pub const DNS_CHAIN: usize = 16;
/// DNS: a server that has not answered by then has failed (resolv.conf(5): 5 s, after which clients ask again).
pub const DNS_NS: u64 = 5_000_000_000;
/// DNS: a workload's questions a second, and how many at once. Name service needs tens; a tunnel is held to a few KiB/s.
pub const DNS_RATE: u64 = 200;
pub const DNS_BURST: u64 = 400;
/// DNS: questions of one workload, and of all, that wait for servers: with `DNS_NS` this bounds sockets and memory.
pub const DNS_WAITING_EACH: usize = 128;
pub const DNS_WAITING: usize = 512;
/// DNS: connections of one workload that ask over TCP, and questions on one before it is closed.
pub const DNS_STREAMS_EACH: usize = 32;
pub const DNS_STREAM_QUESTIONS: usize = 1_000;
/// DNS: a client's connection that has been silent for this long is closed (RFC 7766, 6.2.3: a few seconds).
pub const DNS_STREAM_IDLE_NS: u64 = 10_000_000_000;
/// DNS: one question of one workload has one row within this time.
pub const DNS_ROW_NS: u64 = 60_000_000_000;
/// DNS: questions remembered of one workload, so that each has one row; beyond it they have more rows, never fewer.
pub const DNS_ROWS: usize = 4_096;
/// DNS: rows of refusals a second, of one workload and of strangers; the others are counted in the next row.
pub const DNS_REFUSAL_ROWS: u64 = 10;
/// DNS: what a look-up proves holds for as long as its answer said, but for a connection's time at least, and a day at most.
pub const DNS_PROOF_LEAST_S: u32 = 30;
pub const DNS_PROOF_MOST_S: u32 = 86_400;
/// DNS: addresses with a proved name that are kept of one workload, and names of one address; the soonest to end go first.
pub const DNS_ADDRESSES: usize = 4_096;
pub const DNS_NAMES: usize = 16;
