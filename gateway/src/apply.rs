//! `nexus apply`: providers, models, routes, prices, users and keys as one file
//! declares them.
//!
//! *What it promises.* The whole file is checked before the first write, by the
//! rules of the management API. What is written is the difference, in an order
//! in which each step leaves a configuration that works (`apply/order.rs`), so
//! an end half-way does no harm, and the next run does the rest. A second run
//! writes nothing (`apply/hidden.rs`). Nobody's change is overwritten unseen: each change is made
//! to the resource as the plan saw it, or not at all.
//!
//! *What a file says.* A resource is found by its name and declared whole: a
//! member that is left out has its default. A section that is left out is none
//! of the file's business; in a section that is there, what is not declared
//! stays, unless `--prune` is given. What the hub has put there itself (provider
//! `echo` with its model, key `admin`) goes only when the file says
//! `prune_built_in: true`; the last admin key never goes, nor does a price, which is history.
//!
//! *Secrets* are references to environment variables. They are compared with
//! what is configured (keys by their hash) and never printed.
//!
//! To add a kind: a file like `apply/model.rs`, a row in `SECTIONS`, a member
//! of `Declaration` and its two lines there.

mod document;
mod hidden;
mod key;
mod live;
mod model;
mod order;
mod plan;
mod price;
mod problem;
mod provider;
mod quota;
mod reference;
mod route;
mod schema;
mod section;
mod step;
#[cfg(test)]
mod testing;
mod user;

use std::net::SocketAddr;

use nexus_events::{clock::Clock, config_event::Actor, seal::MasterKey};

pub use self::{
    document::BYTES_MAX,
    live::{Interrupted, Live},
    plan::Plan,
    problem::Problem,
    reference::Environment,
    schema::schema,
};
use self::{
    document::{Member, Node},
    hidden::Unknown,
    plan::Planner,
    section::{Declared, Section},
};
use crate::{
    admin::{prices, provider_models, providers, routes, users},
    configuration::Fold,
};

/// Who the changes are by, in the events' `source`.
const SOURCE: &str = "/nexus/apply";

/// A member of the file that is no section.
const PRUNE_BUILT_IN: &str = "prune_built_in";

/// The sections of the file, in the order in which they are written.
const SECTIONS: [&Section; 6] = [
    &provider::SECTION,
    &model::SECTION,
    &route::SECTION,
    &price::SECTION,
    &user::SECTION,
    &key::SECTION,
];

/// A file that was read: each resource may be as it is.
#[derive(Debug)]
pub struct Declaration {
    prune_built_in: bool,
    providers: Option<Vec<Declared<providers::New>>>,
    models: Option<Vec<Declared<provider_models::New>>>,
    routes: Option<Vec<Declared<routes::New>>>,
    prices: Option<Vec<Declared<prices::New>>>,
    users: Option<Vec<Declared<users::New>>>,
    keys: Option<Vec<Declared<key::New>>>,
}

impl Declaration {
    /// Reads a file, with the references in it replaced.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(text: &str, environment: &Environment<'_>) -> Result<Self, Vec<Problem>> {
        let members = document::read(text).map_err(|problem| vec![problem])?;
        let mut problems = unknown(&members);
        let file = (members.as_slice(), environment);
        let declaration = Self {
            prune_built_in: prune_built_in(&members, &mut problems),
            providers: provider::read(file, &mut problems),
            models: model::read(file, &mut problems),
            routes: route::read(file, &mut problems),
            prices: price::read(file, &mut problems),
            users: user::read(file, &mut problems),
            keys: key::read(file, &mut problems),
        };
        problems.sort_by_key(|problem| problem.line);
        if problems.is_empty() {
            Ok(declaration)
        } else {
            Err(problems)
        }
    }

    /// Providers that are the hub itself, which listens on one of those addresses.
    pub async fn leading_back(&self, listening: &[SocketAddr]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for declared in self.providers.iter().flatten() {
            for listen in listening {
                let url = &declared.body.server_url;
                if let Err(error) = providers::leads_elsewhere(*listen, url).await {
                    problems.push(declared.place.refused(&error));
                }
            }
        }
        problems
    }

    fn plan(
        &self,
        configured: (&Fold, &Unknown),
        (master, clock): (&MasterKey, &dyn Clock),
        prune: bool,
    ) -> Result<Plan, Vec<Problem>> {
        let planner = Planner::new(configured, master, clock);
        let mut planner =
            planner.map_err(|error| vec![Problem::of_file(None, error.to_string())])?;
        planner.prune = prune;
        planner.prune_built_in = self.prune_built_in;
        provider::plan(&mut planner, self.providers.as_deref());
        model::plan(&mut planner, self.models.as_deref());
        route::plan(&mut planner, self.routes.as_deref());
        price::plan(&mut planner, self.prices.as_deref());
        user::plan(&mut planner, self.users.as_deref());
        key::plan(&mut planner, self.keys.as_deref());
        planner.finish()
    }
}

/// Who the changes are by.
fn actor() -> Actor {
    Actor {
        key: None,
        name: "shell".to_owned(),
    }
}

fn unknown(members: &[Member]) -> Vec<Problem> {
    let mut known: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
    known.push(PRUNE_BUILT_IN);
    let unknown = members.iter().filter(|it| !known.contains(&&*it.name));
    let refused = unknown.map(|member| Problem {
        path: member.name.clone(),
        line: Some(member.line),
        message: format!("unknown section; known are: {}", known.join(", ")),
    });
    refused.collect()
}

fn prune_built_in(members: &[Member], problems: &mut Vec<Problem>) -> bool {
    let member = members.iter().find(|member| member.name == PRUNE_BUILT_IN);
    match member.map(|member| (member.line, &member.node)) {
        None => false,
        Some((_, Node::Bool(value))) => *value,
        Some((line, _)) => {
            problems.push(Problem {
                path: PRUNE_BUILT_IN.to_owned(),
                line: Some(line),
                message: "must be true or false".to_owned(),
            });
            false
        }
    }
}
