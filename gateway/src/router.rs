//! The whole route table: every path, its method, the permission that it needs.
//!
//! A route that is not in the table does not exist, and one that is in it is
//! guarded by its row. The data plane answers with and without `/v1`.

use axum::{
    Router,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};
use http::Method;

use crate::{
    admin::{
        conversations, keys, models, prices, provider_models, providers, requests,
        routes as model_routes, settings, stats, users,
    },
    auth::Permission::{
        self, CallModels, ChangeConfiguration, ListModels, ManageKeys, ManageUsers,
        ReadConfiguration, ReadContent, ReadStatistics, ReadUsage,
    },
    endpoint::{chat_completions, completions, embeddings, messages, responses, resume, ws_chat},
    middleware::{
        guard::{Guard, guard},
        outermost, unknown_path, wrong_method,
    },
    state::State,
};

/// A row of the table.
struct Route {
    method: Method,
    path: &'static str,
    permission: Permission,
    handler: MethodRouter<State>,
}

/// The table.
fn table() -> Vec<Route> {
    let mut rows = vec![
        post("/v1/chat/completions", CallModels, chat_completions::post),
        post("/chat/completions", CallModels, chat_completions::post),
        post("/v1/embeddings", CallModels, embeddings::post),
        post("/embeddings", CallModels, embeddings::post),
        post("/v1/messages", CallModels, messages::post),
        post("/messages", CallModels, messages::post),
        post("/v1/responses", CallModels, responses::post),
        post("/responses", CallModels, responses::post),
        post("/v1/completions", CallModels, completions::post),
        post("/completions", CallModels, completions::post),
        get("/v1/chat/completions/{id}/events", ReadContent, resume::get),
        get("/chat/completions/{id}/events", ReadContent, resume::get),
        get("/ws/chat", CallModels, ws_chat::get),
        get("/v1/models", ListModels, models::list),
        get("/models", ListModels, models::list),
        get("/v1/models/{*model}", ListModels, models::get),
        get("/models/{*model}", ListModels, models::get),
        get("/providers", ReadConfiguration, providers::list),
        post("/providers", ChangeConfiguration, providers::create),
        get("/providers/{id}", ReadConfiguration, providers::get),
        put("/providers/{id}", ChangeConfiguration, providers::update),
        delete("/providers/{id}", ChangeConfiguration, providers::delete),
        get(
            "/providers/{id}/models",
            ReadConfiguration,
            provider_models::of_provider,
        ),
        get("/provider_models", ReadConfiguration, provider_models::list),
        post(
            "/provider_models",
            ChangeConfiguration,
            provider_models::create,
        ),
        get(
            "/provider_models/{id}",
            ReadConfiguration,
            provider_models::get,
        ),
        put(
            "/provider_models/{id}",
            ChangeConfiguration,
            provider_models::update,
        ),
        delete(
            "/provider_models/{id}",
            ChangeConfiguration,
            provider_models::delete,
        ),
        get("/routes", ReadConfiguration, model_routes::list),
        post("/routes", ChangeConfiguration, model_routes::create),
        get(
            "/routes/explain",
            ReadConfiguration,
            model_routes::explain::get,
        ),
        get("/routes/{id}", ReadConfiguration, model_routes::get),
        put("/routes/{id}", ChangeConfiguration, model_routes::update),
        delete("/routes/{id}", ChangeConfiguration, model_routes::delete),
        get("/stats", ReadStatistics, stats::totals),
        get("/stats/conversations/{id}", ReadUsage, stats::conversation),
        get("/conversations", ReadContent, conversations::list),
        get("/conversations/{id}", ReadContent, conversations::get),
        get("/requests/{id}", ReadContent, requests::get),
        get("/settings", ReadConfiguration, settings::get),
    ];
    rows.extend(accounts());
    rows
}

/// Who may use how much, and what it costs.
fn accounts() -> Vec<Route> {
    vec![
        get("/keys", ManageKeys, keys::list),
        post("/keys", ManageKeys, keys::create),
        get("/keys/{id}", ManageKeys, keys::get),
        put("/keys/{id}", ManageKeys, keys::update),
        delete("/keys/{id}", ManageKeys, keys::delete),
        get("/users", ReadConfiguration, users::list),
        post("/users", ManageUsers, users::create),
        get("/users/{id}", ReadConfiguration, users::get),
        put("/users/{id}", ManageUsers, users::update),
        delete("/users/{id}", ManageUsers, users::delete),
        get("/prices", ReadConfiguration, prices::list),
        post("/prices", ChangeConfiguration, prices::create),
        get("/prices/{id}", ReadConfiguration, prices::get),
        delete("/prices/{id}", ChangeConfiguration, prices::delete),
    ]
}

/// Every path with its method and the permission that it needs, for whoever checks the table.
pub fn routes() -> Vec<(Method, &'static str, Permission)> {
    let rows = table().into_iter();
    rows.map(|row| (row.method, row.path, row.permission))
        .collect()
}

/// Everything that the client address answers.
pub fn router(state: &State) -> Router {
    let mut router = Router::new();
    for route in table() {
        let guarded = Guard {
            state: State::clone(state),
            permission: route.permission,
            audited: is_audited(&route),
        };
        let handler = route.handler.layer(from_fn_with_state(guarded, guard));
        router = router.route(route.path, handler);
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(State::clone(state), outermost))
        .with_state(State::clone(state))
}

/// Management writes are audit events; calls of models are events of their own.
fn is_audited(route: &Route) -> bool {
    route.method != Method::GET && route.permission != CallModels
}

fn get<H, T>(path: &'static str, permission: Permission, handler: H) -> Route
where
    H: Handler<T, State>,
    T: 'static,
{
    row(Method::GET, MethodFilter::GET, path, permission, handler)
}

fn post<H, T>(path: &'static str, permission: Permission, handler: H) -> Route
where
    H: Handler<T, State>,
    T: 'static,
{
    row(Method::POST, MethodFilter::POST, path, permission, handler)
}

fn put<H, T>(path: &'static str, permission: Permission, handler: H) -> Route
where
    H: Handler<T, State>,
    T: 'static,
{
    row(Method::PUT, MethodFilter::PUT, path, permission, handler)
}

fn delete<H, T>(path: &'static str, permission: Permission, handler: H) -> Route
where
    H: Handler<T, State>,
    T: 'static,
{
    row(
        Method::DELETE,
        MethodFilter::DELETE,
        path,
        permission,
        handler,
    )
}

fn row<H, T>(
    method: Method,
    filter: MethodFilter,
    path: &'static str,
    permission: Permission,
    handler: H,
) -> Route
where
    H: Handler<T, State>,
    T: 'static,
{
    Route {
        method,
        path,
        permission,
        handler: on(filter, handler),
    }
}
