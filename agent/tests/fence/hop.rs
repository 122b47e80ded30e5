//! The loopback hop at scale: tens of thousands of connections held open through the hooks, and what a connect costs among
//! the first and among the last of them. Run by `cargo xtask bench hop`; it refuses to be a test, since it is timed.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use weir::listen::Sockets;

use crate::stage::Stage;

/// A process may hold so many descriptors here.
const EACH: usize = 15_000;
/// Unlabelled connections, by as many processes at once.
const PLAIN: usize = 12_000;

/// Opens `total` labelled connections, a few thousand unlabelled ones beside them, and prints both as JSON.
pub fn measure(stage: &mut Stage, total: usize) {
    let processes = total.div_ceil(EACH);
    let sockets = Sockets::open(0).unwrap();
    let turned = sockets.as_fd().try_clone_to_owned().unwrap();
    let port = stage.serve_at(sockets);
    let direct = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = direct.local_addr().unwrap();
    let mut sinks: Vec<Child> = (0..processes).map(|_| stage.sink(&turned)).collect();
    sinks.push(stage.sink(&direct.as_fd().try_clone_to_owned().unwrap()));
    // As many at once as there are labelled ones later.
    let callers: Vec<Caller> =
        (0..processes).map(|_| Caller::start(stage, "plain", address, PLAIN / processes)).collect();
    let plain: Vec<Vec<u64>> = callers.into_iter().map(Caller::tell).collect();
    // Nobody listens there: what arrives came over the hop.
    let far = SocketAddr::from(([192, 0, 2, 1], 5432));
    let callers: Vec<Caller> =
        (0..processes).map(|_| Caller::start(stage, "labelled", far, total / processes)).collect();
    let told: Vec<Vec<u64>> = callers.into_iter().map(Caller::hold).map(|(told, _)| told).collect();
    for mut sink in sinks {
        sink.kill().unwrap();
        sink.wait().unwrap();
    }
    let sum = |at: usize| told.iter().map(|one| one[at]).sum::<u64>();
    let most = |of: &[Vec<u64>], at: usize| of.iter().map(|one| one[at]).max().unwrap_or_default();
    println!(
        "{{\"connections\":{},\"failed\":{},\"first_p50_ns\":{},\"first_p99_ns\":{},\"last_p50_ns\":{},\"last_p99_ns\":{},\"direct_p50_ns\":{},\"direct_p99_ns\":{},\"port\":{port}}}",
        sum(0),
        sum(1),
        most(&told, 2),
        most(&told, 3),
        most(&told, 4),
        most(&told, 5),
        most(&plain, 2),
        most(&plain, 3)
    );
}

/// A process that opens connections, tells what it saw, and holds them until its input ends.
struct Caller {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Caller {
    fn start(stage: &Stage, cgroup: &str, to: SocketAddr, count: usize) -> Caller {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["probe", "-", "0", "hop-call", &to.to_string(), &count.to_string()]);
        let mut child = stage.start_in(cgroup, command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let output = BufReader::new(child.stdout.take().unwrap());
        Caller { child, output }
    }

    fn hold(mut self) -> (Vec<u64>, Caller) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        (line.split_whitespace().map(|word| word.parse().unwrap()).collect(), self)
    }

    fn tell(self) -> Vec<u64> {
        self.hold().0
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// `hop-call ADDRESS COUNT`: connections, failures, and the median and 99th percentile of the first and the last tenth.
pub fn call(address: SocketAddr, count: usize) {
    let (mut held, mut spent, mut failed) = (Vec::with_capacity(count), Vec::with_capacity(count), 0);
    for _ in 0..count {
        let began = Instant::now();
        match TcpStream::connect(address) {
            Ok(stream) => held.push(stream),
            Err(_) => failed += 1,
        }
        spent.push(began.elapsed());
    }
    let tenth = (count / 10).max(1);
    let percentiles = |part: &[Duration]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        (part[part.len() / 2].as_nanos(), part[part.len() * 99 / 100].as_nanos())
    };
    let (first, last) = (percentiles(&spent[..tenth]), percentiles(&spent[count - tenth..]));
    println!("{} {failed} {} {} {} {}", held.len(), first.0, first.1, last.0, last.1);
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// `hop-sink DESCRIPTOR`: takes connections from an inherited listener and keeps them.
pub fn sink(descriptor: i32) {
    // SAFETY: the stage left this descriptor open for this process, which has just started and owns it.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let held: Vec<TcpStream> = listener.incoming().map_while(Result::ok).collect();
    drop(held);
}

impl Stage {
    /// A process that takes whatever comes to this listener.
    fn sink(&self, listener: &OwnedFd) -> Child {
        rustix::io::ioctl_fionbio(listener, false).unwrap();
        let left = listener.try_clone().unwrap();
        rustix::io::fcntl_setfd(&left, rustix::io::FdFlags::empty()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["probe", "-", "0", "hop-sink", &left.as_raw_fd().to_string()]);
        self.start_in("plain", command.stdin(Stdio::null()))
    }
}
