//! Accounts for a run, with names that are unique to it.

use super::servers::Servers;
use abi::{error::ErrorCode, v1::ReceiverSeq};
use anyhow::{Context as _, Result};
use client::{
    Connection, Error, Recovery,
    backoff::Backoff,
    http::Api,
    tokens::{SessionTokens, TokenSource as _},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    rc::Rc,
    time::{Duration, Instant},
};

/// Requests at a time.
const PARALLEL: usize = 16;
/// How long requests are retried before the run fails.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Length of the random password of all accounts of a run. It is not saved.
const PASSWORD_BYTES: usize = 24;

/// A user of a run.
#[derive(Clone)]
pub(super) struct LoadUser {
    pub(super) name: String,
    pub(super) tokens: Rc<SessionTokens>,
}

/// Creates accounts.
pub(super) struct Users {
    servers: Servers,
    run: String,
    password: String,
}

impl Users {
    pub(super) fn new(servers: Servers) -> Self {
        let secret: [u8; PASSWORD_BYTES] = rand::random();
        let run = format!("{:08x}", rand::random::<u32>());
        Self { servers, run, password: abi::ids::hex(&secret) }
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The API of the next server.
    pub(super) fn api(&self) -> Api {
        self.servers.next_api()
    }

    /// Registers users, [`PARALLEL`] at a time.
    pub(super) async fn register(&self, count: usize) -> Result<Vec<LoadUser>> {
        let bar = bar("accounts", count as u64);
        let users = stream::iter(0..count)
            .map(|index| async move {
                let name = format!("load-{}-{index}", self.run);
                let (api, tokens) = with_retries(|| async {
                    let api = self.api();
                    let tokens = match api.register(&name, &self.password, "load").await {
                        // An earlier attempt has created the account, but its answer was lost.
                        Err(Error::Server(error)) if error.code == ErrorCode::AlreadyExists => {
                            api.login(&name, &self.password, "load").await
                        }
                        result => result,
                    };
                    Ok((api, tokens?))
                })
                .await?;
                Ok::<_, Error>(LoadUser { name, tokens: Rc::new(SessionTokens::new(api, tokens)) })
            })
            .buffered(PARALLEL)
            .inspect(|_| bar.inc(1))
            .try_collect()
            .await
            .context("cannot register users");
        bar.finish_and_clear();
        users
    }
}

/// Retries an operation for up to [`RETRY_TIMEOUT`].
pub(super) async fn with_retries<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let deadline = Instant::now() + RETRY_TIMEOUT;
    let mut backoff = Backoff::new(Duration::from_secs(1));
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match error.recovery() {
            Recovery::Retry(requested) if Instant::now() < deadline => {
                tokio::time::sleep(backoff.pause(requested)).await
            }
            _ => return Err(error),
        }
    }
}

impl LoadUser {
    /// Connects to the next server; each retry uses the one after it.
    pub(super) async fn connect(
        &self,
        servers: &Servers,
        have: Option<ReceiverSeq>,
    ) -> Result<Connection, Error> {
        with_retries(|| async {
            let token = self.tokens.token(None).await?;
            Connection::open(servers.next(), &token, have).await
        })
        .await
    }
}

/// Opens a connection for each user, [`PARALLEL`] at a time.
pub(super) async fn connect_all(
    servers: &Servers,
    users: impl Iterator<Item = &LoadUser>,
) -> Result<Vec<Connection>> {
    let users: Vec<&LoadUser> = users.collect();
    let bar = bar("connections", users.len() as u64);
    let connections = stream::iter(users)
        .map(|user| user.connect(servers, None))
        .buffered(PARALLEL)
        .inspect(|_| bar.inc(1))
        .try_collect()
        .await
        .context("cannot open the connections");
    bar.finish_and_clear();
    connections
}

/// A progress bar on a terminal; no output elsewhere.
pub(super) fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:12} {bar:30} {pos}/{len} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}
