//! What every cache promises, and what Redis does to its users.

mod conformance;
mod redis_faults;
mod support;
