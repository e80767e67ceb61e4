//! All of Godwit in one process: the program `godwit`.
//!
//! It opens the embedded log and store in one folder, keeps the cache in memory, and connects the same services that are
//! programs of their own in the distributed mode; they call each other in process. It has no logic of its own. It promises
//! that only one process uses a folder at a time, and that the data in the folder survive a crash of that process.
//!
//! [`transfer`] has the other commands: export, import, checksums and backup of all data.

mod app;
mod data;
mod operator;
pub mod transfer;

pub use app::{App, PROGRAM, build};
