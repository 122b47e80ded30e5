//! The ABI between the kernel programs and the agent: map names, keys and values, each with its size pinned down.
//! It refuses to hold logic. Any change of a layout here raises [`LAYOUT`], so that old pins are never read anew.
#![no_std]

/// Folder of the pins below `fence.bpffs`: one layout, one folder.
pub const LAYOUT: &str = "v3";

/// Names of the maps, as the object and the pins spell them.
pub mod map {
    /// `u64` slots, see [`crate::slot`].
    pub const STATE: &str = "STATE";
    /// Cgroup id (`u64`) → label (`u64`).
    pub const LABELS: &str = "LABELS";
    /// Label (`u64`) → 1: workloads that may not be called.
    pub const UNCALLED: &str = "UNCALLED";
    /// Network namespace cookie (`u64`) → [`crate::Listener`].
    pub const LISTENERS: &str = "LISTENERS";
    /// Socket → [`crate::Stamp`], on the workload's side of the loopback hop.
    pub const STAMPS: &str = "STAMPS";
    /// [`crate::Tuple`] → [`crate::Origin`] while a handshake lasts.
    pub const HANDSHAKES: &str = "HANDSHAKES";
    /// Socket → [`crate::Origin`], on the agent's side of the loopback hop.
    pub const ORIGINS: &str = "ORIGINS";
    /// [`crate::Dialled`] → [`crate::Failure`]: dials that failed a moment ago.
    pub const FAILURES: &str = "FAILURES";
    /// Socket → [`crate::Asker`], on the workload's side of a DNS question.
    pub const ASKERS: &str = "ASKERS";
    /// [`crate::Tuple`] → [`crate::Origin`]: who asks DNS by datagrams of this tuple, while the socket lives.
    pub const QUESTIONS: &str = "QUESTIONS";
    /// Label (`u64`) → how many entries it has in `QUESTIONS` (`u64`).
    pub const SHARES: &str = "SHARES";
    /// Start of a unix socket's base name ([`crate::SocketName`]) → 1: refused to labelled tasks.
    pub const SOCKET_NAMES: &str = "SOCKET_NAMES";
    /// Label (`u64`) → 1: workloads that may connect to the unix sockets of `SOCKET_PATHS` and no others.
    pub const BOXED: &str = "BOXED";
    /// [`crate::SocketPath`] → 1.
    pub const SOCKET_PATHS: &str = "SOCKET_PATHS";
    /// Parts of the workloads' cgroup patterns ([`crate::Segment`]), indexed by [`crate::Place::segment`].
    pub const PATTERNS: &str = "PATTERNS";
    /// Cgroup id (`u64`) → [`crate::Place`]: what may be labelled below this cgroup.
    pub const PLACES: &str = "PLACES";
    /// Cgroup id (`u64`) → what no map had room for (`u64` of [`crate::lacks`]): whatever is in it is refused.
    pub const CROWDED: &str = "CROWDED";
    /// Ring buffer of process ids (`u32`): a labelled task made a socket where nobody listens. Not pinned.
    pub const STRANGERS: &str = "STRANGERS";
    /// Per-CPU `u64`, indexed by [`crate::Counter`].
    pub const COUNTERS: &str = "COUNTERS";

    /// Every map that is pinned.
    pub const PINNED: [&str; 18] = [
        STATE,
        LABELS,
        UNCALLED,
        LISTENERS,
        STAMPS,
        HANDSHAKES,
        ORIGINS,
        FAILURES,
        ASKERS,
        QUESTIONS,
        SHARES,
        SOCKET_NAMES,
        BOXED,
        SOCKET_PATHS,
        COUNTERS,
        PATTERNS,
        PLACES,
        CROWDED,
    ];
}

