//! Tests on an HTTP request line and a status.
//! It refuses to believe a Host field: it admits only where the server has proved that name.

use alloc::string::String;

use super::super::glob::PathGlob;
use super::super::host::Host;
use super::Truth;
use crate::action::{Action, Request};
use crate::destination::{Destination, Evidence};

pub(super) fn method(methods: &[String], request: Option<&Request<'_>>) -> Truth {
    Truth::of(request.is_some_and(|request| methods.iter().any(|method| method == request.method)))
}

pub(super) fn path(paths: &[PathGlob], request: Option<&Request<'_>>) -> Truth {
    let Some(request) = request else { return Truth::No };
    let matches = |reading: &str| paths.iter().any(|path| path.matches(reading));
    let first = matches(request.path);
    match request.other_paths.iter().all(|other| matches(other) == first) {
        true => Truth::of(first),
        // Which way the server reads it is not known.
        false => Truth::Unknown,
    }
}

pub(super) fn host(hosts: &[Host], request: Option<&Request<'_>>, destination: &Destination) -> Truth {
    let Some(request) = request else { return Truth::No };
    let asked = request.host.to_ascii_lowercase();
    if !hosts.iter().any(|host| host.is_name(&asked)) {
        return Truth::No;
    }
    let proved = destination.names().iter().any(|name| {
        name.host == asked
            && match name.evidence {
                Evidence::Claimed => false,
                Evidence::LookedUp | Evidence::Certificate => true,
            }
    });
    let literal =
        asked.parse::<core::net::IpAddr>().is_ok_and(|address| address.to_canonical() == destination.ip());
    if proved || literal { Truth::Yes } else { Truth::Unknown }
}

pub(super) fn status(ranges: &[(u16, u16)], action: &Action<'_>) -> Truth {
    match action {
        Action::Response(response) => {
            Truth::of(ranges.iter().any(|(from, to)| (*from..=*to).contains(&response.status)))
        }
        Action::Connect | Action::Sql(_) | Action::Http(_) => Truth::No,
    }
}
