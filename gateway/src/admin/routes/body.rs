//! Bodies of route calls: what they may say, checked member by member.

use std::ops::RangeInclusive;

use nexus_events::config_event::{Provider, RouteTarget};
use serde_json::value::RawValue;

use crate::{
    admin::{
        change::id_of,
        fields::{Fields, Nullable, wrong},
    },
    configuration::{CommandError, Snapshot},
    error::ApiError,
};

/// Targets of a route: 32. Each is looked at for each request.
pub(crate) const TARGETS_MAX: usize = 32;

/// Weights: 1 to 1 000, a per mille.
pub(crate) const WEIGHTS: RangeInclusive<u16> = 1..=1000;

/// Priorities: 0 to 100.
pub(crate) const PRIORITIES: RangeInclusive<u8> = 0..=100;

/// Tries: 1 to 5. More would multiply a trouble that all targets have.
pub(crate) const ATTEMPTS: RangeInclusive<u32> = 1..=5;

/// Bounds of a wait: up to a day, as those of the settings.
pub(crate) const MILLIS: RangeInclusive<u32> = 1..=86_400_000;

/// A name that stands in a path of its own.
const EXPLAIN: &str = "explain";

/// A target as a body names it.
#[derive(Debug)]
pub(crate) struct NewTarget {
    model: String,
    /// Id or name.
    provider: Option<String>,
    weight: u16,
    priority: u8,
}

/// The body of a creation.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) name: String,
    pub(crate) targets: Vec<NewTarget>,
    pub(crate) attempts: Option<u8>,
    pub(crate) first_byte_timeout_ms: Option<u32>,
    pub(crate) idle_timeout_ms: Option<u32>,
    pub(crate) cache_ttl_seconds: Option<u32>,
}

impl New {
    pub(crate) fn parse(body: &[u8]) -> Result<(Self, Vec<&'static str>), ApiError> {
        let mut fields = Fields::parse(body)?;
        let change = Change::read(&mut fields)?;
        let name = fields.required("name", change.name)?;
        let targets = fields.required("targets", change.targets)?;
        fields.finish()?;
        let new = Self {
            name,
            targets,
            attempts: change.attempts.value(),
            first_byte_timeout_ms: change.first_byte_timeout_ms.value(),
            idle_timeout_ms: change.idle_timeout_ms.value(),
            cache_ttl_seconds: change.cache_ttl_seconds.value(),
        };
        let mut changed = vec!["name", "targets"];
        changed.extend(new.attempts.map(|_| "attempts"));
        changed.extend(new.first_byte_timeout_ms.map(|_| "first_byte_timeout_ms"));
        changed.extend(new.idle_timeout_ms.map(|_| "idle_timeout_ms"));
        changed.extend(new.cache_ttl_seconds.map(|_| "cache_ttl_seconds"));
        Ok((new, changed))
    }
}

/// The body of a change: what it names.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) name: Option<String>,
    pub(super) targets: Option<Vec<NewTarget>>,
    pub(super) attempts: Nullable<u8>,
    pub(super) first_byte_timeout_ms: Nullable<u32>,
    pub(super) idle_timeout_ms: Nullable<u32>,
    pub(super) cache_ttl_seconds: Nullable<u32>,
}

impl Change {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let change = Self::read(&mut fields)?;
        fields.finish()?;
        Ok(change)
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        let name = fields.name_beside_id("name")?;
        if name.as_deref() == Some(EXPLAIN) {
            return Err(wrong(
                "name",
                "must not be 'explain', which is a path of its own",
            ));
        }
        let targets = fields.typed::<Vec<Box<RawValue>>>("targets", "a list of targets")?;
        let attempts = counted(fields, "attempts", ATTEMPTS)?;
        Ok(Self {
            name,
            targets: targets.map(|targets| read_targets(&targets)).transpose()?,
            attempts: attempts.try_map(|attempts| {
                u8::try_from(attempts).map_err(|_range| wrong("attempts", "must be from 1 to 5"))
            })?,
            first_byte_timeout_ms: counted(fields, "first_byte_timeout_ms", MILLIS)?,
            idle_timeout_ms: counted(fields, "idle_timeout_ms", MILLIS)?,
            cache_ttl_seconds: fields.cache_ttl()?,
        })
    }
}

fn counted(
    fields: &mut Fields<'_>,
    name: &'static str,
    range: RangeInclusive<u32>,
) -> Result<Nullable<u32>, ApiError> {
    fields.nullable_count(name)?.try_map(|count| {
        if range.contains(&count) {
            return Ok(count);
        }
        let (least, most) = range.into_inner();
        Err(wrong(
            name,
            &format!("must be from {least} to {most}, or null"),
        ))
    })
}

fn read_targets(list: &[Box<RawValue>]) -> Result<Vec<NewTarget>, ApiError> {
    if list.is_empty() || list.len() > TARGETS_MAX {
        return Err(wrong("targets", "must hold 1 to 32 targets"));
    }
    let numbered = list.iter().enumerate();
    numbered
        .map(|(index, raw)| read_target(raw.get().as_bytes()).map_err(|error| within(error, index)))
        .collect()
}

fn read_target(body: &[u8]) -> Result<NewTarget, ApiError> {
    let mut fields = Fields::parse(body)?;
    let model = fields.name("model")?;
    let provider = fields.nullable_name("provider")?;
    let weight = fields.typed::<u16>("weight", "a whole number from 1 to 1000")?;
    let priority = fields.typed::<u8>("priority", "a whole number from 0 to 100")?;
    let model = fields.required("model", model)?;
    fields.finish()?;
    let target = NewTarget {
        model,
        provider: provider.value(),
        weight: weight.unwrap_or(1),
        priority: priority.unwrap_or(0),
    };
    if !WEIGHTS.contains(&target.weight) {
        return Err(wrong("weight", "must be a whole number from 1 to 1000"));
    }
    if !PRIORITIES.contains(&target.priority) {
        return Err(wrong("priority", "must be a whole number from 0 to 100"));
    }
    Ok(target)
}

