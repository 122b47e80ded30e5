//! The agent's own look-ups: which of the policies' host names belong to an address right now.
//! It refuses to believe the workload: only these answers and certificates prove a name.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;

/// Age after which every name is looked up again.
pub const REFRESH: Duration = Duration::from_secs(30);
/// A look-up that takes longer than this counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Address → names, as the last round of look-ups found them.
#[derive(Debug, Default)]
pub struct Names {
    by_address: ArcSwap<HashMap<IpAddr, Vec<Arc<str>>>>,
}

impl Names {
    /// The names whose look-up returned this address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Vec<Arc<str>> {
        self.by_address.load().get(&address).cloned().unwrap_or_default()
    }

    /// Looks every name up. A name that cannot be resolved keeps nothing: it proves no address until it resolves again.
    pub async fn refresh(&self, names: impl IntoIterator<Item = String>) {
        let mut by_address: HashMap<IpAddr, Vec<Arc<str>>> = HashMap::new();
        // Side by side: names that do not resolve must not hold up those that do.
        let mut asked: JoinSet<_> =
            names.into_iter().collect::<HashSet<_>>().into_iter().map(look_up).collect();
        while let Some(answered) = asked.join_next().await {
            let Ok((name, addresses)) = answered else { continue };
            let Some(addresses) = addresses else {
                tracing::warn!(name, "Host name of a policy does not resolve.");
                continue;
            };
            let name: Arc<str> = name.as_str().into();
            for address in addresses {
                by_address.entry(address).or_default().push(Arc::clone(&name));
            }
        }
        self.by_address.store(Arc::new(by_address));
    }
}

async fn look_up(name: String) -> (String, Option<HashSet<IpAddr>>) {
    let addresses = async {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await.ok()?;
        Some(found.map(|address| address.ip().to_canonical()).collect())
    };
    let addresses = tokio::time::timeout(PATIENCE, addresses).await.ok().flatten();
    (name, addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_proves_the_addresses_it_resolves_to() {
        let names = Names::default();
        names.refresh(["localhost".to_owned(), "no-such-name.invalid".to_owned()]).await;
        let found = names.of("127.0.0.1".parse().unwrap());
        assert_eq!(found.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["localhost"]);
        assert!(names.of("192.0.2.1".parse().unwrap()).is_empty());
    }
}
