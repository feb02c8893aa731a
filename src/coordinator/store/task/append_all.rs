//! Appends of many tasks in a few statements. Every statement goes from one thread to another and back, which costs more
//! than what most of them do; so a commit that serves a hundred tasks must not need hundreds.
//!
//!  1. A statement is about at most 64 rows, and about a power of two of them: there are few texts, and the
//!     store keeps them prepared.
//!  2. Appends whose tasks are not where they expect them, those that take locks, and whatever carries a failure, take the
//!     way of single ones, after the others: these release locks.

use super::{
    AppendError, TaskId,
    append::{Append, Clock, SubtaskChange, append, event_row, project},
};
use crate::{
    coordinator::store::{StoreError, locks, pieces, push_in},
    graph::{Operation, SubtaskStatus, TaskStatus},
};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Where the journals of tasks end, and under which epoch; of those that exist.
pub type Places = HashMap<TaskId, Place>;

/// Where the journal of a task ends, and under which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub epoch: i64,
    pub next_sequence: i64,
}

pub async fn places(
    connection: &mut AnyConnection,
    tasks: impl IntoIterator<Item = TaskId>,
) -> Result<Places, StoreError> {
    let ids: BTreeSet<i64> = tasks.into_iter().map(|task| task.0).collect();
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut places = HashMap::with_capacity(ids.len());
    for piece in pieces(&ids) {
        for row in places_query(piece).build().fetch_all(&mut *connection).await? {
            places.insert(TaskId(row.try_get(0)?), Place { epoch: row.try_get(1)?, next_sequence: row.try_get(2)? });
        }
    }
    Ok(places)
}

/// Does what [`append`] does for each of them, in any order between tasks; answers what came of each. A store error is
/// one of all of them.
pub async fn append_all(
    connection: &mut AnyConnection,
    appends: &[&Append],
    places: &Places,
) -> Result<Vec<Result<(), AppendError>>, StoreError> {
    let together = at_their_places(appends, places);
    let batch: Vec<&Append> =
        appends.iter().enumerate().filter(|(index, _)| together.contains(index)).map(|(_, append)| *append).collect();
    for piece in pieces(&batch) {
        update_tasks(connection, piece).await?;
    }
    write_events(connection, &batch).await?;
    update_subtasks(connection, &batch).await?;
    let ended: Vec<_> = batch.iter().filter(|append| append.status == TaskStatus::Successful).map(|a| a.task).collect();
    for piece in pieces(&ended) {
        locks::release_all(connection, piece).await?;
    }
    let mut results = Vec::with_capacity(appends.len());
    for (index, one) in appends.iter().enumerate() {
        results.push(match together.contains(&index) {
            true => Ok(()),
            false => match append(connection, one).await {
                Err(AppendError::Store(error)) => return Err(error),
                result => result,
            },
        });
    }
    Ok(results)
}

/// Which of them begin where the journal of their task ends, under the epoch that holds it. Of two for one task neither
/// counts: the second can only follow the first.
fn at_their_places(appends: &[&Append], places: &Places) -> HashSet<usize> {
    let mut by_task: HashMap<TaskId, Option<usize>> = HashMap::new();
    for (index, append) in appends.iter().enumerate() {
        by_task.entry(append.task).and_modify(|first| *first = None).or_insert(Some(index));
    }
    let fits = |index: &usize| {
        appends.get(*index).is_some_and(|append| {
            let here = Place { epoch: append.epoch, next_sequence: append.sequence };
            !append.resumes && places.get(&append.task) == Some(&here)
        })
    };
    by_task.into_values().flatten().filter(fits).collect()
}

pub(in crate::coordinator::store) fn places_query(ids: &[i64]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT id, epoch, next_sequence FROM tasks WHERE id");
    push_in(&mut query, ids.iter().copied());
    query
}

/// `column = CASE key WHEN ? THEN ? ... END`
fn push_case<'a, T>(
    query: &mut QueryBuilder<Any>,
    column: &str,
    rows: &'a [T],
    mut bind: impl FnMut(&mut QueryBuilder<Any>, &'a T),
) {
    query.push(column).push(" = CASE ");
    for row in rows {
        query.push(" WHEN ");
        bind(query, row);
    }
    query.push(" END");
}

async fn update_tasks(connection: &mut AnyConnection, appends: &[&Append]) -> Result<(), StoreError> {
    let done = tasks_query(appends).build().execute(connection).await?;
    all_of(appends.len(), done.rows_affected())
}