/// Slots of the `STATE` map.
pub mod slot {
    /// `CLOCK_MONOTONIC` in nanoseconds of the agent's last sign of life; 0 when it has left.
    pub const HEARTBEAT: u32 = 0;
    /// Id of the one exempt cgroup: the running agent's own.
    pub const AGENT_CGROUP: u32 = 1;
    /// Connections with an origin that agents have taken since the fence was raised.
    pub const ACCEPTED: u32 = 2;
    /// `CLOCK_MONOTONIC` in nanoseconds until which `FAILURES` may hold something; before the first failure 0.
    pub const FAILING: u32 = 3;
    /// 1 once there is, or was, anything in `CROWDED`: until then nobody looks there.
    pub const CROWDED: u32 = 4;
    /// Cookie of one network namespace that is in `LISTENERS`, most often the host's; 0 when none is known.
    pub const SERVED: u32 = 5;
    /// Number of slots.
    pub const COUNT: u32 = 6;
}

/// What a cgroup in `CROWDED` is without.
pub mod lacks {
    /// Its label.
    pub const LABEL: u64 = 1;
    /// Its place, without which nothing below it is labelled.
    pub const PLACE: u64 = 2;
}

/// In place of a label: the cgroup should have one that no map had room for. No policy can be right, so all is refused.
pub const CROWDED: u64 = u64::MAX;

/// An agent whose heartbeat is older than this counts as dead.
pub const HEARTBEAT_STALE_NS: u64 = 1_500_000_000;
/// Levels of the cgroup tree on which a label is looked for, counted from the root of the hierarchy.
pub const CGROUP_LEVELS: i32 = 24;
/// Bytes at the start of a unix socket's base name that are compared.
pub const SOCKET_NAME_BYTES: usize = 8;

/// Port of DNS.
pub const DNS_PORT: u16 = 53;
/// DNS servers that one socket may have asked within [`DNS_SLOT_NS`]; resolv.conf(5) names three at most.
pub const DNS_SLOTS: usize = 4;
/// A server's slot goes to another server after this long without a question: by then the agent has answered the last.
pub const DNS_SLOT_NS: u64 = 10_000_000_000;
/// Where DNS over IPv4 is turned to: 127.64.0.0/10. Its lowest bits are the socket's slot, the others bits of its cookie.
pub const DNS_NET: u32 = 0x7f40_0000;
pub const DNS_NET_MASK: u32 = 0xffc0_0000;
/// Patterns that the kernel knows at once: one bit each in [`Place::mask`].
pub const PATTERN_COUNT: u32 = 64;
/// Most segments of a pattern that the kernel knows.
pub const PATTERN_SEGMENTS: u32 = 6;
/// Sets of patterns: the one in force, and the one that is being written.
pub const PATTERN_BANKS: u32 = 2;
/// Most bytes before, and after, the `*` of a segment.
pub const PART_BYTES: usize = 64;
/// The same in words, which is how they are compared.
pub const PART_WORDS: usize = PART_BYTES / size_of::<u64>();
/// Longest name of a cgroup (`NAME_MAX`).
pub const NAME_BYTES: usize = 255;

/// Stands for the kernel function `bpf_cast_to_kern_ctx` in the program `connect_unix`; the agent puts its id there.
pub const CAST_TO_KERN_CTX: u32 = 0x0bad_ca11;

/// Longest path of a unix socket that can be allowed (`sun_path` less its NUL, unix(7)).
pub const SOCKET_PATH_BYTES: usize = 107;
/// A label, and the path of a unix socket as it is dialled, with zeros after it.
pub type SocketPath = [u64; 15];

/// An IPv4 address (as `::ffff:a.b.c.d`) or IPv6 address in network order.
pub type Address = [u8; 16];
/// The first bytes of a unix socket's base name.
pub type SocketName = [u8; SOCKET_NAME_BYTES];

