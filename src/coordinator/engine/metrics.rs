use prometheus::{IntCounter, IntGauge, Registry};

/// What the engine counts of itself.
#[derive(Clone)]
pub struct EngineMetrics {
    pub(super) events: IntCounter,
    pub(super) commits: IntCounter,
    pub(super) driven: IntGauge,
    pub(super) waiting: IntGauge,
    pub(super) problems: IntCounter,
    pub(super) swept: IntCounter,
}

impl EngineMetrics {
    /// Fails if the registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            events: IntCounter::new("oblet_engine_events_total", "Events written to the journals of tasks.")?,
            commits: IntCounter::new(
                "oblet_engine_commits_total",
                "Transactions of the engine that were synced to disk; each writes all events that wait for it.",
            )?,
            driven: IntGauge::new(
                "oblet_engine_driven_tasks",
                "Tasks that the coordinator is driving, or that wait for their turn.",
            )?,
            waiting: IntGauge::new(
                "oblet_engine_waiting_tasks",
                "Running tasks that wait for their turn, because `running_tasks` others are under way.",
            )?,
            problems: IntCounter::new(
                "oblet_engine_task_problems_total",
                "Tasks that could not be resumed, because their record is damaged or a newer program wrote it.",
            )?,
            swept: IntCounter::new(
                "oblet_engine_swept_tasks_total",
                "Running tasks without a driver that the sweep found and resumed.",
            )?,
        };
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.commits.clone()))?;
        registry.register(Box::new(metrics.driven.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.problems.clone()))?;
        registry.register(Box::new(metrics.swept.clone()))?;
        Ok(metrics)
    }
}
