//! What outlives every program of a simulation: the hosts that steps change, the coordinator's store, and the record of
//! what happened.

use super::{
    journals::Files,
    perils::{Defect, Odds},
    requests::Request,
    tables::Tables,
    things::Things,
    traps::Trap,
};
use crate::{coordinator::store::task::TaskId, rpc::v1::OperationKey};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

pub(super) const COORDINATOR: &str = "coordinator";
pub(super) const STANDBY: &str = "standby";

/// One line of the record; the same in every run of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    at: Duration,
    host: String,
    what: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} {:<12} {}", self.at.as_secs_f64(), self.host, self.what)
    }
}

/// What an agent answered to a call that bears an epoch.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Host of the coordinator that called.
    caller: String,
    asked_at: Duration,
    refusal: Option<tonic::Code>,
}

#[derive(Default)]
struct State {
    seed: u64,
    calm: bool,
    given_up: bool,
    random: fastrand::Rng,
    record: Vec<Line>,
    odds: Odds,
    defect: Option<Defect>,
    violations: Vec<String>,
    crashes: Vec<String>,
    trap: Option<Trap>,
    cut_off: Option<String>,
    /// Which host a runtime is.
    runtimes: HashMap<tokio::runtime::Id, String>,
    answers: Vec<Answer>,
    /// Hosts with a step that is about to choose an identity.
    choosing: BTreeSet<String>,
    /// The last step of a task fails the first time.
    finish_fails: bool,
    /// How many microseconds the clock of a host is ahead.
    clocks: BTreeMap<String, i64>,
    /// Tasks whose client left before anybody was woken for them.
    left_alone: BTreeSet<TaskId>,
    /// Where the coordinator keeps packages, if it sends any.
    packages: Option<PathBuf>,
    /// Those that have no answer yet.
    requests: Vec<Request>,
    /// A program is being crashed: whatever it did ends here.
    is_crashing: bool,
    /// What crashes left of journals, by host, until the next life of the agent.
    journals: BTreeMap<String, Files>,
    /// Operations that an agent was asked for without an answer.
    unanswered: BTreeSet<(String, u32)>,
}

pub(super) struct World {
    state: Mutex<State>,
    tables: Mutex<Tables>,
    things: Mutex<Things>,
}

impl World {
    pub(super) fn new(seed: u64, odds: Odds) -> Arc<Self> {
        Self::with(seed, odds, None)
    }

