//! Prices: dated facts, entered and superseded, never edited.
//!
//! `GET /prices` · `POST /prices` · `GET|DELETE /prices/{id}`
//!
//! A price holds from `valid_from_ms` on until a later one of the same model
//! begins. Deleting takes back one that was entered by mistake. All prices are
//! in one currency, in which budgets count, too.

use axum::{extract::State as Extract, response::Response};
use http::{HeaderMap, StatusCode};
use nexus_events::{
    clock::UnixMillis,
    config_event::{Price, Provider},
    id::{PriceId, ProviderId},
};
use serde::Serialize;

use super::{
    answer,
    change::{self, Managed, at_any_time},
    fields::{Fields, Nullable, wrong},
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
    quota::MONEY_MAX,
};
use crate::{
    auth::Principal,
    configuration::{CommandError, Snapshot, commands::Basis},
    error::ApiError,
    middleware::RequestBody,
    state::State,
};

/// The last moment that a price may begin at: the end of the year 9999.
const LAST_MS: u64 = 253_402_300_799_999;

/// A price as the API shows it.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: PriceId,
    model_name: &'a str,
    provider_id: Option<ProviderId>,
    input_micros_per_million: u64,
    output_micros_per_million: u64,
    cached_input_micros_per_million: Option<u64>,
    currency: &'a str,
    valid_from_ms: UnixMillis,
    created_ms: UnixMillis,
}

impl<'a> View<'a> {
    fn of(price: &'a Price) -> Self {
        Self {
            id: price.id,
            model_name: &price.model_name,
            provider_id: price.provider_id,
            input_micros_per_million: price.input_micros_per_million,
            output_micros_per_million: price.output_micros_per_million,
            cached_input_micros_per_million: price.cached_input_micros_per_million,
            currency: &price.currency,
            valid_from_ms: price.valid_from_ms,
            created_ms: price.created_ms,
        }
    }
}

/// `GET /prices`.
///
/// # Errors
/// 400: a parameter of the page is wrong.
pub async fn list(
    Extract(state): Extract<State>,
    parameters: PageParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let rows = snapshot
        .prices()
        .map(|entry| (entry.resource.id.to_string(), View::of(&entry.resource)));
    answer::json(StatusCode::OK, &page(rows, &parameters)?)
}

/// `GET /prices/{id}`.
///
/// # Errors
/// 404.
pub async fn get(
    Extract(state): Extract<State>,
    id: PathParameter,
    _: NoParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let price = Price::find(&snapshot, id.id("price")?);
    let (price, sequence) = price.ok_or_else(|| ApiError::not_found("price"))?;
    answer::resource(StatusCode::OK, &View::of(price), sequence)
}

/// `POST /prices`.
///
/// # Errors
/// 400: the body is wrong; 422: nobody offers the model, or the currency is another; 503: the
/// broker is away.
pub async fn create(
    Extract(state): Extract<State>,
    principal: Principal,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let body = New::parse(&body.0)?;
    let snapshot = state.configuration.current();
    let provider_id = match &body.provider_id {
        None => None,
        Some(text) => Some(named_provider(&snapshot, text)?),
    };
    let now = state.clock.now();
    let price = Price {
        id: PriceId::draw(&*state.clock),
        model_name: body.model_name,
        provider_id,
        input_micros_per_million: body.input,
        output_micros_per_million: body.output,
        cached_input_micros_per_million: body.cached_input,
        currency: body
            .currency
            .unwrap_or_else(|| snapshot.currency().to_owned()),
        valid_from_ms: body.valid_from_ms.unwrap_or(now),
        created_ms: now,
    };
    let mut changed = vec![
        "model_name",
        "input_micros_per_million",
        "output_micros_per_million",
        "currency",
        "valid_from_ms",
    ];
    changed.extend(provider_id.map(|_| "provider_id"));
    let cached = price.cached_input_micros_per_million;
    changed.extend(cached.map(|_| "cached_input_micros_per_million"));
    let written = state
        .commands
        .create(
            &principal.actor(),
            &changed,
            Basis::Configuration,
            |snapshot| {
                fits(snapshot, &price)?;
                Ok(price.clone())
            },
        )
        .await?;
    let view = View::of(&written.resource);
    answer::resource(StatusCode::CREATED, &view, written.sequence)
}

