//! The SQL port of an obproxy, over the text protocol. No statement and no password of it ever stands in an error.

use crate::agent::step::StepError;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode},
};
use std::{net::IpAddr, path::Path, time::Duration};
use zeroize::Zeroizing;

const DEADLINE: Duration = Duration::from_secs(5);
const USER: &str = "root@proxysys";
/// Access denied.
const REFUSED: u16 = 1045;

#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error("the SQL port did not answer within {} seconds", DEADLINE.as_secs())]
    Late,
    #[error("the SQL port refused the login of {USER}")]
    Refused,
    #[error("the SQL port could not be used")]
    Broken(#[source] sqlx::Error),
    /// The server's own words may quote the statement, so only its code is told.
    #[error("the proxy refused the statement with error {0}")]
    Statement(u16),
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .map(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map_or(0, |error| error.number()));
        match code {
            Some(REFUSED) => Self::Refused,
            Some(code) => Self::Statement(code),
            None => Self::Broken(error),
        }
    }
}

/// A password with which the login was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    Cluster,
    BuiltIn,
}

/// Passwords of root@proxysys in the order in which they are tried.
pub(super) struct Passwords {
    pub cluster: Option<Zeroizing<String>>,
    pub built_in: Zeroizing<String>,
}

impl Passwords {
    /// Without a file the built-in password is taken to be empty.
    pub(super) fn read(cluster: Option<&str>, built_in_file: Option<&Path>) -> Result<Self, StepError> {
        let built_in = match built_in_file {
            None => Zeroizing::default(),
            Some(path) => std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
                let message = format!("{} could not be read", path.display());
                StepError::new("PASSWORD_FILE", message, "correct the path in the agent's configuration, then retry")
                    .because(error)
            })?,
        };
        let built_in = Zeroizing::new(built_in.trim_end_matches(['\r', '\n']).to_owned());
        Ok(Self { cluster: cluster.map(|text| Zeroizing::new(text.to_owned())), built_in })
    }
}

pub(super) struct ProxySql(MySqlConnection);

async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, SqlError> {
    Ok(tokio::time::timeout(DEADLINE, work).await.map_err(|_| SqlError::Late)??)
}

impl ProxySql {
    pub(super) async fn login(address: IpAddr, port: u16, password: &str) -> Result<Self, SqlError> {
        // Nothing is sent at connect: obproxy's own tenant knows none of the usual session variables.
        let mut options = MySqlConnectOptions::new()
            .host(&address.to_string())
            .port(port)
            .username(USER)
            .ssl_mode(MySqlSslMode::Disabled)
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false)
            .disable_statement_logging();
        // An empty password is told by an empty answer, which is not the same as the scramble of an empty text.
        if !password.is_empty() {
            options = options.password(password);
        }
        bounded(MySqlConnection::connect_with(&options)).await.map(Self)
    }

    /// Tries the cluster's password and then the built-in one.
    pub(super) async fn login_any(address: IpAddr, port: u16, all: &Passwords) -> Result<(Self, Login), SqlError> {
        if let Some(password) = &all.cluster {
            match Self::login(address, port, password).await {
                Ok(sql) => return Ok((sql, Login::Cluster)),
                Err(SqlError::Refused) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((Self::login(address, port, &all.built_in).await?, Login::BuiltIn))
    }

    /// The value of a configuration item; none if the proxy does not know it.
    pub(super) async fn item(&mut self, name: &str) -> Result<Option<String>, SqlError> {
        let statement = format!("SHOW PROXYCONFIG LIKE {}", quoted(name));
        let rows = bounded(sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut self.0)).await?;
        for row in rows {
            // `_` in the pattern matches any character, so that other names may come too.
            if row.try_get_unchecked::<String, _>(0)? == name {
                return Ok(Some(row.try_get_unchecked::<String, _>(1)?));
            }
        }
        Ok(None)
    }

    pub(super) async fn set_item(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let statement = Zeroizing::new(format!("ALTER PROXYCONFIG SET {name} = {}", quoted(value)));
        let query = sqlx::raw_sql(AssertSqlSafe(statement.as_str().to_owned()));
        bounded(query.execute(&mut self.0)).await.map(drop)
    }

    pub(super) async fn close(self) {
        // The proxy notices a dropped connection as well.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.0.close()).await;
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        assert_eq!(quoted(r"a'; DROP \"), r"'a''; DROP \\'");
    }

    #[tokio::test]
    async fn an_unreachable_port_is_no_refusal() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let passwords = Passwords::read(Some("top-secret"), None).unwrap();
        let error = ProxySql::login_any([127, 0, 0, 1].into(), port, &passwords).await.err().unwrap();
        assert!(matches!(error, SqlError::Broken(_)));
        assert!(!format!("{error:?}").contains("top-secret"));
    }
}
