//! Prices in the file: facts with a date, entered and superseded, never edited.
//!
//! With `valid_from` the file states what holds from that moment on. Without,
//! it states what holds now: when that is another price, one is entered that
//! begins now, and what was used before keeps its cost. A price that the file
//! does not declare is history, and stays whatever is pruned.

use std::collections::BTreeSet;

use nexus_events::{
    clock::UnixMillis,
    config_event::Price,
    id::{PriceId, ProviderId},
};

use super::{
    document::Member,
    plan::{Declarable, Planner, Shown},
    problem::Problem,
    reference::Environment,
    section::{self, Declared, Field, Holds, Section},
};
use crate::{
    admin::{
        prices::{New, fits, named_provider},
        quota::MONEY_MAX,
    },
    configuration::{CommandError, Snapshot, snapshot::CURRENCY_DEFAULT},
};

pub(super) static SECTION: Section = Section {
    name: "prices",
    noun: "price",
    about: "What tokens cost, in millionths of the currency for a million of them.",
    members: &[
        Field {
            name: "provider",
            stored: "provider_id",
            about: "Name of the provider that it holds for; left out: every one that has no price of its own.",
            holds: Holds::NullableName,
            required: false,
        },
        Field {
            name: "model_name",
            stored: "model_name",
            about: "The model, as clients ask for it.",
            holds: Holds::Name,
            required: true,
        },
        Field {
            name: "input_micros_per_million",
            stored: "input_micros_per_million",
            about: "Tokens of prompts.",
            holds: Holds::Number(0..=MONEY_MAX),
            required: true,
        },
        Field {
            name: "output_micros_per_million",
            stored: "output_micros_per_million",
            about: "Tokens of answers.",
            holds: Holds::Number(0..=MONEY_MAX),
            required: true,
        },
        Field {
            name: "cached_input_micros_per_million",
            stored: "cached_input_micros_per_million",
            about: "Tokens of prompts that the provider had cached; left out: as other tokens of prompts.",
            holds: Holds::Number(0..=MONEY_MAX),
            required: false,
        },
        Field {
            name: "currency",
            stored: "currency",
            about: "ISO 4217, the same for all prices of a hub; left out: that of the others, else USD.",
            holds: Holds::Text,
            required: false,
        },
        Field {
            name: "valid_from",
            stored: "valid_from_ms",
            about: "When it begins to hold, as RFC 3339 has it; left out: when it is applied.",
            holds: Holds::Moment,
            required: false,
        },
    ],
};

