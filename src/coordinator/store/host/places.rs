//! Where hosts stand and what they are: regions, the data centres (IDCs) in them, and types of hosts.

use crate::{
    coordinator::store::{
        StoreError, allocate,
        columns::{Cause, parse},
        push_in,
    },
    graph::wire_enum,
};
use serde::{Deserialize, Serialize};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

wire_enum! {
    PlaceKind {
        Region => "REGION",
        Idc => "IDC",
        HostType => "HOST_TYPE",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Unique among all kinds.
    pub id: i64,
    pub kind: PlaceKind,
    /// Unique among places of this kind.
    pub name: String,
    pub description: String,
    /// In which region an IDC lies; none of the others.
    pub region_id: Option<i64>,
}

/// Fails with a conflict ([`StoreError::is_conflict`]) if the name is taken.
pub async fn insert(
    connection: &mut AnyConnection,
    kind: PlaceKind,
    name: &str,
    description: &str,
    region_id: Option<i64>,
) -> Result<Place, StoreError> {
    let id = allocate(connection, "place", 1).await?;
    sqlx::query("INSERT INTO places (id, kind, name, description, region_id) VALUES (?, ?, ?, ?, ?)")
        .bind(id)
        .bind(kind.as_str())
        .bind(name)
        .bind(description)
        .bind(region_id)
        .execute(connection)
        .await?;
    Ok(Place { id, kind, name: name.to_owned(), description: description.to_owned(), region_id })
}

/// None also if it is of another kind.
pub async fn get(connection: &mut AnyConnection, kind: PlaceKind, id: i64) -> Result<Option<Place>, StoreError> {
    let row = sqlx::query("SELECT * FROM places WHERE id = ? AND kind = ?").bind(id).bind(kind.as_str());
    row.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// Places of whatever kind, by their ids.
pub async fn find(
    connection: &mut AnyConnection,
    ids: impl IntoIterator<Item = i64>,
) -> Result<HashMap<i64, Place>, StoreError> {
    let ids: BTreeSet<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = find_query(ids).build().fetch_all(connection).await?;
    rows.iter().map(|row| read(row).map(|place| (place.id, place))).collect()
}

pub(in crate::coordinator) fn find_query(ids: impl IntoIterator<Item = i64>) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT * FROM places WHERE id");
    push_in(&mut query, ids);
    query
}

/// Answers one page, oldest first, and the number of all places of this kind.
pub async fn list(
    connection: &mut AnyConnection,
    kind: PlaceKind,
    limit: i64,
    offset: i64,
) -> Result<(Vec<Place>, i64), StoreError> {
    let total = sqlx::query("SELECT COUNT(*) FROM places WHERE kind = ?").bind(kind.as_str());
    let total = total.fetch_one(&mut *connection).await?.try_get(0)?;
    let rows = sqlx::query("SELECT * FROM places WHERE kind = ? ORDER BY id LIMIT ? OFFSET ?")
        .bind(kind.as_str())
        .bind(limit)
        .bind(offset)
        .fetch_all(connection)
        .await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
}

/// How many hosts and IDCs name this place.
pub async fn uses(connection: &mut AnyConnection, id: i64) -> Result<i64, StoreError> {
    let mut uses = 0;
    for count in [
        "SELECT COUNT(*) FROM hosts WHERE idc_id = ?",
        "SELECT COUNT(*) FROM hosts WHERE type_id = ?",
        "SELECT COUNT(*) FROM places WHERE region_id = ?",
    ] {
        uses += sqlx::query(count).bind(id).fetch_one(&mut *connection).await?.try_get::<i64, _>(0)?;
    }
    Ok(uses)
}

pub async fn delete(connection: &mut AnyConnection, id: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM places WHERE id = ?").bind(id).execute(connection).await?;
    Ok(())
}

/// Names of the IDCs of hosts, as far as they have one.
pub async fn idc_names(
    connection: &mut AnyConnection,
    hosts: impl IntoIterator<Item = i64>,
) -> Result<HashMap<i64, String>, StoreError> {
    let hosts: BTreeSet<i64> = hosts.into_iter().collect();
    if hosts.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = idc_names_query(hosts).build().fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("name")?))).collect()
}

pub(in crate::coordinator) fn idc_names_query(hosts: impl IntoIterator<Item = i64>) -> QueryBuilder<Any> {
    let mut query =
        QueryBuilder::<Any>::new("SELECT h.id, p.name FROM hosts h JOIN places p ON p.id = h.idc_id WHERE h.id");
    push_in(&mut query, hosts);
    query
}

fn read(row: &AnyRow) -> Result<Place, StoreError> {
    let id: i64 = row.try_get("id")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "places", id, source };
    Ok(Place {
        id,
        kind: parse(row, "kind").map_err(damaged)?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        region_id: row.try_get("region_id")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::{Store, host};

    #[tokio::test]
    async fn a_place_is_found_by_its_kind_and_counts_who_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut rows = store.begin().await.unwrap();
        let region = insert(&mut rows, PlaceKind::Region, "north", "", None).await.unwrap();
        let idc = insert(&mut rows, PlaceKind::Idc, "north", "cellar", Some(region.id)).await.unwrap();
        assert_eq!(get(&mut rows, PlaceKind::Idc, idc.id).await.unwrap().as_ref(), Some(&idc));
        assert_eq!(get(&mut rows, PlaceKind::Region, idc.id).await.unwrap(), None);
        assert_eq!(list(&mut rows, PlaceKind::Region, 10, 0).await.unwrap(), (vec![region.clone()], 1));
        assert_eq!(find(&mut rows, [idc.id, 77]).await.unwrap().len(), 1);
        assert_eq!((uses(&mut rows, region.id).await.unwrap(), uses(&mut rows, idc.id).await.unwrap()), (1, 0));

        let address = "192.0.2.1".parse().unwrap();
        let mut host = host::insert(&mut rows, address, 1, 2, &host::HostDetails::default()).await.unwrap();
        host::set_place(&mut rows, host.id, Some(idc.id), None).await.unwrap();
        host = host::get(&mut rows, host.id).await.unwrap().unwrap();
        assert_eq!((host.idc_id, host.type_id), (Some(idc.id), None));
        assert_eq!(uses(&mut rows, idc.id).await.unwrap(), 1);
        assert_eq!(idc_names(&mut rows, [host.id, 9]).await.unwrap(), HashMap::from([(host.id, "north".into())]));
        assert!(insert(&mut rows, PlaceKind::Idc, "north", "", None).await.unwrap_err().is_conflict());
    }
}
