//! A private nginx: plain HTTP and HTTPS on free ports, a few fixed answers, an access log as outside witness.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::lab::Lab;
use crate::process::{Server, free_port, until};

/// A running web server.
#[derive(Debug)]
pub struct Web {
    _server: Server,
    pub port: u16,
    pub tls_port: u16,
    /// One line a request: method, path, status and the Authorization header it came with.
    pub log: PathBuf,
    /// CA that signed its certificate for `localhost` and 127.0.0.1.
    pub ca: PathBuf,
}

impl Web {
    /// # Errors
    /// nginx is not installed or does not come up.
    pub fn start(lab: &Lab) -> anyhow::Result<Web> {
        let home = lab.dir().join("web");
        Self::start_with(lab, &Certificate::make(&home, &["localhost", "api.lab.test", "127.0.0.1"])?)
    }

    /// The same with a certificate of the caller's.
    ///
    /// # Errors
    /// As [`Web::start`].
    pub fn start_with(lab: &Lab, certificate: &Certificate) -> anyhow::Result<Web> {
        let home = lab.dir().join("web");
        fs::create_dir_all(home.join("temp"))?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let configuration = CONFIGURATION
            .replace("@home@", &home.display().to_string())
            .replace("@certificate@", &certificate.certificate.display().to_string())
            .replace("@key@", &certificate.key.display().to_string())
            .replace("@port@", &port.to_string())
            .replace("@tls_port@", &tls_port.to_string());
        fs::write(home.join("nginx.conf"), configuration)?;
        fs::write(home.join("kilobyte"), "x".repeat(1024))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&home).arg("-c").arg(home.join("nginx.conf")).args(["-g", "daemon off;"]);
        let mut server = Server::start(&mut command, &home.join("output"))?;
        until("nginx answers", || {
            !server.runs() || std::net::TcpStream::connect(("127.0.0.1", tls_port)).is_ok()
        })?;
        if !server.runs() {
            bail!("nginx did not start: {}", fs::read_to_string(home.join("output"))?);
        }
        Ok(Web { _server: server, port, tls_port, log: home.join("access"), ca: certificate.ca.clone() })
    }

    /// What the server saw: the outside witness of what really reached it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn seen(&self) -> anyhow::Result<String> {
        fs::read_to_string(&self.log).context("nginx wrote no access log")
    }
}

/// A server certificate signed by a CA made for it, as PEM files.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// Names that parse as addresses become IP SANs.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn make(folder: &Path, names: &[&str]) -> anyhow::Result<Certificate> {
        fs::create_dir_all(folder)?;
        let files = Certificate {
            ca: folder.join("ca.pem"),
            certificate: folder.join("server.pem"),
            key: folder.join("server-key.pem"),
        };
        let ca_key = folder.join("ca-key.pem");
        let alternatives: Vec<String> = names
            .iter()
            .map(|name| match name.parse::<std::net::IpAddr>() {
                Ok(_) => format!("IP:{name}"),
                Err(_) => format!("DNS:{name}"),
            })
            .collect();
        let mut ca =
            openssl(&["-subj", "/CN=weir lab CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        ca.arg("-keyout").arg(&ca_key).arg("-out").arg(&files.ca);
        run(&mut ca)?;
        let names = format!("subjectAltName={}", alternatives.join(","));
        let mut leaf = openssl(&[
            "-subj",
            "/CN=lab server",
            "-addext",
            &names,
            "-addext",
            "extendedKeyUsage=serverAuth",
        ]);
        leaf.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        leaf.arg("-keyout").arg(&files.key).arg("-out").arg(&files.certificate);
        leaf.arg("-CA").arg(&files.ca).arg("-CAkey").arg(&ca_key);
        run(&mut leaf)?;
        Ok(files)
    }
}

/// `openssl req -x509`: a P-256 key and a certificate in one step (openssl-req(1), version 3).
fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
    ]);
    command.args(arguments);
    command
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().context("cannot start openssl: run `cargo xtask setup`")?;
    if !output.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

const CONFIGURATION: &str = r#"
worker_processes 1;
pid @home@/pid;
error_log @home@/error;
events { worker_connections 4096; }
http {
    client_body_temp_path @home@/temp; proxy_temp_path @home@/temp; fastcgi_temp_path @home@/temp;
    uwsgi_temp_path @home@/temp; scgi_temp_path @home@/temp;
    log_format witness '$request_method $request_uri $status auth="$http_authorization" body=$request_body';
    access_log @home@/access witness;
    client_max_body_size 64m;
    keepalive_requests 1000000;
    gzip on; gzip_types application/json text/plain; gzip_min_length 1; gzip_proxied any;
    server {
        listen 127.0.0.1:@port@ backlog=4096; listen [::1]:@port@;
        listen 127.0.0.1:@tls_port@ ssl; listen [::1]:@tls_port@ ssl;
        ssl_certificate @certificate@; ssl_certificate_key @key@;
        default_type application/json;
        location = /kilobyte { root @home@; default_type text/plain; }
        location = /searched { alias @home@/kilobyte; default_type text/plain; }
        location = /customers {
            return 200 '{"id": 1, "name": "Ada Lovelace", "email": "ada@example.com", "ssn": "219-45-6789", "card": "4111 1111 1111 1111"}';
        }
        location = /text { default_type text/plain; return 200 'write to ada@example.com'; }
        location = /events { default_type text/event-stream; return 200 'data: ada@example.com\n\n'; }
        location = /whoami { return 200 '{"authorization": "$http_authorization"}'; }
        location = /echo { proxy_pass http://127.0.0.1:@port@/sink; proxy_pass_request_headers on; }
        location = /sink { return 200 '{"got": "$request_length"}'; }
        location /admin/ { return 200 '{"page": "admin"}'; }
        location / { return 200 '{"ok": true}'; }
    }
}
"#;
