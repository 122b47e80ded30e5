//! A leaf for exactly one name, minted once and kept; one key for all leaves of an agent's life, never the CA's.
//! It refuses more new names a second than one workload may cause, and to keep more leaves than the bound.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::authority::{Authority, BACKDATE, serial};
use crate::lane::counter::Counter;

/// The name a leaf is for: a DNS name (lower case, no trailing dot) or an address (v4-mapped v6 as v4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LeafName {
    Dns(String),
    Ip(IpAddr),
}

impl LeafName {
    /// Reads a host as SNI, `Host` or a person writes it. `None` for what is neither name nor address, wildcards included.
    #[must_use]
    pub fn parse(host: &str) -> Option<LeafName> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(LeafName::from(ip));
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        DnsName::try_from(name.as_str()).ok()?;
        Some(LeafName::Dns(name))
    }
}

impl From<IpAddr> for LeafName {
    fn from(ip: IpAddr) -> Self {
        LeafName::Ip(ip.to_canonical())
    }
}

impl std::fmt::Display for LeafName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LeafName::Dns(name) => out.write_str(name),
            LeafName::Ip(ip) => ip.fmt(out),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    #[error("workload {workload:?} asks for certificates of new names faster than {MINTS_A_SECOND} a second")]
    TooFast { workload: String },
    #[error("cannot sign a certificate: {0}")]
    Sign(String),
}

/// The leaves of one agent.
pub struct Leaves {
    issue: Issue,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    /// Held while a leaf is minted (about 40 µs): a hundred first requests for one name mint once.
    kept: Mutex<Kept>,
}

/// Who signs.
enum Issue {
    Here(Arc<Authority>),
    Keeper(Arc<Counter>),
}

#[derive(Default)]
struct Kept {
    leaves: HashMap<LeafName, Leaf>,
    /// Counts uses; the leaf with the lowest stamp is the longest unused.
    clock: u64,
    buckets: HashMap<String, Bucket>,
    minted: u64,
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    until: Instant,
    used: u64,
}

/// Tokens for mints of one workload.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Leaves").finish_non_exhaustive()
    }
}

impl Leaves {
    /// Makes the leaf key.
    ///
    /// # Errors
    /// The crypto library gives no key.
    pub fn new(authority: Arc<Authority>) -> Result<Leaves, LeafError> {
        Leaves::issued(Issue::Here(authority))
    }

    /// The same for a process that does not have the CA's key.
    ///
    /// # Errors
    /// The crypto library gives no key.
    pub fn signed_by_keeper(counter: Arc<Counter>) -> Result<Leaves, LeafError> {
        Leaves::issued(Issue::Keeper(counter))
    }

    fn issued(issue: Issue) -> Result<Leaves, LeafError> {
        let sign = |fault: &dyn std::fmt::Display| LeafError::Sign(fault.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|fault| sign(&fault))?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = super::provider().key_provider.load_private_key(der).map_err(|fault| sign(&fault))?;
        Ok(Leaves { issue, key, signing, kept: Mutex::default() })
    }

    /// The leaf of `name`: kept, or minted now at `workload`'s cost.
    ///
    /// # Errors
    /// The workload mints too fast, or signing fails.
    pub fn leaf(&self, name: &LeafName, workload: &str) -> Result<Arc<CertifiedKey>, LeafError> {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let clock = kept.clock;
        if let Some(leaf) = kept.leaves.get_mut(name).filter(|leaf| now < leaf.until) {
            leaf.used = clock;
            return Ok(Arc::clone(&leaf.certified));
        }
        kept.pay(workload, now)?;
        let certified = Arc::new(self.mint(name)?);
        kept.make_room(now);
        kept.minted += 1;
        let leaf = Leaf { certified: Arc::clone(&certified), until: now + KEEP, used: clock };
        kept.leaves.insert(name.clone(), leaf);
        Ok(certified)
    }

    /// How many leaves were minted since the start.
    #[must_use]
    pub fn minted(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).minted
    }

    fn mint(&self, name: &LeafName) -> Result<CertifiedKey, LeafError> {
        let certificate = match &self.issue {
            Issue::Here(authority) => authority.leaf(name, &self.key)?,
            Issue::Keeper(counter) => {
                let key = self.key.subject_public_key_info();
                CertificateDer::from(counter.leaf(name.to_string(), key).map_err(LeafError::Sign)?)
            }
        };
        Ok(CertifiedKey::new(vec![certificate], Arc::clone(&self.signing)))
    }
}

impl Authority {
    /// Signs a leaf for a name and a key. The key may be given by its SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn leaf(
        &self,
        name: &LeafName,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, LeafError> {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // A common name has at most 64 characters (RFC 5280, A.1); clients read the alternative name alone.
        let text = name.to_string();
        let common = if text.len() <= 64 { text } else { "weir leaf".into() };
        params.distinguished_name.push(DnType::CommonName, common);
        params.serial_number = Some(serial());
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + VALIDITY).min(self.facts().not_after).into();
        params.subject_alt_names = vec![match name {
            LeafName::Dns(name) => {
                SanType::DnsName(name.as_str().try_into().map_err(|fault: rcgen::Error| sign(&fault))?)
            }
            LeafName::Ip(ip) => SanType::IpAddress(*ip),
        }];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, self.issuer()).map_err(|fault| sign(&fault))?;
        Ok(leaf.der().clone())
    }

    /// The same for a key in DER (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// It is no key, or it cannot be signed.
    pub fn leaf_for(&self, name: &LeafName, key: &[u8]) -> Result<CertificateDer<'static>, LeafError> {
        let key = SubjectPublicKeyInfo::from_der(key).map_err(|fault| sign(&fault))?;
        self.leaf(name, &key)
    }
}

fn sign(fault: &rcgen::Error) -> LeafError {
    LeafError::Sign(fault.to_string())
}

impl Kept {
    /// Takes one token of the workload's bucket. Each workload has its own: a flood of one does not stop another.
    fn pay(&mut self, workload: &str, now: Instant) -> Result<(), LeafError> {
        if !self.buckets.contains_key(workload) {
            self.buckets.insert(workload.to_owned(), Bucket { tokens: MINTS_AT_ONCE, at: now });
        }
        let too_fast = || LeafError::TooFast { workload: workload.to_owned() };
        let bucket = self.buckets.get_mut(workload).ok_or_else(too_fast)?;
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * MINTS_A_SECOND;
        bucket.tokens = (bucket.tokens + gained).min(MINTS_AT_ONCE);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(too_fast());
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// A scan of the whole map is cheap enough at the pace that the buckets allow.
    fn make_room(&mut self, now: Instant) {
        if self.leaves.len() < LEAVES {
            return;
        }
        self.leaves.retain(|_, leaf| now < leaf.until);
        if self.leaves.len() >= LEAVES {
            let oldest = self.leaves.iter().min_by_key(|(_, leaf)| leaf.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.leaves.remove(&name));
        }
    }
}

/// Leaves kept; at about 2 KB each, 8 MB.
pub(super) const LEAVES: usize = 4_096;
/// Mints that one workload may cause at once, and then each second: 200 × 40 µs is 1 % of a core.
pub(super) const MINTS_AT_ONCE: f64 = 500.0;
const MINTS_A_SECOND: f64 = 200.0;
/// Seven days: no client refuses it, and a leaf that leaks is soon worthless.
const VALIDITY: Duration = Duration::from_secs(7 * 86_400 - 3_600);
/// A leaf is replaced at half of its validity.
const KEEP: Duration = Duration::from_secs(7 * 86_400 / 2);
