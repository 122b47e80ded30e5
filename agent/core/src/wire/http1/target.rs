//! Request targets (RFC 9112 section 3.2) and authorities.
//! It refuses hosts and targets that two parsers could read differently.

use core::net::IpAddr;

use super::Violation;

/// What a request is aimed at, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    Origin {
        path: &'a str,
        query: &'a str,
    },
    /// `http://host/path`; `secure` for `https`.
    Absolute {
        authority: Authority<'a>,
        path: &'a str,
        query: &'a str,
        secure: bool,
    },
    /// `*`, for OPTIONS only.
    Asterisk,
    /// `host:port`, for CONNECT only.
    Tunnel,
}

impl<'a> Target<'a> {
    pub(super) fn parse(method: &str, target: &'a [u8]) -> Result<Self, Violation> {
        let text = core::str::from_utf8(target).map_err(|_| Violation::Target)?;
        if method == "CONNECT" {
            return Ok(Target::Tunnel);
        }
        if text == "*" {
            return if method == "OPTIONS" { Ok(Target::Asterisk) } else { Err(Violation::TargetForm) };
        }
        // A fragment is never sent (RFC 9110 section 7.1); servers disagree about what to do with one.
        if text.contains('#') {
            return Err(Violation::Target);
        }
        if text.starts_with('/') {
            let (path, query) = text.split_once('?').unwrap_or((text, ""));
            return Ok(Target::Origin { path, query });
        }
        let (scheme, rest) = text.split_once("://").ok_or(Violation::Target)?;
        let secure = match scheme {
            scheme if scheme.eq_ignore_ascii_case("http") => false,
            scheme if scheme.eq_ignore_ascii_case("https") => true,
            _ => return Err(Violation::Target),
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(at).ok_or(Violation::Target)?;
        let authority = Authority::parse(authority.as_bytes()).ok_or(Violation::Target)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = if path.is_empty() { "/" } else { path };
        Ok(Target::Absolute { authority, path, query, secure })
    }

    /// Path and query as sent.
    #[must_use]
    pub fn parts(&self) -> (&'a str, &'a str) {
        match *self {
            Target::Origin { path, query } | Target::Absolute { path, query, .. } => (path, query),
            Target::Asterisk => ("*", ""),
            Target::Tunnel => ("", ""),
        }
    }
}

/// A host with an optional port. User names and percent-encoding are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    host: &'a str,
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// `None`: not a host this parser reads exactly like every server.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let text = core::str::from_utf8(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<core::net::Ipv6Addr>().ok()?;
                (host, after.strip_prefix(':').or(after.is_empty().then_some("")))
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("")),
            },
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || host.len() > 255 || !host.bytes().all(plain) {
            return None;
        }
        let port = match port? {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// The host without port, brackets or trailing dot; case as sent.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.host.strip_suffix('.').unwrap_or(self.host)
    }

    /// The address, where the host is a literal one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    pub(super) fn same(&self, other: &Authority<'_>) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port == other.port
    }
}
