//! Who is here: presence and typing.

use super::Chat;
use crate::{commands::signals, output::label};
use abi::{
    ids::Conversation,
    v1::{Presence, Signal, Typing, signal::Kind},
};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// Most users that a connection can watch.
const MAX_WATCHED: usize = 200;
/// Shortest time between two typing signals, and between two lines about the same typing user.
const TYPING: Duration = Duration::from_secs(4);

impl Chat {
    /// Watches the other members, and shows who is here: in a group everyone, or only who is online.
    pub(super) async fn show_people(&mut self, everyone: bool) -> Result<()> {
        let is_group = matches!(Conversation::parse(&self.conversation), Ok(Conversation::Group(_)));
        match self.watch().await {
            Ok(presences) if presences.is_empty() => self.show_absence().await,
            Ok(presences) if everyone || !is_group || self.context.out.json => {
                presences.iter().try_for_each(|presence| self.show_presence(presence))
            }
            Ok(presences) => self.show_online(presences),
            // Without it the chat still works.
            Err(error) => Ok(self.context.out.text(&format!("  presence is not known: {error}"))?),
        }
    }

    /// Says why the other user of a direct conversation has no presence.
    async fn show_absence(&self) -> Result<()> {
        let other = label(&self.conversation, &self.user);
        if other == self.user
            || !matches!(Conversation::parse(&self.conversation), Ok(Conversation::Direct(..)))
        {
            return Ok(());
        }
        let line = match self.client.profiles(vec![other.clone()]).await?.is_empty() {
            true => {
                format!("  there is no user {other} yet; a message is refused until {other} has registered")
            }
            false => format!("  {other} does not show you whether they are online"),
        };
        Ok(self.context.out.text(&line)?)
    }

    /// Shows in one line who is online.
    fn show_online(&mut self, presences: Vec<Presence>) -> Result<()> {
        let online = presences.iter().filter(|presence| presence.online);
        let online: Vec<&str> = online.map(|presence| presence.user.as_str()).collect();
        let line = match online.as_slice() {
            [] => "nobody else is online".to_owned(),
            online => format!("online: {}", online.join(", ")),
        };
        self.context.out.text(&format!("  {line}"))?;
        self.presences.extend(presences.into_iter().map(|presence| (presence.user.clone(), Some(presence))));
        Ok(())
    }

    async fn watch(&mut self) -> Result<Vec<Presence>, client::Error> {
        let mut users = match Conversation::parse(&self.conversation) {
            Ok(Conversation::Group(_)) => {
                let (_, token) = self
                    .context
                    .access()
                    .await
                    .map_err(|error| client::Error::Store(format!("{error:#}")))?;
                let members = self.context.api.members(&token, &self.conversation).await?;
                members.into_iter().map(|member| member.user).collect()
            }
            Ok(direct) => direct.direct_members().map(str::to_owned).collect::<Vec<_>>(),
            Err(error) => return Err(error.into()),
        };
        users.retain(|user| *user != self.user);
        users.truncate(MAX_WATCHED);
        for user in &users {
            self.presences.entry(user.clone()).or_default();
        }
        if users.is_empty() { Ok(Vec::new()) } else { self.client.watch(users).await }
    }

    fn show_presence(&mut self, presence: &Presence) -> Result<()> {
        self.presences.insert(presence.user.clone(), Some(presence.clone()));
        self.context.out.text(&format!("  {}", signals::line(presence)))?;
        Ok(self.context.out.object(&json!({ "presence": presence }))?)
    }

    /// Shows a signal of another user.
    pub(super) fn on_signal(&mut self, signal: &Signal) -> Result<()> {
        match &signal.kind {
            // Another device of this user may watch other users.
            Some(Kind::Presence(presence))
                if self
                    .presences
                    .get(&presence.user)
                    .is_some_and(|shown| shown.as_ref() != Some(presence)) =>
            {
                self.show_presence(presence)?;
            }
            Some(Kind::Typing(Typing { stopped }))
                if signal.conversation == self.conversation && signal.user != self.user =>
            {
                self.context.out.object(&json!({ "typing": signal.user, "stopped": stopped }))?;
                let now = Instant::now();
                let shown = self.typing_shown.get(&signal.user);
                if !stopped && shown.is_none_or(|at| now.duration_since(*at) >= TYPING) {
                    self.typing_shown.insert(signal.user.clone(), now);
                    self.context.out.text(&format!("  {} is typing", signal.user))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The person typed a key.
    pub(super) fn typed(&mut self) {
        let is_due = self.typing_sent.is_none_or(|at| at.elapsed() >= TYPING);
        if is_due && self.signalling.is_none() {
            self.typing_sent = Some(Instant::now());
            let (client, conversation) = (self.client.clone(), self.conversation.clone());
            let typing = Kind::Typing(Typing { stopped: false });
            self.signalling = Some(Box::pin(async move { client.signal(&conversation, typing).await }));
        }
    }
}
