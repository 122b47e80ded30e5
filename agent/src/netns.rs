//! The network namespaces that labelled cgroups live in: a listener inside each, opened when the first socket is made
//! there, closed when the last labelled process has left. Until it is open the fence refuses, so nothing passes unseen.
//! It refuses to enter a namespace with a thread that does anything else afterwards.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::app::{Agent, arrivals};
use crate::dns::sockets::{Bound, Ports};
use crate::keeper::{Relays, Serving};
use crate::kernel::{self, Fence, FenceError};
use crate::listen::{Listeners, Sockets};

mod routes;

/// The namespaces that are served beside the agent's own.
#[derive(Debug)]
pub struct Namespaces {
    /// The agent's own, by the kernel's cookie and by its inode.
    own: u64,
    own_inode: u64,
    served: Mutex<HashMap<u64, Served>>,
}

#[derive(Debug)]
struct Served {
    /// Keeps the namespace, so that its inode is nobody else's.
    file: Arc<File>,
    inode: u64,
    listeners: Arc<Listeners>,
    accepting: AbortHandle,
    questions: Questions,
    /// Looks in a row that found no labelled process here.
    empty: u32,
}

/// A namespace's DNS sockets, served for as long as this lives.
#[derive(Debug)]
pub(crate) struct Questions {
    pub(crate) ports: Ports,
    serving: Serving,
    /// The same sockets, for the program that follows this one.
    sockets: Arc<Vec<OwnedFd>>,
}

impl Questions {
    pub(crate) fn begin(bound: Bound, relays: &Arc<Relays>) -> io::Result<Self> {
        let (ports, sockets) = (bound.ports()?, Arc::new(bound.into_descriptors()));
        Ok(Self { ports, serving: relays.serve(ports, Arc::clone(&sockets)), sockets })
    }

    /// Takes no more questions; those that were taken are still answered.
    pub(crate) fn pause(&self) {
        self.serving.pause();
    }

    /// Further descriptors of them: what queues there is not lost when this goes.
    pub(crate) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(OwnedFd::try_clone).collect()
    }
}

/// Runs `act` inside a network namespace, on a thread that ends with it.
///
/// # Errors
/// The namespace cannot be entered (CAP_SYS_ADMIN), or `act` failed.
pub fn inside<T: Send>(netns: impl AsFd + Sync, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        });
        entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}

