//! What a session may ask of this machine, for one connection: ledger, secrets, SQL grammar, policy, and the upstream leg.
//! It refuses to dial anything but the recorded address, and to hand out a secret before the session has a verdict.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::futures::OwnedNotified;
use weir_core::action::Protocol;
use weir_core::approval::{Answer, Question};
use weir_core::audit::{Receipt, Record};
use weir_core::destination::{Destination, Evidence};
use weir_core::mask;
use weir_core::policy::{Policy, SecretName, TargetTls};
use weir_core::session::{Appended, Host, Login, Now};
use weir_core::sql::{Catalog, CatalogKey, Grammar};
use weir_sql::PgGrammar;
use zeroize::Zeroizing;

use super::connection::{Connection, Revoked};
use super::process::Thread;
use super::surroundings::{Dialling, LoggingIn, Surroundings};
use crate::clock;
use crate::credential::{self, postgres_login};
use crate::desk::Requester;
use crate::lane::counter::KeptPassword;
use crate::lane::message::ToKeeper;
use crate::ledger::{Appending, Pending};
use crate::upstream::{Meter, Metered, PostgresLeg, Purpose, Wire, postgres_leg};

/// How the upstream leg is secured when the session first has something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leg {
    Plain,
    Postgres { tls: TargetTls, asked: bool, login: bool },
}

/// See the module.
pub(crate) struct Rim {
    thread: Arc<Thread>,
    grammar: Rc<PgGrammar>,
    leg: Leg,
    route: Route,
    requester: Requester,
    protocol: Protocol,
    pending: Option<Pending>,
    question: Option<(Question, Asking)>,
    /// The next change of policy, for what passes unread.
    swapped: Option<Pin<Box<OwnedNotified>>>,
    /// `None` once it has spoken.
    revoked: Option<Revoked>,
    /// Why somebody ended the connection.
    pub(crate) ended_for: Option<String>,
    /// Why the server could not be reached, for the closing record.
    pub(crate) fault: Rc<RefCell<Option<String>>>,
}

/// A human's answer on its way.
type Asking = Pin<Box<dyn Future<Output = Option<Answer>>>>;

/// Everything a dial needs, owned, so that the dial can run beside the session.
#[derive(Clone)]
pub(crate) struct Route {
    thread: Arc<Thread>,
    session: u64,
    /// What the server's certificate must prove: the best name that is known and not only claimed, else the address.
    name: String,
    meter: Meter,
}

impl Rim {
    pub(crate) fn new(connection: &Connection, protocol: Protocol, leg: Leg, revoked: Revoked) -> Rim {
        let identity = &connection.identity;
        Rim {
            thread: Arc::clone(&connection.thread),
            grammar: Rc::clone(&connection.grammar),
            leg,
            route: Route::of(connection),
            requester: Requester {
                workload: identity.workload.clone(),
                user: identity.user.clone(),
                owner: identity.owner.clone(),
                exe: identity.process.exe.clone(),
                pid: identity.process.pid,
                destination: connection.destination.address().to_string(),
            },
            protocol,
            pending: None,
            question: None,
            swapped: (protocol == Protocol::Opaque).then(|| Box::pin(connection.relay().next_policy())),
            revoked: Some(revoked),
            ended_for: None,
            fault: Rc::default(),
        }
    }
}

impl Route {
    pub(crate) fn of(connection: &Connection) -> Route {
        let destination = &connection.destination;
        Route {
            thread: Arc::clone(&connection.thread),
            session: connection.session,
            name: proved_name(destination).map_or_else(|| destination.ip().to_string(), str::to_owned),
            meter: connection.meter.clone(),
        }
    }

    /// Has the keeper dial the recorded address.
    pub(crate) async fn dial(&self) -> io::Result<Metered> {
        Ok(Metered::new(self.thread.link.dial(self.session).await?, &self.meter))
    }

    async fn postgres(&self, tls: &TargetTls, purpose: Purpose) -> io::Result<PostgresLeg> {
        let stream = self.dial().await?;
        postgres_leg(&self.thread.relay.connector, stream, &self.name, tls, purpose)
            .await
            .map_err(io::Error::other)
    }
}

/// The best name that is more than the workload's word: a certificate for a name of its choice would prove nothing.
fn proved_name(destination: &Destination) -> Option<&str> {
    let names = destination.names().iter().filter(|name| name.evidence > Evidence::Claimed);
    names.max_by_key(|name| name.evidence).map(|name| name.host.as_str())
}

/// No question outlives the connection that asked it, however that ended.
impl Drop for Rim {
    fn drop(&mut self) {
        Surroundings::withdraw(self);
    }
}

