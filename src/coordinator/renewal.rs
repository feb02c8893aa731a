//! Renews the certificates of agents, in the background, over the connections that the coordinator has to them.
//!
//!  1. A certificate is due between half and two thirds of its life; the host's address decides when, so that a fleet
//!     that was enrolled on one day is not renewed in one minute.
//!  2. The agent makes the key and keeps it. Whatever is lost on the way costs a try: the old certificate is good until
//!     its agent is seen with the new one.
//!  3. One that was signed and did not arrive is followed by the next only after a while, so that a host which takes
//!     none does not fill the store.
//!  4. A host that cannot be renewed is tried again, told once for each reason, and seen in the metrics. One whose agent
//!     does not answer is tried ever more rarely, so that hosts that are gone for good hold up no others.

use super::{
    agents::{AgentAddress, AgentPool, CallError},
    enrolment::{Enrolment, EnrolmentError},
    quiet::QuietHosts,
    store::{
        StoreError,
        agent::certificates::{self as certificates, AgentCertificate, CertificateStatus},
        now_micros,
    },
};
use crate::telemetry::chain;
use futures_util::{StreamExt as _, stream};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

const AT_A_TIME: usize = 8;
const ROUNDS_IN_A_LIFE: u32 = 40;
const LONGEST_ROUND: Duration = Duration::from_secs(600);
const SHORTEST_ROUND: Duration = Duration::from_secs(1);
/// Part of the life for which a silent agent is left alone at most: some three tries are left before it runs out.
const LONGEST_REST: u32 = 10;
const LONGEST_REST_EVER: Duration = Duration::from_secs(3600);
/// Part of the life for which a certificate that was sent is waited for: a day of a year.
const PATIENCE: u32 = 365;
const EXPIRY: &str = "oblet_agent_certificate_expiry_timestamp_seconds";

/// What is seen of certificates from outside.
#[derive(Clone)]
pub struct CertificateMetrics {
    expiry: IntGaugeVec,
    renewals: IntCounterVec,
}

impl CertificateMetrics {
    /// Fails if the registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "When the certificate of the host's agent expires, in seconds since 1970.";
        let metrics = Self {
            expiry: IntGaugeVec::new(Opts::new(EXPIRY, help), &["host"])?,
            renewals: IntCounterVec::new(
                Opts::new("oblet_agent_certificate_renewals_total", "Attempts to renew the certificate of an agent."),
                &["result"],
            )?,
        };
        for result in ["done", "failed"] {
            metrics.renewals.with_label_values(&[result]);
        }
        registry.register(Box::new(metrics.expiry.clone()))?;
        registry.register(Box::new(metrics.renewals.clone()))?;
        Ok(metrics)
    }
}

/// Why a certificate was not renewed this time.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("the agent is of a version that cannot be renewed: upgrade it, or enrol the host again before it runs out")]
    TooOld,
    #[error(transparent)]
    Call(CallError),
    #[error(transparent)]
    Signing(#[from] EnrolmentError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CallError> for RenewalError {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Refused { reason, .. } if reason == "UNIMPLEMENTED" => Self::TooOld,
            _ => Self::Call(error),
        }
    }
}

/// Keeps the certificates of all agents young.
pub struct Renewal {
    enrolment: Arc<Enrolment>,
    agents: Arc<AgentPool>,
    metrics: CertificateMetrics,
    /// What was told of hosts that could not be renewed.
    told: Mutex<HashMap<IpAddr, String>>,
    quiet: QuietHosts<IpAddr>,
}

impl Renewal {
    pub fn new(enrolment: Arc<Enrolment>, agents: Arc<AgentPool>, metrics: CertificateMetrics) -> Self {
        let longest = (enrolment.life() / LONGEST_REST).min(LONGEST_REST_EVER);
        let quiet = QuietHosts::new(every(&enrolment), longest);
        Self { enrolment, agents, metrics, told: Mutex::default(), quiet }
    }

