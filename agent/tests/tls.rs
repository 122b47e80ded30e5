//! Clients that people use, against a server that holds a leaf of ours: they verify strictly, and their distrust is noticed.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weir::tls::{AcceptError, Authority, LeafName, Leaves, Termination, Terminator};

/// What the server saw of each connection, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Request,
    Distrust,
    /// The handshake was done, and not one byte followed.
    Silence,
    Other(String),
}

struct Server {
    dir: tempfile::TempDir,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: tokio::runtime::Runtime,
}

fn server(name: &str) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::open_or_create(dir.path(), "test-host").unwrap());
    let terminator = Arc::new(Terminator::new(Leaves::new(authority).unwrap()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let name = LeafName::parse(name).unwrap();
    let all = Arc::clone(&seen);
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (terminator, name, all) = (Arc::clone(&terminator), name.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                let how = Termination { name: &name, workload: "w", class: "1", alpn: &[b"http/1.1"] };
                let what = match terminator.accept(stream, how).await {
                    Ok(stream) => answer(stream).await,
                    Err(AcceptError::ClientDistrusts { .. }) => Seen::Distrust,
                    Err(other) => Seen::Other(other.to_string()),
                };
                all.lock().unwrap().push(what);
            });
        }
    });
    Server { dir, address, seen, _runtime: runtime }
}

async fn answer<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S) -> Seen {
    let mut request = [0; 4_096];
    match stream.read(&mut request).await {
        Ok(0) | Err(_) => Seen::Silence,
        Ok(_) => {
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nweir-ok";
            stream.write_all(response).await.unwrap();
            stream.shutdown().await.ok();
            Seen::Request
        }
    }
}

impl Server {
    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn port(&self) -> String {
        self.address.port().to_string()
    }

    fn seen(&self) -> Vec<Seen> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if !seen.is_empty() || Instant::now() > until {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("SSL_CERT_FILE")
        .env_remove("NODE_EXTRA_CA_CERTS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|fault| panic!("{program} is needed for this test: {fault}"));
    // A client that has failed already does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn assert_served(server: &Server, output: &Output) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("weir-ok"), "{text}");
    assert_eq!(server.seen(), [Seen::Request]);
}

const PYTHON: &str = r#"
import socket, ssl, sys
ca, host, port = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
with context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname=host) as stream:
    stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
    while chunk := stream.recv(4096):
        print(chunk.decode())
"#;

#[test]
fn python_verifies_strictly_by_name_and_by_address() {
    for host in ["api.example.test", "127.0.0.1"] {
        let server = server(host);
        let output = run("python3", &["-c", PYTHON, &server.file("ca.pem"), host, &server.port()], "");
        assert_served(&server, &output);
    }
}

#[test]
fn python_finds_ours_in_the_bundle_too() {
    let server = server("api.example.test");
    let bundle = server.file("bundle.pem");
    let output = run("python3", &["-c", PYTHON, &bundle, "api.example.test", &server.port()], "");
    assert_served(&server, &output);
}

#[test]
fn python_refuses_another_name() {
    let server = server("api.example.test");
    let output = run("python3", &["-c", PYTHON, &server.file("ca.pem"), "127.0.0.1", &server.port()], "");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("IP address mismatch"), "{text}");
    assert_eq!(server.seen(), [Seen::Distrust]);
}

#[test]
fn openssl_verifies_strictly_in_both_versions() {
    for version in ["-tls1_2", "-tls1_3"] {
        for (host, check) in [("api.example.test", "-verify_hostname"), ("127.0.0.1", "-verify_ip")] {
            let server = server(host);
            let address = server.address.to_string();
            let ca = server.file("ca.pem");
            let mut arguments =
                vec!["s_client", "-connect", &address, "-CAfile", &ca, "-verify_return_error"];
            arguments.extend(["-x509_strict", "-ign_eof", "-quiet", version, check, host]);
            if check == "-verify_hostname" {
                arguments.extend(["-servername", host]);
            } else {
                arguments.push("-noservername");
            }
            assert_served(&server, &run("openssl", &arguments, "GET / HTTP/1.1\r\n\r\n"));
        }
    }
}

#[test]
fn curl_and_its_library_verify() {
    let server = server("api.example.test");
    let resolve = format!("api.example.test:{}:127.0.0.1", server.port());
    let url = format!("https://api.example.test:{}/", server.port());
    let ca = server.file("ca.pem");
    let output = run("curl", &["-sS", "--noproxy", "*", "--cacert", &ca, "--resolve", &resolve, &url], "");
    assert_served(&server, &output);
}

const NODE: &str = r#"
const [ca, host, port] = process.argv.slice(1);
const https = require("https"), fs = require("fs");
const options = {host: "127.0.0.1", port, servername: host, headers: {host}, ...(ca ? {ca: fs.readFileSync(ca)} : {})};
https.get(options, (answer) => answer.on("data", (chunk) => console.log(chunk.toString())))
    .on("error", (fault) => { console.error(fault.code); process.exit(1); });
"#;

#[test]
fn node_verifies() {
    let server = server("api.example.test");
    let ca = server.file("ca.pem");
    assert_served(&server, &run("node", &["-e", NODE, &ca, "api.example.test", &server.port()], ""));
}

#[test]
fn clients_without_our_ca_are_seen_to_distrust_us() {
    let port_of = |server: &Server| server.port();
    let foreign = tempfile::tempdir().unwrap();
    Authority::open_or_create(foreign.path(), "another").unwrap();
    let foreign = foreign.path().join("ca.pem").display().to_string();

    let python = server("api.example.test");
    assert!(
        !run("python3", &["-c", PYTHON, &foreign, "api.example.test", &port_of(&python)], "")
            .status
            .success()
    );
    assert_eq!(python.seen(), [Seen::Distrust]);

    let openssl = server("api.example.test");
    let address = openssl.address.to_string();
    let arguments = ["s_client", "-connect", &address, "-CAfile", &foreign, "-verify_return_error"];
    assert!(!run("openssl", &arguments, "").status.success());
    assert_eq!(openssl.seen(), [Seen::Distrust]);

    let curl = server("127.0.0.1");
    let url = format!("https://127.0.0.1:{}/", curl.port());
    assert!(!run("curl", &["-sS", "--noproxy", "*", "--cacert", &foreign, &url], "").status.success());
    assert_eq!(curl.seen(), [Seen::Distrust]);

    // Node looks at the certificate after its own part of the handshake; ours may be done by then, and silence follows.
    let node = server("api.example.test");
    let output = run("node", &["-e", NODE, "", "api.example.test", &port_of(&node)], "");
    assert!(!output.status.success());
    assert!(matches!(node.seen().as_slice(), [Seen::Distrust | Seen::Silence]), "{:?}", node.seen());
}