pub(super) fn read(
    file: (&[Member], &Environment<'_>),
    problems: &mut Vec<Problem>,
) -> Option<Vec<Declared<New>>> {
    let declared = section::read(file, &SECTION, problems, |entry| {
        let new = New::parse(&entry.body(&[])?);
        new.map_err(|error| entry.place.refused(&error))
    });
    section::unique(declared.as_deref(), "model_name", problems, |new| {
        let from = new.valid_from_ms.map(UnixMillis::to_rfc3339);
        format!("{} from {}", name(new), from.as_deref().unwrap_or("now"))
    });
    let all = || declared.iter().flatten();
    let dated: BTreeSet<String> = all()
        .filter(|one| one.body.valid_from_ms.is_some())
        .map(|one| name(&one.body))
        .collect();
    for one in all().filter(|one| one.body.valid_from_ms.is_none()) {
        if dated.contains(&name(&one.body)) {
            let message = "'valid_from' is required: another price of the model has one, and from now on would end it";
            problems.push(one.place.problem(Some("valid_from"), message));
        }
    }
    declared
}

fn name(new: &New) -> String {
    let provider = new.provider_id.as_deref().unwrap_or("any");
    format!("{provider}/{}", new.model_name)
}

pub(super) fn plan(planner: &mut Planner<'_>, declared: Option<&[Declared<New>]>) {
    let declared = declared.unwrap_or_default();
    let currency = Currency::of(planner, declared);
    for one in declared {
        if let Some(problem) = currency.refuses(one) {
            planner.problems.push(problem);
            continue;
        }
        match wanted(planner, &one.body, &currency.code) {
            Ok(price) => match stated(planner, &one.body, &price) {
                Some((before, sequence)) => {
                    planner.put(&one.place, Some((&before, sequence)), before.clone());
                }
                None => planner.put(&one.place, None, price),
            },
            Err(error) => planner.problems.push(one.place.refused(&error)),
        }
    }
    planner.settle();
}

/// The one currency of the hub, and who says so.
struct Currency {
    code: String,
    /// Its prices already, or the first of the file that names one.
    said_by: String,
}

impl Currency {
    /// That of the prices that are entered; before the first that of the file.
    fn of(planner: &Planner<'_>, declared: &[Declared<New>]) -> Self {
        if let Some(entry) = planner.before.prices().next() {
            return Self {
                code: entry.resource.currency.clone(),
                said_by: "the prices of this hub are".to_owned(),
            };
        }
        let mut named = declared.iter().filter_map(|one| {
            let code = one.body.currency.clone()?;
            let said_by = format!("{} is", one.place.path());
            Some(Self { code, said_by })
        });
        named.next().unwrap_or_else(|| Self {
            code: CURRENCY_DEFAULT.to_owned(),
            said_by: "prices without a currency are".to_owned(),
        })
    }

    fn refuses(&self, one: &Declared<New>) -> Option<Problem> {
        let code = one.body.currency.as_ref();
        let code = code.filter(|code| **code != self.code)?;
        let message = format!(
            "'currency' must be '{}': {} in it, all prices of a hub are in one currency, and '{code}' is another",
            self.code, self.said_by
        );
        Some(one.place.problem(Some("currency"), message))
    }
}

/// The price as it would be entered.
fn wanted(
    planner: &Planner<'_>,
    new: &New,
    currency: &str,
) -> Result<Price, crate::error::ApiError> {
    let named = new.provider_id.as_deref();
    let provider_id = named.map(|name| named_provider(&planner.now, name));
    let now = planner.clock.now();
    Ok(Price {
        id: PriceId::draw(planner.clock),
        model_name: new.model_name.clone(),
        provider_id: provider_id.transpose()?,
        input_micros_per_million: new.input,
        output_micros_per_million: new.output,
        cached_input_micros_per_million: new.cached_input,
        currency: currency.to_owned(),
        valid_from_ms: new.valid_from_ms.unwrap_or(now),
        created_ms: now,
    })
}

/// The price that says the same already, with its stream sequence.
fn stated(planner: &Planner<'_>, new: &New, wanted: &Price) -> Option<(Price, u64)> {
    let of_the_same = planner.before.prices().filter(|entry| {
        let price = &entry.resource;
        let of: (&str, Option<ProviderId>) = (&price.model_name, price.provider_id);
        of == (wanted.model_name.as_str(), wanted.provider_id)
    });
    // Of two that begin at once the one that was entered later holds.
    let holds = match new.valid_from_ms {
        Some(from) => of_the_same
            .filter(|entry| entry.resource.valid_from_ms == from)
            .max_by_key(|entry| entry.resource.id),
        None => of_the_same
            .filter(|entry| entry.resource.valid_from_ms <= wanted.valid_from_ms)
            .max_by_key(|entry| (entry.resource.valid_from_ms, entry.resource.id)),
    }?;
    let there = (*holds.resource).clone();
    let same = Price {
        id: there.id,
        valid_from_ms: there.valid_from_ms,
        created_ms: there.created_ms,
        ..wanted.clone()
    };
    // A price is never edited: one that holds more than this version knows is followed by another.
    let is_whole = planner.is_known_whole(&there);
    (same == there && is_whole).then_some((there, holds.sequence))
}

impl Declarable for Price {
    const SECTION: &'static Section = &SECTION;

    fn label(&self, snapshot: &Snapshot) -> String {
        let provider = self.provider_id.map_or("any", |id| {
            let entry = snapshot.provider(id);
            entry.map_or("(gone)", |entry| entry.resource.resource.name.as_str())
        });
        let from = self.valid_from_ms.to_rfc3339();
        format!("{provider}/{} from {from}", self.model_name)
    }

    fn shown(&self, snapshot: &Snapshot) -> Vec<Shown> {
        let provider = self.provider_id.and_then(|id| snapshot.provider(id));
        vec![
            Shown::optional(provider.map(|entry| &entry.resource.resource.name)),
            Shown::plain(&self.model_name),
            Shown::plain(&self.input_micros_per_million),
            Shown::plain(&self.output_micros_per_million),
            Shown::optional(self.cached_input_micros_per_million),
            Shown::plain(&self.currency),
            Shown::plain(&self.valid_from_ms.to_rfc3339()),
        ]
    }

    fn stands(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        fits(snapshot, self)
    }

    fn may_go(&self, _: &Snapshot) -> Result<(), CommandError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::apply::testing::Desk;

    const OFFERED: &str = "
providers: [{name: a, kind: gemini}]
models: [{provider: a, model_name: m}, {provider: a, model_name: n}]
";

    /// Two models with a price each, in these currencies; a blank for none that is named.
    fn priced(currencies: [&str; 2]) -> String {
        let prices = ["m", "n"].iter().zip(currencies).map(|(model, currency)| {
            let currency = match currency {
                "" => String::new(),
                code => format!(", currency: {code}"),
            };
            let cost = "input_micros_per_million: 1, output_micros_per_million: 1";
            format!("- {{model_name: {model}, {cost}{currency}}}\n")
        });
        let prices: String = prices.collect();
        format!("{OFFERED}prices:\n{prices}")
    }

    #[test]
    fn a_file_is_in_the_currency_of_the_hub_or_the_first_that_it_names() {
        let empty = Desk::new();
        let refused = empty.refused(&priced(["EUR", "CNY"]), false);
        let told = "prices[1].currency: 'currency' must be 'EUR': prices[0] is in it";
        assert!(refused.contains(told), "{refused}");

        for (currencies, expected) in [
            (["", ""], "USD"),
            (["", "EUR"], "EUR"),
            (["EUR", ""], "EUR"),
        ] {
            let mut desk = empty.clone();
            desk.apply(&priced(currencies));
            let snapshot = desk.snapshot();
            let mut prices = snapshot.prices();
            assert!(
                prices.all(|entry| entry.resource.currency == expected),
                "{currencies:?}"
            );
            assert_eq!(desk.apply(&priced(currencies)), [""; 0]);
            let refused = desk.refused(&priced(["", "CNY"]), false);
            let told = format!(
                "prices[1].currency: 'currency' must be '{expected}': the prices of this hub are in it"
            );
            assert!(refused.contains(&told), "{refused}");
        }
    }

    #[test]
    fn a_budget_counts_in_the_currency_of_a_price_so_there_must_be_one() {
        for (section, file) in [
            ("users", "users: [{name: u, monthly_budget: 5}]"),
            (
                "keys",
                "keys: [{name: k, secret: \"${K}\", role: admin, monthly_budget: 5}]",
            ),
        ] {
            let refused = Desk::new().refused(file, false);
            let told = format!("{section}[0].monthly_budget: ");
            assert!(refused.contains(&told), "{refused}");
            let mut desk = Desk::with(&priced(["", ""]));
            assert_eq!(desk.apply(file).len(), 1, "the price is entered already");
            let both = format!("{}{file}\n", priced(["", ""]));
            assert_eq!(Desk::new().apply(&both).len(), 6, "the file has both");
        }
    }
}
