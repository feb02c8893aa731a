use super::*;
use crate::{
    graph::{Command, Direction, Dispatch, Effect, Event, TaskState},
    operations::{Context, ObjectKind, ObjectLock, PlannedNode},
    steps::{Finish, InstallPackage, Step},
};
use sqlx::AssertSqlSafe;
use std::time::Duration;
use uuid::Uuid;

fn plan() -> TaskPlan {
    let node = PlannedNode {
        step: Step::from(Finish {}),
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
    let task = create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap()[0].id;
    let dispatched = Event::Dispatched { node: NodeIndex(0), attempt: 1, direction: Direction::Execute };
    let mut draft = Draft::new(&state);
    draft.apply(&mut state, dispatched).unwrap();
    let first = draft.finish((task, 1, 1), &state, 1);
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

/// A task needs the packages of its steps until it is SUCCESSFUL, and no others, however alike their names are.
#[tokio::test]
async fn the_users_of_a_package_are_the_tasks_that_are_not_done() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let package = |name: &str| name.parse::<PackageRef>().unwrap();
    let installs = |name: &str| {
        let step = InstallPackage { package: package(name), sha256: "a".repeat(64).parse().unwrap() };
        let mut plan = plan();
        plan.nodes[0].step = Step::from(step);
        plan
    };
    let (used, longer) = ("obproxy-1.9.1.1-1.el7.x86_64", "test-obproxy-1.9.1.1-1.el7.x86_64");
    let plans = [installs(used), installs(longer), installs(used), installs(used), plan()];
    let states: Vec<_> = plans.iter().map(|plan| TaskState::new(plan.graph().unwrap())).collect();
    let new: Vec<_> = plans.iter().zip(&states).collect();
    let mut transaction = store.begin().await.unwrap();
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let ids: Vec<_> = create(&mut transaction, &new, &origin).await.unwrap().iter().map(|task| task.id).collect();
    for (task, status) in [(2, "SUCCESSFUL"), (3, "FAILED")] {
        let query = sqlx::query("UPDATE tasks SET status = ?, plan = plan || ? WHERE id = ?");
        // A plan that cannot be read counts like any other.
        query.bind(status).bind("damaged").bind(ids[task].0).execute(&mut *transaction).await.unwrap();
    }
    let user = |task: usize, status| PackageUser { id: ids[task], name: "test".into(), status };
    let users = users_of_package(&mut transaction, &package(used), 10).await.unwrap();
    assert_eq!(users, [user(3, TaskStatus::Failed), user(0, TaskStatus::Running)]);
    assert_eq!(users_of_package(&mut transaction, &package(used), 1).await.unwrap(), users[..1]);
    assert_eq!(users_of_package(&mut transaction, &package("obproxy-1.9.1.1-1.el7.aarch64"), 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_task_that_is_taken_up_again_knows_what_has_its_outcome() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let plan = plan();
    let mut state = TaskState::new(plan.graph().unwrap());
    let mut transaction = store.begin().await.unwrap();
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let task = create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap()[0].id;
    let dispatch = Dispatch { node: NodeIndex(0), attempt: 1, direction: Direction::Execute };
    let events = vec![
        Event::Dispatched { node: dispatch.node, attempt: 1, direction: dispatch.direction },
        Event::Succeeded { node: dispatch.node, attempt: 1, effect: Effect::None, output: Vec::new() },
    ];
    let mut draft = Draft::new(&state);
    for event in events {
        draft.apply(&mut state, event).unwrap();
    }
    append(&mut transaction, &draft.finish((task, 1, 1), &state, 1)).await.unwrap();
    claim(&mut transaction, task, 2).await.unwrap();
    assert_eq!(load(&mut transaction, task).await.unwrap().ended, [dispatch]);
    assert!(matches!(claim(&mut transaction, task, 1).await, Err(AppendError::Fenced(_))));
    transaction.commit().await.unwrap();
    assert_eq!(unacknowledged(store.readers()).await.unwrap(), [task]);
    let mut transaction = store.begin().await.unwrap();
    // An acknowledgement of fewer events than there are counts for nothing.
    set_acknowledged(&mut transaction, &[(task, 2)]).await.unwrap();
    assert!(!get(&mut transaction, task).await.unwrap().unwrap().acknowledged);
    set_acknowledged(&mut transaction, &[(task, 3)]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(unacknowledged(store.readers()).await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn a_task_that_this_program_cannot_read_stays_visible_and_costs_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let plan = plan();
    let state = TaskState::new(plan.graph().unwrap());
    let mut transaction = store.begin().await.unwrap();
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let mut ids = Vec::new();
    for damage in [
        "UPDATE tasks SET plan = replace(plan, '\"finish\"', '\"levitate\"') WHERE id = ?",
        "UPDATE tasks SET plan = '{' WHERE id = ?",
        "UPDATE tasks SET status = 'PONDERING' WHERE id = ?",
        "UPDATE subtasks SET run_time = -1 WHERE task_id = ?",
    ] {
        let task = create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap()[0].id;
        let changed = sqlx::query(damage).bind(task.0).execute(&mut *transaction).await.unwrap();
        assert_eq!(changed.rows_affected(), 1);
        ids.push(task);
    }
    let whole = create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap()[0].id;
    let (listed, _) = list(&mut transaction, &TaskFilter::default(), 10, 0).await.unwrap();
    assert_eq!(listed.len(), 5);
    for task in ids {
        let record = get(&mut transaction, task).await.unwrap().unwrap();
        assert_eq!((record.status, record.plan.name.as_str()), (TaskStatus::Failed, "test"));
        assert!(record.problem.is_some());
        let Err(error) = load(&mut transaction, task).await else { panic!("{task} is damaged") };
        assert!(error.problem().is_some(), "{error}");
    }
    assert!(load(&mut transaction, whole).await.is_ok());
    transaction.commit().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_restored_store_takes_an_epoch_above_those_that_agents_have_seen() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, restored) = (directory.path().join("store.db"), directory.path().join("restored.db"));
    let store = Store::open(&kept).await.unwrap();
    next_epoch(&store).await.unwrap();
    store.close().await;
    std::fs::copy(&kept, &restored).unwrap();
    let store = Store::open(&kept).await.unwrap();
    let seen = next_epoch(&store).await.unwrap();
    store.close().await;

    let store = Store::open(&restored).await.unwrap();
    let epoch = tokio::time::timeout(Duration::from_secs(10), async {
        // The clock of the backup's machine has gone on meanwhile.
        while now_micros() / 1_000_000 <= seen {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        next_epoch(&store).await.unwrap()
    });
    assert!(epoch.await.unwrap() > seen);
    store.close().await;
}

/// Its sequence fits as long as the newer one has appended nothing: only the epoch tells them apart.
#[tokio::test]
async fn a_coordinator_that_lost_a_task_appends_nothing_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let plan = plan();
    let mut transaction = store.begin().await.unwrap();
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let mut appends = Vec::new();
    for _ in 0..2 {
        let mut state = TaskState::new(plan.graph().unwrap());
        let task = create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap()[0].id;
        claim(&mut transaction, task, 2).await.unwrap();
        appends.push(next(0, task, &mut state, 1));
    }
    for stale in &appends {
        let refused = append(&mut transaction, stale).await;
        assert!(matches!(refused, Err(AppendError::Fenced(_))), "{refused:?}");
    }
    let here = places(&mut transaction, appends.iter().map(|append| append.task)).await.unwrap();
    let refused = append_all(&mut transaction, &appends.iter().collect::<Vec<_>>(), &here).await.unwrap();
    assert!(refused.iter().all(|refused| matches!(refused, Err(AppendError::Fenced(_)))), "{refused:?}");
    transaction.commit().await.unwrap();
    assert_eq!(dump(&store, "task_events", "task_id", "task_id").await, [""; 0]);
    appends.iter_mut().for_each(|append| append.epoch = 2);
    let mut transaction = store.begin().await.unwrap();
    append(&mut transaction, &appends[0]).await.unwrap();
}

/// Where a store has several writers: nothing is written by the half.
#[tokio::test]
async fn a_coordinator_that_loses_a_task_between_the_look_and_the_write_undoes_the_group() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let plan = plan();
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let mut states = [TaskState::new(plan.graph().unwrap()), TaskState::new(plan.graph().unwrap())];
    let mut transaction = store.begin().await.unwrap();
    let new: Vec<NewTask> = states.iter().map(|state| (&plan, state)).collect();
    let made = create(&mut transaction, &new, &origin).await.unwrap();
    let tasks: Vec<_> = made.iter().map(|record| record.id).collect();
    let seen = places(&mut transaction, tasks.clone()).await.unwrap();
    claim(&mut transaction, tasks[1], 3).await.unwrap();
    let appends = [next(0, tasks[0], &mut states[0], 1), next(0, tasks[1], &mut states[1], 1)];
    append_all(&mut transaction, &appends.iter().collect::<Vec<_>>(), &seen).await.unwrap_err();
    claim_all(&mut transaction, &[(tasks[0], 2), (tasks[1], 2)], &seen).await.unwrap_err();
    let here = places(&mut transaction, tasks.clone()).await.unwrap();
    let claimed = claim_all(&mut transaction, &[(tasks[0], 2), (tasks[1], 2)], &here).await.unwrap();
    assert!(matches!(claimed[..], [Ok(()), Err(AppendError::Fenced(_))]), "{claimed:?}");
}

/// What the engine does with a refusal: its neighbours are committed, so it must have changed nothing.
#[tokio::test]
async fn a_coordinator_that_lost_a_task_neither_fails_it_nor_takes_its_locks() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let plan = TaskPlan { locks: vec![ObjectLock::exclusive(ObjectKind::Host, 1)], ..plan() };
    let state = TaskState::new(plan.graph().unwrap());
    let mut transaction = store.begin().await.unwrap();
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let task = create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap()[0].id;
    claim(&mut transaction, task, 2).await.unwrap();
    locks::release(&mut transaction, task).await.unwrap();
    transaction.commit().await.unwrap();
    let seen = async || {
        let record = get(&mut store.readers().acquire().await.unwrap(), task).await.unwrap().unwrap();
        (record.status, record.problem, dump(&store, "object_locks", "task_id", "task_id").await)
    };
    let before = seen().await;
    assert_eq!(before, (TaskStatus::Running, None, vec![]));
    for problem in [Some("it is odd"), None] {
        let mut transaction = store.begin().await.unwrap();
        let refused = set_problem(&mut transaction, task, 1, problem, TaskStatus::Failed).await;
        assert!(matches!(refused, Err(AppendError::Fenced(_))), "{refused:?}");
        transaction.commit().await.unwrap();
        assert_eq!(seen().await, before, "{problem:?}");
    }

    let mut transaction = store.begin().await.unwrap();
    set_problem(&mut transaction, task, 2, Some("it is odd"), TaskStatus::Failed).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(seen().await, (TaskStatus::Failed, Some("it is odd".into()), vec![]));
    let mut transaction = store.begin().await.unwrap();
    set_problem(&mut transaction, task, 2, None, TaskStatus::Running).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(seen().await, (TaskStatus::Running, None, vec![format!("[{task}]")]));
}

/// Text of all rows of a table, without what differs from run to run.
async fn dump(store: &Store, table: &str, columns: &str, order: &str) -> Vec<String> {
    let query = AssertSqlSafe(format!("SELECT json_array({columns}) FROM {table} ORDER BY {order}"));
    sqlx::query_scalar(query).fetch_all(store.readers()).await.unwrap()
}

async fn everything(store: &Store) -> Vec<Vec<String>> {
    vec![
        dump(store, "tasks", "id, status, operation, finished_at, next_sequence, acknowledged, epoch", "id").await,
        dump(store, "subtasks", "task_id, node, status, operation, run_time, started_at, finished_at, failure", "id")
            .await,
        dump(
            store,
            "task_events",
            "task_id, sequence, node, attempt, kind, payload, epoch, created_at",
            "task_id, sequence",
        )
        .await,
        dump(store, "object_locks", "object_kind, object_id, task_id", "task_id").await,
    ]
}

/// What a task's driver would append next, of whatever kind, by a number.
fn next(kind: i64, task: TaskId, state: &mut TaskState, sequence: i64) -> Append {
    let (node, attempt) = (NodeIndex(0), 1);
    let mut draft = Draft::new(state);
    if sequence == 1 {
        draft.apply(state, Event::Dispatched { node, attempt, direction: Direction::Execute }).unwrap();
    } else if kind % 3 == 0 {
        let failure = Failure { message: format!("of {task}"), ..Failure::example(Effect::None) };
        draft.apply(state, Event::Failed { node, attempt, failure }).unwrap();
    } else {
        draft.apply(state, Event::Succeeded { node, attempt, effect: Effect::Done, output: Vec::new() }).unwrap();
    }
    let epoch = if kind % 5 == 4 { 2 } else { 1 };
    draft.finish((task, epoch, sequence), state, 1000 + kind)
}

/// Alone and in a group: an append by which a task runs again takes what it has to reserve, under the epoch that holds it.
#[tokio::test]
async fn a_task_runs_again_only_with_its_locks() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db")).await.unwrap();
    let lock = ObjectLock::exclusive(ObjectKind::Host, 1);
    let plan = TaskPlan { locks: vec![lock], ..plan() };
    let mut state = TaskState::new(plan.graph().unwrap());
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
    let mut transaction = store.begin().await.unwrap();
    let task = create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap()[0].id;
    for sequence in [1, 2] {
        append(&mut transaction, &next(0, task, &mut state, sequence)).await.unwrap();
    }
    locks::release(&mut transaction, task).await.unwrap();
    let fresh = TaskState::new(plan.graph().unwrap());
    let other = create(&mut transaction, &[(&plan, &fresh)], &origin).await.unwrap()[0].id;
    transaction.commit().await.unwrap();

    let event = state.decide(Command::Retry, "admin").unwrap();
    let mut draft = Draft::new(&state);
    draft.apply(&mut state, event).unwrap();
    let retry = draft.finish((task, 1, 3), &state, 1);
    assert!(retry.resumes);
    let before = everything(&store).await;
    let write = async |epoch, together| {
        let mut transaction = store.begin().await.unwrap();
        let retry = Append { epoch, ..retry.clone() };
        let here = places(&mut transaction, [task]).await.unwrap();
        let written = match together {
            true => append_all(&mut transaction, &[&retry], &here).await.unwrap().remove(0),
            false => append(&mut transaction, &retry).await,
        };
        transaction.commit().await.unwrap();
        written
    };
    for together in [false, true] {
        let refused = write(1, together).await;
        assert!(matches!(&refused, Err(AppendError::Reserved(holder)) if holder.task == other), "{refused:?}");
        assert_eq!(everything(&store).await, before);
    }
    let mut transaction = store.begin().await.unwrap();
    locks::release(&mut transaction, other).await.unwrap();
    claim(&mut transaction, task, 2).await.unwrap();
    transaction.commit().await.unwrap();
    let before = everything(&store).await;
    for together in [false, true] {
        assert!(matches!(write(1, together).await, Err(AppendError::Fenced(_))));
        assert_eq!(everything(&store).await, before, "whoever has lost the task takes nothing for it");
    }
    write(2, true).await.unwrap();
    let mut connection = store.readers().acquire().await.unwrap();
    assert_eq!(locks::holder(&mut connection, &lock).await.unwrap().map(|holder| holder.task), Some(task));
}

/// A group of appends leaves what they leave one by one: good ones, refused ones, and ones that were written before.
#[tokio::test]
async fn many_appends_leave_what_single_ones_leave() {
    for count in [1, 2, 7, 100] {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan();
        let mut stores = Vec::new();
        for name in ["single.db", "together.db"] {
            let store = Store::open(&directory.path().join(name)).await.unwrap();
            let mut transaction = store.begin().await.unwrap();
            let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 1 };
            for number in 0..count {
                let lock = ObjectLock::exclusive(ObjectKind::Host, number);
                let plan = TaskPlan { locks: vec![lock], ..plan.clone() };
                let state = TaskState::new(plan.graph().unwrap());
                create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap();
            }
            transaction.commit().await.unwrap();
            stores.push(store);
        }
        let mut states: Vec<TaskState> = (0..count).map(|_| TaskState::new(plan.graph().unwrap())).collect();
        for sequence in [1, 2] {
            let mut appends: Vec<Append> = (0_i64..)
                .zip(&mut states)
                .map(|(number, state)| next(number, TaskId(number + 1), state, sequence))
                .collect();
            // One whose answer got lost.
            appends.extend(appends.first().cloned());
            let mut singly = Vec::new();
            let mut transaction = stores[0].begin().await.unwrap();
            for one in &appends {
                singly.push(format!("{:?}", append(&mut transaction, one).await));
            }
            transaction.commit().await.unwrap();
            let mut transaction = stores[1].begin().await.unwrap();
            let here = places(&mut transaction, appends.iter().map(|append| append.task)).await.unwrap();
            let together = append_all(&mut transaction, &appends.iter().collect::<Vec<_>>(), &here).await.unwrap();
            transaction.commit().await.unwrap();
            assert_eq!(together.iter().map(|result| format!("{result:?}")).collect::<Vec<_>>(), singly);
            assert_eq!(everything(&stores[1]).await, everything(&stores[0]).await, "{count} at sequence {sequence}");
        }
    }
}
