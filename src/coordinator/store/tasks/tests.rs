use super::*;
use crate::{
    graph::{Direction, Effect},
    operations::{Context, PlannedNode},
    steps::{CoordinatorStep, Step},
};
use uuid::Uuid;

fn plan() -> TaskPlan {
    let node = PlannedNode {
        step: Step::Coordinator(CoordinatorStep::Finish),
        host_id: None,
        series_id: 0,
        parallel_index: -1,
        upstreams: Vec::new(),
        execute_id: Uuid::now_v7(),
        undo_id: Uuid::now_v7(),
    };
    TaskPlan {
        name: "test".into(),
        context: Context::default(),
        host_id: None,
        obproxy_cluster_id: None,
        locks: Vec::new(),
        nodes: vec![node],
    }
}

#[tokio::test]
async fn an_append_whose_answer_got_lost_is_not_taken_for_a_foreign_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let plan = plan();
    let mut state = TaskState::new(plan.graph().unwrap());
    let mut transaction = store.begin().await.unwrap();
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let task = create(&mut transaction, &plan, &state, &origin).await.unwrap();
    let dispatched = Event::Dispatched { node: NodeIndex(0), attempt: 1, direction: Direction::Execute };
    state.apply(&dispatched).unwrap();
    let first = Append { task, epoch: 1, sequence: 1, events: vec![dispatched], state, at: 1 };
    append(&mut transaction, &first).await.unwrap();
    append(&mut transaction, &first).await.unwrap();
    let events: i64 =
        sqlx::query("SELECT COUNT(*) FROM task_events").fetch_one(&mut *transaction).await.unwrap().try_get(0).unwrap();
    assert_eq!(events, 1);
    let other = Event::CancelRequested { node: NodeIndex(0), by: "admin".into() };
    for foreign in [Append { events: vec![other], ..first.clone() }, Append { epoch: 2, ..first }] {
        assert!(matches!(append(&mut transaction, &foreign).await, Err(AppendError::Fenced(_))));
    }
    transaction.commit().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_task_that_is_taken_up_again_knows_what_has_its_outcome() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let plan = plan();
    let mut state = TaskState::new(plan.graph().unwrap());
    let mut transaction = store.begin().await.unwrap();
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let task = create(&mut transaction, &plan, &state, &origin).await.unwrap();
    let dispatch = Dispatch { node: NodeIndex(0), attempt: 1, direction: Direction::Execute };
    let events = vec![
        Event::Dispatched { node: dispatch.node, attempt: 1, direction: dispatch.direction },
        Event::Succeeded { node: dispatch.node, attempt: 1, effect: Effect::None, output: Vec::new() },
    ];
    for event in &events {
        state.apply(event).unwrap();
    }
    append(&mut transaction, &Append { task, epoch: 1, sequence: 1, events, state, at: 1 }).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(claim(&store, task, 2).await.unwrap().ended, [dispatch]);
    store.close().await;
}
