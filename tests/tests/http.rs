//! HTTP through weir with stock curl: masks, denials, approvals and refusals, with nginx's access log as outside witness.

use std::process::{Command, Stdio};

use weir_tests::agent::{Done, done};
use weir_tests::process::until;
use weir_tests::{Agent, Lab, Setup, Web, policies};

/// Orders need a human, on top of the policy that most tests use.
const ORDERS: &str = "  - name: orders-need-a-dba
    match: {http: {method: [POST], path: [\"/orders/*\"]}}
    then: {approve: {by: [\"group:dba\"], within: 2m}}
";

struct Bench {
    agent: Agent,
    web: Web,
    // Last: it removes what the others use.
    _lab: Lab,
}

fn bench(name: &str) -> Bench {
    bench_under(name, |port| policies::web(port) + ORDERS)
}

fn bench_under(name: &str, policy: impl FnOnce(u16) -> String) -> Bench {
    let lab = Lab::new(name).unwrap();
    let web = Web::start(&lab).unwrap();
    let setup =
        Setup::default().policy("classes.yaml", policies::CLASSES).policy("web.yaml", &policy(web.port));
    let agent = Agent::start(&lab, &setup).unwrap();
    Bench { agent, web, _lab: lab }
}

impl Bench {
    /// Stock curl as workload `app`.
    fn curl(&self, arguments: &[&str]) -> Done {
        self.agent.run(&[&["curl", "-sS", "--max-time", "30"], arguments].concat()).unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.web.port)
    }

    /// What nginx logged, once it has logged `last`: what came before that is then there too.
    fn seen(&self, last: &str) -> String {
        until(last, || self.web.seen().is_ok_and(|seen| seen.contains(last))).unwrap();
        self.web.seen().unwrap()
    }
}

/// The body after the head, and the head's Content-Length.
fn measured(answer: &str) -> (usize, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let line = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    (line.trim().parse().unwrap(), body)
}

#[test]
fn responses_arrive_masked_with_their_own_length() {
    let bench = bench("http-masks");
    let direct = Command::new("curl").args(["-sS", &bench.url("/customers")]).output().unwrap();
    let direct = done(direct).unwrap();
    assert!(direct.out.contains("ada@example.com") && direct.out.contains("219-45-6789"), "{direct:?}");

    let json = bench.curl(&["-i", &bench.url("/customers")]);
    let (length, body) = measured(&json.out);
    assert_eq!(length, body.len(), "{json:?}");
    let row: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(row["name"], "Ada Lovelace");
    assert_eq!(
        (&row["email"], &row["ssn"], &row["card"]),
        (&"[EMAIL]".into(), &"[SSN]".into(), &"[CARD]".into())
    );

    let text = bench.curl(&["-i", &bench.url("/text")]);
    let (length, body) = measured(&text.out);
    assert_eq!((length, body), (body.len(), "write to [EMAIL]"), "{text:?}");

    let rows = bench
        .agent
        .audited("SELECT decision, status, masked FROM audit WHERE kind = 'outcome' AND path = '/customers'")
        .unwrap();
    assert_eq!(rows[0]["decision"], "masked", "{rows:?}");
    assert_eq!(rows[0]["status"], "200");
    assert!(rows[0]["masked"].to_string().contains("email"), "{rows:?}");
}

/// Clients go on offering codings; only where a mask has to read the answer, the server is asked to leave them out.
#[test]
fn answers_under_a_mask_come_uncompressed_and_say_so_when_they_cannot() {
    let bench = bench("http-codings");
    let ask = ["-i", "-H", "Accept-Encoding: gzip, deflate", &bench.url("/customers")];
    let direct = Command::new("curl").arg("-sS").args(ask).output().unwrap();
    assert!(String::from_utf8_lossy(&direct.stdout).contains("Content-Encoding: gzip"), "control");
    let masked = bench.curl(&ask);
    assert!(masked.out.contains("[EMAIL]") && !masked.out.contains("Content-Encoding"), "{masked:?}");

    let refused = bench.curl(&["-w", "|%{http_code}", &bench.url("/events")]);
    assert!(refused.out.ends_with("|502") && refused.out.contains("ask for a whole answer"), "{refused:?}");
    assert!(refused.out.contains("because of hide-identifiers"), "{refused:?}");
    let sql = "SELECT decision, status, reason FROM audit WHERE kind = 'outcome' AND path = '/events'";
    let rows = bench.agent.audited(sql).unwrap();
    assert_eq!((&rows[0]["decision"], &rows[0]["status"]), (&"denied".into(), &"502".into()), "{rows:?}");
    assert!(rows[0]["reason"].as_str().unwrap().contains("event streams"), "{rows:?}");
}

#[test]
fn request_bodies_leave_masked() {
    let bench = bench("http-request");
    let body = "{\"to\": \"ada@example.com\", \"text\": \"hello\"}";
    let sent = bench.curl(&["-w", "%{http_code}", "--json", body, &bench.url("/echo")]);
    assert!(sent.out.ends_with("200"), "{sent:?}");
    let seen = bench.seen("POST /echo");
    assert!(seen.contains("[EMAIL]") && seen.contains("hello"), "{seen}");
    assert!(!seen.contains("ada@example.com"), "{seen}");
}

#[test]
fn a_denied_path_is_answered_and_the_connection_lives_on() {
    let bench = bench("http-deny");
    let format = "|%{http_code} %{num_connects}|\n";
    let answers = bench.curl(&["-w", format, &bench.url("/admin/users"), &bench.url("/fine")]);
    let lines: Vec<&str> = answers.out.lines().collect();
    let (denial, figures) = lines[0].split_once('|').unwrap();
    assert_eq!(figures, "403 1|", "{answers:?}");
    let denial: serde_json::Value = serde_json::from_str(denial).unwrap();
    let error = &denial["error"];
    assert_eq!(error["type"], "weir_denied");
    assert_eq!(error["rule"], "no-admin");
    assert_eq!(error["message"], "the admin pages are for people");
    assert_eq!(lines[1], "{\"ok\": true}|200 0|", "the same connection: {answers:?}");
    let seen = bench.seen("GET /fine");
    assert!(!seen.contains("admin"), "{seen}");

    let sql = format!(
        "SELECT decision, rule, method, path, status, upstream_bytes FROM audit WHERE request_id = '{}' ORDER BY seq",
        error["id"].as_str().unwrap()
    );
    let rows = bench.agent.audited(&sql).unwrap();
    assert_eq!(rows[0]["decision"], "denied", "{rows:?}");
    assert_eq!((&rows[0]["rule"], &rows[0]["path"]), (&"no-admin".into(), &"/admin/users".into()));
    assert!(rows.iter().all(|row| row["upstream_bytes"] == 0), "{rows:?}");
}

/// What package registries and forges send passes as it came; what servers read in two ways is judged in both.
#[test]
fn encoded_slashes_pass_and_lead_round_no_rule() {
    let bench = bench_under("http-slashes", |port| {
        let every = "http: {method: [GET, HEAD, POST]}";
        let some =
            "http: {method: [GET], path: [\"/@scope*\", \"/api/v4/projects/*\", \"/x*\", \"/admin*\"]}";
        policies::web(port).replace(every, some)
    });
    let get = |path: &str| bench.curl(&["--path-as-is", "-w", "|%{http_code}", &bench.url(path)]).out;
    for path in ["/@scope%2fname", "/api/v4/projects/group%2Fproject?x=1", "/x/a%5Cb", "/x/a%252fb"] {
        assert_eq!(get(path), "{\"ok\": true}|200", "{path}");
        assert!(bench.seen(path).contains(&format!("GET {path} 200")));
    }
    let sql = "SELECT path FROM audit WHERE kind = 'outcome' AND path LIKE '%scope%'";
    assert_eq!(bench.agent.audited(sql).unwrap()[0]["path"], "/@scope%2fname");
    // One reading of this is outside what is allowed.
    assert!(get("/x/..%2fother").ends_with("|403"));

    let round = [
        "/x/..%2fadmin/y",
        "/x/%2e%2e%2Fadmin/y",
        "/admin%2fusers",
        "/x\\..\\admin/y",
        "/x/..%5cadmin%5cy",
        "/x/a%2fb\\..\\..\\admin/y",
        "/admin;v=1/users",
    ];
    for path in round {
        let answer = get(path);
        assert!(answer.ends_with("|403") && answer.contains("no-admin"), "{path}: {answer}");
    }
    get("/x/last");
    let seen = bench.seen("/x/last");
    assert!(!seen.contains("admin"), "{seen}");
    // Control: without weir the same paths arrive, and the server takes some of them for the admin pages.
    for path in round {
        let mut curl = Command::new("curl");
        let direct = done(curl.args(["-sS", "--path-as-is", &bench.url(path)]).output().unwrap()).unwrap();
        let page = if round[..3].contains(&path) { "{\"page\": \"admin\"}" } else { "{\"ok\": true}" };
        assert_eq!(direct.out, page, "{path}: {direct:?}");
    }
}

#[test]
fn a_secret_in_a_body_does_not_leave() {
    let bench = bench("http-secret");
    let form = [&bench.url("/echo"), "-w", "%{http_code}"];
    for secret in
        ["AKIAIOSFODNN7EXAMPLE", "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----"]
    {
        let body = format!("text={secret}");
        let sent = bench.curl(&[&["--data-binary", &body][..], &form].concat());
        assert!(sent.out.ends_with("403") && sent.out.contains("no-secrets-out"), "{sent:?}");
        assert!(!sent.out.contains(secret));
    }
    bench.curl(&["--data-binary", "text=plain", form[0]]);
    let seen = bench.seen("text=plain");
    assert!(!seen.contains("AKIA") && !seen.contains("PRIVATE"), "{seen}");
    assert!(!bench.agent.written().unwrap().contains("AKIAIOSFODNN7EXAMPLE"));
}

#[test]
fn a_request_is_held_until_somebody_approves_it() {
    let bench = bench("http-hold");
    let url = bench.url("/orders/7");
    let held = ["curl", "-sS", "--max-time", "60", "-d", "item=tea", &url];
    let curl = bench.agent.app(&held).unwrap().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = bench.agent.approve("/orders/7").unwrap();
    let answer = done(curl.wait_with_output().unwrap()).unwrap();
    assert_eq!(answer.out, "{\"ok\": true}", "{answer:?}");
    assert_eq!(bench.seen("POST /orders/7 200").matches("/orders").count(), 1);
    let sql = format!("SELECT approver FROM audit WHERE approval_id = '{id}' AND approver <> ''");
    assert_eq!(bench.agent.audited(&sql).unwrap()[0]["approver"], "ops@lab.test");
}

#[test]
fn http2_without_tls_is_refused_with_a_reason() {
    let bench = bench("http-h2");
    let answer = bench.curl(&["--http2-prior-knowledge", &bench.url("/h2")]);
    assert_ne!(answer.code, 0, "{answer:?}");
    let sql = "SELECT decision, reason FROM audit WHERE kind = 'connection' AND reason LIKE '%HTTP/2%'";
    let rows = bench.agent.audited(sql).unwrap();
    assert_eq!(rows[0]["decision"], "denied", "{rows:?}");
    // What the client is told, frame by frame, up to an orderly end.
    let frames = bench.agent.run(&["python3", "-c", HTTP2, &bench.web.port.to_string()]).unwrap();
    let lines: Vec<&str> = frames.out.lines().collect();
    assert_eq!(lines[0], "4 0 b''", "SETTINGS: {frames:?}");
    let required = "7 0 b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\rweir reads HTTP/1.1";
    assert!(lines[1].starts_with(required), "GOAWAY: {frames:?}");
    assert_eq!(lines[2..], ["end"], "{frames:?}");
    bench.curl(&[&bench.url("/after")]);
    assert!(!bench.seen("GET /after").contains("h2"));
}

/// Requests that two readers could take for different ones: each is answered 400, and none arrives.
#[test]
fn ambiguous_requests_are_refused() {
    let bench = bench("http-smuggle");
    let forms = [
        "POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd",
        "POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0x4\r\n\r\nabcd",
        "POST /smuggled HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /smuggled HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /smuggled HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST /smuggled HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "POST /smuggled HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /smuggled HTTP/1.1\r\nHost: x\r\nX: a\r\n folded: b\r\n\r\n",
        "GET /smuggled HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET /smuggled HTTP/1.1\r\nX: y\r\n\r\n",
        "GET /smuggled HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        "GET /smuggled HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
    ];
    let port = bench.web.port.to_string();
    let answers = bench.agent.run(&[&["python3", "-c", RAW, &port], &forms[..]].concat()).unwrap();
    let lines: Vec<&str> = answers.out.lines().collect();
    assert_eq!(lines.len(), forms.len(), "{answers:?}");
    for (form, line) in forms.iter().zip(lines) {
        assert_eq!(line, "HTTP/1.1 400 Bad Request", "{form:?}");
    }
    // Control: the same script, an unambiguous request.
    let good = "GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = bench.agent.run(&["python3", "-c", RAW, &port, good]).unwrap();
    assert_eq!(answer.out.trim(), "HTTP/1.1 200 OK", "{answer:?}");
    assert!(!bench.seen("GET /plain").contains("smuggled"));
    let rows =
        bench.agent.audit("SELECT reason FROM audit WHERE kind = 'verdict' AND rule = 'protocol'").unwrap();
    assert_eq!(rows.len(), forms.len(), "{rows:?}");
}

/// Opens like an HTTP/2 client and prints the type, stream and payload of each frame that comes.
const HTTP2: &str = r"
import socket, struct, sys
with socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=30) as s:
    s.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + bytes.fromhex('000000040000000000'))
    frames = s.makefile('rb')
    while head := frames.read(9):
        high, low, kind, flags, stream = struct.unpack('>BHBBI', head)
        print(kind, stream, frames.read(high << 16 | low))
    print('end')
";

/// Sends each argument on a connection of its own and prints the first line of the answer.
const RAW: &str = r"
import socket, sys
for request in sys.argv[2:]:
    with socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=30) as s:
        s.sendall(request.encode('latin-1'))
        answer = b''
        while chunk := s.recv(65536):
            answer += chunk
        print(answer.split(b'\r\n')[0].decode())
";
