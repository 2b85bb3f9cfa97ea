//! Pages of lists that are held in memory: by cursor, in the order of ids.

use serde::Serialize;

use super::parameters::PageParameters;
use crate::error::ApiError;

/// One page.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// Its rows.
    pub data: Vec<T>,
    /// What to ask for the next page with; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// Cuts a page out of rows that come in the order of their ids, which are the cursors.
///
/// # Errors
/// 400: the cursor is none.
pub fn page<T>(
    rows: impl Iterator<Item = (String, T)>,
    parameters: &PageParameters,
) -> Result<Page<T>, ApiError> {
    if let Some(cursor) = &parameters.cursor
        && uuid::Uuid::parse_str(cursor).is_err()
    {
        return Err(ApiError::invalid_request(
            Some("cursor"),
            "The cursor is not one that this list gave.",
        ));
    }
    let after = parameters.cursor.as_deref();
    let mut data = Vec::new();
    let mut last = None;
    let mut rows = rows.skip_while(|(id, _)| after.is_some_and(|after| id.as_str() <= after));
    for (id, row) in rows.by_ref().take(parameters.limit) {
        data.push(row);
        last = Some(id);
    }
    Ok(Page {
        data,
        next_cursor: rows.next().and(last),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u128) -> Vec<String> {
        (1..=count)
            .map(|n| uuid::Uuid::from_u128(n).to_string())
            .collect()
    }

    #[test]
    fn pages_give_every_row_once_and_end() {
        let all = ids(5);
        let mut seen = Vec::new();
        let mut parameters = PageParameters {
            limit: 2,
            cursor: None,
        };
        for expected in [2, 2, 1] {
            let rows = all.iter().map(|id| (id.clone(), id.clone()));
            let page = page(rows, &parameters).unwrap();
            assert_eq!(page.data.len(), expected);
            assert_eq!(page.next_cursor.is_none(), expected == 1);
            seen.extend(page.data);
            parameters.cursor = page.next_cursor;
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_last_page_that_is_full_has_no_cursor() {
        let all = ids(2);
        let parameters = PageParameters {
            limit: 2,
            cursor: None,
        };
        let page = page(all.iter().map(|id| (id.clone(), ())), &parameters).unwrap();
        assert_eq!(page.next_cursor, None);
    }
}
