//! Rows that many tasks read by their ids. Whoever asks while a query is under way is answered by the next one, all of
//! them together: each statement goes from one thread to another and back, and a thousand tasks ask for much the same.

use super::{
    StoreError,
    host::{self, Host},
    obproxy::{self, Cluster, Obproxy},
    package::{self, Package},
    task::{self, TaskId, TaskRows},
};
use futures_util::future::BoxFuture;
use sqlx::{AnyConnection, AnyPool};
use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::oneshot;

/// Each answers what was committed when it was asked, or later.
pub struct Together {
    pub hosts: Gather<i64, Host>,
    pub clusters: Gather<i64, Cluster>,
    pub proxies: Gather<i64, Obproxy>,
    /// By the names of their files.
    pub packages: Gather<String, Package>,
    pub tasks: Gather<TaskId, TaskRows>,
}

impl Together {
    pub(super) fn new(readers: &AnyPool) -> Self {
        Self {
            hosts: Gather::new(readers, |connection, ids| Box::pin(host::by_ids(connection, ids))),
            clusters: Gather::new(readers, |connection, ids| Box::pin(obproxy::clusters(connection, ids))),
            proxies: Gather::new(readers, |connection, ids| Box::pin(obproxy::proxies(connection, ids))),
            packages: Gather::new(readers, |connection, names| Box::pin(package::by_file_names(connection, names))),
            tasks: Gather::new(readers, |connection, ids| Box::pin(task::rows(connection, ids))),
        }
    }
}

type Read<K, V> = for<'c> fn(&'c mut AnyConnection, &'c [K]) -> BoxFuture<'c, Result<HashMap<K, V>, StoreError>>;
type Answer<V> = oneshot::Sender<Option<Arc<V>>>;

/// Readers of one kind of row.
pub struct Gather<K, V> {
    readers: AnyPool,
    read: Read<K, V>,
    asked: Mutex<Vec<(K, Answer<V>)>>,
    /// Whoever has it reads for all that have asked.
    turn: tokio::sync::Mutex<()>,
}

impl<K: Clone + Eq + Hash, V> Gather<K, V> {
    pub(super) fn new(readers: &AnyPool, read: Read<K, V>) -> Self {
        Self { readers: readers.clone(), read, asked: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Answers the row, if there is one.
    pub async fn get(&self, key: K) -> Result<Option<Arc<V>>, StoreError> {
        loop {
            let (sender, mut answer) = oneshot::channel();
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((key.clone(), sender));
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered.ok(),
                _turn = self.turn.lock() => {
                    self.answer_all().await?;
                    answer.try_recv().ok()
                }
            };
            // Nothing comes from a reader that was refused or went away: then this one asks anew.
            if let Some(found) = answered {
                return Ok(found);
            }
        }
    }

    async fn answer_all(&self) -> Result<(), StoreError> {
        let mut connection = self.readers.acquire().await?;
        let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        let keys: HashSet<K> = asked.iter().map(|(key, _)| key.clone()).collect();
        let keys: Vec<K> = keys.into_iter().collect();
        let found = (self.read)(&mut connection, &keys).await?;
        let found: HashMap<K, Arc<V>> = found.into_iter().map(|(key, row)| (key, Arc::new(row))).collect();
        for (key, answer) in asked {
            // Who asked may have given up.
            let _ = answer.send(found.get(&key).cloned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::Store;
    use futures_util::{FutureExt as _, future::join_all};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Every even number is there.
    fn even(ids: &[i64]) -> HashMap<i64, i64> {
        ids.iter().filter(|id| *id % 2 == 0).map(|id| (*id, *id)).collect()
    }

    async fn store(directory: &tempfile::TempDir) -> Store {
        Store::open(&directory.path().join("store.db")).await.unwrap()
    }

    #[tokio::test]
    async fn whoever_asks_while_a_reader_waits_is_answered_with_it() {
        static READS: AtomicUsize = AtomicUsize::new(0);
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let gather = Gather::new(store.engine_readers(), |_, ids| {
            READS.fetch_add(1, Ordering::SeqCst);
            let found = even(ids);
            Box::pin(async { Ok(found) })
        });
        let all = [store.engine_readers().acquire().await.unwrap(), store.engine_readers().acquire().await.unwrap()];
        // Each number is asked for twice.
        let mut asked: Vec<_> = (0..200).map(|id| Box::pin(gather.get(id % 100))).collect();
        assert!(asked.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        // The first of them was to read.
        drop(asked.remove(0));
        drop(all);
        let answers = join_all(asked).await;
        assert!(READS.load(Ordering::SeqCst) <= 2, "{READS:?}");
        for (id, answer) in (1..200).zip(answers) {
            let id = id % 100;
            assert_eq!(answer.unwrap().as_deref().copied(), (id % 2 == 0).then_some(id));
        }
    }

    #[tokio::test]
    async fn a_refused_reader_costs_nobody_else() {
        static READS: AtomicUsize = AtomicUsize::new(0);
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let gather = Gather::new(store.engine_readers(), |_, ids| {
            let found = if READS.fetch_add(1, Ordering::SeqCst) == 0 { Err(StoreError::Busy) } else { Ok(even(ids)) };
            Box::pin(async { found })
        });
        let answers = join_all((0..10).map(|_| gather.get(2))).await;
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!(refused, 1);
        assert!(answers.into_iter().flatten().all(|found| found.as_deref() == Some(&2)));
    }
}