/// What the kernel knew when a labelled task called `connect`. Port in host order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The address the task asked for.
    pub address: Address,
    /// The address its socket was bound to; zero when none.
    pub source: Address,
    /// Nanoseconds since boot at which the process started; 0 when the kernel could not be read.
    pub start_boottime: u64,
    /// Id of the task's cgroup.
    pub cgroup: u64,
    /// Label of the socket or the task.
    pub label: u64,
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// Cookie of the socket.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds at the call.
    pub ktime: u64,
    /// Process (thread group) in the initial pid namespace.
    pub tgid: u32,
    /// User and group in the initial user namespace.
    pub uid: u32,
    pub gid: u32,
    /// `SO_MARK` of the socket.
    pub mark: u32,
    /// Device the socket was bound to; 0 when none.
    pub ifindex: u32,
    /// Port the task asked for.
    pub port: u16,
    /// Family of the call: 2 (`AF_INET`) or 10 (`AF_INET6`, also for v4-mapped addresses).
    pub family: u16,
}

/// What a workload's socket carries from its birth. Port in host order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Label the socket was born with, or took from the first labelled task that connected it.
    pub label: u64,
    /// Port of the listener that its last `connect` was turned to; 0 before the first.
    pub turned: u32,
    pub reserved: u32,
    pub origin: Origin,
    /// The entry of its last `connect` in `HANDSHAKES`; its `netns` is 0 when there is none.
    pub published: Tuple,
}

/// A connection as its first packet shows it. Ports in host order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub netns: u64,
    pub source: Address,
    pub destination: Address,
    pub source_port: u32,
    pub destination_port: u32,
}

/// In [`Listener::routes`]: no route leads to global unicast addresses of v6 (2000::/3). A `connect` that the hop let
/// succeed would keep clients with two families from trying the other one.
pub const NO_ROUTE6: u16 = 1;

/// The agent's sockets in one network namespace. Ports in host order; 0 means that the family is not served.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    pub port4: u16,
    pub port6: u16,
    /// UDP on every address of [`DNS_NET`].
    pub dns4: u16,
    /// [`NO_ROUTE6`] or 0.
    pub routes: u16,
    /// UDP on ::1, one port a slot, since v6 has one loopback address.
    pub dns6: [u16; DNS_SLOTS],
}

/// A DNS server that a socket asks. All zeros: a free slot.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The server the task asked for; its port is 53.
    pub server: Address,
    /// `CLOCK_MONOTONIC` in nanoseconds of the last `connect` or `sendmsg` that named it; 0 when the slot is free.
    pub used: u64,
    /// The entry of this slot in `QUESTIONS`; its `netns` is 0 when there is none.
    pub published: Tuple,
}

/// What a socket that asks DNS servers carries.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub slots: [Asked; DNS_SLOTS],
}

/// A destination that a label dialled from one network namespace. Port in host order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialled {
    pub label: u64,
    pub netns: u64,
    pub address: Address,
    pub port: u32,
    pub reserved: u32,
}

/// Why the agent could not dial, and until when (`CLOCK_MONOTONIC`, nanoseconds) the hook repeats it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub until: u64,
    /// Positive errno.
    pub errno: u32,
    pub reserved: u32,
}

/// Bytes that a name must have where the mask is set.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub bytes: [u64; PART_WORDS],
    pub mask: [u64; PART_WORDS],
}

/// One segment of a pattern. All zeros fits no name.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Label of the cgroup whose name fits, when this segment is the pattern's last; else 0.
    pub label: u64,
    /// Fewest and most bytes of a name that fits.
    pub least: u32,
    pub most: u32,
    /// Against the first [`PART_BYTES`] bytes of the name.
    pub head: Part,
    /// Against the last ones, which end where the part ends.
    pub tail: Part,
}

/// How far the path of one cgroup has come in the patterns.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The patterns of which all segments down to this cgroup fit, and which have more.
    pub mask: u64,
    /// Segments between the attach point and this cgroup.
    pub depth: u32,
    /// The set of patterns that the mask speaks of.
    pub bank: u32,
    /// From this cgroup on (ids only grow) a child without a label may be one that should have it, since not even
    /// `CROWDED` had room; 0 while it has.
    pub spilled: u64,
}