    pub(super) fn with(seed: u64, odds: Odds, defect: Option<Defect>) -> Arc<Self> {
        let random = fastrand::Rng::with_seed(seed);
        let state = State { seed, random, odds, defect, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), tables: Mutex::default(), things: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn things(&self) -> MutexGuard<'_, Things> {
        self.things.lock().unwrap()
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    /// From here on nothing goes wrong by itself; what crashes all the same leaves what it left before.
    pub(super) fn calm(&self) {
        let mut state = self.state();
        (state.odds, state.calm) = (Odds { wal_stays: state.odds.wal_stays, ..Odds::default() }, true);
    }

    pub(super) fn odds(&self) -> Odds {
        self.state().odds
    }

    pub(super) fn has(&self, defect: Defect) -> bool {
        self.state().defect == Some(defect)
    }

    pub(super) fn set_clock(&self, host: &str, ahead_micros: i64) {
        self.state().clocks.insert(host.into(), ahead_micros);
    }

    /// How many microseconds the clock is ahead for the code that calls this.
    pub(super) fn clock(&self) -> i64 {
        self.host().and_then(|host| self.state().clocks.get(&host).copied()).unwrap_or(0)
    }

    pub(super) fn keep_packages(&self, directory: &Path) {
        self.state().packages = Some(directory.into());
    }

    pub(super) fn packages(&self) -> Option<PathBuf> {
        self.state().packages.clone()
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    pub(super) fn change_requests(&self, change: impl FnOnce(&mut Vec<Request>)) {
        change(&mut self.state().requests);
    }

    pub(super) fn set_crashing(&self, is_crashing: bool) {
        self.state().is_crashing = is_crashing;
    }

    pub(super) fn is_crashing(&self) -> bool {
        self.state().is_crashing
    }

    pub(super) fn keep_journal(&self, host: &str, files: Files) {
        self.state().journals.insert(host.into(), files);
    }

    pub(super) fn take_journal(&self, host: &str) -> Option<Files> {
        self.state().journals.remove(host)
    }

    pub(super) fn leave_alone(&self, task: TaskId) {
        self.state().left_alone.insert(task);
    }

    pub(super) fn is_left_alone(&self, task: TaskId) -> bool {
        self.state().left_alone.contains(&task)
    }

    pub(super) fn had_no_answer(&self, key: &OperationKey) {
        self.state().unanswered.insert((key.operation_id.clone(), key.attempt));
    }

    pub(super) fn has_no_answer(&self, key: &OperationKey) -> bool {
        self.state().unanswered.contains(&(key.operation_id.clone(), key.attempt))
    }

    pub(super) fn is_calm(&self) -> bool {
        self.state().calm
    }

    /// The operator rolls this task back if it fails, and does not retry it.
    pub(super) fn is_given_up(&self, task: TaskId) -> bool {
        let state = self.state();
        state.given_up || state.seed.wrapping_add(task.0.unsigned_abs()).is_multiple_of(3)
    }

    /// The operator rolls back whatever fails.
    pub(super) fn give_up(&self) {
        self.state().given_up = true;
    }

    /// Adds a line to the record.
    pub(super) fn note(&self, host: &str, what: impl Into<String>) {
        self.note_at(turmoil::sim_elapsed().unwrap_or_default(), host, what);
    }

    pub(super) fn note_at(&self, at: Duration, host: &str, what: impl Into<String>) {
        self.state().record.push(Line { at, host: host.into(), what: what.into() });
    }

    /// Something that must never happen.
    pub(super) fn violation(&self, what: String) {
        self.state().violations.push(what);
    }

    /// Between nothing and `longest`, mostly short.
    pub(super) fn delay(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.state().random.f64().powi(4))
    }

    pub(super) fn chance(&self, probability: f64) -> bool {
        self.state().random.f64() < probability
    }

    pub(super) fn below(&self, end: usize) -> usize {
        self.state().random.usize(0..end)
    }

    /// Crashes the program on `host`, which does nothing more.
    pub(super) async fn crash_here<T>(&self, host: &str) -> T {
        self.crash(host);
        std::future::pending().await
    }

    pub(super) fn crash(&self, host: &str) {
        self.note(host, "crashes");
        self.state().crashes.push(host.into());
    }

    /// The code that calls this runs on `host`.
    pub(super) fn runs_on(&self, host: &str) {
        self.state().runtimes.insert(tokio::runtime::Handle::current().id(), host.into());
    }

    /// The host on which the code that calls this runs.
    pub(super) fn host(&self) -> Option<String> {
        let runtime = tokio::runtime::Handle::try_current().ok()?.id();
        self.state().runtimes.get(&runtime).cloned()
    }

    /// An agent answered the coordinator that calls this.
    pub(super) fn answered(&self, asked_at: Duration, refusal: Option<tonic::Code>) {
        if let Some(caller) = self.host() {
            self.state().answers.push(Answer { caller, asked_at, refusal });
        }
    }

    /// How many calls agents took, and how many they refused for their epoch, of those that `caller` made since then.
    pub(super) fn taken_and_fenced(&self, caller: &str, since: Duration) -> (usize, usize) {
        let state = self.state();
        let count = |refusal| {
            let fits =
                |answer: &&Answer| answer.caller == caller && answer.asked_at >= since && answer.refusal == refusal;
            state.answers.iter().filter(fits).count()
        };
        (count(None), count(Some(tonic::Code::FailedPrecondition)))
    }

    /// From here on the store does not answer the coordinator on this host, and all others.
    pub(super) fn cut_off(&self, host: Option<&str>) {
        self.state().cut_off = host.map(Into::into);
    }

    pub(super) fn is_cut_off(&self, host: &str) -> bool {
        self.state().cut_off.as_deref() == Some(host)
    }

    pub(super) fn trap(&self) -> Option<Trap> {
        self.state().trap
    }

    pub(super) fn set_trap(&self, trap: Option<Trap>) {
        self.state().trap = trap;
    }

    /// A step on `host` is about to choose an identity, or has done so.
    pub(super) fn choose(&self, host: &str, chooses: bool) {
        let mut state = self.state();
        if chooses {
            state.choosing.insert(host.into());
        } else {
            state.choosing.remove(host);
        }
    }

    pub(super) fn chooses(&self, host: &str) -> bool {
        self.state().choosing.contains(host)
    }

    pub(super) fn let_finish_fail(&self) {
        self.state().finish_fails = true;
    }

    pub(super) fn does_finish_fail(&self) -> bool {
        std::mem::take(&mut self.state().finish_fails)
    }

    /// Hosts whose program has to be crashed.
    pub(super) fn take_crashes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().crashes)
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    pub(super) fn take_record(&self) -> Vec<Line> {
        std::mem::take(&mut self.state().record)
    }

    /// The record as text.
    pub(super) fn told(&self) -> String {
        self.state().record.iter().map(|line| format!("{line}\n")).collect()
    }
}