    /// Renews for ever.
    pub async fn keep(self) {
        let mut rounds = interval_at(Instant::now() + SHORTEST_ROUND, every(&self.enrolment));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if let Err(error) = self.round(now_micros()).await {
                tracing::warn!(error = chain(&error), "certificates of agents are not looked at this time");
            }
        }
    }

    async fn round(&self, now: i64) -> Result<(), StoreError> {
        let mut reader = self.enrolment.store().readers().acquire().await?;
        let in_use = certificates::in_use(&mut reader).await?;
        drop(reader);
        let patience = i64::try_from((self.enrolment.life() / PATIENCE).as_micros()).unwrap_or(i64::MAX);
        let awaited = awaited(&in_use, now.saturating_sub(patience));
        let found = newest(in_use);
        self.metrics.expiry.reset();
        for certificate in found.values() {
            let host = certificate.address.to_string();
            self.metrics.expiry.with_label_values(&[host.as_str()]).set(certificate.not_after / 1_000_000);
        }
        self.told().retain(|host, _| found.contains_key(host));
        self.quiet.retain(|host| found.contains_key(host));
        let due = found.into_values().filter(|certificate| self.is_due(certificate, now, &awaited));
        stream::iter(due).for_each_concurrent(AT_A_TIME, |certificate| self.attend(certificate)).await;
        Ok(())
    }

    fn is_due(&self, certificate: &AgentCertificate, now: i64, awaited: &HashSet<IpAddr>) -> bool {
        let host = &certificate.address;
        due_at(certificate) <= now && !awaited.contains(host) && !self.quiet.rests(host)
    }

    async fn attend(&self, certificate: AgentCertificate) {
        // Where a host was enrolled and not added, nobody knows the port of its agent.
        let Some(port) = certificate.agent_port else { return };
        let host = certificate.address;
        let renewed = self.renew(AgentAddress::new(host, port)).await;
        let result = if renewed.is_ok() { "done" } else { "failed" };
        self.metrics.renewals.with_label_values(&[result]).inc();
        match &renewed {
            Err(RenewalError::Call(CallError::Unknown { .. })) => self.quiet.did_not_answer(host),
            _ => self.quiet.answered(&host),
        }
        match renewed {
            Ok(serial) => {
                self.told().remove(&host);
                tracing::info!(%host, serial, "the certificate of an agent is renewed");
            }
            Err(error) => {
                let why = chain(&error);
                if self.told().insert(host, why.clone()).as_ref() != Some(&why) {
                    let days_left = (certificate.not_after - now_micros()) / 86_400_000_000;
                    tracing::warn!(%host, days_left, "the certificate of an agent is not renewed: {why}");
                }
            }
        }
    }

    async fn renew(&self, address: AgentAddress) -> Result<String, RenewalError> {
        let host = address.0.ip();
        let agent = self.agents.agent(address);
        let request_pem = agent.create_signing_request().await?;
        let admission = self.enrolment.renew(host, &request_pem).await?;
        agent.install_certificate(admission.certificate_pem).await?;
        let mut transaction = self.enrolment.store().begin().await?;
        certificates::seen(&mut transaction, host, admission.facts.fingerprint).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(admission.facts.serial)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn every(enrolment: &Enrolment) -> Duration {
    (enrolment.life() / ROUNDS_IN_A_LIFE).clamp(SHORTEST_ROUND, LONGEST_ROUND)
}

/// The certificate that each host shows, or is to show if it was never seen with any.
fn newest(in_use: Vec<AgentCertificate>) -> HashMap<IpAddr, AgentCertificate> {
    let mut found: HashMap<IpAddr, AgentCertificate> = HashMap::new();
    for certificate in in_use {
        let current = |known: &AgentCertificate| known.status == CertificateStatus::Current;
        if !found.get(&certificate.address).is_some_and(|known| current(known) && !current(&certificate)) {
            found.insert(certificate.address, certificate);
        }
    }
    found
}

/// Hosts that were sent a certificate after `since` and were not seen with it yet.
fn awaited(in_use: &[AgentCertificate], since: i64) -> HashSet<IpAddr> {
    let sent = |certificate: &&AgentCertificate| {
        certificate.status == CertificateStatus::Issued && certificate.issued_at > since
    };
    in_use.iter().filter(sent).map(|certificate| certificate.address).collect()
}

/// Between half and two thirds of its life, in microseconds since 1970.
fn due_at(certificate: &AgentCertificate) -> i64 {
    let life = certificate.not_after.saturating_sub(certificate.issued_at);
    let [first, second, ..] = <[u8; 32]>::from(Sha256::digest(certificate.address.to_string()));
    let share = i64::from(u16::from_be_bytes([first, second]));
    // A sixth of the life, of which `share` is the part in 65536; the division first, so that nothing overflows.
    certificate.issued_at + life / 2 + life / 6 / 65_536 * share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coordinator::{
            fake_agent::FakeAgent,
            store::{
                Store,
                host::{self, HostDetails},
            },
        },
        tls::{CertificateAuthority, Fingerprint, Identity, Requested, Role, install_crypto_provider},
    };
    use std::{net::Ipv4Addr, sync::atomic::Ordering};

    fn certificate(host: u8, issued_at: i64, status: CertificateStatus) -> AgentCertificate {
        AgentCertificate {
            serial: issued_at.to_string(),
            address: [192, 0, 2, host].into(),
            fingerprint: Fingerprint::of(&issued_at.to_be_bytes()),
            status,
            issued_at,
            not_after: issued_at + 365 * 86_400_000_000,
            host_id: None,
            agent_port: None,
        }
    }

    #[test]
    fn a_fleet_is_renewed_between_half_and_two_thirds_of_the_life_and_not_at_once() {
        let life = 365 * 86_400_000_000_i64;
        let issued = 1_700_000_000_000_000;
        let mut due: Vec<i64> =
            (0..=255).map(|host| due_at(&certificate(host, issued, CertificateStatus::Current)) - issued).collect();
        assert!(due.iter().all(|due| (life / 2..life / 3 * 2).contains(due)), "{due:?}");
        due.sort_unstable();
        due.dedup();
        assert!(due.len() > 250, "{} moments for 256 hosts", due.len());
    }

    #[test]
    fn a_certificate_that_was_just_sent_is_waited_for() {
        use CertificateStatus::{Current, Issued};
        let in_use = [certificate(1, 100, Issued), certificate(2, 300, Issued), certificate(3, 300, Current)];
        assert_eq!(awaited(&in_use, 200), HashSet::from([[192, 0, 2, 2].into()]));
    }

    #[test]
    fn an_agent_without_the_call_is_told_from_one_that_refuses() {
        let agent = AgentAddress::new([192, 0, 2, 1].into(), 62898);
        let refused = |reason: &str| CallError::Refused { agent, reason: reason.into(), message: String::new() };
        assert!(matches!(RenewalError::from(refused("UNIMPLEMENTED")), RenewalError::TooOld));
        assert!(matches!(RenewalError::from(refused("UNFIT_CERTIFICATE")), RenewalError::Call(_)));
    }

    #[test]
    fn what_the_agent_was_seen_with_counts_before_what_it_was_sent() {
        use CertificateStatus::{Current, Issued};
        let (seen, lost, only) = (certificate(1, 1, Current), certificate(1, 2, Issued), certificate(2, 3, Issued));
        let found = newest(vec![seen.clone(), lost, only.clone()]);
        assert_eq!((found.get(&seen.address), found.get(&only.address)), (Some(&seen), Some(&only)));
    }

    #[tokio::test]
    async fn a_host_that_is_gone_is_left_alone_for_a_while() {
        install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let store = Store::open(&path.join("coordinator.db")).await.unwrap();
        let authority = Arc::new(CertificateAuthority::load_or_create(path).unwrap());
        let (shown, key) =
            authority.issue(Role::Coordinator, "coordinator", &[]).unwrap().write(path, "coordinator").unwrap();
        let identity = Identity::read(&path.join("ca.pem"), &shown, &key).unwrap();
        let enrolment = Enrolment::new(store, authority, Duration::from_secs(365 * 86_400)).unwrap();
        let agents = Arc::new(AgentPool::new(&identity).unwrap());
        let metrics = CertificateMetrics::register(&Registry::new()).unwrap();
        let renewal = Renewal::new(Arc::new(enrolment), agents, metrics);

        // Bound and not listened on: nobody else gets the port.
        let mute = tokio::net::TcpSocket::new_v4().unwrap();
        mute.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = mute.local_addr().unwrap().port();
        let gone = AgentCertificate {
            address: Ipv4Addr::LOCALHOST.into(),
            agent_port: Some(port),
            ..certificate(1, 1_700_000_000_000_000, CertificateStatus::Current)
        };
        let is_due = || renewal.is_due(&gone, gone.not_after, &HashSet::new());
        assert!(is_due());
        renewal.attend(gone.clone()).await;
        assert!(!is_due());
        let other = AgentCertificate { address: [192, 0, 2, 1].into(), ..gone.clone() };
        assert!(renewal.is_due(&other, gone.not_after, &HashSet::new()));
        renewal.quiet.retain(|_| false);
        assert!(is_due(), "a host that is enrolled again begins anew");
    }

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const DAY: Duration = Duration::from_secs(86_400);

    /// A host whose certificate is due, and the agent there.
    async fn due(directory: &std::path::Path) -> (Renewal, Arc<FakeAgent>) {
        let store = Store::open(&directory.join("store.db")).await.unwrap();
        let authority = Arc::new(CertificateAuthority::load_or_create(directory).unwrap());
        let enrolment = Arc::new(Enrolment::new(store.clone(), authority, DAY).unwrap());
        let first = enrolment.renew(HOST, &Requested::generate().unwrap().request_pem).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        host::insert(&mut transaction, HOST, 62898, 62899, &HostDetails::default()).await.unwrap();
        certificates::seen(&mut transaction, HOST, first.facts.fingerprint).await.unwrap();
        let age = i64::try_from((DAY / 10 * 9).as_micros()).unwrap();
        sqlx::query("UPDATE agent_certificates SET issued_at = issued_at - ?, not_after = not_after - ?")
            .bind(age)
            .bind(age)
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let agent = Arc::<FakeAgent>::default();
        let metrics = CertificateMetrics::register(&Registry::new()).unwrap();
        (Renewal::new(enrolment, Arc::new(agent.everywhere()), metrics), agent)
    }

    impl Renewal {
        async fn statuses(&self) -> Vec<CertificateStatus> {
            let mut reader = self.enrolment.store().readers().acquire().await.unwrap();
            let (all, _) = certificates::list(&mut reader, 100, 0).await.unwrap();
            all.into_iter().rev().map(|certificate| certificate.status).collect()
        }
    }

    #[tokio::test]
    async fn a_host_that_takes_no_certificate_gets_the_next_one_only_after_a_while() {
        use CertificateStatus::{Current, Issued};
        let directory = tempfile::tempdir().unwrap();
        let (renewal, _agent) = due(directory.path()).await;
        for _ in 0..3 {
            renewal.round(now_micros()).await.unwrap();
            assert_eq!(renewal.statuses().await, [Current, Issued]);
        }
        let failed = renewal.metrics.renewals.with_label_values(&["failed"]).get();
        assert_eq!(failed, 1, "it is asked once");
        let patience = i64::try_from((DAY / PATIENCE).as_micros()).unwrap();
        renewal.round(now_micros() + patience).await.unwrap();
        assert_eq!(renewal.statuses().await, [Current, Issued, Issued]);
    }

    #[tokio::test]
    async fn a_host_that_is_away_is_told_once_and_nothing_is_signed_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let (renewal, agent) = due(directory.path()).await;
        agent.is_away.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            renewal.round(now_micros()).await.unwrap();
            assert_eq!(renewal.metrics.renewals.with_label_values(&["failed"]).get(), 1, "it is left alone");
            assert_eq!(renewal.told().len(), 1);
        }
        assert_eq!(renewal.statuses().await, [CertificateStatus::Current], "nothing is signed for it");
    }

    #[tokio::test]
    async fn a_host_that_takes_its_certificate_is_not_asked_again() {
        use CertificateStatus::{Current, Replaced};
        let directory = tempfile::tempdir().unwrap();
        let (renewal, agent) = due(directory.path()).await;
        agent.takes_certificates.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            renewal.round(now_micros()).await.unwrap();
            assert_eq!(renewal.statuses().await, [Replaced, Current]);
        }
    }
}
