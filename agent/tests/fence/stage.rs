//! The stage: a cgroup tree, a bpffs, an agent, servers. Dropping it takes everything down, also after a failure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use weir::dns::sockets::{self, Bound, Ports, Socket, Sockets, asker};
use weir::kernel::{Fence, cgroup};
use weir::listen::{Listeners, Origin};

/// Ends the test with the name of the check and what was seen instead.
#[track_caller]
pub fn check(name: &str, holds: bool, seen: &str) {
    assert!(holds, "FAILED {name}: saw {seen:?}");
    println!("  ok  {name}");
}

fn payments() -> u64 {
    weir::workload::label("payments")
}

pub struct Stage {
    folder: PathBuf,
    settings: weir::config::Fence,
    home: PathBuf,
    runtime: tokio::runtime::Runtime,
    agent: Option<Agent>,
    port: u16,
    tcp: u16,
    other: SocketAddr,
    dns: Ports,
    last_pid: AtomicU32,
    /// Layers that this kernel does not have, as the fence says.
    pub lacks: Vec<&'static str>,
}

struct Agent {
    fence: Arc<Fence>,
    watch: weir::workload::Watch,
    beat: tokio::task::JoinHandle<()>,
    serve: Vec<tokio::task::JoinHandle<()>>,
}

impl Agent {
    /// Closes everything the agent held and hands out the fence.
    fn stop(self, runtime: &tokio::runtime::Runtime) -> Fence {
        self.beat.abort();
        self.serve.iter().for_each(tokio::task::JoinHandle::abort);
        runtime.block_on(async {
            let _ = self.beat.await;
            for served in self.serve {
                let _ = served.await;
            }
        });
        drop(self.watch);
        // Connections under way still hold it for a moment.
        let mut fence = self.fence;
        loop {
            match Arc::try_unwrap(fence) {
                Ok(fence) => return fence,
                Err(shared) => fence = shared,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

const CONFIG: &str = "\
policies: /nowhere
audit: {dir: /nowhere}
workloads:
  - {name: payments, cgroup: labelled, owner: alice@acme.example}
  - {name: units, cgroup: \"units/pay*.service\", class: ci}
  - {name: nested, cgroup: \"a*/b*.service\"}
  - {name: stars, cgroup: \"units/x*y*z\"}
  - {name: runs}
people: [{user: bob@acme.example, uids: [1000], groups: [dba]}]
";

impl Stage {
    pub fn set() -> Self {
        let name = format!("weir-test-{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(folder.join("s")).unwrap();
        let settings = weir::config::Fence {
            attach: format!("/{name}"),
            bpffs: folder.join("bpf"),
            port: 0,
            require: Vec::new(),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut stage = Self {
            home: home_cgroup(),
            settings,
            runtime,
            agent: None,
            port: 0,
            tcp: 0,
            other: SocketAddr::from(([127, 0, 0, 1], 0)),
            dns: Ports::default(),
            last_pid: AtomicU32::new(0),
            lacks: Vec::new(),
            folder,
        };
        stage.raise_again();
        stage.open_servers();
        stage
    }

    /// Raises the fence, labels `labelled`, serves.
    pub fn raise_again(&mut self) {
        let fence =
            Fence::raise(&self.settings).unwrap_or_else(|fault| panic!("the fence does not rise: {fault}"));
        self.lacks = fence.missing_layers().to_vec();
        fence.tree().make("labelled").unwrap();
        fence.tree().make("labelled/child").unwrap();
        fence.tree().make("plain").unwrap();
        fence.tree().make("units").unwrap();
        let config = weir::config::Config::load(&self.config()).unwrap();
        let workloads = Arc::new(weir::workload::Workloads::new(&config).unwrap());
        let fence = Arc::new(fence);
        let watch = weir::workload::Watch::start(Arc::clone(&workloads), Arc::clone(&fence)).unwrap();
        let _runtime = self.runtime.enter();
        let listeners = Listeners::open(0).unwrap();
        self.port = listeners.port();
        let questions = Bound::open().unwrap();
        self.dns = questions.ports().unwrap();
        // As the keeper does: one half reads what the other answers from.
        let (reading, answering): (Vec<OwnedFd>, Vec<OwnedFd>) =
            questions.into_descriptors().into_iter().map(|fd| (fd.try_clone().unwrap(), fd)).unzip();
        let questions = Sockets::of(Bound::adopt(reading, &self.dns).unwrap()).unwrap();
        let answering = Arc::new(answering);
        listeners.publish(&fence, self.dns).unwrap();
        fence.beat().unwrap();
        let beating = Arc::clone(&fence);
        let beat = tokio::spawn(async move { beating.keep_alive().await });
        let mut serve: Vec<_> = questions
            .into_each()
            .map(|socket| {
                let (answering, fence) = (Arc::clone(&answering), Arc::clone(&fence));
                tokio::spawn(answer(socket, answering, fence, Arc::clone(&workloads)))
            })
            .collect();
        serve.push(tokio::spawn(serve_streams(listeners, Arc::clone(&fence), workloads)));
        self.agent = Some(Agent { fence, watch, beat, serve });
    }

    pub fn config(&self) -> PathBuf {
        let path = self.folder.join("weir.yaml");
        let fence = format!(
            "fence: {{attach: {}, bpffs: {}}}\ntls: {{dir: {}}}\n",
            self.settings.attach,
            self.settings.bpffs.display(),
            self.folder.display()
        );
        std::fs::write(&path, format!("{CONFIG}{fence}")).unwrap();
        path
    }

    /// `weir run` from an unlabelled cgroup; exit status and standard output.
    pub fn weir_run(&self, workload: &str, command: &[&str]) -> (Option<i32>, String) {
        let child = self.start_weir_run(workload, command);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    }

    pub fn start_weir_run(&self, workload: &str, command: &[&str]) -> std::process::Child {
        let mut run = Command::new(env!("CARGO_BIN_EXE_weir"));
        run.arg("--config").arg(self.config()).args(["run", "--workload", workload, "--"]).args(command);
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        self.start_in("plain", &mut run)
    }

    pub fn start_in(&self, cgroup: &str, command: &mut Command) -> std::process::Child {
        use std::os::unix::process::CommandExt;
        let path = self.root().join(cgroup).join("cgroup.procs");
        let procs = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        // SAFETY: one write(2) between fork and exec.
        unsafe { command.pre_exec(move || rustix::io::write(&procs, b"0").map(drop).map_err(Into::into)) };
        command.spawn().unwrap()
    }

    /// A unit that appears while the agent runs; the probe enters it `after` it was made.
    pub fn new_unit(&self, name: &str, after: Duration, way: &[&str]) -> String {
        let unit = format!("units/{name}");
        self.fence().tree().make(&unit).unwrap();
        std::thread::sleep(after);
        let seen = self.probe("plain", &unit, 0, way);
        std::fs::remove_dir(self.root().join(unit)).unwrap();
        seen
    }

    pub fn run_folders(&self) -> usize {
        let folder = self.root().join(weir::workload::run_cgroup("runs"));
        std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_dir()).count()
    }

    pub fn write_bundle(&self) -> String {
        let path = self.folder.join("bundle.pem");
        std::fs::write(&path, "").unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn open_servers(&mut self) {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        self.tcp = v4.local_addr().unwrap().port();
        let v6 = TcpListener::bind(("::1", self.tcp)).unwrap();
        for listener in [v4, v6] {
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let _ = stream.and_then(|mut stream| {
                        stream.write_all(b"direct\n")?;
                        stream.shutdown(std::net::Shutdown::Write)?;
                        // Bytes left unread would turn the close into a reset.
                        stream.read_to_end(&mut Vec::new())
                    });
                }
            });
        }
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        self.other = other.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((_, from)) = other.recv_from(&mut [0; 16]) {
                let _ = other.send_to(b"!", from);
            }
        });
    }

    /// The same server by v4, v6 and v4-mapped address.
    pub fn servers(&self) -> [String; 3] {
        let port = self.tcp;
        [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("[::ffff:127.0.0.1]:{port}")]
    }

    /// A server that is not DNS.
    pub fn datagram_server(&self) -> String {
        self.other.to_string()
    }

    pub fn dns_ports(&self) -> Ports {
        self.dns
    }

    pub fn unix_server(&self, name: &str) -> String {
        let path = self.folder.join(name);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        path.to_str().unwrap().to_owned()
    }

    /// Turns connections to these sockets, which nobody serves here; returns their port.
    pub fn serve_at(&self, sockets: weir::listen::Sockets) -> u16 {
        let _runtime = self.runtime.enter();
        let listeners = Listeners::of(sockets).unwrap();
        listeners.publish(self.fence(), self.dns).unwrap();
        listeners.port()
    }

    pub fn labelled(&self, way: &[&str]) -> String {
        self.probe("plain", "labelled", 0, way)
    }

    pub fn labelled_as(&self, uid: u32, way: &[&str]) -> String {
        self.probe("plain", "labelled", uid, way)
    }

    pub fn labelled_child(&self, way: &[&str]) -> String {
        self.probe("plain", "labelled/child", 0, way)
    }

    pub fn plain(&self, way: &[&str]) -> String {
        self.probe("plain", "plain", 0, way)
    }

    /// The task starts inside the labelled cgroup and leaves it.
    pub fn born_inside(&self, way: &[&str]) -> String {
        self.probe("labelled", "plain", 0, way)
    }

    /// The cgroup is labelled when the probe says that it is ready.
    pub fn labelled_later(&self, way: &[&str]) -> String {
        let later = self.fence().tree().make("later").unwrap();
        self.probe_with("later", "later", 0, way, || {
            self.fence().label(cgroup::id(&later).unwrap(), payments()).unwrap();
        })
    }

    /// What `others` sees while a labelled probe waits to be told to go on, and what that probe saw.
    pub fn labelled_meanwhile(&self, way: &[&str], others: &[&str]) -> (String, String) {
        let mut seen = String::new();
        let own = self.probe_with("plain", "labelled", 0, way, || {
            seen = self.new_unit("pay-2.service", Duration::from_millis(50), others);
        });
        (own, seen)
    }

    pub fn never_labelled(&self, way: &[&str]) -> String {
        self.probe("plain", "plain", 0, way)
    }

    fn probe(&self, start: &str, enter: &str, uid: u32, way: &[&str]) -> String {
        self.probe_with(start, enter, uid, way, || ())
    }

    /// Runs a probe that starts in one cgroup and enters another by itself; `ready` runs after its first line.
    fn probe_with(&self, start: &str, enter: &str, uid: u32, way: &[&str], ready: impl FnOnce()) -> String {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("probe").arg(self.root().join(enter)).arg(uid.to_string()).args(way);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.start_in(start, &mut command);
        self.last_pid.store(child.id(), Ordering::Relaxed);
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if line == "ready\n" {
            ready();
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
            line.clear();
            said.read_line(&mut line).unwrap();
        }
        assert!(child.wait().unwrap().success(), "the probe {way:?} broke");
        line.trim_end_matches('\n').to_owned()
    }

    pub fn last_pid(&self) -> u32 {
        self.last_pid.load(Ordering::Relaxed)
    }

    pub fn listener_port(&self) -> u16 {
        self.port
    }

    pub fn counter(&self, name: &str) -> u64 {
        let counters = self.fence().counters().unwrap();
        counters.iter().find(|(found, _)| *found == name).map(|(_, count)| *count).unwrap()
    }

    /// Entries of askers that are left.
    pub fn questions(&self) -> usize {
        let folder = self.settings.bpffs.join(weir_ebpf::LAYOUT);
        weir::kernel::Pins::open(&folder).unwrap().questions.entries().unwrap().len()
    }

    /// An entry of a handshake from long ago.
    pub fn leave_a_handshake(&self) {
        use weir::kernel::{Plain, Table};
        let folder = self.settings.bpffs.join(weir_ebpf::LAYOUT);
        let table: Table<weir_ebpf::Tuple, weir_ebpf::Origin> =
            Table::open(&folder, weir_ebpf::map::HANDSHAKES).unwrap();
        let old = weir_ebpf::Origin { ktime: 1, ..Plain::zeroed() };
        table.insert(&weir_ebpf::Tuple { netns: 1, ..Plain::zeroed() }, &old).unwrap();
    }

    pub fn expect_no_lost_records(&self) {
        // The last clients' handshakes may still be under way.
        std::thread::sleep(Duration::from_millis(50));
        check("no record was lost", self.counter("lost") == 0, "lost > 0");
        let (turned, handed) = (self.counter("turned"), self.counter("handed"));
        check("every turned connection was handed over", turned == handed, &format!("{turned} != {handed}"));
    }

    pub fn has(&self, layer: &str) -> bool {
        !self.lacks.contains(&layer)
    }

    /// What a refused task sees: EPERM for everything where the kernel lets hooks choose no error.
    pub fn refusal(&self, errno: &'static str) -> &'static str {
        if self.lacks.contains(&"errno") { "EPERM" } else { errno }
    }

    pub fn dial_failed(&self, address: &str, errno: i32) {
        let netns = weir::kernel::netns_cookie(&UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let record = weir_ebpf::Origin {
            address: weir::kernel::address(address.parse::<SocketAddr>().unwrap().ip()),
            port: self.tcp,
            label: payments(),
            netns,
            source: [0; 16],
            start_boottime: 0,
            cgroup: 0,
            cookie: 0,
            ktime: 0,
            tgid: 0,
            uid: 0,
            gid: 0,
            mark: 0,
            ifindex: 0,
            family: 2,
        };
        self.fence().dial_failed(&Origin::from(record), errno).unwrap();
    }

    pub fn stop_beating(&mut self) {
        self.agent.as_ref().unwrap().beat.abort();
        std::thread::sleep(Duration::from_nanos(weir_ebpf::HEARTBEAT_STALE_NS) + Duration::from_millis(100));
    }

    /// Everything the agent held is closed, as after SIGKILL; the pins stay.
    pub fn kill_agent(&mut self) {
        drop(self.agent.take().unwrap().stop(&self.runtime));
    }

    /// But for those to tracepoints, which are replaced.
    pub fn link_ids(&self) -> Vec<u32> {
        let folder = self.settings.bpffs.join(weir_ebpf::LAYOUT);
        let mut ids: Vec<u32> = std::fs::read_dir(folder)
            .unwrap()
            .filter(|entry| {
                !["birth", "death"].iter().any(|name| entry.as_ref().unwrap().file_name() == *name)
            })
            .filter_map(|entry| aya::programs::links::PinnedLink::from_pin(entry.unwrap().path()).ok())
            .filter_map(|link| aya::programs::links::FdLink::from(link).info().ok())
            .map(|found| found.id())
            .collect();
        ids.sort_unstable();
        ids
    }

    pub fn second_agent_is_refused(&self) -> bool {
        matches!(Fence::raise(&self.settings), Err(weir::kernel::FenceError::Held(_)))
    }

    pub fn lift(&mut self) {
        self.agent.take().unwrap().stop(&self.runtime).lift().unwrap();
    }

    pub fn finish(self) {
        println!("fence: all checks passed");
    }

    pub fn fence(&self) -> &Fence {
        &self.agent.as_ref().unwrap().fence
    }

    pub fn settings(&self) -> &weir::config::Fence {
        &self.settings
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn root(&self) -> PathBuf {
        cgroup::Tree::open(&self.settings.attach).unwrap().root().to_owned()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let root = self.root();
        if let Some(agent) = self.agent.take() {
            drop(agent.stop(&self.runtime));
        }
        let _ = std::fs::write(self.home.join("cgroup.procs"), "0");
        let _ = rustix::mount::unmount(&self.settings.bpffs, rustix::mount::UnmountFlags::DETACH);
        remove_below(&root);
        if let Err(fault) = std::fs::remove_dir(&root) {
            println!("fence: {} is left behind: {fault}", root.display());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Removes the cgroups below, children first.
fn remove_below(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Answers every question with what the kernel published about it.
async fn answer(
    socket: Socket,
    answering: Arc<Vec<OwnedFd>>,
    fence: Arc<Fence>,
    workloads: Arc<weir::workload::Workloads>,
) {
    let mut buffer = [0; 512];
    loop {
        let heard = socket.receive(&mut buffer).await.expect("receive");
        let said = match asker(&fence, heard.netns, heard.from, heard.to, heard.received) {
            Ok(origin) => match workloads.identify(&fence, &origin) {
                Ok(identity) => format!(
                    "asked={} workload={} pid={} uid={} ",
                    origin.destination, identity.workload, origin.pid, origin.uid
                ),
                Err(why) => why.to_string(),
            },
            Err(why) => format!("no origin: {why}"),
        };
        sockets::answer(&fence, &answering, socket.port(), heard.from, heard.back, said.as_bytes());
        // The heart beats on this thread, too, and a slow machine with a flood of questions would leave it no turn.
        tokio::task::yield_now().await;
    }
}

/// Answers every connection with what the kernel recorded about it.
async fn serve_streams(listeners: Listeners, fence: Arc<Fence>, workloads: Arc<weir::workload::Workloads>) {
    loop {
        let (mut stream, origin) = listeners.accept(&fence).await.expect("accept");
        let Ok(origin) = origin else { continue };
        let start = start_agrees(&origin);
        let Ok(identity) = workloads.identify(&fence, &origin) else { continue };
        let process = &identity.process;
        let line = format!(
            "turned dst={} pid={} uid={} start={start} workload={} owner={} user={} class={} cgroup={} exe={} sha={} \n",
            origin.destination,
            process.pid,
            process.uid,
            identity.workload,
            identity.owner,
            identity.user,
            identity.class.name(),
            process.cgroup,
            process.exe,
            process.exe_sha256.len(),
        );
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = stream.write_all(line.as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    }
}

/// Does the recorded start equal field 22 of /proc/PID/stat, in clock ticks?
fn start_agrees(origin: &Origin) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", origin.pid)).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    fields.split(' ').nth(19).and_then(|ticks| ticks.parse::<u64>().ok())
        == Some(origin.start_time / 10_000_000)
}

/// The cgroup this process was started in.
fn home_cgroup() -> PathBuf {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let mount = cgroup::Tree::open("/").unwrap().root().to_owned();
    mount.join(Path::new(path).strip_prefix("/").unwrap())
}
