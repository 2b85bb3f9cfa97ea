//! The promises of the apply code, on whole logs: any order of streams, any
//! batches, any repetition, rollups and retention from both sides.

mod counts;
mod embeddings;
mod orders;
mod rollups;
mod rules;
mod stored;
mod whole;
