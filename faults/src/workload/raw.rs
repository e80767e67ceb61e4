//! A device with its own implementation of the protocol in docs/protocol.md, independent of the SDK.
//!
//! Unlike the SDK it also sends acknowledged messages again, lets another device of the user send copies, has
//! several messages of a conversation in flight, and requests an entry directly after its delivery.

mod catch_up;
mod device;
mod read_positions;
mod request;
mod responses;
mod send_queue;
mod session;

use super::device::DeviceContext;
use abi::error::ErrorCode;
use client::{Error, Recovery};
use device::RawDevice;
use rand::RngExt as _;
use session::{Session, SessionEnd};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest pause before a reconnect, in milliseconds.
const MAX_PAUSE_MS: u64 = 1_500;
/// The same for a probe device, which measures recovery times.
const MAX_PROBE_PAUSE_MS: u64 = 200;

/// Runs the device until the end of the run.
pub(super) async fn run(context: DeviceContext) {
    let mut device = RawDevice::new(context);
    device.context.recorder.begin_incarnation(device.context.id, &device.catch_up.state());
    while !device.context.stop.is_cancelled() {
        let end = connect_once(&mut device).await;
        device.queues.disconnected();
        device.catch_up.disconnected();
        match end {
            SessionEnd::Stopped => break,
            SessionEnd::Restart => device.restart(),
            SessionEnd::Lost(error) => pause(&mut device, error).await,
        }
    }
    for send in device.queues.unsent() {
        device.context.recorder.abandoned(send);
    }
}

/// Runs one connection from its start to its end.
async fn connect_once(device: &mut RawDevice) -> SessionEnd {
    match device.open().await {
        Ok(connection) => Session::run(device, connection).await,
        Err(error) => {
            if matches!(error, Error::Timeout { .. } | Error::Lost(_)) {
                device.abandoned_hello = Some(Instant::now());
            }
            SessionEnd::Lost(Some(error))
        }
    }
}

/// Waits before the next connection.
async fn pause(device: &mut RawDevice, error: Option<Error>) {
    if let Some(error) = error
        && error.recovery() == Recovery::Stop
        && !(error.code() == Some(ErrorCode::Replaced) && device.may_have_replaced_itself())
    {
        device.context.recorder.ended(device.context.id, error.to_string());
    }
    let longest = if device.context.is_probe { MAX_PROBE_PAUSE_MS } else { MAX_PAUSE_MS };
    sleep(Duration::from_millis(device.random.random_range(50..longest))).await;
    while let Ok(command) = device.context.commands.try_recv() {
        if device.apply(command) {
            device.restart();
        }
    }
}
