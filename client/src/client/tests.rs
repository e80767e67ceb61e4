//! The SDK against a fake server that each test scripts frame by frame.

mod catching_up;
mod fake_server;
mod reconnecting;
mod sending;
