//! The way to ClickHouse: one client with the settings that make an insert happen once.
//! It refuses addresses it cannot reach safely, and never prints the password.

use std::time::Duration;

use clickhouse::Client;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::ShipError;
use crate::config::ClickHouse;

/// A client for `config`, without a database chosen when `database` is false (to make one).
///
/// # Errors
/// An address or database name that cannot be used; an unreadable password file.
pub(crate) fn connect(config: &ClickHouse, database: bool) -> Result<Client, ShipError> {
    let name = &config.database;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(ShipError::Database(name.clone()));
    }
    let mut connector = HttpConnector::new();
    // Without it each small insert waits 40 ms for a delayed acknowledgement.
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_connect_timeout(Some(CONNECT));
    connector.enforce_http(false);
    let mut http = Http::builder(TokioExecutor::new());
    http.pool_idle_timeout(IDLE).pool_timer(TokioTimer::new());
    let client = if config.url.starts_with("https://") {
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|fault| ShipError::Roots(fault.to_string()))?
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        Client::with_http_client(http.build(tls))
    } else {
        Client::with_http_client(http.build(connector))
    };
    let mut client = client.with_url(&config.url).with_user(&config.user);
    if let Some(path) = &config.password_file {
        let password = std::fs::read_to_string(path)
            .map_err(|source| ShipError::Password { path: path.clone(), source })?;
        client = client.with_password(password.trim_end_matches(['\r', '\n']));
    }
    Ok(if database { client.with_database(name) } else { client })
}

/// Whether trying again can help without anybody changing something. Codes are ClickHouse's error codes.
pub(super) fn permanent(fault: &clickhouse::error::Error) -> bool {
    use clickhouse::error::Error;
    match fault {
        Error::BadResponse(message) => code(message).is_some_and(|code| PERMANENT.contains(&code)),
        Error::SchemaMismatch(_)
        | Error::InvalidParams(_)
        | Error::Unsupported(_)
        | Error::InvalidColumnsHeader(_) => true,
        _ => false,
    }
}

fn code(message: &str) -> Option<u32> {
    message.split_once("Code: ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Unknown column, table, database, setting; type mismatch; bad data; authentication; access; not enough privileges.
const PERMANENT: [u32; 12] = [16, 27, 33, 53, 60, 81, 115, 117, 192, 193, 497, 516];
const KEEPALIVE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);
/// Below the three seconds after which a server closes an idle connection.
const IDLE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_apart() {
        let bad = |text: &str| clickhouse::error::Error::BadResponse(text.into());
        assert!(permanent(&bad("Code: 516. DB::Exception: Authentication failed")));
        assert!(permanent(&bad("Code: 60. DB::Exception: Table weir.audit does not exist")));
        assert!(!permanent(&bad("Code: 252. DB::Exception: Too many parts")));
        assert!(!permanent(&bad("502 Bad Gateway")));
        assert!(!permanent(&clickhouse::error::Error::TimedOut));
    }

    #[test]
    fn a_database_name_is_a_name() {
        let config = ClickHouse {
            url: "http://127.0.0.1:1".into(),
            database: "weir; DROP".into(),
            user: "u".into(),
            password_file: None,
        };
        assert!(matches!(connect(&config, true), Err(ShipError::Database(_))));
    }
}
