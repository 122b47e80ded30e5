//! From the first open socket to the last: the agent opens its doors, or takes those of the program it was before, serves,
//! and hands them on. It refuses to beat its heart before everything behind the doors works.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Agent, arrivals};
use crate::dns::sockets::{Bound, Ports};
use crate::kernel::inherit::Inheritance;
use crate::listen::{Listeners, Sockets};
use crate::netns::{self, Questions};
use crate::{control, coverage, keeper, kernel, neighbours, sweep, upgrade};

/// Serves until the agent ends. What it returns is for the program that follows, after `weir upgrade`.
pub(super) async fn serve(
    agent: Arc<Agent>,
    inheritance: Inheritance,
) -> anyhow::Result<Option<Inheritance>> {
    let is_upgrade = inheritance.control.is_some();
    let mut doors = doors(&agent, inheritance.listeners, inheritance.questions)?;
    let own =
        doors.iter().position(|(door, _)| door.netns().is_ok_and(|netns| netns == agent.namespaces.own()));
    let (sockets, bound) = match own {
        Some(at) => doors.swap_remove(at),
        None => open_doors(agent.config.fence.port)?,
    };
    let listeners = Listeners::of(sockets)?;
    let control = control::bind(&agent.config.control, inheritance.control).await?;
    agent.look_names_up().await;
    let questions = Questions::begin(bound, &agent.relays)?;
    agent.namespaces.resume(&agent, doors)?;
    let half = keeper::start(&agent).await?;
    agent.fence.forget_listeners_but(&agent.namespaces.cookies())?;
    listeners.publish(&agent.fence, questions.ports)?;
    let sweeping = Arc::clone(&agent);
    tokio::task::spawn_blocking(move || sweep::once(&sweeping, &sweep::Inward::new())).await?;
    let lost = agent.taken.resume(&agent, is_upgrade)?;
    agent.fence.beat()?;
    agent.record("start", "the agent serves");
    match lost {
        0 => {}
        lost => agent.record(
            "coverage",
            &format!("{lost} connections ended with an agent that died before it took them"),
        ),
    }
    tracing::info!(port = listeners.port(), "The fence is up.");

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = agent.fence.keep_alive() => {}
        () = control::serve(&control, Arc::clone(&agent)) => {}
        () = agent.keep_names() => {}
        () = sweep::keep(&agent) => {}
        () = coverage::keep(&agent) => {}
        () = neighbours::keep(&agent) => {}
        () = agent.keep_ledger() => {}
        failed = keeper::keep(&agent, half) => return Err(failed),
        failed = arrivals::accept(&agent, &listeners) => return Err(failed.into()),
        failed = agent.namespaces.follow(&agent) => return Err(failed.into()),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = agent.stop.notified() => {}
        () = agent.upgrade.notified() => return hand_over(&agent, &listeners, questions, &control).await.map(Some),
    }
    // Nobody finds a socket that no agent answers.
    let _ = std::fs::remove_file(&agent.config.control);
    end_relay(&agent, Duration::ZERO).await;
    Ok(None)
}

/// The sockets of the program before this one, by network namespace. Where those for questions are not whole, new ones
/// take their place.
fn doors(
    agent: &Agent,
    listeners: Vec<OwnedFd>,
    questions: Vec<OwnedFd>,
) -> anyhow::Result<Vec<(Sockets, Bound)>> {
    let mut by_netns: HashMap<u64, Vec<OwnedFd>> = HashMap::new();
    for fd in questions {
        by_netns.entry(kernel::netns_cookie(&fd)?).or_default().push(fd);
    }
    let mut doors = Vec::new();
    for sockets in Sockets::adopt(listeners)? {
        let netns = sockets.netns()?;
        let turned = agent.fence.listener(netns)?;
        let kept = by_netns
            .remove(&netns)
            .zip(turned)
            .and_then(|(fds, turned)| Bound::adopt(fds, &Ports::turned(&turned)));
        let bound = match kept {
            Some(bound) => bound,
            None => netns::inside(kernel::netns_of(&sockets)?, Bound::open)?,
        };
        doors.push((sockets, bound));
    }
    Ok(doors)
}

/// New sockets in the agent's own network namespace.
fn open_doors(port: u16) -> anyhow::Result<(Sockets, Bound)> {
    let sockets = Sockets::open(port).with_context(|| format!("cannot listen on port {port}"))?;
    Ok((sockets, Bound::open().context("cannot listen for DNS questions")?))
}

/// The relaying process ends with what is still open; its last records are in the ledger then.
async fn end_relay(agent: &Agent, patience: Duration) {
    if let Some(half) = agent.relays.now() {
        half.end(patience).await;
    }
}

/// Lets what is under way end, and gathers what the next program needs. What comes meanwhile waits in the sockets' queues.
async fn hand_over(
    agent: &Agent,
    listeners: &Listeners,
    questions: Questions,
    control: &UnixListener,
) -> anyhow::Result<Inheritance> {
    agent.namespaces.pause();
    questions.pause();
    let open = tokio::select! {
        () = agent.fence.keep_alive() => 0,
        open = upgrade::drain(agent) => open,
    };
    tokio::select! {
        () = agent.fence.keep_alive() => {}
        () = end_relay(agent, upgrade::LAST) => {}
    }
    agent.record(
        "upgrade",
        &format!("the agent becomes {}; {open} connections end with it", agent.program.display()),
    );
    agent.taken.write_down(agent)?;
    let (mut sockets, mut dns) = agent.namespaces.descriptors()?;
    sockets.extend(listeners.descriptors()?);
    dns.extend(questions.descriptors()?);
    Ok(Inheritance {
        lock: Some(agent.fence.lock()?),
        control: Some(control.as_fd().try_clone_to_owned()?),
        listeners: sockets,
        questions: dns,
    })
}
