//! Software packages: rows here, files beside the store under their digest.

use super::{
    StoreError, allocate,
    columns::{Cause, parse},
    now_micros, pieces, push_in,
};
use crate::{
    graph::wire_enum,
    steps::values::{PackageRef, Sha256},
};
use serde::{Deserialize, Serialize};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

wire_enum! {
    /// OCP's types of packages.
    PackageKind {
        ObServer => "OB_SERVER_INSTALL_PACKAGE",
        Agent => "OCP_AGENT_INSTALL_PACKAGE",
        Obproxy => "OBPROXY_INSTALL_PACKAGE",
        BackupAgent => "OB_BACKUP_AGENT_INSTALL_PACKAGE",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub id: i64,
    pub package: PackageRef,
    pub kind: PackageKind,
    pub size_bytes: i64,
    pub installed_bytes: i64,
    /// OCP shows this digest; nothing is decided by it.
    pub sha1: String,
    pub sha256: Sha256,
    pub created_at: i64,
}

/// A package before it has an id.
#[derive(Debug, Clone)]
pub struct NewPackage {
    pub package: PackageRef,
    pub kind: PackageKind,
    pub size_bytes: i64,
    pub installed_bytes: i64,
    pub sha1: String,
    pub sha256: Sha256,
}

/// Where the file of a package is kept.
pub fn path(packages_dir: &Path, package: &Package) -> PathBuf {
    packages_dir.join(package.sha256.as_str()).join(package.package.file_name())
}

pub async fn get(connection: &mut AnyConnection, id: i64) -> Result<Option<Package>, StoreError> {
    let row = sqlx::query("SELECT * FROM packages WHERE id = ?").bind(id).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

pub async fn by_file_name(connection: &mut AnyConnection, file_name: &str) -> Result<Option<Package>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM packages WHERE file_name = ?").bind(file_name).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// Packages by the names of their files, those that exist.
pub async fn by_file_names(
    connection: &mut AnyConnection,
    names: &[String],
) -> Result<HashMap<String, Package>, StoreError> {
    let mut found = HashMap::with_capacity(names.len());
    for piece in pieces(names) {
        for row in by_file_names_query(piece).build().fetch_all(&mut *connection).await? {
            let package = read(&row)?;
            found.insert(package.package.file_name(), package);
        }
    }
    Ok(found)
}

pub(super) fn by_file_names_query(names: &[String]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT * FROM packages WHERE file_name");
    push_in(&mut query, names.iter().cloned());
    query
}

/// Finds packages by file name or by OCP's short name, which several architectures and systems share. Newest first.
pub async fn by_name(connection: &mut AnyConnection, name: &str) -> Result<Vec<Package>, StoreError> {
    let packages = all(connection).await?;
    let fits = |package: &Package| package.package.file_name() == name || package.package.short_name() == name;
    Ok(packages.into_iter().filter(fits).collect())
}

/// Fails with a conflict ([`StoreError::is_conflict`]) if a package of this name is there.
pub async fn insert(connection: &mut AnyConnection, new: NewPackage) -> Result<Package, StoreError> {
    let package = Package {
        id: allocate(connection, "package", 1).await?,
        package: new.package,
        kind: new.kind,
        size_bytes: new.size_bytes,
        installed_bytes: new.installed_bytes,
        sha1: new.sha1,
        sha256: new.sha256,
        created_at: now_micros(),
    };
    sqlx::query(
        "INSERT INTO packages (id, file_name, kind, size_bytes, installed_bytes, sha1, sha256, created_at, version, \
         operating_system, architecture) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(package.id)
    .bind(package.package.file_name())
    .bind(package.kind.as_str())
    .bind(package.size_bytes)
    .bind(package.installed_bytes)
    .bind(&package.sha1)
    .bind(package.sha256.as_str())
    .bind(package.created_at)
    .bind(package.package.version())
    .bind(package.package.operating_system())
    .bind(package.package.architecture())
    .execute(connection)
    .await?;
    Ok(package)
}

/// All packages, newest first. They are few: one per version and architecture.
pub async fn all(connection: &mut AnyConnection) -> Result<Vec<Package>, StoreError> {
    let rows = sqlx::query("SELECT * FROM packages ORDER BY id DESC").fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// What a list of packages is narrowed to; empty fields narrow nothing.
#[derive(Debug, Clone, Default)]
pub struct PackageFilter {
    /// Part of the file name.
    pub keyword: Option<String>,
    pub kinds: Vec<PackageKind>,
    pub versions: Vec<String>,
    /// Distribution tags, such as `el7`.
    pub operating_systems: Vec<String>,
    /// As the file names have them: a deb for x86_64 is one for amd64.
    pub architectures: Vec<String>,
    /// Oldest first instead of newest first.
    pub ascending: bool,
}

/// Answers one page and the number of all packages that fit.
pub async fn list(
    connection: &mut AnyConnection,
    filter: &PackageFilter,
    limit: i64,
    offset: i64,
) -> Result<(Vec<Package>, i64), StoreError> {
    let total: i64 = count_query(filter).build().fetch_one(&mut *connection).await?.try_get(0)?;
    let rows = page_query(filter, limit, offset).build().fetch_all(connection).await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
}

pub(super) fn count_query(filter: &PackageFilter) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT COUNT(*) FROM packages WHERE 1 = 1");
    push_filter(&mut query, filter);
    query
}

pub(super) fn page_query(filter: &PackageFilter, limit: i64, offset: i64) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT * FROM packages WHERE 1 = 1");
    push_filter(&mut query, filter);
    query.push(if filter.ascending { " ORDER BY id" } else { " ORDER BY id DESC" });
    query.push(" LIMIT ").push_bind(limit).push(" OFFSET ").push_bind(offset);
    query
}

fn push_filter(query: &mut QueryBuilder<Any>, filter: &PackageFilter) {
    if let Some(keyword) = &filter.keyword {
        query.push(" AND INSTR(file_name, ").push_bind(keyword.clone()).push(") > 0");
    }
    if !filter.kinds.is_empty() {
        query.push(" AND kind");
        push_in(query, filter.kinds.iter().map(|kind| kind.as_str().to_owned()));
    }
    for (column, values) in [
        (" AND version", &filter.versions),
        (" AND operating_system", &filter.operating_systems),
        (" AND architecture", &filter.architectures),
    ] {
        if !values.is_empty() {
            query.push(column);
            push_in(query, values.iter().cloned());
        }
    }
}

/// Packages that were uploaded when the store had no columns for the parts of their names get these filled in.
pub(super) async fn complete(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT * FROM packages WHERE version IS NULL").fetch_all(&mut *connection).await?;
    for row in &rows {
        let Package { id, package, .. } = read(row)?;
        sqlx::query("UPDATE packages SET version = ?, operating_system = ?, architecture = ? WHERE id = ?")
            .bind(package.version())
            .bind(package.operating_system())
            .bind(package.architecture())
            .bind(id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Answers whether there was such a package. The file is the caller's to remove, after the commit.
pub async fn delete(connection: &mut AnyConnection, id: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM packages WHERE id = ?").bind(id).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

fn read(row: &AnyRow) -> Result<Package, StoreError> {
    let id: i64 = row.try_get("id")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "packages", id, source };
    let text = |column: &str| row.try_get::<String, _>(column);
    Ok(Package {
        id,
        package: text("file_name")?.parse().map_err(|error| damaged(Box::new(error)))?,
        kind: parse(row, "kind").map_err(damaged)?,
        size_bytes: row.try_get("size_bytes")?,
        installed_bytes: row.try_get("installed_bytes")?,
        sha1: text("sha1")?,
        sha256: text("sha256")?.parse().map_err(|error| damaged(Box::new(error)))?,
        created_at: row.try_get("created_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::Store;

    fn new(name: &str) -> NewPackage {
        NewPackage {
            package: name.parse().unwrap(),
            kind: PackageKind::Obproxy,
            size_bytes: 10,
            installed_bytes: 20,
            sha1: "0".repeat(40),
            sha256: "a".repeat(64).parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_package_is_found_by_both_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let name = "obproxy-1.9.1.1-1919579.el7.x86_64.rpm";
        let package = insert(&mut transaction, new(name)).await.unwrap();
        let other = insert(&mut transaction, new("obproxy-1.9.1.1-1919579.el7.aarch64.rpm")).await.unwrap();
        assert!(insert(&mut transaction, new(name)).await.unwrap_err().is_conflict());
        assert_eq!(by_file_name(&mut transaction, name).await.unwrap().as_ref(), Some(&package));
        let found = by_file_names(&mut transaction, &[name.to_owned(), "other".to_owned()]).await.unwrap();
        assert_eq!(found, HashMap::from([(name.to_owned(), package.clone())]));
        assert_eq!(by_name(&mut transaction, name).await.unwrap(), std::slice::from_ref(&package));
        let both = by_name(&mut transaction, "obproxy-1.9.1.1-1919579").await.unwrap();
        assert_eq!(both, [other, package.clone()]);
        let path = path(Path::new("/p"), &package);
        assert_eq!(path, Path::new("/p").join("a".repeat(64)).join(name));
        assert!(delete(&mut transaction, package.id).await.unwrap());
        assert_eq!(get(&mut transaction, package.id).await.unwrap(), None);
    }

    const NAMES: [&str; 5] = [
        "obproxy-1.9.1.1-1919579.el7.x86_64.rpm",
        "obproxy-1.9.1.1-1919579.el7.aarch64.rpm",
        "obproxy-ce-4.3.1.0-4.el8.x86_64.rpm",
        "oceanbase-4.2.1.0-1.el7.x86_64.rpm",
        "oblet-agent_0.1.0-2_amd64.deb",
    ];

    async fn stocked(store: &Store) {
        let mut transaction = store.begin().await.unwrap();
        for (name, kind) in NAMES.into_iter().zip([
            PackageKind::Obproxy,
            PackageKind::Obproxy,
            PackageKind::Obproxy,
            PackageKind::ObServer,
            PackageKind::Agent,
        ]) {
            insert(&mut transaction, NewPackage { kind, ..new(name) }).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }

    /// Ids in the order of the list.
    async fn found(store: &Store, filter: PackageFilter) -> Vec<i64> {
        let mut reader = store.readers().acquire().await.unwrap();
        let (page, total) = list(&mut reader, &filter, 10, 0).await.unwrap();
        assert_eq!(i64::try_from(page.len()).unwrap(), total);
        page.iter().map(|package| package.id).collect()
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[tokio::test]
    async fn a_list_is_narrowed_by_every_part_of_a_name_and_by_all_of_them_together() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        stocked(&store).await;
        let all = PackageFilter::default;
        assert_eq!(found(&store, all()).await, [5, 4, 3, 2, 1]);
        assert_eq!(found(&store, PackageFilter { ascending: true, ..all() }).await, [1, 2, 3, 4, 5]);
        let kinds = vec![PackageKind::ObServer, PackageKind::Agent];
        assert_eq!(found(&store, PackageFilter { kinds, ..all() }).await, [5, 4]);
        let versions = texts(&["1.9.1.1", "0.1.0"]);
        assert_eq!(found(&store, PackageFilter { versions, ..all() }).await, [5, 2, 1]);
        // Parts of names that stand where a version could, and what SQL would take for a pattern.
        let versions = texts(&["ce", "4", "%", "4_3_1_0", "' OR 1 = 1"]);
        assert_eq!(found(&store, PackageFilter { versions, ..all() }).await, [0_i64; 0]);
        let operating_systems = texts(&["el8"]);
        assert_eq!(found(&store, PackageFilter { operating_systems, ..all() }).await, [3]);
        let architectures = texts(&["aarch64", "amd64"]);
        assert_eq!(found(&store, PackageFilter { architectures, ..all() }).await, [5, 2]);
        let keyword = Some("proxy-1.9".into());
        assert_eq!(found(&store, PackageFilter { keyword, ..all() }).await, [2, 1]);
        assert_eq!(found(&store, PackageFilter { keyword: Some("%".into()), ..all() }).await, [0_i64; 0]);
        let narrow = PackageFilter {
            keyword: Some("obproxy".into()),
            kinds: vec![PackageKind::Obproxy],
            versions: texts(&["1.9.1.1"]),
            operating_systems: texts(&["el7"]),
            architectures: texts(&["x86_64"]),
            ascending: false,
        };
        assert_eq!(found(&store, narrow).await, [1]);

        let mut reader = store.readers().acquire().await.unwrap();
        let filter = PackageFilter { kinds: vec![PackageKind::Obproxy], ..all() };
        let (page, total) = list(&mut reader, &filter, 2, 2).await.unwrap();
        assert_eq!((page.len(), page[0].id, total), (1, 1, 3));
    }

    /// As if they had been uploaded before there were columns for the parts of their names.
    #[tokio::test]
    async fn packages_of_earlier_versions_are_found_by_the_parts_of_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let store = Store::open(&path).await.unwrap();
        stocked(&store).await;
        let mut transaction = store.begin().await.unwrap();
        let forget = "UPDATE packages SET version = NULL, operating_system = NULL, architecture = NULL WHERE id < 4";
        sqlx::query(forget).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        store.close().await;

        let store = Store::open(&path).await.unwrap();
        let el7 = PackageFilter { operating_systems: texts(&["el7"]), ..PackageFilter::default() };
        assert_eq!(found(&store, el7).await, [4, 2, 1]);
        let architectures = texts(&["x86_64"]);
        assert_eq!(found(&store, PackageFilter { architectures, ..PackageFilter::default() }).await, [4, 3, 1]);
        let versions = texts(&["4.3.1.0"]);
        assert_eq!(found(&store, PackageFilter { versions, ..PackageFilter::default() }).await, [3]);
    }
}
