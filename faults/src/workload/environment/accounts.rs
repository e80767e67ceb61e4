//! Registers and logs in the devices of a user.

use crate::{
    ledger::{DeviceId, User},
    workload::{device::SharedTokens, device_link::DeviceLink, population::Population},
};
use anyhow::{Context as _, Result};
use client::{Error, Recovery, Server, http::Api, tokens::SessionTokens};
use std::{sync::Arc, time::Duration};
use tests::world::PASSWORD;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

/// Attempts to create an account or a group.
pub(super) const ATTEMPTS: usize = 20;
/// Pause between attempts.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A logged-in device.
pub(super) struct Account {
    pub(super) device: DeviceId,
    pub(super) link: DeviceLink,
    pub(super) tokens: SharedTokens,
}

/// Creates the account of a user and logs in all its devices, each over a link of its own.
pub(super) async fn create(
    population: &Population,
    user: User,
    gateways: &Arc<[String]>,
    seed: u64,
    tasks: &TaskTracker,
) -> Result<Vec<Account>> {
    let mut accounts = Vec::new();
    let name = population.name(user);
    let devices = population.ledger.devices.iter().enumerate();
    for (number, device) in devices.filter(|(_, device)| device.user == user) {
        let id = number as DeviceId;
        let probe = population.probes.iter().find(|(probe, _)| *probe == id);
        let own = probe.map_or_else(|| Arc::clone(gateways), |(_, at)| Arc::from([gateways[*at].clone()]));
        let link = DeviceLink::open(own, seed ^ u64::from(id) << 32, tasks).await?;
        let api = Api::new(Server::parse(link.address())?);
        let mut attempt = 0;
        let tokens = loop {
            let result = match accounts.is_empty() {
                true => api.register(name, PASSWORD, &device.name).await,
                false => api.login(name, PASSWORD, &device.name).await,
            };
            match result {
                Ok(tokens) => break tokens,
                Err(error) if attempt < ATTEMPTS && matches!(error.recovery(), Recovery::Retry(_)) => {
                    attempt += 1;
                    sleep(RETRY_PAUSE).await;
                }
                // An earlier attempt created the account, but its answer was lost.
                Err(Error::Server(error)) if attempt > 0 && error.code.name() == "already_exists" => {
                    break api.login(name, PASSWORD, &device.name).await?;
                }
                Err(error) => return Err(error).with_context(|| format!("log in {name}")),
            }
        };
        let tokens = SharedTokens(Arc::new(SessionTokens::new(api, tokens)));
        accounts.push(Account { device: id, link, tokens });
    }
    Ok(accounts)
}