impl Host for Rim {
    fn append(&mut self, record: &Record) -> Appended {
        match self.thread.relay.ledger.append(record) {
            Appending::Done(receipt) => Appended::Done(receipt),
            Appending::Waiting(pending) => {
                self.pending = Some(pending);
                Appended::Waiting
            }
            Appending::Refused(why) => Appended::Refused(why),
        }
    }

    fn secret(&mut self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, String> {
        self.thread.relay.secret(name)
    }

    fn grammar(&self) -> &dyn Grammar {
        &*self.grammar
    }

    fn policy(&self) -> Arc<Policy> {
        self.thread.relay.policy.load_full()
    }

    fn mask_key(&self) -> &mask::Key {
        &self.thread.relay.mask_key
    }

    fn known_catalog(&self, key: &CatalogKey) -> Option<Arc<Catalog>> {
        self.thread.relay.catalogs.get(key)
    }

    fn share_catalog(&mut self, key: CatalogKey, catalog: &Arc<Catalog>) {
        self.thread.relay.catalogs.keep(key, catalog);
    }
}

impl Surroundings for Rim {
    type Server = Wire;

    fn now(&self) -> Now {
        clock::now()
    }

    fn dial(&mut self) -> Dialling<Wire> {
        let (route, leg, fault) = (self.route.clone(), self.leg.clone(), Rc::clone(&self.fault));
        Box::pin(async move {
            let dialled = match leg {
                Leg::Plain => route.dial().await.map(Wire::from),
                Leg::Postgres { tls, asked, .. } => {
                    let purpose = Purpose::Relay { client_asked: asked };
                    route.postgres(&tls, purpose).await.map(|leg| match leg {
                        PostgresLeg::Plain(wire) => wire,
                        PostgresLeg::Tls(secured) => secured.wire,
                    })
                }
            };
            dialled.inspect_err(|why| *fault.borrow_mut() = Some(why.to_string()))
        })
    }

    fn login(&mut self, login: Login) -> LoggingIn<Wire> {
        let (route, leg, fault) = (self.route.clone(), self.leg.clone(), Rc::clone(&self.fault));
        Box::pin(async move {
            let logged_in = async {
                let Leg::Postgres { tls, .. } = &leg else {
                    return Err(io::Error::other("a login is for PostgreSQL only"));
                };
                let (mut wire, certificate) = match route.postgres(tls, Purpose::Login).await? {
                    PostgresLeg::Plain(wire) => (wire, None),
                    PostgresLeg::Tls(secured) => (secured.wire, Some(secured.certificate)),
                };
                let parameters: Vec<(&str, &str)> =
                    login.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let password = KeptPassword { counter: &route.thread.relay.counter, name: &login.password };
                let login = credential::Login {
                    user: &login.user,
                    password: &password,
                    parameters: &parameters,
                    certificate: certificate.as_deref(),
                };
                let greeting = postgres_login(&mut wire, &login).await.map_err(io::Error::other)?;
                Ok((wire, greeting))
            };
            logged_in.await.inspect_err(|why| *fault.borrow_mut() = Some(why.to_string()))
        })
    }

    fn is_writing(&self) -> bool {
        self.pending.is_some()
    }

    fn poll_recorded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receipt, String>> {
        let Some(pending) = &mut self.pending else { return Poll::Pending };
        let recorded = std::task::ready!(Pin::new(pending).poll(cx));
        self.pending = None;
        Poll::Ready(recorded)
    }

    fn poll_policy(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(swapped) = &mut self.swapped else { return Poll::Pending };
        std::task::ready!(swapped.as_mut().poll(cx));
        *swapped = Box::pin(self.thread.relay.next_policy());
        Poll::Ready(())
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(revoked) = &mut self.revoked else { return Poll::Pending };
        let spoken = std::task::ready!(Pin::new(revoked).poll(cx));
        self.revoked = None;
        match spoken {
            Ok(reason) => {
                self.ended_for = Some(reason);
                Poll::Ready(())
            }
            // Nobody is left who could end it.
            Err(_) => Poll::Pending,
        }
    }

    fn ask(&mut self, question: Question) {
        tracing::info!(id = question.id, rule = %question.rule, protocol = self.protocol.name(), "An act waits for approval.");
        let answer = self.thread.link.ask(question.clone(), self.requester.clone());
        self.question = Some((question, Box::pin(answer)));
    }

    fn withdraw(&mut self) {
        if let Some((question, _)) = self.question.take() {
            self.thread.link.tell(&ToKeeper::Withdraw { question: question.id });
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let Some((question, answer)) = &mut self.question else { return Poll::Pending };
        let answer = match std::task::ready!(answer.as_mut().poll(cx)) {
            Some(answer) => answer,
            // Nobody can say yes any more.
            None => Answer {
                id: question.id.clone(),
                digest: question.digest,
                granted: false,
                approver: String::new(),
                reason: "the question was withdrawn".into(),
            },
        };
        self.question = None;
        Poll::Ready(answer)
    }
}