/// Where a store has several writers, another coordinator may come between the look and the write. Then all is undone,
/// and each is written by itself.
pub(super) fn all_of(count: usize, written: u64) -> Result<(), StoreError> {
    if u64::try_from(count) == Ok(written) { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
}

pub(in crate::coordinator::store) fn tasks_query(appends: &[&Append]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("UPDATE tasks SET acknowledged = 0, ");
    push_case(&mut query, "status", appends, |query, append| {
        push_when(query, append).push_bind(append.status.as_str());
    });
    push_case(query.push(", "), "operation", appends, |query, append| {
        push_when(query, append).push_bind(append.operation.as_str());
    });
    push_case(query.push(", "), "finished_at", appends, |query, append| {
        push_when(query, append).push_bind(append.finished_at());
    });
    push_case(query.push(", "), "next_sequence", appends, |query, append| {
        push_when(query, append).push_bind(append.next_sequence());
    });
    query.push(" WHERE ");
    for (index, append) in appends.iter().enumerate() {
        query.push(if index == 0 { "(id = " } else { " OR (id = " }).push_bind(append.task.0);
        query.push(" AND epoch = ").push_bind(append.epoch);
        query.push(" AND next_sequence = ").push_bind(append.sequence).push(")");
    }
    query
}

fn push_when<'q>(query: &'q mut QueryBuilder<Any>, append: &Append) -> &'q mut QueryBuilder<Any> {
    query.push("id = ").push_bind(append.task.0).push(" THEN ")
}

async fn write_events(connection: &mut AnyConnection, appends: &[&Append]) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(2 * appends.len());
    for append in appends {
        for (sequence, event) in (append.sequence..).zip(&append.events) {
            rows.push((*append, sequence, event, super::encode(event)?));
        }
    }
    for piece in pieces(&rows) {
        let mut query = QueryBuilder::<Any>::new(super::append::INSERT_EVENTS);
        query.push_values(piece, |row, (append, sequence, event, payload)| {
            event_row(row, append, *sequence, event, payload.clone());
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// What rows of subtasks that are written together have in common.
type Kind = (SubtaskStatus, Operation, u32, bool, bool);

/// A subtask by its task and its node, and when the events moved it.
pub(in crate::coordinator::store) struct Moved {
    task: i64,
    node: i64,
    at: i64,
}

async fn update_subtasks(connection: &mut AnyConnection, appends: &[&Append]) -> Result<(), StoreError> {
    let mut kinds: HashMap<Kind, Vec<Moved>> = HashMap::new();
    for append in appends {
        for change in &append.subtasks {
            if change.failure.is_some() {
                project(connection, append, change).await?;
                continue;
            }
            let SubtaskChange { node, status, operation, attempt, clock: Clock { started, ended }, .. } = change;
            let moved = Moved { task: append.task.0, node: i64::from(node.0), at: append.at };
            kinds.entry((*status, *operation, *attempt, *started, *ended)).or_default().push(moved);
        }
    }
    for (kind, moved) in &kinds {
        for piece in pieces(moved) {
            subtasks_query(*kind, piece).build().execute(&mut *connection).await?;
        }
    }
    Ok(())
}

pub(in crate::coordinator::store) fn subtasks_query(
    (status, operation, attempt, started, ended): Kind,
    moved: &[Moved],
) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("UPDATE subtasks SET status = ");
    query.push_bind(status.as_str()).push(", operation = ").push_bind(operation.as_str());
    query.push(", run_time = ").push_bind(i64::from(attempt)).push(", failure = NULL");
    let push_times = |query: &mut QueryBuilder<Any>, column: &str| {
        push_case(query.push(", "), column, moved, |query, subtask| {
            query.push("task_id = ").push_bind(subtask.task).push(" THEN ").push_bind(subtask.at);
        });
    };
    if started {
        push_times(&mut query, "started_at");
    }
    if ended {
        push_times(&mut query, "finished_at");
    } else if started {
        query.push(", finished_at = NULL");
    }
    query.push(" WHERE ");
    for (index, subtask) in moved.iter().enumerate() {
        query.push(if index == 0 { "(task_id = " } else { " OR (task_id = " }).push_bind(subtask.task);
        query.push(" AND node = ").push_bind(subtask.node).push(")");
    }
    query
}

#[cfg(test)]
pub(in crate::coordinator::store) fn some_queries() -> Vec<QueryBuilder<Any>> {
    let append = |task| Append {
        task: TaskId(task),
        epoch: 1,
        sequence: 1,
        events: Vec::new(),
        at: 1,
        status: TaskStatus::Running,
        operation: Operation::Execute,
        subtasks: Vec::new(),
        resumes: false,
    };
    let appends = [append(1), append(2)];
    let moved = [Moved { task: 1, node: 0, at: 1 }, Moved { task: 2, node: 0, at: 1 }];
    let kind = |started, ended| (SubtaskStatus::Running, Operation::Execute, 1, started, ended);
    let mut queries = vec![places_query(&[1, 2]), tasks_query(&appends.iter().collect::<Vec<_>>())];
    queries.extend([(false, false), (true, false), (false, true)].map(|(s, e)| subtasks_query(kind(s, e), &moved)));
    queries
}
