//! Server-sent events, both ways: decoded as they come in from a provider,
//! encoded as they go out to a client.

pub mod sse_decode;
pub mod sse_encode;