impl Place {
    /// Index in `PATTERNS` of the segment that a child's name is held against.
    #[must_use]
    #[inline(always)]
    pub const fn segment(&self, pattern: u32) -> u32 {
        (self.bank * PATTERN_COUNT + pattern) * PATTERN_SEGMENTS + self.depth
    }
}

/// What the kernel programs count.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Connections turned to the agent.
    Turned = 0,
    /// Origins moved to a socket that the agent accepted.
    Handed = 1,
    /// DNS datagrams and UDP connects turned to the agent.
    Dns = 2,
    /// Refused: the agent's own port was dialled by hand.
    DirectDial = 3,
    /// Refused: nobody listens in this network namespace.
    NoListener = 4,
    /// Refused: the agent is dead.
    Stale = 5,
    /// Refused: the destination failed a moment ago.
    Failed = 6,
    /// Refused: no memory for the socket's record.
    NoStorage = 7,
    /// Refused: socket and task carry different labels.
    Conflict = 8,
    /// Refused: raw, ping, MPTCP, SCTP, UDP-Lite and other protocols.
    Protocol = 9,
    /// Refused: UDP other than DNS.
    Udp = 10,
    /// Dropped by the wall: a packet that left another way.
    Wall = 11,
    /// Refused: a stranger bound the agent's port.
    Bind = 12,
    /// Refused: a local socket that leads past the fence.
    Unix = 13,
    /// A record that could not be published or moved: the connection is reset, the datagram dropped.
    Lost = 14,
    /// Origins laid out for the handshake of a turned connection.
    Published = 15,
    /// Turned connections that ended before their handshake did.
    Aborted = 16,
    /// Refused: somebody called a workload that may not be called.
    Called = 17,
    /// A new cgroup that no map had room for. It and what is below it are refused.
    Unlabelled = 18,
    /// Refused: a v6 address where no route leads, so that the client tries v4.
    NoRoute = 19,
    /// Refused: no map had room for the label of its cgroup.
    Crowded = 20,
}

impl Counter {
    /// Every counter with its name in `weir status`.
    pub const ALL: [(Counter, &'static str); 21] = [
        (Counter::Turned, "turned"),
        (Counter::Handed, "handed"),
        (Counter::Dns, "dns"),
        (Counter::DirectDial, "direct_dial"),
        (Counter::NoListener, "no_listener"),
        (Counter::Stale, "stale"),
        (Counter::Failed, "failed"),
        (Counter::NoStorage, "no_storage"),
        (Counter::Conflict, "conflict"),
        (Counter::Protocol, "protocol"),
        (Counter::Udp, "udp"),
        (Counter::Wall, "wall"),
        (Counter::Bind, "bind"),
        (Counter::Unix, "unix"),
        (Counter::Lost, "lost"),
        (Counter::Published, "published"),
        (Counter::Aborted, "aborted"),
        (Counter::Called, "called"),
        (Counter::Unlabelled, "unlabelled"),
        (Counter::NoRoute, "no_route"),
        (Counter::Crowded, "crowded"),
    ];
}

// Both sides are compiled apart: a size that moved would be read as garbage.
const _: () = assert!(size_of::<Origin>() == 104);
const _: () = assert!(size_of::<Stamp>() == 168);
const _: () = assert!(size_of::<Tuple>() == 48);
const _: () = assert!(size_of::<Listener>() == 16);
const _: () = assert!(size_of::<Asked>() == 72);
const _: () = assert!(size_of::<Asker>() == 288);
const _: () = assert!(size_of::<Dialled>() == 40);
const _: () = assert!(size_of::<Failure>() == 16);
const _: () = assert!(size_of::<Part>() == 128);
const _: () = assert!(size_of::<Segment>() == 272);
const _: () = assert!(size_of::<Place>() == 24);
