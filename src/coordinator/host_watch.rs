//! Asks every prepared host from time to time how it is: one whose agent has not answered for minutes is OFFLINE, and
//! back as soon as it answers.
//!
//!  1. A round is spread over its whole period, each host at a moment of its own, another in every round, so
//!     that ten thousand hosts are a trickle. At most [`ASKED_AT_ONCE`] are asked at a time; hosts that are gone make a
//!     round longer, not wider.
//!  2. A connection that no task has opened is closed after the answer.
//!  3. A row is written only if something of it changed, after it was read again: what a task wrote meanwhile stays.
//!  4. How long a host is silent is counted by this program only; a coordinator that starts gives each its time again.

use super::{
    agents::{AgentAddress, AgentPool},
    store::{
        Store, StoreError,
        host::{self, Host, HostDetails, HostFilter, HostStatus},
        obproxy::{self, ObproxyStatus},
    },
};
use crate::rpc::v1::DescribeHostResponse;
use futures_util::{StreamExt as _, stream};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(120);
/// Longer than a restart of a host's agent takes, and than a network needs to find another way.
const SILENT_LIMIT: Duration = Duration::from_secs(180);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const ASKED_AT_ONCE: usize = 64;

/// Watches until the shutdown.
pub async fn watch(store: Store, agents: Arc<AgentPool>, shutdown: CancellationToken) {
    let watch = Watch { store, agents, silent: Mutex::default() };
    let rounds = async {
        for number in 0_u32.. {
            let end = Instant::now() + PERIOD;
            match watch.hosts().await {
                Ok(hosts) => watch.round(number, hosts).await,
                Err(error) => tracing::warn!(error = crate::telemetry::chain(&error), "the hosts cannot be listed"),
            }
            sleep_until(end).await;
        }
    };
    let _ = shutdown.run_until_cancelled(rounds).await;
}

struct Watch {
    store: Store,
    agents: Arc<AgentPool>,
    /// Since when hosts have not answered.
    silent: Mutex<HashMap<i64, Instant>>,
}

/// What is known of a host after it was asked.
enum Sign {
    Answer(Box<DescribeHostResponse>),
    /// For this long there was no answer.
    Silence(Duration),
}

/// What the row of a host has to become; None if it may stay as it is.
fn judge(host: &Host, sign: &Sign, serves: bool) -> Option<(HostStatus, HostDetails)> {
    let (status, details) = match sign {
        Sign::Answer(facts) => {
            let status = match host.status {
                HostStatus::Offline if serves => HostStatus::Online,
                HostStatus::Offline => HostStatus::Available,
                status => status,
            };
            (status, host.details.clone().told_by(facts))
        }
        Sign::Silence(time) if *time >= SILENT_LIMIT => (HostStatus::Offline, host.details.clone()),
        Sign::Silence(_) => return None,
    };
    (status != host.status || details != host.details).then_some((status, details))
}

/// Where in its period a round asks a host, from 0 to 1: multiples of the golden ratio lie evenly, however many there are.
fn moment(host_id: i64, round: u32) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    (host_id as f64).mul_add(GOLDEN, f64::from(round) * std::f64::consts::FRAC_1_SQRT_2).fract()
}

/// Whether the host is one that this watch is about: a task looks after the others.
fn is_watched(host: &Host) -> bool {
    match host.status {
        HostStatus::Available | HostStatus::Online | HostStatus::Offline => true,
        HostStatus::New | HostStatus::Deleting => false,
    }
}

impl Watch {
    async fn hosts(&self) -> Result<Vec<Host>, StoreError> {
        let mut connection = self.store.readers().acquire().await?;
        let (mut hosts, _) = host::list(&mut connection, &HostFilter::default(), i64::MAX, 0).await?;
        hosts.retain(is_watched);
        Ok(hosts)
    }

    async fn round(&self, number: u32, hosts: Vec<Host>) {
        let known: HashSet<i64> = hosts.iter().map(|host| host.id).collect();
        self.silent().retain(|id, _| known.contains(id));
        let begin = Instant::now();
        let turn = |host: Host| (begin + PERIOD.mul_f64(moment(host.id, number)), host);
        let mut turns: Vec<_> = hosts.into_iter().map(turn).collect();
        turns.sort_by_key(|(turn, _)| *turn);
        let visit = async |(turn, host): (Instant, Host)| {
            sleep_until(turn).await;
            self.visit(&host).await;
        };
        stream::iter(turns).for_each_concurrent(ASKED_AT_ONCE, visit).await;
    }

