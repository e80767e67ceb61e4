//! The fault suite: runs a whole system under load while faults are injected, and checks afterwards that the guarantees P1 to
//! P9 hold.
//!
//! `scripts/faults` is its command. A seed determines the plan of the load and of the faults.
//!
//! - [`workload`]: users with several devices, which record their observations in a [`ledger`].
//! - [`cluster`] and [`single`]: the distributed system and the one-process program, as targets of faults.
//! - [`proxy`]: a TCP proxy that cuts, delays and resets connections or leaves them half-open.
//! - [`fault`]: the catalogue of faults. [`nemesis`]: injects and heals them, and measures the recovery.
//! - [`checker`]: compares the ledger with the [`store`].
//! - [`run`](run()): a whole run and its table. [`rolling`]: a rolling restart under load.

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