/// The same error about a member of a target.
fn within(mut error: ApiError, index: usize) -> ApiError {
    let param = if let Some(member) = error.param.take() {
        let path = path(index, &member);
        let (from, to) = (format!("'{member}'"), format!("'{path}'"));
        error.message = error.message.replacen(&from, &to, 1);
        path
    } else {
        let path = format!("targets[{index}]");
        error.message = format!("'{path}' must be an object.");
        path
    };
    error.with_param(param)
}

fn path(index: usize, member: &str) -> String {
    format!("targets[{index}].{member}")
}

/// The targets with the ids of their providers; each must be there now.
pub(crate) fn resolve(
    snapshot: &Snapshot,
    targets: &[NewTarget],
) -> Result<Vec<RouteTarget>, CommandError> {
    let numbered = targets.iter().enumerate();
    numbered
        .map(|(index, target)| {
            let wrong = |member: &str, message: String| CommandError::Invalid {
                member: path(index, member).into(),
                message: message.into(),
            };
            let model = &target.model;
            let Some(named) = &target.provider else {
                let mut models = snapshot.provider_models();
                if !models.any(|entry| entry.resource.model_name == *model) {
                    let message = format!("No provider offers a model '{model}'.");
                    return Err(wrong("model", message));
                }
                return Ok(target.of(None));
            };
            let Ok(id) = id_of::<Provider>(snapshot, named) else {
                let message = format!("There is no provider '{named}'.");
                return Err(wrong("provider", message));
            };
            if snapshot.model_named(id, model).is_none() {
                let message = format!("The provider '{named}' offers no model '{model}'.");
                return Err(wrong("model", message));
            }
            Ok(target.of(Some(id)))
        })
        .collect()
}

impl NewTarget {
    fn of(&self, provider: Option<nexus_events::id::ProviderId>) -> RouteTarget {
        RouteTarget {
            model: self.model.clone(),
            provider,
            weight: self.weight,
            priority: self.priority,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn wrong_member(body: &str) -> String {
        let error = New::parse(body.as_bytes()).expect_err(body);
        assert_eq!(error.status, StatusCode::BAD_REQUEST, "{body}");
        let param = error.param.unwrap_or_default();
        assert!(
            error.message.contains(&format!("'{param}'")),
            "{}",
            error.message
        );
        param
    }

    #[test]
    fn a_body_that_is_wrong_is_refused_by_the_name_of_its_member() {
        let many = vec![r#"{"model":"m"}"#; 33].join(",");
        let with = |targets: &str| format!(r#"{{"name":"r","targets":{targets}}}"#);
        let also = |member: &str| format!(r#"{{"name":"r","targets":[{{"model":"m"}}],{member}}}"#);
        let cases = [
            (r#"{"targets":[{"model":"m"}]}"#.to_owned(), "name"),
            (
                r#"{"name":"explain","targets":[{"model":"m"}]}"#.to_owned(),
                "name",
            ),
            (r#"{"name":"r"}"#.to_owned(), "targets"),
            (with("7"), "targets"),
            (with("[]"), "targets"),
            (with(&format!("[{many}]")), "targets"),
            (with("[7]"), "targets[0]"),
            (with(r#"[{"model":"m"},{}]"#), "targets[1].model"),
            (with(r#"[{"model":""}]"#), "targets[0].model"),
            (
                with(r#"[{"model":"m","provider":7}]"#),
                "targets[0].provider",
            ),
            (with(r#"[{"model":"m","weight":0}]"#), "targets[0].weight"),
            (
                with(r#"[{"model":"m","weight":1001}]"#),
                "targets[0].weight",
            ),
            (with(r#"[{"model":"m","weight":1.5}]"#), "targets[0].weight"),
            (
                with(r#"[{"model":"m","priority":101}]"#),
                "targets[0].priority",
            ),
            (
                with(r#"[{"model":"m","priority":-1}]"#),
                "targets[0].priority",
            ),
            (with(r#"[{"model":"m","wieght":2}]"#), "targets[0].wieght"),
            (also(r#""attempts":0"#), "attempts"),
            (also(r#""attempts":6"#), "attempts"),
            (
                also(r#""first_byte_timeout_ms":0"#),
                "first_byte_timeout_ms",
            ),
            (also(r#""idle_timeout_ms":86400001"#), "idle_timeout_ms"),
            (also(r#""fallback":"x""#), "fallback"),
        ];
        for (body, member) in cases {
            assert_eq!(wrong_member(&body), member, "{body}");
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let body = br#"{"name":"r","targets":[{"model":"m","provider":null}],"attempts":null}"#;
        let (new, changed) = New::parse(body).unwrap();
        assert_eq!((changed, new.attempts), (vec!["name", "targets"], None));
        let target = &new.targets[0];
        assert_eq!((target.weight, target.priority), (1, 0));
        assert!(target.provider.is_none());
        let change = Change::parse(br#"{"idle_timeout_ms":5,"attempts":null}"#).unwrap();
        assert_eq!(change.attempts, Nullable::Null);
        assert_eq!(change.idle_timeout_ms, Nullable::Value(5));
        assert!(change.targets.is_none() && change.name.is_none());
    }
}