    async fn visit(&self, host: &Host) {
        let sign = match self.ask(host).await {
            Some(facts) => {
                self.silent().remove(&host.id);
                Sign::Answer(Box::new(facts))
            }
            None => Sign::Silence(self.silent().entry(host.id).or_insert_with(Instant::now).elapsed()),
        };
        // Most have nothing to say; the row decides once more when it is to be written.
        if judge(host, &sign, false).is_some()
            && let Err(error) = self.write(host.id, &sign).await
        {
            tracing::warn!(
                host_id = host.id,
                error = crate::telemetry::chain(&error),
                "the state of a host is not kept"
            );
        }
    }

    async fn ask(&self, host: &Host) -> Option<DescribeHostResponse> {
        let agent = self.agents.passing(AgentAddress::new(host.inner_ip, host.agent_port));
        timeout(ANSWER_LIMIT, agent.describe_host()).await.ok()?.ok()
    }

    async fn write(&self, id: i64, sign: &Sign) -> Result<(), StoreError> {
        let mut transaction = self.store.begin().await?;
        let Some(host) = host::get(&mut transaction, id).await?.filter(is_watched) else { return Ok(()) };
        let proxies = obproxy::proxies_on(&mut transaction, &[id]).await?;
        let serves = proxies.iter().any(|proxy| proxy.status == ObproxyStatus::Running);
        let Some((status, details)) = judge(&host, sign, serves) else { return Ok(()) };
        host::observe(&mut transaction, id, status, &details).await?;
        transaction.commit().await?;
        if status != host.status {
            tracing::warn!(host_id = id, address = %host.inner_ip, %status, was = %host.status, "a host changed");
        }
        Ok(())
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::{channel::Dialed, fake_agent::FakeAgent};
    use std::{io, sync::atomic::Ordering};

    fn answer(version: &str) -> Sign {
        Sign::Answer(Box::new(DescribeHostResponse { agent_version: version.into(), ..Default::default() }))
    }

    /// A store with one prepared host, and a watch to which no agent answers.
    async fn watched(directory: &std::path::Path) -> (Watch, Host) {
        let store = Store::open(&directory.join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let details = HostDetails { agent_version: "1.0.0".into(), ..HostDetails::default() };
        let ip = "192.0.2.1".parse().unwrap();
        let id = host::insert(&mut transaction, ip, 62898, 62899, &details).await.unwrap().id;
        host::observe(&mut transaction, id, HostStatus::Available, &details).await.unwrap();
        let host = host::get(&mut transaction, id).await.unwrap().unwrap();
        transaction.commit().await.unwrap();
        let unreachable = |_| Box::pin(async { Err(io::Error::from(io::ErrorKind::HostUnreachable).into()) }) as Dialed;
        let agents = Arc::new(AgentPool::dialing(unreachable));
        (Watch { store, agents, silent: Mutex::default() }, host)
    }

    impl Watch {
        async fn row(&self, id: i64) -> Host {
            let mut connection = self.store.readers().acquire().await.unwrap();
            host::get(&mut connection, id).await.unwrap().unwrap()
        }
    }

    #[tokio::test]
    async fn a_silent_host_goes_offline_after_minutes_and_comes_back_with_its_first_answer() {
        let directory = tempfile::tempdir().unwrap();
        let (watch, host) = watched(directory.path()).await;
        watch.visit(&host).await;
        assert_eq!(watch.row(host.id).await, host, "a moment of silence is nothing");
        assert!(watch.silent().contains_key(&host.id));
        watch.write(host.id, &Sign::Silence(SILENT_LIMIT)).await.unwrap();
        let offline = watch.row(host.id).await;
        assert_eq!((offline.status, &offline.details), (HostStatus::Offline, &host.details));

        watch.write(host.id, &answer("1.0.1")).await.unwrap();
        let back = watch.row(host.id).await;
        assert_eq!((back.status, back.details.agent_version.as_str()), (HostStatus::Available, "1.0.1"));
    }

    #[tokio::test]
    async fn a_host_that_answered_in_between_has_its_time_again() {
        let directory = tempfile::tempdir().unwrap();
        let (watch, host) = watched(directory.path()).await;
        let agent = Arc::<FakeAgent>::default();
        let watch = Watch { agents: Arc::new(agent.everywhere()), ..watch };
        agent.is_away.store(true, Ordering::SeqCst);
        watch.visit(&host).await;
        // That was long ago.
        watch.silent().insert(host.id, Instant::now() - 10 * SILENT_LIMIT);
        agent.is_away.store(false, Ordering::SeqCst);
        watch.visit(&host).await;
        agent.is_away.store(true, Ordering::SeqCst);
        watch.visit(&host).await;
        assert_eq!(watch.row(host.id).await.status, HostStatus::Available, "it is silent since a moment");

        watch.silent().insert(host.id, Instant::now() - SILENT_LIMIT);
        watch.visit(&host).await;
        assert_eq!(watch.row(host.id).await.status, HostStatus::Offline);
    }

    /// Who was asked how often, and how many at a time.
    #[derive(Default)]
    struct Asked {
        hosts: HashMap<AgentAddress, u32>,
        now: usize,
        most: usize,
    }

    /// One who is asked, for as long as the connection is waited for.
    struct Asking(Arc<Mutex<Asked>>);

    impl Asking {
        fn begin(asked: &Arc<Mutex<Asked>>, agent: AgentAddress) -> Self {
            let mut state = asked.lock().unwrap();
            *state.hosts.entry(agent).or_default() += 1;
            state.now += 1;
            state.most = state.most.max(state.now);
            Self(Arc::clone(asked))
        }
    }

    impl Drop for Asking {
        fn drop(&mut self) {
            self.0.lock().unwrap().now -= 1;
        }
    }

    /// A host that is gone in the slowest way.
    fn gone_slowly(asked: &Arc<Mutex<Asked>>, agent: AgentAddress) -> Dialed {
        let asking = Asking::begin(asked, agent);
        Box::pin(async move {
            let _asking = asking;
            std::future::pending().await
        })
    }

    /// A round of so many hosts; answers what was asked, and how long the round took.
    async fn round_of(directory: &std::path::Path, count: i64) -> (Asked, Duration) {
        let (watch, host) = watched(directory).await;
        let asked = Arc::<Mutex<Asked>>::default();
        let agents = AgentPool::dialing({
            let asked = Arc::clone(&asked);
            move |agent| gone_slowly(&asked, agent)
        });
        let watch = Watch { agents: Arc::new(agents), ..watch };
        let address = |id: i64| [10, 0, (id >> 8) as u8, id as u8].into();
        let hosts = (1..=count).map(|id| Host { id, inner_ip: address(id), ..host.clone() }).collect();
        // No host is silent for long enough to be written down, so nothing waits for the store.
        tokio::time::pause();
        let begin = Instant::now();
        watch.round(0, hosts).await;
        let took = begin.elapsed();
        drop(watch);
        (std::mem::take(&mut *asked.lock().unwrap()), took)
    }

    #[tokio::test]
    async fn a_round_asks_every_host_once_and_spreads_them_over_its_period() {
        let directory = tempfile::tempdir().unwrap();
        let (asked, took) = round_of(directory.path(), 200).await;
        assert_eq!((asked.hosts.len(), asked.hosts.values().max()), (200, Some(&1)));
        assert!(asked.most < 20, "{} at a time", asked.most);
        assert!((PERIOD.mul_f64(0.9)..PERIOD + ANSWER_LIMIT).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn hosts_that_are_gone_make_a_round_longer_and_not_wider() {
        let directory = tempfile::tempdir().unwrap();
        let (asked, took) = round_of(directory.path(), 4000).await;
        assert_eq!((asked.hosts.len(), asked.hosts.values().max()), (4000, Some(&1)));
        assert_eq!(asked.most, ASKED_AT_ONCE);
        assert!(took > 2 * PERIOD, "{took:?}");
    }

    #[tokio::test]
    async fn the_watch_asks_its_hosts_until_the_shutdown() {
        let directory = tempfile::tempdir().unwrap();
        let (Watch { store, .. }, host) = watched(directory.path()).await;
        // Of all hosts this one is asked first: its moment is the first tenth of a second.
        let first: i64 = 610;
        assert!(PERIOD.mul_f64(moment(first, 0)) < Duration::from_millis(100));
        let mut transaction = store.begin().await.unwrap();
        let change = sqlx::query("UPDATE hosts SET id = ?, status = 'OFFLINE' WHERE id = ?").bind(first).bind(host.id);
        change.execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        let shutdown = CancellationToken::new();
        let agents = Arc::new(Arc::<FakeAgent>::default().everywhere());
        let watch = tokio::spawn(watch(store.clone(), agents, shutdown.clone()));
        let comes_back = async {
            loop {
                let mut connection = store.readers().acquire().await.unwrap();
                if host::get(&mut connection, first).await.unwrap().unwrap().status == HostStatus::Available {
                    return;
                }
                drop(connection);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), comes_back).await.expect("the host is asked");
        assert!(!watch.is_finished());
        shutdown.cancel();
        timeout(Duration::from_secs(10), watch).await.expect("the watch ends").unwrap();
    }

    #[tokio::test]
    async fn a_connection_for_a_look_is_not_kept_and_one_of_a_task_serves_it() {
        let directory = tempfile::tempdir().unwrap();
        let (watch, host) = watched(directory.path()).await;
        let agent = Arc::<FakeAgent>::default();
        let watch = Watch { agents: Arc::new(agent.everywhere()), ..watch };
        let connections = async || {
            watch.visit(&host).await;
            agent.connections.load(Ordering::SeqCst)
        };
        assert_eq!((connections().await, connections().await), (1, 2));
        let kept = watch.agents.agent(AgentAddress::new(host.inner_ip, host.agent_port));
        kept.describe_host().await.unwrap();
        assert_eq!((connections().await, connections().await), (3, 3));
    }

    #[tokio::test]
    async fn nothing_is_written_of_a_host_of_which_nothing_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (watch, host) = watched(directory.path()).await;
        watch.write(host.id, &answer("1.0.0")).await.unwrap();
        assert_eq!(watch.row(host.id).await.updated_at, host.updated_at);
    }

    #[tokio::test]
    async fn a_host_that_is_being_prepared_is_left_to_its_task() {
        let directory = tempfile::tempdir().unwrap();
        let (watch, host) = watched(directory.path()).await;
        let mut transaction = watch.store.begin().await.unwrap();
        host::observe(&mut transaction, host.id, HostStatus::New, &host.details).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(watch.hosts().await.unwrap(), []);
        let before = watch.row(host.id).await;
        for sign in [answer("2.0.0"), Sign::Silence(SILENT_LIMIT)] {
            watch.write(host.id, &sign).await.unwrap();
            assert_eq!(watch.row(host.id).await, before);
        }
    }

    #[test]
    fn a_round_asks_hosts_at_moments_that_lie_apart_and_differ_from_the_last_round() {
        let mut moments: Vec<f64> = (1..=1000).map(|id| moment(id, 7)).collect();
        moments.sort_by(f64::total_cmp);
        let widest = moments.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        assert!(widest < 0.003 && moments[0] >= 0.0 && moments[999] < 1.0, "{widest}");
        assert!((moment(5, 0) - moment(5, 1)).abs() > 0.1);
    }

    #[test]
    fn a_host_that_serves_is_online_when_it_comes_back() {
        let host = Host {
            id: 1,
            inner_ip: "192.0.2.1".parse().unwrap(),
            agent_port: 1,
            metrics_port: 2,
            status: HostStatus::Offline,
            details: HostDetails { agent_version: "1.0.0".into(), ..HostDetails::default() },
            idc_id: None,
            type_id: None,
            created_at: 0,
            updated_at: 0,
        };
        let status = |serves| judge(&host, &answer("1.0.0"), serves).unwrap().0;
        assert_eq!((status(true), status(false)), (HostStatus::Online, HostStatus::Available));
    }
}
