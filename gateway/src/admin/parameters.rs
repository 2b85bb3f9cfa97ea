//! Parameters in the path and the query, with errors in the API's shape.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;

use crate::{error::ApiError, state::State};

/// Rows of a page when nothing is said: 100.
const LIMIT_DEFAULT: usize = 100;

/// Rows of a page at most: 200, as many as the read model gives at once.
const LIMIT_MAX: usize = 200;

/// The one parameter of the path.
#[derive(Clone, Debug)]
pub struct PathParameter(pub String);

impl PathParameter {
    /// The parameter as an id of something; whatever is no id names nothing.
    ///
    /// # Errors
    /// 404: it is no id.
    pub fn id<T: FromStr>(&self, what: &str) -> Result<T, ApiError> {
        self.0.parse().or(Err(ApiError::not_found(what)))
    }
}

impl FromRequestParts<State> for PathParameter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(ApiError::invalid_request(
                None,
                "The request's path is not UTF-8.",
            )),
        }
    }
}

/// Parameters of a page.
pub const PAGE: [&str; 2] = ["limit", "cursor"];

/// Characters of a client's own word that an error repeats.
const WORD_CHARS_MAX: usize = 128;

/// The parameters of the query.
#[derive(Clone, Debug, Default)]
pub struct QueryParameters(Vec<(String, String)>);

impl QueryParameters {
    /// A parameter, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Refuses a parameter that is not among `known`, or is there twice: a typing error in a filter
    /// would else give rows that nobody asked for.
    ///
    /// # Errors
    /// 400: there is such a parameter.
    pub fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            let shown: String = name.chars().take(WORD_CHARS_MAX).collect();
            let message = if !known.contains(&name.as_str()) {
                match known {
                    [] => format!("Unknown parameter '{shown}'; there are none here."),
                    _ => format!(
                        "Unknown parameter '{shown}'; known are: {}.",
                        known.join(", ")
                    ),
                }
            } else if self
                .0
                .iter()
                .take(index)
                .any(|(earlier, _)| earlier == name)
            {
                format!("The parameter '{shown}' is there more than once.")
            } else {
                continue;
            };
            return Err(ApiError::invalid_request(Some(&shown), message));
        }
        Ok(())
    }
}

/// The query of a call that takes no parameters.
#[derive(Clone, Copy, Debug)]
pub struct NoParameters;

impl FromRequestParts<State> for NoParameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let query = QueryParameters::from_request_parts(parts, state).await?;
        query.only(&[]).map(|()| Self)
    }
}

impl FromRequestParts<State> for QueryParameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        match Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(_) => Err(ApiError::invalid_request(
                None,
                "The request's query cannot be read.",
            )),
        }
    }
}

/// `limit` and `cursor` of a list.
#[derive(Clone, Debug)]
pub struct PageParameters {
    /// Rows at most.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl PageParameters {
    /// Reads them from the query.
    ///
    /// # Errors
    /// 400: `limit` is no number from 1 to 200.
    pub fn of(query: &QueryParameters) -> Result<Self, ApiError> {
        let limit = query.get("limit").map(|text| text.parse().unwrap_or(0));
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(ApiError::invalid_request(
                Some("limit"),
                "'limit' must be a number from 1 to 200.",
            ));
        }
        Ok(Self {
            limit,
            cursor: query.get("cursor").map(str::to_owned),
        })
    }
}

impl FromRequestParts<State> for PageParameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let query = QueryParameters::from_request_parts(parts, state).await?;
        query.only(&PAGE)?;
        Self::of(&query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_known_and_there_once() {
        let query = |names: &[&str]| {
            let pairs = names.iter().map(|name| ((*name).to_owned(), String::new()));
            QueryParameters(pairs.collect())
        };
        assert!(query(&[]).only(&[]).is_ok());
        assert!(query(&["cursor", "limit"]).only(&PAGE).is_ok());
        for (names, named) in [
            (&["limit", "limt"][..], "limt"),
            (&["limit", "cursor", "limit"], "limit"),
            (&[""], ""),
        ] {
            let error = query(names).only(&PAGE).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(named), "{names:?}");
        }
    }
}
