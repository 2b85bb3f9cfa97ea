//! Writes many rows with few statements.
//!
//! A statement costs a round trip to the database's thread, more than a row
//! does. So rows are written 32 at a time, the rest 4 at a time and one by
//! one: three prepared statements for each table, however large a batch is.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqliteConnection};

/// Rows in one statement. 32 rows of the widest table are 1 600 parameters of the 32 766 that
/// SQLite takes.
const CHUNKS: [usize; 3] = [32, 4, 1];

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(i64::from(value))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The statements that write the rows of one table.
#[derive(Debug)]
pub(super) struct Upsert<const N: usize> {
    statements: [Arc<str>; CHUNKS.len()],
}

impl<const N: usize> Upsert<N> {
    /// Writes the columns of a table; `conflict` says what happens to a row that is there.
    ///
    /// All three are our own texts.
    pub(super) fn new(table: &str, columns: [&str; N], conflict: &str) -> Self {
        let columns = columns.join(", ");
        let row = format!("({})", ["?"; N].join(", "));
        let statement = |rows: usize| {
            let rows = vec![row.as_str(); rows].join(", ");
            format!("INSERT INTO {table} ({columns}) VALUES {rows} ON CONFLICT {conflict}").into()
        };
        Self {
            statements: CHUNKS.map(statement),
        }
    }

    /// Writes a table whose rows are replaced whole.
    pub(super) fn replacing(table: &str, columns: [&str; N]) -> Self {
        let set = columns.map(|column| format!("{column} = excluded.{column}"));
        Self::new(table, columns, &format!("DO UPDATE SET {}", set.join(", ")))
    }

    /// Writes rows in the order given.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(super) async fn write(
        &self,
        connection: &mut SqliteConnection,
        rows: Vec<[Value; N]>,
    ) -> Result<(), sqlx::Error> {
        let mut rows = rows.into_iter();
        for (chunk, statement) in CHUNKS.iter().zip(&self.statements) {
            while rows.len() >= *chunk {
                let mut query = sqlx::query(AssertSqlSafe(Arc::clone(statement)));
                for value in rows.by_ref().take(*chunk).flatten() {
                    query = match value {
                        Value::Null => query.bind(None::<i64>),
                        Value::Integer(value) => query.bind(value),
                        Value::Text(value) => query.bind(value),
                    };
                }
                query.execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}
