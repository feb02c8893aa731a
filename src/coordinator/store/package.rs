//! Software packages: rows here, files beside the store under their digest.

use super::{StoreError, allocate, columns::Cause, now_micros, pieces, push_in};
use crate::steps::values::{PackageRef, Sha256};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub id: i64,
    pub package: PackageRef,
    /// OCP's type, such as OBPROXY_INSTALL_PACKAGE.
    pub kind: String,
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
    pub kind: String,
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
    let packages = list(connection).await?;
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
        "INSERT INTO packages (id, file_name, kind, size_bytes, installed_bytes, sha1, sha256, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(package.id)
    .bind(package.package.file_name())
    .bind(&package.kind)
    .bind(package.size_bytes)
    .bind(package.installed_bytes)
    .bind(&package.sha1)
    .bind(package.sha256.as_str())
    .bind(package.created_at)
    .execute(connection)
    .await?;
    Ok(package)
}

/// All packages, newest first. They are few: one per version and architecture.
pub async fn list(connection: &mut AnyConnection) -> Result<Vec<Package>, StoreError> {
    let rows = sqlx::query("SELECT * FROM packages ORDER BY id DESC").fetch_all(connection).await?;
    rows.iter().map(read).collect()
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
        kind: text("kind")?,
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
            kind: "OBPROXY_INSTALL_PACKAGE".into(),
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
}
