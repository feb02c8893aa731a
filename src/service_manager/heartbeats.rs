use futures_util::future::{BoxFuture, join_all};
use std::time::Duration;

type Beat = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The parts of a daemon that have to go on for ever. A part is asked and answers by doing its own work once, so that
/// an idle part is not taken for a stuck one, nor the other way round.
#[derive(Default)]
pub struct Heartbeats(Vec<(&'static str, Beat)>);

impl Heartbeats {
    /// `beat` ends when the part has made progress, and not before.
    pub fn add<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        part: &'static str,
        beat: impl Fn() -> F + Send + Sync + 'static,
    ) {
        self.0.push((part, Box::new(move || Box::pin(beat()))));
    }

    /// Asks all parts; answers the names of those that are silent for `limit`.
    pub(super) async fn beat(&self, limit: Duration) -> Result<(), Vec<&'static str>> {
        let asked = self
            .0
            .iter()
            .map(|(part, beat)| async move { tokio::time::timeout(limit, beat()).await.err().map(|_elapsed| *part) });
        let silent: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        if silent.is_empty() { Ok(()) } else { Err(silent) }
    }
}
