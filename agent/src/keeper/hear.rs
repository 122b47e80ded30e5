//! What the relaying process says, lane by lane. It refuses to go on with one that is not understood, and to wait for
//! anything: what takes time is answered by a task of its own.

use std::sync::Arc;

use tokio::sync::Semaphore;
use weir_core::approval::Question;

use super::{Half, answer, lock};
use crate::app::Agent;
use crate::desk::Requester;
use crate::dns::sockets;
use crate::lane::Lane;
use crate::lane::message::{Call, Reply, ToKeeper, ToRelay};

/// Hears one lane until it ends. A process that lost one lane serves no more: the others end with it.
pub(super) async fn tend(agent: Arc<Agent>, half: Arc<Half>, lane: Lane) {
    let heard = async {
        loop {
            match lane.receive::<ToKeeper>().await {
                Ok(Some((note, _))) => hear(&agent, &half, &lane, note),
                Ok(None) => return,
                Err(fault) => {
                    tracing::error!(%fault, "What the relaying process says is not understood: it is ended.");
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = heard => {}
        _ = lane.flush() => {}
    }
    lane.close();
    half.main.close();
}

fn hear(agent: &Arc<Agent>, half: &Arc<Half>, lane: &Lane, note: ToKeeper) {
    match note {
        ToKeeper::Ready(confined) => {
            let _ = half.confined.set(confined);
            half.ready.notify_one();
        }
        ToKeeper::InForce { commit, sha } => in_force(agent, half, commit, sha),
        ToKeeper::Ended { session } => drop(half.leave(session)),
        ToKeeper::Look => agent.ledger.look(),
        ToKeeper::Spare => match agent.ledger.intake(half.writer) {
            Ok(file) => half.main.tell(&ToRelay::Intake, vec![file.into()]),
            Err(fault) => tracing::error!(%fault, "There is no further intake for the relaying process."),
        },
        ToKeeper::DnsAnswer { number, port, to, from, bytes } => {
            if let Some((_, questions)) = lock(&agent.relays.questions).get(&number) {
                sockets::answer(&agent.fence, questions, port, to, from, &bytes);
            }
        }
        ToKeeper::Withdraw { question } => agent.desk.withdraw(&question),
        ToKeeper::Ask { id, question, requester } => ask(agent, half, lane, id, *question, *requester),
        ToKeeper::Call { id, call } => {
            let places = if matches!(call, Call::Dial { .. }) { &half.dials } else { &half.calls };
            let Ok(place) = Semaphore::try_acquire_owned(Arc::clone(places)) else {
                let reply = Reply::NotConnected("too much is asked of the agent at once".into());
                return lane.tell(&ToRelay::Reply { id, reply }, Vec::new());
            };
            let (agent, half, lane) = (Arc::clone(agent), Arc::clone(half), lane.clone());
            tokio::spawn(async move {
                let (reply, fds) = answer::answer(&agent, &half, call).await;
                drop(place);
                lane.tell(&ToRelay::Reply { id, reply }, fds);
            });
        }
    }
}

/// What it says must be what it was sent.
fn in_force(agent: &Agent, half: &Half, commit: String, sha: String) {
    let known = agent.policy.load();
    if (known.commit(), known.sha()) != (commit.as_str(), sha.as_str()) {
        return;
    }
    let said = (commit, sha);
    (*lock(&half.in_force)).clone_from(&said);
    // A change may fall while one process is replaced by the next.
    let before = std::mem::replace(&mut *lock(&agent.relays.in_force), said.clone());
    if !before.1.is_empty() && before != said {
        agent.record("policy", "a changed policy is in force");
    }
}

/// Puts a question at once, so that it can be withdrawn by what is heard next.
fn ask(agent: &Arc<Agent>, half: &Arc<Half>, lane: &Lane, id: u64, question: Question, requester: Requester) {
    let Ok(place) = Semaphore::try_acquire_owned(Arc::clone(&half.asked)) else {
        return lane.tell(&ToRelay::Reply { id, reply: Reply::Answered(None) }, Vec::new());
    };
    let of = question.id.clone();
    let answer = agent.desk.ask(question, requester);
    let (agent, half, lane) = (Arc::clone(agent), Arc::clone(half), lane.clone());
    tokio::spawn(async move {
        let mut gone = half.gone.subscribe();
        let answered = tokio::select! {
            answered = answer => answered.ok(),
            _ = gone.wait_for(|gone| *gone) => {
                agent.desk.withdraw(&of);
                None
            }
        };
        drop(place);
        lane.tell(&ToRelay::Reply { id, reply: Reply::Answered(answered) }, Vec::new());
    });
}