impl Namespaces {
    /// Knows which namespace this process lives in.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn new() -> io::Result<Self> {
        let own_inode = inode_of(std::process::id())?;
        let own = kernel::netns_cookie(&std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?)?;
        Ok(Self { own, own_inode, served: Mutex::default() })
    }

    /// Cookie of the agent's own namespace.
    #[must_use]
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Where sockets for a workload of this namespace are made; `None` is the agent's own.
    ///
    /// # Errors
    /// It is not served any more.
    pub fn file(&self, cookie: u64) -> io::Result<Option<Arc<File>>> {
        if cookie == self.own {
            return Ok(None);
        }
        let file = self.lock().get(&cookie).map(|served| Arc::clone(&served.file));
        file.map(Some).ok_or_else(|| io::Error::from_raw_os_error(libc::ENETUNREACH))
    }

    /// Every namespace that has a listener; the agent's own is the one without a file.
    #[must_use]
    pub fn all(&self) -> Vec<(u64, Option<Arc<File>>)> {
        let served = self.lock();
        let others = served.iter().map(|(cookie, served)| (*cookie, Some(Arc::clone(&served.file))));
        std::iter::once((self.own, None)).chain(others).collect()
    }

    /// Cookies of all namespaces that have a listener.
    #[must_use]
    pub fn cookies(&self) -> Vec<u64> {
        self.lock().keys().copied().chain([self.own]).collect()
    }

    /// Takes nothing more; what comes waits in the queues.
    pub fn pause(&self) {
        for served in self.lock().values() {
            served.accepting.abort();
            served.questions.pause();
        }
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Descriptors of all listeners and of all sockets for DNS questions, for the program that follows this one.
    ///
    /// # Errors
    /// No descriptors are to be had.
    pub fn descriptors(&self) -> io::Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
        let (mut listeners, mut questions) = (Vec::new(), Vec::new());
        for served in self.lock().values() {
            listeners.extend(served.listeners.descriptors()?);
            questions.extend(served.questions.descriptors()?);
        }
        Ok((listeners, questions))
    }

    /// Serves what the program before this one served.
    ///
    /// # Errors
    /// A socket has no namespace, or cannot be watched.
    pub(crate) fn resume(&self, agent: &Arc<Agent>, doors: Vec<(Sockets, Bound)>) -> io::Result<()> {
        for (sockets, bound) in doors {
            let file = File::from(kernel::netns_of(&sockets)?);
            self.begin(agent, file, sockets, bound)?;
        }
        Ok(())
    }

    /// Follows the namespaces of labelled processes as they come and go. Ends only with the kernel's events.
    pub(crate) async fn follow(&self, agent: &Arc<Agent>) -> FenceError {
        let mut strangers = match agent.fence.strangers() {
            Ok(strangers) => strangers,
            Err(fault) => return fault,
        };
        let mut looks = 0_u32;
        let mut period = tokio::time::interval(LOOK);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                met = strangers.next() => match met {
                    Ok(pids) => {
                        for pid in pids {
                            self.meet(agent, pid).await;
                        }
                    }
                    Err(fault) => return fault,
                },
                _ = period.tick() => {
                    if looks.is_multiple_of(ROUTE_LOOKS) {
                        self.look_at_routes(agent).await;
                    }
                    looks = looks.wrapping_add(1);
                    self.look(agent).await;
                }
            }
        }
    }

    /// Serves the namespace of one labelled process.
    pub(crate) async fn meet(&self, agent: &Arc<Agent>, pid: u32) {
        // A process that has ended meanwhile needs no listener.
        let Ok(file) = File::open(format!("/proc/{pid}/ns/net")) else { return };
        let Ok(inode) = file.metadata().map(|found| found.ino()) else { return };
        if inode == self.own_inode || self.serves(inode) {
            return;
        }
        if self.count() >= MOST {
            tracing::error!(
                pid,
                most = MOST,
                "More network namespaces than weir serves: this one stays refused."
            );
            return;
        }
        let opened = tokio::task::spawn_blocking(move || {
            let (sockets, bound, up) =
                inside(&file, || Ok((Sockets::open(0)?, Bound::open()?, is_loopback_up())))?;
            if !up {
                tracing::warn!(
                    pid,
                    "`lo` is down in this process's network namespace: its connections fail until it is up."
                );
            }
            Ok::<_, io::Error>((file, sockets, bound))
        });
        let served = match opened.await {
            Ok(Ok((file, sockets, bound))) => self.begin(agent, file, sockets, bound),
            Ok(Err(fault)) => Err(fault),
            Err(fault) => Err(io::Error::other(fault)),
        };
        if let Err(fault) = served.and_then(|cookie| self.publish(&agent.fence, cookie)) {
            tracing::warn!(pid, %fault, "A network namespace cannot be served: its labelled connections are refused.");
        }
        self.look_at_routes(agent).await;
    }

    fn begin(&self, agent: &Arc<Agent>, file: File, sockets: Sockets, bound: Bound) -> io::Result<u64> {
        let inode = file.metadata()?.ino();
        let questions = Questions::begin(bound, &agent.relays)?;
        let listeners = Arc::new(Listeners::of(sockets)?);
        let cookie = listeners.netns();
        let (accepting, by) = (Arc::clone(agent), Arc::clone(&listeners));
        let task = Handle::current().spawn(async move {
            let fault = arrivals::accept(&accepting, &by).await;
            tracing::error!(%fault, "A network namespace's listener failed.");
        });
        let accepting = task.abort_handle();
        let served = Served { file: file.into(), inode, listeners, accepting, questions, empty: 0 };
        if let Some(before) = self.lock().insert(cookie, served) {
            before.accepting.abort();
        }
        Ok(cookie)
    }

    fn publish(&self, fence: &Fence, cookie: u64) -> io::Result<()> {
        match self.lock().get(&cookie) {
            Some(served) => served.listeners.publish(fence, served.questions.ports).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Finds namespaces that no event told of, and drops those that no labelled process lives in any more: a listener
    /// would keep them for ever.
    async fn look(&self, agent: &Arc<Agent>) {
        let looking = Arc::clone(agent);
        let own = self.own_inode;
        let Ok(inhabited) = tokio::task::spawn_blocking(move || inhabited(&looking, own)).await else {
            return;
        };
        for (inode, pid) in &inhabited {
            if !self.serves(*inode) {
                self.meet(agent, *pid).await;
            }
        }
        let inodes: HashSet<u64> = inhabited.into_keys().collect();
        let mut gone = Vec::new();
        self.lock().retain(|cookie, served| {
            served.empty = if inodes.contains(&served.inode) { 0 } else { served.empty + 1 };
            let stays = served.empty < EMPTY_LOOKS;
            if !stays {
                served.accepting.abort();
                gone.push(*cookie);
            }
            stays
        });
        for cookie in gone {
            if let Err(fault) = agent.fence.unserve(cookie) {
                tracing::warn!(%fault, "The listener of a network namespace that is gone stays written down.");
            }
        }
    }

    /// Tells the fence where v6 leads nowhere.
    async fn look_at_routes(&self, agent: &Arc<Agent>) {
        let (all, fence) = (self.all(), Arc::clone(&agent.fence));
        let looked = tokio::task::spawn_blocking(move || {
            all.into_iter().try_for_each(|(cookie, file)| {
                let has = match file {
                    // A namespace that cannot be entered any more is about to be left.
                    Some(file) => inside(&file, || Ok(routes::has_global6())).unwrap_or(true),
                    None => routes::has_global6(),
                };
                fence.routes6(cookie, has)
            })
        });
        if let Ok(Err(fault)) = looked.await {
            tracing::warn!(%fault, "Where v6 leads could not be told to the fence.");
        }
    }

    fn serves(&self, inode: u64) -> bool {
        self.lock().values().any(|served| served.inode == inode)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Network namespaces of labelled processes, other than the agent's: inode → one process in it.
fn inhabited(agent: &Agent, own: u64) -> HashMap<u64, u32> {
    let mut found = HashMap::new();
    for pid in agent.workloads.processes(&agent.fence) {
        if let Ok(inode) = inode_of(pid)
            && inode != own
        {
            found.entry(inode).or_insert(pid);
        }
    }
    found
}

/// Whether `lo` is up in the namespace of the calling thread; that is for its owner to see to.
fn is_loopback_up() -> bool {
    let probe = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0));
    // Asks for a route and sends nothing.
    probe.and_then(|probe| probe.connect((std::net::Ipv4Addr::LOCALHOST, 9))).is_ok()
}

fn inode_of(pid: u32) -> io::Result<u64> {
    std::fs::metadata(format!("/proc/{pid}/ns/net")).map(|found| found.ino())
}

/// Between two looks at the processes of all labelled cgroups; events bring most news before.
const LOOK: Duration = Duration::from_millis(500);
/// Looks for each look at the routes.
const ROUTE_LOOKS: u32 = 4;
/// Looks without a labelled process after which a namespace is left.
const EMPTY_LOOKS: u32 = 2;
/// Namespaces beside the agent's own: each costs two sockets and a task.
const MOST: usize = 1024;
