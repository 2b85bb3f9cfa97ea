//! Users and prices of one configuration.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use nexus_events::{
    clock::UnixMillis,
    config_event::{Price, User},
    id::{PriceId, ProviderId, UserId},
};

use super::{Entry, Snapshot};

/// The currency of prices and budgets where no price has said another: US dollars.
pub const CURRENCY_DEFAULT: &str = "USD";

/// Users and prices, with what a request looks them up by.
#[derive(Clone, Debug, Default)]
pub struct Accounting {
    users: BTreeMap<UserId, Entry<User>>,
    prices: BTreeMap<PriceId, Entry<Price>>,
    /// Model name → its prices, the one that began last first.
    by_model: HashMap<String, Vec<Arc<Price>>>,
}

impl Accounting {
    pub(in crate::configuration) fn new(
        users: BTreeMap<UserId, Entry<User>>,
        prices: BTreeMap<PriceId, Entry<Price>>,
    ) -> Self {
        let mut by_model: HashMap<String, Vec<Arc<Price>>> = HashMap::new();
        for entry in prices.values() {
            let price = &entry.resource;
            let of_model = by_model.entry(price.model_name.clone()).or_default();
            of_model.push(Arc::clone(price));
        }
        for of_model in by_model.values_mut() {
            // Of two that begin at once the one that was entered later holds.
            of_model.sort_by_key(|price| std::cmp::Reverse((price.valid_from_ms, price.id)));
        }
        Self {
            users,
            prices,
            by_model,
        }
    }
}

impl Snapshot {
    /// A user by its id.
    pub fn user(&self, id: UserId) -> Option<&Entry<User>> {
        self.accounting.users.get(&id)
    }

    /// A user by its name.
    pub fn user_named(&self, name: &str) -> Option<&Entry<User>> {
        self.users().find(|entry| entry.resource.name == name)
    }

    /// Every user, the oldest first.
    pub fn users(&self) -> impl Iterator<Item = &Entry<User>> {
        self.accounting.users.values()
    }

    /// A price by its id.
    pub fn price(&self, id: PriceId) -> Option<&Entry<Price>> {
        self.accounting.prices.get(&id)
    }

    /// Every price, the one that was entered first before the others.
    pub fn prices(&self) -> impl Iterator<Item = &Entry<Price>> {
        self.accounting.prices.values()
    }

    /// The currency that prices and budgets count in: that of the first price.
    pub fn currency(&self) -> &str {
        let first = self.prices().next();
        first.map_or(CURRENCY_DEFAULT, |entry| &entry.resource.currency)
    }

    /// The price of a provider's model that is in force at a moment; `None`: it costs nothing.
    pub fn price_at(&self, model: &str, provider: ProviderId, at: UnixMillis) -> Option<&Price> {
        let of_model = self.accounting.by_model.get(model)?;
        let in_force = |of: Option<ProviderId>| {
            let mut begun = of_model.iter().filter(|price| price.valid_from_ms <= at);
            begun.find(|price| price.provider_id == of)
        };
        in_force(Some(provider))
            .or_else(|| in_force(None))
            .map(|price| &**price)
    }
}

#[cfg(test)]
mod tests {
    use nexus_events::clock::ManualClock;

    use super::*;

    fn price(clock: &ManualClock, provider: Option<ProviderId>, from: i64, cost: u64) -> Price {
        Price {
            id: PriceId::draw(clock),
            model_name: "m".to_owned(),
            provider_id: provider,
            input_micros_per_million: cost,
            output_micros_per_million: cost,
            cached_input_micros_per_million: None,
            currency: "USD".to_owned(),
            valid_from_ms: UnixMillis::from_millis(from),
            created_ms: UnixMillis::from_millis(0),
        }
    }

    #[test]
    fn the_price_that_began_last_is_in_force_and_a_providers_own_before_that_of_all() {
        let clock = ManualClock::at(UnixMillis::from_millis(1_795_000_000_000));
        let (one, other) = (ProviderId::draw(&clock), ProviderId::draw(&clock));
        let mut prices = BTreeMap::new();
        for (provider, from, cost) in [
            (None, 10, 1),
            (None, 30, 2),
            (Some(one), 20, 3),
            (None, 30, 4),
        ] {
            let resource = Arc::new(price(&clock, provider, from, cost));
            let entry = Entry {
                resource,
                sequence: 1,
            };
            prices.insert(entry.resource.id, entry);
            clock.advance(std::time::Duration::from_millis(1));
        }
        let mut snapshot = super::super::tests::empty();
        snapshot.accounting = Accounting::new(BTreeMap::new(), prices);
        for (model, provider, at, expected) in [
            ("m", other, 9, None),
            ("m", other, 10, Some(1)),
            ("m", other, 29, Some(1)),
            ("m", other, 30, Some(4)),
            ("m", one, 19, Some(1)),
            ("m", one, 20, Some(3)),
            ("m", one, 99, Some(3)),
            ("n", one, 99, None),
        ] {
            let found = snapshot.price_at(model, provider, UnixMillis::from_millis(at));
            let cost = found.map(|price| price.input_micros_per_million);
            assert_eq!(cost, expected, "{model} at {at}");
        }
        assert_eq!(snapshot.currency(), "USD");
    }
}
