//! The fence against real sockets: every way out of a labelled cgroup, each beside an unlabelled one that succeeds.
//! It attaches at a cgroup of its own with a bpffs of its own, never at the host's root. Needs root.

mod births;
mod hop;
mod probe;
mod stage;

use stage::{Stage, check};

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("probe") {
        probe::main(&arguments.collect::<Vec<_>>());
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("fence: skipped, it needs root");
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut stage = Stage::set();
    if let Some(total) = std::env::var("WEIR_HOP").ok().and_then(|total| total.parse().ok()) {
        hop::measure(&mut stage, total);
        stage.lift();
        return stage.finish();
    }
    if !stage.lacks.is_empty() {
        println!("  (this kernel lacks: {})", stage.lacks.join(", "));
    }
    let acts: [fn(&mut Stage); 13] = [
        redirects,
        origins,
        units,
        births::live,
        births::dead,
        runs,
        ways_round,
        datagrams,
        questions,
        guards,
        failures,
        handshakes_that_fail,
        death_and_return,
    ];
    for act in acts {
        let begun = std::time::Instant::now();
        act(&mut stage);
        println!("  -- {} ms", begun.elapsed().as_millis());
    }
    stage.finish();
}

fn redirects(stage: &mut Stage) {
    let [v4, v6, mapped] = stage.servers();
    for (name, address) in [("v4", &v4), ("v6", &v6), ("v4-mapped", &mapped)] {
        let seen = stage.labelled(&["tcp", address]);
        check(name, seen.starts_with("turned "), &seen);
        let dst = if name == "v4-mapped" { &v4 } else { address };
        check(name, seen.contains(&format!("dst={dst} ")), &seen);
        check(
            &format!("{name}: getpeername shows the original"),
            seen.contains(&format!("peer={address} ")),
            &seen,
        );
        let plain = stage.plain(&["tcp", address]);
        check(&format!("{name}: unlabelled goes direct"), plain.starts_with("direct "), &plain);
    }
    for way in ["tcp-nonblocking", "tcp-v6only", "tcp-bound", "tcp-device", "tcp-fastopen", "tcp-again"] {
        let address = if way == "tcp-v6only" { &v6 } else { &v4 };
        let seen = stage.labelled(&[way, address]);
        check(way, seen.starts_with("turned ") && seen.contains(&format!("dst={address} ")), &seen);
        let plain = stage.plain(&[way, address]);
        check(&format!("{way}: unlabelled goes direct"), plain.starts_with("direct "), &plain);
    }
    let seen = stage.labelled_child(&["tcp", &v4]);
    check("a child cgroup inherits the label", seen.starts_with("turned "), &seen);
}

fn origins(stage: &mut Stage) {
    let [v4, ..] = stage.servers();
    let seen = stage.labelled_as(1000, &["tcp", &v4]);
    check("the record has the uid", seen.contains("uid=1000 "), &seen);
    let pid = stage.last_pid();
    check("the record has the pid", seen.contains(&format!("pid={pid} ")), &seen);
    check("the record has the process's start", seen.contains("start=true "), &seen);
    let own = std::env::current_exe().unwrap();
    for part in [
        "cgroup=labelled ",
        "workload=payments ",
        "owner=alice@acme.example ",
        "user=bob@acme.example ",
        "class=service ",
        "sha=64 ",
        &format!("exe={} ", own.display()),
    ] {
        check(&format!("the identity has {part}"), seen.contains(part), &seen);
    }
    let seen = stage.labelled(&["tcp-many", &v4, "300"]);
    check("300 clients that close at once: no record is lost", seen == "ok", &seen);
    stage.expect_no_lost_records();
}

fn units(stage: &mut Stage) {
    let [v4, ..] = stage.servers();
    let soon = std::time::Duration::from_millis(50);
    let seen = stage.new_unit("pay-1.service", soon, &["tcp", &v4]);
    check(
        "a unit that appears is labelled",
        seen.starts_with("turned ") && seen.contains("workload=units "),
        &seen,
    );
    check("with its class", seen.contains("class=ci "), &seen);
    let seen = stage.new_unit("web.service", soon, &["tcp", &v4]);
    check("another unit is not", seen.starts_with("direct "), &seen);
}

