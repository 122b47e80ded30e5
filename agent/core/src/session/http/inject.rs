//! Credentials that the workload never sees: asked for after the verdict and its record, put in at the last moment.
//! It refuses a secret that is no header value; an error names the header, never the value.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::edit::Credential;
use crate::policy::Inject;
use crate::session::Host;

/// The headers to put in.
pub(super) fn credentials(injects: &[Arc<Inject>], host: &mut dyn Host) -> Result<Vec<Credential>, String> {
    let mut credentials = Vec::with_capacity(injects.len());
    for inject in injects {
        match &**inject {
            Inject::Header { name, prefix, secret } => {
                let bytes = host.secret(secret)?;
                let mut value = Zeroizing::new(Vec::with_capacity(prefix.len() + bytes.len()));
                value.extend_from_slice(prefix.as_bytes());
                value.extend_from_slice(&bytes);
                if bytes.is_empty() || !is_value(&value) || !is_name(name) {
                    return Err(format!("the credential for header {name} is not a header value"));
                }
                credentials.push(Credential { name: name.clone(), value });
            }
            Inject::Login { .. } => return Err(String::from("a database login cannot be put into HTTP")),
        }
    }
    Ok(credentials)
}

fn is_value(value: &[u8]) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| !matches!(byte, b' ' | b'\t'));
    value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..))
        && edge(value.first())
        && edge(value.last())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
