//! ClickHouse's HTTP interface: what a request asks of the engine, and the answer.
//! It refuses query parameters and sessions (not built).

use crate::engine::{Engine, Link};
use crate::frames;
use crate::http::{Reply, Request};

/// Answers one request.
pub fn answer(engine: &Engine, request: &Request, password: Option<&str>) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if path == "/ping" {
        return Reply { status: 200, fields: Vec::new(), body: b"Ok.\n".to_vec() };
    }
    let parameters: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect();
    match run(engine, request, &parameters, password) {
        Ok(body) => {
            let fields = vec![("X-ClickHouse-Summary", "{}".into()), ("Content-Type", "text/plain".into())];
            Reply { status: 200, fields, body }
        }
        Err(message) => refuse(&message),
    }
}

fn run(
    engine: &Engine,
    request: &Request,
    parameters: &[(String, String)],
    password: Option<&str>,
) -> Result<Vec<u8>, String> {
    let parameter =
        |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if let Some(password) = password
        && request.field("x-clickhouse-key").or(parameter("password")) != Some(password)
    {
        return Err("Code: 516. DB::Exception: Authentication failed: password is incorrect".into());
    }
    let multipart =
        request.field("content-type").is_some_and(|value| value.starts_with("multipart/form-data"));
    if multipart || parameters.iter().any(|(name, _)| name.starts_with("param_") || name == "session_id") {
        return Err("Code: 48. DB::Exception: parameters and sessions are not built in this front".into());
    }
    let body = match parameter("decompress") {
        Some("1") => frames::unpack(&request.body).map_err(|fault| format!("Code: 271. {fault}"))?,
        Some(_) | None => request.body.clone(),
    };
    let link = engine.connect().map_err(|fault| format!("Code: 1000. {fault}"))?;
    settle(&link, request, parameters)?;
    let format =
        parameter("default_format").or(request.field("x-clickhouse-format")).unwrap_or("TabSeparated");
    match parameter("query") {
        Some(sql) if is_insert(sql) && !body.is_empty() => {
            let (sql, format) = split_format(sql);
            link.insert(sql, format, &body).map(|()| Vec::new())
        }
        Some(sql) => link.query(&[sql.as_bytes(), b"\n", &body].concat(), format),
        None => link.query(&body, format),
    }
}

/// Applies database and settings to the fresh connection.
fn settle(link: &Link<'_>, request: &Request, parameters: &[(String, String)]) -> Result<(), String> {
    let mut database = request.field("x-clickhouse-database");
    for (name, value) in parameters {
        match name.as_str() {
            "database" => database = Some(value),
            "query"
            | "user"
            | "password"
            | "decompress"
            | "compress"
            | "default_format"
            | "query_id"
            | "role"
            | "buffer_size"
            | "wait_end_of_query"
            | "enable_http_compression" => {}
            name if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                return Err("Code: 115. DB::Exception: Unknown setting".into());
            }
            name => {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                link.query(format!("SET {name} = '{value}'").as_bytes(), "Null")?;
            }
        }
    }
    if let Some(database) = database {
        link.query(format!("USE `{}`", database.replace('`', "\\`")).as_bytes(), "Null")?;
    }
    if request.method == "GET" {
        link.query(b"SET readonly = 2", "Null")?;
    }
    Ok(())
}

fn is_insert(sql: &str) -> bool {
    sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("insert"))
}

/// `INSERT … FORMAT X` → the statement without the clause, and X.
fn split_format(sql: &str) -> (&str, &str) {
    let trimmed = sql.trim_end().trim_end_matches(';');
    let words = trimmed.rsplit_once(char::is_whitespace);
    if let Some((rest, format)) = words
        && let Some(at) = rest.trim_end().len().checked_sub(6)
        && rest.get(at..).is_some_and(|word| word.trim_end().eq_ignore_ascii_case("format"))
    {
        return (rest.get(..at).unwrap_or_default(), format);
    }
    (trimmed, "Values")
}

fn refuse(message: &str) -> Reply {
    let code: u32 = message
        .split_once("Code: ")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or(1000);
    let status = match code {
        516 => 403,
        60 | 81 => 404,
        _ => 500,
    };
    let fields = vec![("X-ClickHouse-Exception-Code", code.to_string())];
    Reply { status, fields, body: format!("{}\n", message.trim_end()).into_bytes() }
}

/// `application/x-www-form-urlencoded`.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, next)) = rest.split_first() {
        rest = next;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = next.first_chunk::<2>().and_then(|pair| std::str::from_utf8(pair).ok());
                match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
                    Some(byte) => {
                        bytes.push(byte);
                        rest = next.get(2..).unwrap_or_default();
                    }
                    None => bytes.push(b'%'),
                }
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