fn runs(stage: &mut Stage) {
    let [v4, ..] = stage.servers();
    let own = std::env::current_exe().unwrap();
    let (status, seen) = stage.weir_run("runs", &[own.to_str().unwrap(), "probe", "-", "0", "tcp", &v4]);
    check(
        "weir run labels before exec",
        seen.starts_with("turned ") && seen.contains("workload=runs "),
        &seen,
    );
    check("weir run passes success on", status == Some(0), &format!("{status:?}"));
    let (status, _) = stage.weir_run("runs", &["sh", "-c", "exit 7"]);
    check("weir run passes the status on", status == Some(7), &format!("{status:?}"));
    let (status, seen) = stage.weir_run("nobody", &["echo", "started"]);
    check(
        "weir run refuses an unknown workload",
        status == Some(125) && seen.is_empty(),
        &format!("{status:?} {seen}"),
    );
    let bundle = stage.write_bundle();
    let (_, seen) = stage.weir_run("runs", &["sh", "-c", "echo $SSL_CERT_FILE"]);
    check("weir run names the CA bundle", seen == bundle, &seen);
    let (_, seen) = stage.weir_run("runs", &["sh", "-c", "ls /proc/self/fd | wc -l"]);
    check("weir run leaves no descriptor open", seen == "4", &seen);
    let trap = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = stage.start_weir_run("runs", &["sh", "-c", trap]);
    // On an emulated machine the shell takes its time to set the trap.
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = child.wait_with_output().unwrap().status.code();
    check("weir run forwards signals", status == Some(9), &format!("{status:?}"));
    check("weir run leaves no cgroup behind", stage.run_folders() == 0, &stage.run_folders().to_string());
}

fn ways_round(stage: &mut Stage) {
    let [v4, ..] = stage.servers();
    let seen = stage.labelled(&["late-tcp", &v4]);
    check("a socket older than the move into the cgroup", seen.starts_with("turned "), &seen);
    let seen = stage.born_inside(&["leaving-tcp", &v4]);
    check("a labelled socket whose task moved out", seen.starts_with("turned "), &seen);
    let listener = stage.listener_port();
    for address in
        [format!("127.0.0.1:{listener}"), format!("127.0.0.77:{listener}"), format!("[::1]:{listener}")]
    {
        let seen = stage.labelled(&["tcp", &address]);
        check(&format!("labelled direct dial of {address}"), seen == "EPERM", &seen);
        let seen = stage.plain(&["tcp", &address]);
        check(&format!("unlabelled direct dial of {address}"), seen == "EPERM", &seen);
    }
    for kind in ["raw", "raw6", "ping", "udplite", "mptcp", "sctp"] {
        let plain = stage.plain(&["socket", kind]);
        let seen = stage.labelled(&["socket", kind]);
        // A protocol that the kernel lacks proves nothing; the control says so.
        check(&format!("{kind} socket (unlabelled: {plain})"), seen == "EPERM" || plain != "ok", &seen);
    }
    let seen = stage.labelled(&["tcp-full-optmem", &v4]);
    check("a socket whose option memory is full is never direct", !seen.starts_with("direct "), &seen);
    let before = stage.counter("no_storage");
    let seen = stage.labelled(&["late-tcp-full-optmem", &v4]);
    check("the same on a socket from elsewhere is refused", seen == "EPERM", &seen);
    check("and counted", stage.counter("no_storage") > before, "the counter stands");
}

fn datagrams(stage: &mut Stage) {
    let other = stage.datagram_server();
    for way in ["udp-connect", "udp-send"] {
        let seen = stage.labelled(&[way, &other]);
        check(&format!("{way} to {other}"), seen == "EPERM", &seen);
        let seen = stage.labelled(&[way, "[::1]:443"]);
        check(&format!("{way} to [::1]:443"), seen == "EPERM", &seen);
        let plain = stage.plain(&[way, &other]);
        check(&format!("{way}: unlabelled passes"), plain == "ok", &plain);
    }
    let before = stage.counter("wall");
    let seen = stage.labelled_later(&["udp-connected-before", &other]);
    check(
        "a datagram socket older than its cgroup's label: the datagram is dropped",
        seen == "silence",
        &seen,
    );
    check("the wall counted it", stage.counter("wall") > before, "the counter stands");
    let plain = stage.never_labelled(&["udp-connected-before", &other]);
    check("a datagram socket of an unlabelled cgroup is answered", plain == "answer", &plain);
}

