//! The read model, dumped into a canonical text for comparison.
//!
//! Every table but the checkpoint (and the bookkeeping of migrations), every column, every row in
//! one order: two read models of the same log must give the same text.
//! Written without the projector's help, which has a comparison of its own to be checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::wait::until;

/// How long a test waits for the projector.
const ARRIVAL_BOUND: Duration = Duration::from_secs(30);

/// Tables that may differ between two read models of the same log.
const LEFT_OUT: [&str; 2] = ["checkpoint", "_sqlx_migrations"];

/// A read model by the folder of its pointer file.
#[derive(Debug, Clone)]
pub struct ReadModel {
    folder: PathBuf,
}

impl ReadModel {
    /// The read model in this folder; it need not exist yet.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
        }
    }

    /// The folder with the pointer file `current` and the databases.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The database that the pointer file names.
    ///
    /// # Errors
    ///
    /// When there is no pointer file.
    pub fn database(&self) -> Result<PathBuf> {
        let pointer = self.folder.join("current");
        let name = std::fs::read_to_string(&pointer)
            .with_context(|| format!("failed to read {}", pointer.display()))?;
        Ok(self.folder.join(name.trim()))
    }

    /// A read-only connection to the current database.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn open(&self) -> Result<SqliteConnection> {
        let database = self.database()?;
        SqliteConnectOptions::new()
            .filename(&database)
            .read_only(true)
            .connect()
            .await
            .with_context(|| format!("failed to open {}", database.display()))
    }

    /// The only column of the only row of a query, for example a count.
    ///
    /// # Errors
    ///
    /// When there is no database or the query fails.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        let mut connection = self.open().await?;
        let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut connection)
            .await
            .with_context(|| format!("failed to run {sql}"))?;
        connection.close().await?;
        Ok(number)
    }

    /// Waits until a query gives this number.
    ///
    /// # Errors
    ///
    /// When it does not in 30 s; with the last number seen.
    pub async fn until_number(&self, sql: &str, expected: i64) -> Result<()> {
        let what = format!("{sql} gives {expected}");
        until(&what, ARRIVAL_BOUND, async || {
            match self.number(sql).await {
                Ok(number) if number == expected => Ok(()),
                Ok(number) => Err(number.to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// The whole content as text, equal for equal content.
    ///
    /// # Errors
    ///
    /// When there is no database.
    pub async fn dump(&self) -> Result<String> {
        let mut connection = self.open().await?;
        let mut snapshot = connection.begin().await?;
        let mut text = String::new();
        for table in tables(&mut snapshot).await? {
            text.push_str(&dump_table(&mut snapshot, &table).await?);
        }
        snapshot.rollback().await?;
        connection.close().await?;
        Ok(text)
    }
}

/// Fails with the first line in which two dumps differ.
///
/// # Errors
///
/// When they are not the same.
pub fn assert_same(expected: &str, found: &str) -> Result<()> {
    let mut table = "";
    let (mut left_lines, mut right_lines) = (expected.lines(), found.lines());
    loop {
        let (left, right) = (left_lines.next(), right_lines.next());
        if left.is_none() && right.is_none() {
            return Ok(());
        }
        table = left.filter(|line| line.starts_with("== ")).unwrap_or(table);
        ensure!(
            left == right,
            "the read models differ in {table}:\n expected {}\n    found {}",
            left.unwrap_or("(the end)"),
            right.unwrap_or("(the end)"),
        );
    }
}

async fn tables(connection: &mut SqliteConnection) -> Result<Vec<String>> {
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' \
         ESCAPE '\\' ORDER BY name",
    )
    .fetch_all(connection)
    .await
    .context("failed to list the tables")?;
    Ok(all
        .into_iter()
        .filter(|name| !LEFT_OUT.contains(&name.as_str()))
        .collect())
}

async fn dump_table(connection: &mut SqliteConnection, table: &str) -> Result<String> {
    let columns: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_table_info(?) ORDER BY name")
            .bind(table)
            .fetch_all(&mut *connection)
            .await
            .with_context(|| format!("failed to list the columns of {table}"))?;
    let quoted: Vec<String> = columns
        .iter()
        .map(|name| format!("quote({})", ident(name)))
        .collect();
    let row = quoted.join(" || '|' || ");
    let sql = format!("SELECT {row} AS line FROM {} ORDER BY line", ident(table));
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .with_context(|| format!("failed to read {table}"))?;
    let mut lines = vec![format!("== {table} ({})", columns.join("|"))];
    lines.extend(rows);
    Ok(lines.join("\n") + "\n")
}

/// An identifier in SQL.
fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_model(statements: &[&str]) -> (tempfile::TempDir, ReadModel) {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("rm-1.db"))
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
        let mut writer = options.connect().await.unwrap();
        for statement in statements {
            let statement = AssertSqlSafe((*statement).to_owned());
            sqlx::query(statement).execute(&mut writer).await.unwrap();
        }
        writer.close().await.unwrap();
        std::fs::write(folder.path().join("current"), "rm-1.db\n").unwrap();
        let read_model = ReadModel::at(folder.path());
        (folder, read_model)
    }

    const TABLES: [&str; 2] = [
        "CREATE TABLE b (x INTEGER, y TEXT)",
        "CREATE TABLE checkpoint (sequence INTEGER)",
    ];

    #[tokio::test]
    async fn the_order_of_writing_does_not_show() {
        let first = ["INSERT INTO b VALUES (1, 'it''s'), (NULL, x'00ff')"];
        let second = [
            "INSERT INTO b VALUES (NULL, x'00ff')",
            "INSERT INTO b VALUES (1, 'it''s')",
        ];
        let (_a, one) = read_model(&[&TABLES[..], &first].concat()).await;
        let (_b, two) =
            read_model(&[&TABLES[..], &second, &["INSERT INTO checkpoint VALUES (9)"]].concat())
                .await;
        let dump = one.dump().await.unwrap();
        assert_eq!(dump, "== b (x|y)\n1|'it''s'\nNULL|X'00FF'\n");
        assert_eq!(two.dump().await.unwrap(), dump);
        assert_eq!(
            two.number("SELECT sequence FROM checkpoint").await.unwrap(),
            9
        );
    }

    #[tokio::test]
    async fn every_difference_shows() {
        let (_a, one) =
            read_model(&[&TABLES[..], &["INSERT INTO b VALUES (1, 'a')"]].concat()).await;
        for other in [
            "INSERT INTO b VALUES (1, 'b')",
            "INSERT INTO b VALUES ('1', 'a')",
        ] {
            let (_b, two) =
                read_model(&[&["CREATE TABLE b (x, y)", TABLES[1]][..], &[other]].concat()).await;
            assert_ne!(
                two.dump().await.unwrap(),
                one.dump().await.unwrap(),
                "{other}"
            );
        }
        let (_c, three) = read_model(
            &[
                &TABLES[..],
                &[
                    "INSERT INTO b VALUES (1, 'a')",
                    "INSERT INTO b VALUES (1, 'a')",
                ],
            ]
            .concat(),
        )
        .await;
        assert_ne!(three.dump().await.unwrap(), one.dump().await.unwrap());
    }

    #[test]
    fn the_first_difference_is_told() {
        assert_same("== a\n1\n", "== a\n1\n").unwrap();
        let error = assert_same("== a\n1\n2\n", "== a\n1\n3\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("in == a:") && error.contains("expected 2"),
            "{error}"
        );
        let error = assert_same("== a\n1\n", "== a\n1\n3\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected (the end)"), "{error}");
        assert!(assert_same("== a\n1\n3\n", "== a\n1\n").is_err());
    }

    #[tokio::test]
    async fn waits_for_a_number() {
        let (_folder, read_model) =
            read_model(&[&TABLES[..], &["INSERT INTO b VALUES (1, 'a')"]].concat()).await;
        read_model
            .until_number("SELECT count(*) FROM b", 1)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_missing_pointer_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = ReadModel::at(folder.path()).dump().await.unwrap_err();
        assert!(error.to_string().contains("current"), "{error:#}");
    }
}
