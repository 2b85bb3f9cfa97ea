//! The schema of the file: what is printed is what is kept, and the example is as it says.
//!
//! The walk below knows the keywords that the schema uses and no others; one
//! that it does not know fails the test. That the members are those that the
//! program accepts is tested beside the tables that the schema is made from.

use anyhow::{Context, bail, ensure};
use nexus_tests::account::BOUND;
use nexus_tests::{Result, programs, settings};
use serde_json::Value;

use super::{EXAMPLE, read};

const KEPT: &str = "compose/hub.schema.json";

/// Why a value is not as its schema says.
fn check(schema: &Value, value: &Value, root: &Value) -> Result<()> {
    for (keyword, wanted) in schema.as_object().context("no schema")? {
        let text = value.as_str();
        let is_right =
            match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
                "type" => match wanted {
                    Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                    kind => is(kind, value),
                },
                "enum" => wanted.as_array().is_some_and(|all| all.contains(value)),
                "pattern" => text.is_none_or(|text| matches(wanted, text)),
                "minLength" => text
                    .is_none_or(|text| text.chars().count() as u64 >= wanted.as_u64().unwrap_or(0)),
                "maxLength" => text
                    .is_none_or(|text| text.chars().count() as u64 <= wanted.as_u64().unwrap_or(0)),
                "minimum" => value
                    .as_i64()
                    .is_none_or(|number| Some(number) >= wanted.as_i64()),
                "maximum" => value
                    .as_i64()
                    .is_none_or(|number| Some(number) <= wanted.as_i64()),
                "minItems" | "maxItems" => value.as_array().is_none_or(|list| {
                    let (held, bound) = (list.len() as u64, wanted.as_u64().unwrap_or(0));
                    if keyword == "minItems" {
                        held >= bound
                    } else {
                        held <= bound
                    }
                }),
                "$ref" => {
                    let path = wanted.as_str().unwrap_or_default().trim_start_matches('#');
                    check(root.pointer(path).context("no such $ref")?, value, root).is_ok()
                }
                "anyOf" => {
                    let mut any = wanted.as_array().into_iter().flatten();
                    any.any(|one| check(one, value, root).is_ok())
                }
                "items" => {
                    let all = value.as_array().into_iter().flatten();
                    for (index, one) in all.enumerate() {
                        check(wanted, one, root).with_context(|| format!("[{index}]"))?;
                    }
                    true
                }
                "properties" => {
                    for (name, one) in value.as_object().into_iter().flatten() {
                        let schema = wanted
                            .get(name)
                            .with_context(|| format!("unknown {name}"))?;
                        check(schema, one, root).with_context(|| name.clone())?;
                    }
                    true
                }
                "additionalProperties" => wanted == false && schema.get("properties").is_some(),
                "required" => {
                    let mut names = wanted.as_array().into_iter().flatten();
                    names.all(|name| name.as_str().is_some_and(|name| value.get(name).is_some()))
                }
                _ => bail!("the walk does not know {keyword}"),
            };
        ensure!(is_right, "{value} is not as {keyword} says: {wanted}");
    }
    Ok(())
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

/// The two patterns that there are.
fn matches(pattern: &Value, text: &str) -> bool {
    match pattern.as_str().unwrap_or_default() {
        r"\$\{" => text.contains("${"),
        r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$" => {
            let name = text
                .strip_prefix("${")
                .and_then(|text| text.strip_suffix('}'));
            name.is_some_and(|name| {
                name.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            })
        }
        _ => false,
    }
}

#[tokio::test]
async fn the_schema_that_is_printed_is_the_one_that_is_kept() -> Result<()> {
    let mut command = std::process::Command::new(settings::nexus()?);
    settings::clear_environment(&mut command);
    command.args(["apply", "--schema"]);
    let printed = programs::run(&command, BOUND).await?;
    assert_eq!(printed.succeeded()?.stdout, read(KEPT)?);
    Ok(())
}

#[test]
fn the_example_is_as_the_schema_says_and_shows_every_member() -> Result<()> {
    let schema: Value = serde_json::from_str(&read(KEPT)?)?;
    let example: Value = serde_saphyr::from_str(&read(EXAMPLE)?)?;
    check(&schema, &example, &schema)?;
    let sections = schema["properties"].as_object().context("no sections")?;
    for (name, section) in sections.iter().filter(|(_, it)| it["type"] == "array") {
        let members = section["items"]["properties"].as_object();
        let declared = example[name].as_array();
        for member in members.context("no members")?.keys() {
            let mut declared = declared.into_iter().flatten();
            ensure!(
                declared.any(|one| one.get(member).is_some()),
                "{EXAMPLE} does not show {name}[].{member}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_the_program_refuses_the_schema_refuses() -> Result<()> {
    let schema: Value = serde_json::from_str(&read(KEPT)?)?;
    for text in [
        "modles: []",
        "keys: 7",
        "keys: [ada]",
        "providers: [{kind: echo}]",
        "providers: [{name: a, kind: grpc}]",
        "providers: [{name: 7}]",
        "providers: [{name: a, rate_limit: 0}]",
        "providers: [{name: a, rate_limt: 1}]",
        "providers: [{name: a, server_key: sk-literal}]",
        "keys: [{name: a, secret: '${A:-b}'}]",
        "routes: [{name: a}]",
        "routes: [{name: a, targets: []}]",
        "routes: [{name: a, targets: [{model: m, weight: 0}]}]",
        "routes: [{name: a, targets: [{modle: m}]}]",
        "prices: [{model_name: m, input_micros_per_million: 1}]",
        "prices: [{model_name: m, input_micros_per_million: -1, output_micros_per_million: 1}]",
        "users: [{name: a, monthly_budget: 0}]",
        "prune_built_in: maybe",
    ] {
        let value: Value = serde_saphyr::from_str(text)?;
        ensure!(check(&schema, &value, &schema).is_err(), "{text}");
    }
    Ok(())
}
