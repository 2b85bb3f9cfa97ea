//! Ways of asking a model beside chat completions: official clients get what they expect, and
//! every request is recorded as one of chat is.

mod candidates;
mod clients;
mod embeddings;
mod recording;
mod sdk_members;
