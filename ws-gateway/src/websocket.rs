//! WebSocket frames (RFC 6455) on a stream, without a buffer per connection.
//!
//! WebSocket libraries keep buffers that grow to the largest frame and never shrink. A gateway holds many idle connections, so here
//! an idle connection holds no buffer at all: [`Reader`] keeps only the beginning of an incomplete frame, and [`Writer`] only the
//! bytes that the socket has not taken yet. Both are polled, so that one task can read and write at the same time.

mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{Incoming, ReadError, Reader};
pub use writer::{Writer, put_message, with_batch};
