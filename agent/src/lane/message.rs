//! What the halves of the agent say to each other. The keeper believes nothing that the relay says about itself: a session
//! is dialled where the kernel recorded, a secret is given only if the policy names it, a leaf is signed for one name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_core::approval::{Answer, Question};
use weir_core::identity::Identity;
use weir_core::policy::Zone;

use crate::credential::Stamp;
use crate::desk::Requester;
use crate::dns::sockets::Ports;
use crate::listen::Origin;

/// To the relaying process. What has descriptors beside it says so.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToRelay {
    /// First of all; beside it a [`Beginning`], an intake, the counter, then the lanes of the thread for DNS and of each
    /// relaying thread.
    Begin {
        resolvers: Resolvers,
    },
    /// A connection, and beside it its socket. `names` are those that the agent's own look-ups prove for its address.
    Arrival {
        session: u64,
        origin: Arc<Origin>,
        identity: Arc<Identity>,
        names: Vec<String>,
    },
    /// Somebody ends it.
    Revoke {
        session: u64,
        reason: String,
    },
    /// Sockets for DNS questions, all beside it, by the ports to which the kernel turns.
    Questions {
        number: u64,
        ports: Ports,
    },
    /// Receive no more at those.
    Unserve {
        number: u64,
    },
    /// Another policy, beside it.
    Policy,
    /// Whom to ask for names.
    Resolvers(Resolvers),
    /// Why records cannot be moved on, or that they can.
    Ledger(Option<String>),
    /// An empty intake, beside it.
    Intake,
    /// End when nothing is under way.
    Finish,
    Reply {
        id: u64,
        reply: Reply,
    },
}

/// To the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToKeeper {
    /// It has given up its powers and serves.
    Ready(Confined),
    /// This policy judges from now on.
    InForce {
        commit: String,
        sha: String,
    },
    /// A session is over.
    Ended {
        session: u64,
    },
    /// Records were written after a pause.
    Look,
    /// An empty intake is wanted.
    Spare,
    /// An answer to a DNS question, from the socket of `number` at this port.
    DnsAnswer {
        number: u64,
        port: u16,
        to: SocketAddr,
        from: Option<Ipv4Addr>,
        bytes: Vec<u8>,
    },
    /// A question is not open any more.
    Withdraw {
        question: String,
    },
    /// A human's answer is wanted.
    Ask {
        id: u64,
        question: Box<Question>,
        requester: Box<Requester>,
    },
    Call {
        id: u64,
        call: Call,
    },
}

/// What takes time.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// The address that the kernel recorded for the session.
    Dial { session: u64 },
    /// Who sent a datagram to one of the sockets for DNS, which arrived at a time of the wall clock.
    Asker { netns: u64, from: SocketAddr, to: SocketAddr, received: u64 },
    /// The identity behind a question.
    Identify { origin: Box<Origin> },
    /// A socket connected to one of the [`Resolvers`].
    Resolver { server: Resolver, is_stream: bool },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The socket is beside it.
    Connected,
    NotConnected(String),
    /// `None`: the question was withdrawn.
    Answered(Option<Answer>),
    Asker(Result<Box<Origin>, String>),
    Identity(Option<Box<Identity>>),
}

/// What is answered while a thread waits.
#[derive(Serialize, Deserialize)]
pub enum Request {
    /// A leaf for one name and this public key (SubjectPublicKeyInfo, DER).
    Leaf {
        name: String,
        key: Vec<u8>,
    },
    /// One that a policy in force puts into requests.
    Secret {
        provider: String,
        name: String,
    },
    /// The password of a login, where the policy allows it in clear text.
    ClearText {
        provider: String,
        name: String,
    },
    /// The `ca` file of a policy in force.
    Authority {
        path: String,
    },
    /// The answer to AuthenticationMD5Password.
    Md5 {
        provider: String,
        name: String,
        user: String,
        salt: [u8; 4],
    },
    /// SCRAM, step by step.
    Scram {
        provider: String,
        name: String,
        binding: Binding,
    },
    ScramUpdate {
        login: u64,
        message: Vec<u8>,
    },
    ScramFinish {
        login: u64,
        message: Vec<u8>,
    },
}

/// How SCRAM is bound to TLS (RFC 5802, 6): to the server's end point, or why it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binding {
    EndPoint(Vec<u8>),
    Unrequested,
    Unsupported,
}

#[derive(Serialize, Deserialize)]
pub enum Given {
    /// DER.
    Leaf(Vec<u8>),
    Secret(Vec<u8>),
    /// Beside it the file's bytes.
    Authority(Stamp),
    Scram {
        login: u64,
        message: Vec<u8>,
    },
    Done,
    Refused(String),
}

/// Whom labelled workloads may ask for names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolvers {
    /// The host's, asked from the agent's network namespace.
    pub servers: Vec<SocketAddr>,
    /// Those that are asked where the question comes from.
    pub inside: Vec<IpAddr>,
    /// Cookie of the agent's network namespace.
    pub own: u64,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    pub address: SocketAddr,
    /// Asked from within this network namespace; `None` is the agent's.
    pub netns: Option<u64>,
}

/// How the relaying process is confined, as it found itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    pub pid: u32,
    pub uid: u32,
    /// Capabilities in any of its sets.
    pub capabilities: u32,
    /// System calls that it may make.
    pub system_calls: u32,
    /// Version of landlock that holds it; 0 where the kernel has none.
    pub landlock: u32,
}

/// The files of a policy, as text, for the other half to compile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    pub commit: String,
    /// Name below the folder, text.
    pub files: Vec<(String, String)>,
    /// Time zones that they name, from this host's database.
    pub zones: BTreeMap<String, Zone>,
}

/// What the relaying process begins with, beside [`ToRelay::Begin`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Beginning {
    /// The configuration as the keeper read it.
    pub config: String,
    pub sources: Sources,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        /// The keeper reads these from a process that it does not trust: any bytes are a message or none, and a message
        /// takes no more memory than its bytes say.
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..9_u8) {
            let bytes = [&[kind], &bytes[..]].concat();
            if let Ok(note) = postcard::from_bytes::<ToKeeper>(&bytes) {
                let again = postcard::to_stdvec(&note).unwrap();
                prop_assert!(again.len() <= bytes.len());
            }
            if let Ok(request) = postcard::from_bytes::<Request>(&bytes) {
                prop_assert!(postcard::to_stdvec(&request).unwrap().len() <= bytes.len());
            }
        }
    }
}
