//! The context of a command: the server, the user, and connections.

use crate::{
    args::{Args, Command},
    error::Usage,
    output::Output,
    store::{Role, Store, StoredTokens},
};
use abi::ids::{self, Conversation};
use anyhow::Result;
use client::{Client, Error, Events, Options, Server, State, Trust, http::Api, sync::Start};
use std::fs::File;

pub(crate) struct Context {
    pub(crate) server: Server,
    /// All servers on the command line; the first one is `server`.
    pub(crate) servers: Vec<Server>,
    pub(crate) api: Api,
    pub(crate) out: Output,
    pub(crate) store: Store,
    /// The user on the command line.
    user_option: Option<String>,
}

/// A connection for one request. Other processes of the same user wait until it is dropped.
pub(crate) struct OneShot {
    pub(crate) user: String,
    pub(crate) client: Client,
    _lock: File,
}

impl Context {
    pub(crate) fn new(args: &Args) -> Result<Self> {
        let usage = |error: Error| Usage(error.to_string());
        let trust = args.ca.as_deref().map(Trust::file).transpose().map_err(usage)?;
        let parse = |url: &String| {
            let server = Server::parse(url).map_err(usage)?;
            Ok::<_, Usage>(trust.iter().fold(server, Server::trusting))
        };
        let servers = args.url.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let is_surplus = servers.len() > 1 && !matches!(args.command, Command::Load { .. });
        let [server, ..] = servers.as_slice() else {
            return Err(Usage("--url is empty".into()).into());
        };
        if is_surplus {
            return Err(Usage("only `load` accepts more than one --url".into()).into());
        }
        let server = server.clone();
        Ok(Self {
            api: Api::new(server.clone()),
            store: Store::open(server.url())?,
            out: Output::new(args.json),
            user_option: args.user.clone(),
            server,
            servers,
        })
    }

    pub(crate) fn user(&self) -> Result<String> {
        self.store.user(self.user_option.as_deref())
    }

    pub(crate) fn tokens(&self, user: &str, role: Role) -> StoredTokens {
        StoredTokens { api: self.api.clone(), store: self.store.clone(), user: user.to_owned(), role }
    }

    /// An access token for the HTTP API.
    pub(crate) async fn access(&self) -> Result<(String, String)> {
        let user = self.user()?;
        let token = self.tokens(&user, Role::Once).access(None).await?;
        Ok((user, token))
    }

    /// Connects and stays connected.
    pub(crate) async fn live(&self, user: &str, start: Start, state: State) -> Result<(Client, Events)> {
        let options = Options { start, ..Options::default() };
        Ok(Client::connect(self.server.clone(), self.tokens(user, Role::Live), options, state).await?)
    }

    /// Connects for one request.
    pub(crate) async fn once(&self) -> Result<OneShot> {
        let user = self.user()?;
        // Check first that the user is logged in, for a better error.
        self.store.load(&user)?;
        let lock = self.store.lock(&user, "once").await?;
        let options = Options { start: Start::Now, ..Options::default() };
        let tokens = self.tokens(&user, Role::Once);
        let (client, _) = Client::connect(self.server.clone(), tokens, options, State::default()).await?;
        Ok(OneShot { user, client, _lock: lock })
    }
}

/// The conversation for a user id or a conversation id.
pub(crate) fn conversation(with: &str, me: &str) -> Result<String> {
    if !with.contains(':') {
        ids::check_id("a user id", with).map_err(|error| Usage(error.message))?;
        return Ok(ids::direct(me, with));
    }
    let parsed = Conversation::parse(with).map_err(|error| Usage(error.message))?;
    if parsed.has_direct_member(me) == Some(false) {
        return Err(Usage(format!("{with} is not a conversation of {me}")).into());
    }
    Ok(parsed.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_given_by_a_user_or_by_its_id() {
        assert_eq!(conversation("bob", "carol").unwrap(), "d:bob:carol");
        assert_eq!(conversation("d:carol:bob", "carol").unwrap(), "d:bob:carol");
        assert_eq!(conversation("g:team", "carol").unwrap(), "g:team");
        for with in ["", "b b", "d:alice:bob", "x:y"] {
            assert!(conversation(with, "carol").unwrap_err().is::<Usage>(), "{with}");
        }
    }
}
