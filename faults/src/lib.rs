//! The fault suite: a whole system under load while its parts die, and a ledger that is held against what is left.
//!
//! `scripts/faults` is its command. One seed decides what the users do and what is broken when.
//!
//! - [`workload`]: users with several devices, who write down what they see in a [`ledger`].
//! - [`cluster`] and [`single`]: the distributed system and the one-process program as something that can be broken.
//! - [`proxy`]: connections between their parts that can be cut, delayed, reset or left half open.
//! - [`fault`]: the catalogue of what can happen. [`nemesis`]: makes it happen, heals it, measures how long that took.
//! - [`checker`]: holds the ledger against the [`store`], line by line of the promise.
//! - [`run`](run()): all of that in order, and the table at the end. [`rolling`]: a rolling restart under load.

pub mod checker;
pub mod cluster;
pub mod fault;
pub mod ledger;
pub mod nemesis;
pub mod proxy;
pub mod rolling;
mod run;
pub mod single;
pub mod store;
mod table;
pub mod workload;

pub use run::{Mode, Settings, recheck, run};