fn questions(stage: &mut Stage) {
    let told = |seen: &str, parts: &[String]| parts.iter().all(|part| seen.contains(part.as_str()));
    for server in ["127.0.0.53:53", "192.0.2.9:53", "[::1]:53", "[2001:db8::9]:53"] {
        let parts = [format!("asked={server} "), "workload=payments ".into(), format!("from={server} ")];
        let seen = stage.labelled(&["dns-send", server]);
        check(
            &format!("a question to {server} is turned, and answered from there"),
            told(&seen, &parts),
            &seen,
        );
        check("with its pid", seen.contains(&format!("pid={} ", stage.last_pid())), &seen);
        let seen = stage.labelled(&["dns-connect", server]);
        let connected = seen.contains(&format!("peer={server} "));
        check(&format!("the same connected to {server}"), told(&seen, &parts) && connected, &seen);
    }
    let seen = stage.labelled(&["dns-mapped", "[::ffff:192.0.2.9]:53"]);
    let parts = ["asked=192.0.2.9:53 ".into(), "from=[::ffff:192.0.2.9]:53 ".into()];
    check("a v4-mapped server", told(&seen, &parts), &seen);
    // From the loopback, and from an address of another device where the host has one.
    for source in [Some("127.0.0.9".to_owned()), outer_address()].into_iter().flatten() {
        let seen = stage.labelled(&["dns-bound", "192.0.2.9:53", &source]);
        let parts = ["asked=192.0.2.9:53 ".into(), "from=192.0.2.9:53 ".into()];
        check(&format!("a socket bound to {source}"), told(&seen, &parts), &seen);
    }
    for servers in [
        ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"],
        ["[2001:db8::1]:53", "[2001:db8::2]:53", "[2001:db8::3]:53"],
    ] {
        let seen = stage.labelled(&[&["dns-several"][..], &servers[..]].concat());
        let own = |server: &&str| {
            seen.split("asked=").any(|answer| {
                answer.starts_with(&format!("{server} ")) && answer.contains(&format!("from={server} "))
            })
        };
        check("one socket, several servers: each answer from its own", servers.iter().all(own), &seen);
    }
    let five = ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53", "192.0.2.4:53", "192.0.2.5:53"];
    let seen = stage.labelled(&[&["dns-several"][..], &five[..]].concat());
    check("a fifth server on one socket at once is refused", seen == "EPERM", &seen);
    let seen = stage.labelled(&["dns-device", "192.0.2.9:53", "lo"]);
    check("a socket bound to the loopback device", seen.contains("from=192.0.2.9:53 "), &seen);
    for server in ["127.0.0.53:53", "[::1]:53"] {
        let seen = stage.labelled(&["dns-many", server, "200"]);
        check(&format!("{server}: sockets that follow each other on one port"), seen == "ok", &seen);
    }
    let before = stage.counter("wall");
    let seen = stage.labelled(&["dns-shared", "[::1]:53"]);
    check("two sockets on one port: the second is not heard", seen == "1 answers", &seen);
    check("and counted", stage.counter("wall") > before, "the counter stands");
    let four = ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53", "192.0.2.4:53"];
    let (greedy, others) = stage
        .labelled_meanwhile(&[&["dns-greedy"][..], &four[..]].concat(), &["dns-patient", "192.0.2.9:53"]);
    check("a label has a share of askers", greedy == "EPERM after 4096", &greedy);
    check("and others have theirs meanwhile", others.contains("workload=units "), &others);
    let seen = stage.labelled(&["dns-send", "192.0.2.9:53"]);
    check("a share is free again when its sockets are closed", seen.contains("workload=payments "), &seen);
    check("closed sockets leave nothing behind", stage.questions() == 0, &stage.questions().to_string());
    let ports = stage.dns_ports();
    for address in [format!("127.64.0.4:{}", ports.v4), format!("[::1]:{}", ports.v6[0])] {
        for way in ["udp-send", "udp-connect"] {
            let seen = stage.labelled(&[way, &address]);
            check(&format!("{way}: labelled direct question to {address}"), seen == "EPERM", &seen);
            let seen = stage.plain(&[way, &address]);
            check(&format!("{way}: unlabelled direct question to {address}"), seen == "EPERM", &seen);
        }
        let seen = stage.plain(&["dns-bind-any", &address, "15000"]);
        check("bind(0) never gets one of the agent's ports", seen == "ok", &seen);
        let seen = stage.plain(&["dns-bind", &address]);
        check(&format!("a stranger binds {address}"), seen == "EPERM" || seen == "EADDRINUSE", &seen);
    }
}

/// The address from which this host would talk to others. No packet is sent.
fn outer_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

fn guards(stage: &mut Stage) {
    let port = stage.listener_port().to_string();
    for address in [format!("127.0.0.77:{port}"), format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
        let seen = stage.plain(&["bind", &address]);
        check(&format!("a stranger binds {address}"), seen == "EPERM" || seen == "EADDRINUSE", &seen);
    }
    let path = stage.unix_server("s/.s.PGSQL.5432");
    let other = stage.unix_server("s/other.sock");
    let plain = stage.plain(&["unix", &path]);
    check("unix: unlabelled reaches PostgreSQL's socket", plain == "ok", &plain);
    if stage.has("unix") {
        let seen = stage.labelled(&["unix", &path]);
        check("unix: labelled is refused PostgreSQL's socket", seen == "EPERM", &seen);
        let seen = stage.labelled(&["unix", &other]);
        check("unix: labelled reaches other sockets", seen == "ok", &seen);
    } else {
        println!("  (this kernel has no hook for unix sockets)");
    }
}

