//! Providers that break, in every way at every point, and clients that leave.
//!
//! Whatever happens, the client gets a correct error or a stream that ends with one, never half an
//! answer that looks whole; and the log holds what the client got, chunk by chunk, with exactly one
//! terminal event that says what was received.

mod before_first_byte;
mod disguised;
mod figures;
mod hang_up;
mod mid_stream;
mod shapes;
mod silence;
