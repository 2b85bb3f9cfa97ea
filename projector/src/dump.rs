//! The ordered dump of a database: what two rebuilds must agree in.
//!
//! Every table but `checkpoint`, in the order of its name; every row in the
//! order of its primary key, written with SQLite's own `quote`, so that a
//! number and a text that looks like it differ.

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, SqliteConnection};

/// A table and the statement that dumps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// The names of its columns, for a person.
    pub(crate) columns: String,
    /// Gives one text for each row, in the order of the primary key.
    pub(crate) select: String,
}

/// The tables that the dump covers.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn tables(connection: &mut SqliteConnection) -> Result<Vec<Table>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema
         WHERE type = 'table' AND name <> 'checkpoint'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_sqlx\\_%' ESCAPE '\\'
         ORDER BY name",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let columns: Vec<(String, i64)> =
            sqlx::query_as("SELECT name, pk FROM pragma_table_info(?) ORDER BY cid")
                .bind(&name)
                .fetch_all(&mut *connection)
                .await?;
        tables.push(table(name, &columns));
    }
    Ok(tables)
}

fn table(name: String, columns: &[(String, i64)]) -> Table {
    let values: Vec<String> = columns
        .iter()
        .map(|(column, _)| format!("'{column}=' || quote(\"{column}\")"))
        .collect();
    let mut key: Vec<&(String, i64)> = columns.iter().filter(|(_, place)| *place > 0).collect();
    key.sort_by_key(|(_, place)| *place);
    let order: Vec<String> = key
        .iter()
        .map(|(column, _)| format!("\"{column}\""))
        .collect();
    let select = format!(
        "SELECT {} FROM \"{name}\" ORDER BY {}",
        values.join(" || ' ' || "),
        order.join(", ")
    );
    let columns: Vec<&str> = columns.iter().map(|(column, _)| column.as_str()).collect();
    Table {
        name,
        columns: columns.join(", "),
        select,
    }
}

/// Calls for each row of a table, in order, without holding more than one.
///
/// # Errors
/// The database cannot be read.
pub(crate) fn rows<'c>(
    connection: &'c mut SqliteConnection,
    table: &Table,
) -> futures_util::stream::BoxStream<'c, Result<String, sqlx::Error>> {
    // The names come from the schema, which is ours.
    let statement = AssertSqlSafe(table.select.clone());
    let rows = sqlx::query_scalar(statement).fetch(connection);
    Box::pin(rows.into_stream())
}
