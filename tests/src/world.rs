//! The entry point of a test: a running system, and methods that create users and devices in it.

use crate::{
    device::{Device, Wire},
    http::{self, Answer},
    system::{System, unique},
};
use abi::v1::{ReceiverSeq, Welcome};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The password of every user in tests.
pub const PASSWORD: &str = "correct horse battery staple";

/// A running system with helpers for tests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct World {
    /// The system.
    pub system: Arc<dyn System>,
    next_gateway: Arc<AtomicUsize>,
}

/// A logged-in device of a user.
#[derive(Clone, Debug)]
pub struct Session {
    /// User id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// Session id.
    pub session: String,
    /// Access token.
    pub access_token: String,
    /// Refresh token.
    pub refresh_token: String,
}

impl Session {
    /// Parses the answer to a registration, log-in or refresh.
    ///
    /// # Errors
    /// If a member is missing.
    pub fn read(answer: &Answer) -> Result<Self> {
        let json = answer.json()?;
        let text = |name: &str| {
            json[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {}", answer.body))
        };
        Ok(Self {
            user: text("user")?,
            device: text("device")?,
            session: text("session")?,
            access_token: text("access_token")?,
            refresh_token: text("refresh_token")?,
        })
    }

    /// Id of the direct conversation with another user.
    pub fn conversation_with(&self, other: &Self) -> String {
        abi::ids::direct(&self.user, &other.user)
    }
}

#[derive(Debug)]
struct Addresses {
    mode: &'static str,
    gateways: Vec<String>,
}

impl System for Addresses {
    fn mode(&self) -> &'static str {
        self.mode
    }

    fn gateways(&self) -> &[String] {
        &self.gateways
    }
}

impl World {
    /// A world with this system.
    pub fn new(system: Arc<dyn System>) -> Self {
        Self { system, next_gateway: Arc::default() }
    }

    /// A world at the addresses of a system that the test keeps, for tests that stop or restart it. Its gateways keep their
    /// addresses.
    pub fn at_addresses_of(system: &dyn System) -> Self {
        Self::new(Arc::new(Addresses { mode: system.mode(), gateways: system.gateways().to_vec() }))
    }

    /// The address of the next gateway, in turn.
    pub fn gateway(&self) -> &str {
        let gateways = self.system.gateways();
        &gateways[self.next_gateway.fetch_add(1, Ordering::Relaxed) % gateways.len()]
    }

    /// The address of the first gateway.
    pub fn first_gateway(&self) -> &str {
        &self.system.gateways()[0]
    }

    /// Sends a request to the HTTP API.
    ///
    /// # Errors
    /// If there is no complete response.
    pub async fn http(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Answer> {
        let body = body.map(|body| body.to_string());
        http::request(self.gateway(), method, path, token, body.as_deref()).await
    }

    /// Registers a user named `NAME-` and a unique suffix, with the device `phone`.
    ///
    /// # Errors
    /// If registering fails.
    pub async fn user(&self, name: &str) -> Result<Session> {
        self.user_named(&format!("{name}-{}", unique()), "phone").await
    }

    /// Registers a user with exactly this name.
    ///
    /// # Errors
    /// If registering fails.
    pub async fn user_named(&self, user: &str, device: &str) -> Result<Session> {
        let body = json!({ "user": user, "password": PASSWORD, "device": device });
        let answer = self.http("POST", "/v1/accounts", None, Some(body)).await?;
        if answer.status != 201 {
            bail!("registering {user}: {answer:?}");
        }
        Session::read(&answer)
    }

    /// Registers two users.
    ///
    /// # Errors
    /// If registering fails.
    pub async fn two_users(&self) -> Result<(Session, Session)> {
        Ok((self.user("alice").await?, self.user("bob").await?))
    }

    /// Registers three users.
    ///
    /// # Errors
    /// If registering fails.
    pub async fn three_users(&self) -> Result<(Session, Session, Session)> {
        Ok((self.user("alice").await?, self.user("bob").await?, self.user("carol").await?))
    }

    /// Logs in another device of a user.
    ///
    /// # Errors
    /// If logging in fails.
    pub async fn log_in(&self, user: &Session, device: &str) -> Result<Session> {
        let body = json!({ "user": user.user, "password": PASSWORD, "device": device });
        let answer = self.http("POST", "/v1/sessions", None, Some(body)).await?;
        if answer.status != 201 {
            bail!("logging in: {answer:?}");
        }
        Session::read(&answer)
    }

    /// Refreshes the tokens of a device.
    ///
    /// # Errors
    /// If refreshing fails.
    pub async fn refresh(&self, session: &Session) -> Result<Session> {
        let body = json!({ "refresh_token": session.refresh_token });
        let answer = self.http("POST", "/v1/sessions/refresh", None, Some(body)).await?;
        if answer.status != 200 {
            bail!("refreshing: {answer:?}");
        }
        Session::read(&answer)
    }

    /// Connects a device without a receiver seq.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn connect(&self, session: &Session) -> Result<Device> {
        Ok(self.connect_as(session, Wire::Proto, None).await?.0)
    }

    /// Connects a device.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn connect_as(
        &self,
        session: &Session,
        wire: Wire,
        have: Option<ReceiverSeq>,
    ) -> Result<(Device, Welcome)> {
        Device::connect(self.gateway(), wire, &session.access_token, have).await
    }

    /// Creates a group and returns its id.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn group(&self, owner: &Session, members: &[&Session], history: &str) -> Result<String> {
        let members: Vec<_> = members.iter().map(|member| &member.user).collect();
        let body = json!({ "name": "friends", "members": members, "history": history });
        let answer = self.http("POST", "/v1/groups", Some(&owner.access_token), Some(body)).await?;
        if answer.status != 201 {
            bail!("creating a group: {answer:?}");
        }
        Ok(answer.json()?["conversation"].as_str().context("no conversation")?.to_owned())
    }
}
