//! What a person types: texts to send and commands.

use super::{
    Chat,
    copies::is_message,
    input::{self, Input},
};
use crate::{commands::messages, output::clock};
use abi::v1::Ack;
use anyhow::{Context as _, Result};
use client::{Draft, text};
use serde_json::json;
use std::io;

/// The answer to a command that needs the server.
const NOT_CONNECTED: &str = "not connected to the server; try again later";

impl Chat {
    /// Carries out a line. `None`: the input has ended.
    pub(super) async fn line(&mut self, line: Option<io::Result<String>>) -> Result<()> {
        let Some(line) = line else {
            self.input_ended = true;
            return Ok(());
        };
        let line = line.context("cannot read stdin")?;
        if line.trim().is_empty() {
            return Ok(());
        }
        let draft = match Input::parse(&line) {
            Input::Text(line) => Draft::from(text(line)),
            Input::Who | Input::History(_) if self.lost.is_some() => return self.refuse(NOT_CONNECTED),
            Input::Who => return self.show_people(true).await,
            Input::History(count) => return self.show_last(count).await.map(drop),
            Input::Help => return Ok(self.context.out.text(input::HELP)?),
            Input::Wrong(sentence) => return self.refuse(&sentence),
            Input::Reply(seq, line) => match self.target(seq, false).await? {
                Some(message_id) => Draft::reply(&message_id, text(line)),
                None => return Ok(()),
            },
            Input::Edit(seq, line) => match self.target(seq, true).await? {
                Some(message_id) => Draft::edit(&message_id, text(line)),
                None => return Ok(()),
            },
            Input::Recall(seq) => match self.target(seq, true).await? {
                Some(message_id) => Draft::recall(&message_id),
                None => return Ok(()),
            },
            Input::React(seq, reactions) => match self.target(seq, false).await? {
                Some(message_id) => Draft::reaction(&message_id, reactions),
                None => return Ok(()),
            },
        };
        self.unacked.push_back(self.client.enqueue(&self.conversation, draft, None).await?);
        match self.lost {
            Some(_) if self.is_terminal => {
                self.refuse("not connected; it will be sent with the next connection")
            }
            _ => Ok(()),
        }
    }

    /// Says why a line has no effect at the moment.
    fn refuse(&self, sentence: &str) -> Result<()> {
        Ok(self.context.out.text(&format!("  {sentence}"))?)
    }

    /// The message id of a message by its number, or of the last one: the user's own, or of somebody else.
    async fn target(&self, seq: Option<u64>, own: bool) -> Result<Option<String>> {
        let copy = match seq {
            Some(seq) => self.copies.get(seq),
            None => self.copies.last(&self.user, own),
        };
        let found = match (copy, seq) {
            (Some(copy), _) => Some(copy.clone()),
            (None, Some(_)) if self.lost.is_some() => return self.refuse(NOT_CONNECTED).map(|()| None),
            (None, Some(seq)) => messages::entry_at(&self.client, &self.conversation, seq).await?,
            (None, None) => None,
        };
        let problem = match (found, seq) {
            (Some(entry), _) if is_message(&entry) => return Ok(Some(entry.message_id)),
            (_, Some(seq)) => format!("#{seq} is not the number of a message"),
            (_, None) if own => "you have no message here; name one by its number, such as #12".to_owned(),
            (_, None) => "nobody else has a message here; name one by its number, such as #12".to_owned(),
        };
        self.refuse(&problem).map(|()| None)
    }

    pub(super) fn acked(&self, ack: Result<Ack, client::Error>) -> Result<()> {
        let ack = match ack {
            Ok(ack) => ack,
            // A person can continue after a refused message; a script must fail.
            Err(client::Error::Server(error)) if self.is_terminal => {
                self.context.out.text(&format!("  ✗ not sent: {error}"))?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.is_terminal {
            self.context.out.text(&format!("  ✓ delivered {}", clock(ack.sent_at_ms)))?;
        }
        self.context.out.object(&json!({
            "acked": ack.message_id, "client_msg_id": ack.client_msg_id, "sent_at_ms": ack.sent_at_ms,
        }))?;
        Ok(())
    }
}
