//! The JSON Schema of the file, made from the tables of the sections.
//!
//! It tells an editor what there is and what a member may hold. Where it cannot
//! know (a reference whose variable it does not see, a provider of another
//! file) it lets pass, and `nexus apply` decides.

use serde_json::{Map, Value, json};

use super::{
    PRUNE_BUILT_IN, SECTIONS,
    section::{Field, Holds, Section},
};

/// The JSON Schema (draft 2020-12) of the file.
pub fn schema() -> Value {
    let mut properties: Map<String, Value> = SECTIONS
        .iter()
        .map(|section| (section.name.to_owned(), of_section(section)))
        .collect();
    properties.insert(
        PRUNE_BUILT_IN.to_owned(),
        json!({
            "description": "With --prune, what the hub has put there itself goes, too, where it is not declared: provider echo with its model, key admin. The last admin key never goes.",
            "type": "boolean",
            "default": false,
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NexusAI Hub, declared: nexus apply -f hub.yaml",
        "description": "A section that is left out is left alone. ${NAME} and ${NAME:-default} in a text stand for environment variables, $${ for the two characters themselves.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": {
            "reference": {
                "description": "A text with a reference to an environment variable.",
                "type": "string",
                "pattern": "\\$\\{",
            },
            "secret": {
                "description": "A reference to the environment variable that holds a secret, and nothing else.",
                "type": "string",
                "pattern": "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$",
            },
        },
    })
}

fn of_section(section: &Section) -> Value {
    json!({
        "description": section.about,
        "type": "array",
        "items": of_object(section.members),
    })
}

fn of_object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| (field.name.to_owned(), of_field(field)))
        .collect();
    let required = fields.iter().filter(|field| field.required);
    let required: Vec<_> = required.map(|field| field.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn of_field(field: &Field) -> Value {
    let mut value = match &field.holds {
        Holds::Name => json!({"type": "string", "minLength": 1, "maxLength": 128}),
        Holds::NullableName => {
            json!({"type": ["string", "null"], "minLength": 1, "maxLength": 128})
        }
        Holds::Text => json!({"type": "string", "maxLength": 4096}),
        Holds::OneOf(words) => {
            json!({"anyOf": [{"enum": words}, {"$ref": "#/$defs/reference"}]})
        }
        Holds::Secret => json!({"anyOf": [{"$ref": "#/$defs/secret"}, {"type": "null"}]}),
        Holds::Count(most) => {
            json!({"type": ["integer", "null"], "minimum": 1, "maximum": most})
        }
        Holds::CountFromZero(most) => {
            json!({"type": ["integer", "null"], "minimum": 0, "maximum": most})
        }
        Holds::Number(range) => {
            json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
        }
        Holds::Moment => json!({"type": "string", "format": "date-time"}),
        Holds::List(most, fields) => {
            json!({"type": "array", "minItems": 1, "maxItems": most, "items": of_object(fields)})
        }
    };
    if let Some(members) = value.as_object_mut() {
        members.insert("description".to_owned(), field.about.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        admin::{keys, prices, provider_models, providers, routes, users},
        error::ApiError,
    };

    /// What a body may have besides what it has, as the refusal of an unknown member says.
    fn known(error: Option<ApiError>) -> BTreeSet<String> {
        let message = error.unwrap().message;
        let (_, known) = message.split_once("known are: ").expect(&message);
        let known = known.trim_end_matches('.').split(", ");
        known.map(str::to_owned).collect()
    }

    fn stored(section: &Section, apart: &[&str]) -> BTreeSet<String> {
        let fields = section.members.iter();
        let fields = fields.filter(|field| !apart.contains(&field.name));
        fields.map(|field| field.stored.to_owned()).collect()
    }

    #[test]
    fn the_file_takes_what_the_management_api_takes() {
        let body = br#"{"name":"a","server_url":"http://x","unknown":1}"#;
        let provider = known(providers::New::parse(body).err());
        assert_eq!(stored(&super::super::provider::SECTION, &[]), provider);
        let body = br#"{"provider_id":"a","model_name":"m","unknown":1}"#;
        let model = known(provider_models::New::parse(body).err());
        assert_eq!(stored(&super::super::model::SECTION, &[]), model);
        let body = br#"{"name":"a","targets":[{"model":"m"}],"unknown":1}"#;
        let route = known(routes::New::parse(body).err());
        let section = &super::super::route::SECTION;
        assert_eq!(stored(section, &[]), route);
        let body = br#"{"name":"a","targets":[{"model":"m","unknown":1}]}"#;
        let target = known(routes::New::parse(body).err());
        let Some(Holds::List(_, fields)) = section.field("targets").map(|field| &field.holds)
        else {
            panic!("a route has targets")
        };
        let names = fields.iter().map(|field| field.stored.to_owned());
        assert_eq!(names.collect::<BTreeSet<_>>(), target);
        let body = br#"{"model_name":"m","input_micros_per_million":1,"output_micros_per_million":1,"unknown":1}"#;
        let price = known(prices::New::parse(body).err());
        assert_eq!(stored(&super::super::price::SECTION, &[]), price);
        let user = known(users::New::parse(br#"{"name":"a","unknown":1}"#).err());
        assert_eq!(stored(&super::super::user::SECTION, &[]), user);
        let key = known(keys::New::parse(br#"{"name":"a","unknown":1}"#).err());
        assert_eq!(stored(&super::super::key::SECTION, &["secret"]), key);
    }

    #[test]
    fn the_schema_in_the_repository_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/hub.schema.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let printed = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        assert_eq!(
            kept, printed,
            "write it anew: nexus apply --schema > compose/hub.schema.json"
        );
    }
}
