//! Takes away what nobody needs any more: records, logs, and what ended runs left on the host.

use super::Runner;
use crate::{
    agent::{
        journal::{JournalError, Need, Unfinished},
        logs::LogFile,
        operation::{Key, now_us},
    },
    blocking,
    steps::values::Sha256,
};
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

/// The journal answers for this many at a time, so that operations do not wait for it.
const BATCH: usize = 100;

impl Runner {
    /// Forgets acknowledged operations older than `retention`, with their logs and runs; removes further logs of
    /// acknowledged operations, oldest first, while all logs together are larger than `log_limit_bytes`.
    pub async fn collect(&self, retention: Duration, log_limit_bytes: u64) -> Result<usize, JournalError> {
        let before = now_us().saturating_sub(i64::try_from(retention.as_micros()).unwrap_or(i64::MAX));
        let mut count = 0;
        loop {
            let expired = self.journal.expired(before).await?;
            if expired.is_empty() {
                break;
            }
            for key in expired.iter().filter_map(|operation| operation.key) {
                // The record goes all the same: a log without one is found by its age later.
                self.remove_log(&key);
            }
            count += expired.len();
            self.journal.forget(expired.into_iter().map(|operation| operation.position).collect()).await?;
        }
        self.collect_logs(retention, log_limit_bytes).await?;
        self.collect_runs().await?;
        Ok(count)
    }

    fn remove_log(&self, key: &Key) {
        if let Err(error) = self.logs.remove(&key.run_id()) {
            tracing::warn!(operation = %key, %error, "the log of an operation stays behind");
        }
    }

    /// Removes logs that have no record and are old, and the oldest of acknowledged operations while there are too many.
    async fn collect_logs(&self, retention: Duration, limit_bytes: u64) -> Result<(), JournalError> {
        let logs = self.logs.clone();
        let files = match blocking::run(move || logs.files()).await.and_then(|files| files) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "the logs of operations cannot be listed");
                return Ok(());
            }
        };
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        let old = SystemTime::now().checked_sub(retention).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_candidate = |file: &&LogFile, total: u64| total > limit_bytes || file.modified < old;
        for batch in files.chunks(BATCH) {
            if !batch.iter().any(|file| is_candidate(&file, total)) {
                break;
            }
            let needs = self.journal.needs(batch.iter().map(|file| file.key).collect()).await?;
            for (file, need) in batch.iter().zip(needs) {
                let goes = match need {
                    Need::Needed => false,
                    Need::Acknowledged => total > limit_bytes,
                    Need::Forgotten => is_candidate(&file, total),
                };
                if goes {
                    self.remove_log(&file.key);
                    total = total.saturating_sub(file.bytes);
                }
            }
        }
        if total > limit_bytes {
            tracing::warn!(total, limit_bytes, "the logs of operations that are not acknowledged exceed their limit");
        }
        Ok(())
    }

    /// Lets go of the files of runs that have ended and that no record names: recovery and undo need them until then.
    async fn collect_runs(&self) -> Result<(), JournalError> {
        let runs = self.carrier.runs();
        let named: Vec<_> = runs.into_iter().filter_map(|run| Some((Key::of_run(&run)?, run))).collect();
        for batch in named.chunks(BATCH) {
            let needs = self.journal.needs(batch.iter().map(|(key, _)| *key).collect()).await?;
            for ((_, run), need) in batch.iter().zip(needs) {
                if need == Need::Forgotten {
                    self.carrier.forget_run(run).await;
                }
            }
        }
        Ok(())
    }

    /// Digests of the packages that unfinished operations need.
    pub async fn needed_packages(&self) -> Result<HashSet<Sha256>, JournalError> {
        let digests = |operation| match operation {
            Unfinished::Readable(resume) => {
                let order = &resume.order;
                order.step.packages(order.direction()).into_iter().map(|(_, digest)| digest.clone()).collect()
            }
            Unfinished::Unreadable { .. } => Vec::new(),
        };
        Ok(self.journal.unfinished().await?.into_iter().flat_map(digests).collect())
    }
}
