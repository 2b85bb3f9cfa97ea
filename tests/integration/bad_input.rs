//! Clients that send what they should not: each gets an OpenAI error object with the right status
//! and the request's id, and a `rejected` event exactly where a key was recognised.

mod changes;
mod chat;
mod heads;
mod management;
mod wire;