fn failures(stage: &mut Stage) {
    let [v4, ..] = stage.servers();
    stage.dial_failed(&v4, libc::EHOSTUNREACH);
    let seen = stage.labelled(&["tcp", &v4]);
    check("a destination that failed a moment ago", seen == stage.refusal("EHOSTUNREACH"), &seen);
    std::thread::sleep(weir::kernel::FAILURE_KEPT);
    let seen = stage.labelled(&["tcp", &v4]);
    check("and later again", seen.starts_with("turned "), &seen);
    let seen = stage.labelled(&["own-netns-tcp", &v4]);
    check("a network namespace without listener", seen == stage.refusal("ECONNREFUSED"), &seen);
}

/// Where nobody listens: what was published for a handshake goes with its socket, or with the socket's next try.
fn handshakes_that_fail(stage: &mut Stage) {
    let [v4, ..] = stage.servers();
    let fence = stage.fence();
    let netns = weir::kernel::netns_cookie(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let listener = fence.listener(netns).unwrap().unwrap();
    let nobodys = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fence.serve(netns, weir_ebpf::Listener { port4: nobodys, ..listener }).unwrap();
    let account = || (stage.counter("published"), stage.counter("aborted"), fence.handshakes().unwrap());
    let (published, aborted, open) = account();
    check("no handshake is open", open == 0, &open.to_string());
    let seen = stage.labelled(&["tcp", &v4]);
    check("a handshake that fails", seen == "ECONNREFUSED", &seen);
    let now = account();
    check("leaves nothing and is counted", now == (published + 1, aborted + 1, 0), &format!("{now:?}"));
    let seen = stage.labelled(&["tcp-thrice", &v4]);
    check("three on one socket", seen == "ECONNREFUSED", &seen);
    let now = account();
    check("leave nothing either", now == (published + 4, aborted + 4, 0), &format!("{now:?}"));
    fence.serve(netns, listener).unwrap();
    // On a machine that has just been booted nothing is old.
    if u128::from(weir::kernel::monotonic_ns()) > weir::kernel::HANDSHAKE_KEPT.as_nanos() + 1 {
        stage.leave_a_handshake();
        let open = fence.handshakes().unwrap();
        check("one that an agent left when it died is forgotten", open == 0, &open.to_string());
    }
    let seen = stage.labelled(&["tcp", &v4]);
    check("and the next succeeds", seen.starts_with("turned "), &seen);
}

fn death_and_return(stage: &mut Stage) {
    let [v4, ..] = stage.servers();
    stage.stop_beating();
    let seen = stage.labelled(&["tcp", &v4]);
    check("a hung agent refuses", seen == stage.refusal("ECONNREFUSED"), &seen);
    for way in ["dns-send", "dns-connect"] {
        let seen = stage.labelled(&[way, "127.0.0.53:53"]);
        check(&format!("a hung agent refuses {way}"), seen == stage.refusal("ECONNREFUSED"), &seen);
    }
    let plain = stage.plain(&["tcp", &v4]);
    check("a hung agent: unlabelled goes direct", plain.starts_with("direct "), &plain);

    let port = stage.listener_port();
    stage.kill_agent();
    let seen = stage.labelled(&["tcp", &v4]);
    check("a dead agent refuses", seen == stage.refusal("ECONNREFUSED"), &seen);
    let plain = stage.plain(&["tcp", &v4]);
    check("a dead agent: unlabelled goes direct", plain.starts_with("direct "), &plain);
    let seen = stage.plain(&["bind", &format!("127.0.0.1:{port}")]);
    check("a stranger binds a dead agent's port", seen == "EPERM", &seen);
    let seen = stage.plain(&["dns-bind", &format!("127.64.0.4:{}", stage.dns_ports().v4)]);
    check("a stranger binds a dead agent's port for questions", seen == "EPERM", &seen);

    let (status, seen) = stage.weir_run("runs", &["echo", "started"]);
    check(
        "weir run refuses without an agent",
        status == Some(125) && seen.is_empty(),
        &format!("{status:?} {seen}"),
    );

    let links = stage.link_ids();
    stage.raise_again();
    check("the links were taken over", links == stage.link_ids() && !links.is_empty(), &format!("{links:?}"));
    let seen = stage.labelled(&["tcp", &v4]);
    check("a new agent serves", seen.starts_with("turned "), &seen);
    check("a second agent on the same pins is refused", stage.second_agent_is_refused(), "it was let in");

    stage.lift();
    let seen = stage.labelled(&["tcp", &v4]);
    check("a lifted fence is open", seen.starts_with("direct "), &seen);
}