/// `DELETE /prices/{id}`.
///
/// # Errors
/// 404; 412: `If-Match`; 503: the broker is away.
pub async fn delete(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id: PriceId = id.id("price")?;
    change::delete::<Price>(&state, &principal, &headers, id, at_any_time).await
}

impl Managed for Price {
    type Id = PriceId;
    const NOUN: &'static str = "price";

    fn id(&self) -> PriceId {
        self.id
    }

    fn find(snapshot: &Snapshot, id: PriceId) -> Option<(&Self, u64)> {
        let entry = snapshot.price(id)?;
        Some((&entry.resource, entry.sequence))
    }

    /// It has none.
    fn named(_: &Snapshot, _: &str) -> Option<PriceId> {
        None
    }

    /// A price is never edited.
    fn touch(&mut self, _: UnixMillis) {}
}

/// Whether the price can stand beside what is configured.
pub(crate) fn fits(snapshot: &Snapshot, price: &Price) -> Result<(), CommandError> {
    let currency = snapshot.currency();
    if snapshot.prices().next().is_some() && currency != price.currency {
        return Err(CommandError::Unprocessable {
            member: "currency",
            message: format!(
                "The prices of this hub are in {currency}, and its budgets count in it: '{}' cannot stand beside it.",
                price.currency
            ),
        });
    }
    let mut models = snapshot.provider_models();
    let offered = models.any(|entry| {
        let model = &entry.resource;
        let of_provider = price.provider_id.is_none_or(|id| id == model.provider_id);
        of_provider && model.model_name == price.model_name
    });
    if !offered {
        return Err(CommandError::Unprocessable {
            member: "model_name",
            message: format!("No such provider offers a model '{}'.", price.model_name),
        });
    }
    Ok(())
}

/// The provider that a body names; 400, because there the body is wrong and not the address.
pub(crate) fn named_provider(
    snapshot: &Snapshot,
    id_or_name: &str,
) -> Result<ProviderId, ApiError> {
    let wrong = |_| ApiError::invalid_request(Some("provider_id"), "There is no such provider.");
    change::id_of::<Provider>(snapshot, id_or_name).map_err(wrong)
}

/// The body of a new price.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) model_name: String,
    pub(crate) provider_id: Option<String>,
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cached_input: Option<u64>,
    pub(crate) currency: Option<String>,
    pub(crate) valid_from_ms: Option<UnixMillis>,
}

impl New {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        const INPUT: &str = "input_micros_per_million";
        const OUTPUT: &str = "output_micros_per_million";
        const CACHED: &str = "cached_input_micros_per_million";
        let mut fields = Fields::parse(body)?;
        let model_name = fields.name("model_name")?;
        let provider_id = fields.nullable_text("provider_id")?.value();
        let input = fields.number(INPUT, 0..=MONEY_MAX)?;
        let output = fields.number(OUTPUT, 0..=MONEY_MAX)?;
        let cached_input = fields.nullable_number(CACHED, 0..=MONEY_MAX)?.value();
        let currency = fields.text("currency")?;
        if currency.as_deref().is_some_and(|code| !is_iso_4217(code)) {
            return Err(wrong(
                "currency",
                "must be three capital letters, as ISO 4217 has them",
            ));
        }
        let valid_from_ms = match fields.nullable_number("valid_from_ms", 0..=LAST_MS)? {
            Nullable::Value(millis) => {
                let millis = i64::try_from(millis).map_err(ApiError::internal)?;
                Some(UnixMillis::from_millis(millis))
            }
            Nullable::Absent | Nullable::Null => None,
        };
        let new = Self {
            model_name: fields.required("model_name", model_name)?,
            provider_id,
            input: fields.required(INPUT, input)?,
            output: fields.required(OUTPUT, output)?,
            cached_input,
            currency,
            valid_from_ms,
        };
        fields.finish()?;
        Ok(new)
    }
}

fn is_iso_4217(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}
