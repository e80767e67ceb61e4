//! `chat`: a conversation in the terminal, or fed from a pipe.

use super::messages;
use crate::{
    context::{self, Context},
    output::{self, clock, label},
    terminal,
};
use abi::v1::{Ack, Entry, GetHistory};
use anyhow::{Context as _, Result};
use client::{Client, Event, Events, Sending, State, sync::Start, text};
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, OptionFuture},
    stream::FuturesOrdered,
};
use serde_json::json;
use std::{collections::HashMap, io};
use tokio::sync::mpsc;

/// Lines that may wait for their acknowledgement before more input is read.
const MAX_UNACKED: usize = 256;

struct Chat {
    context: Context,
    client: Client,
    user: String,
    device: String,
    conversation: String,
    /// A person sees the own lines already.
    terminal: bool,
    /// Entries up to this one are on the screen,
    shown: u64,
    /// and up to this one the server was told so, or is being told.
    marked: u64,
    marking: Option<BoxFuture<'static, Result<u64, client::Error>>>,
    /// The last entry that this user sent,
    own: u64,
    /// and for each of the others, the last of them that was shown as read.
    read_by: HashMap<String, u64>,
    unacked: FuturesOrdered<Sending>,
    input_ended: bool,
}

pub(super) async fn chat(context: Context, with: &str, history: u32) -> Result<()> {
    let user = context.user()?;
    let conversation = context::conversation(with, &user)?;
    let device = context.store.load(&user)?.live.tokens.device;
    let (client, events) = context.live(&user, Start::Now, State::default()).await?;
    let mut chat = Chat {
        context,
        client,
        user,
        device,
        conversation,
        terminal: false,
        shown: 0,
        marked: 0,
        marking: None,
        own: 0,
        read_by: HashMap::new(),
        unacked: FuturesOrdered::new(),
        input_ended: false,
    };
    let result = chat.run(events, history).await;
    chat.context.out.print_with(None);
    chat.client.close().await;
    result
}

impl Chat {
    async fn run(&mut self, mut events: Events, history: u32) -> Result<()> {
        for entry in messages::tail(&self.client, &self.conversation, history as usize).await? {
            self.show(&entry)?;
        }
        self.mark_read();
        output::hint(&format!(
            "{} with {}; Ctrl-D ends it",
            self.user,
            label(&self.conversation, &self.user)
        ));
        let mut input = terminal::lines(format!("{}> ", self.user))?;
        self.terminal = input.printer.is_some();
        self.context.out.print_with(input.printer.take());
        let result = self.talk(&mut events, &mut input.lines).await;
        if result.is_err() && self.terminal && !self.input_ended {
            // The line that is being edited has the terminal in its own mode, and gives it back when it ends.
            self.context.out.text("  press Enter to leave")?;
            input.lines.close();
            while input.lines.recv().await.is_some() {}
        }
        result
    }

    async fn talk(
        &mut self,
        events: &mut Events,
        lines: &mut mpsc::Receiver<io::Result<String>>,
    ) -> Result<()> {
        while !(self.input_ended && self.unacked.is_empty()) {
            let takes_input = !self.input_ended && self.unacked.len() < MAX_UNACKED;
            tokio::select! {
                line = lines.recv(), if takes_input => self.line(line).await?,
                Some(ack) = self.unacked.next() => self.acked(ack)?,
                event = events.next() => self.event(event).await?,
                Some(_) = OptionFuture::from(self.marking.as_mut()), if self.marking.is_some() => {
                    self.marking = None;
                    self.mark_read();
                }
            }
        }
        Ok(())
    }

    async fn line(&mut self, line: Option<io::Result<String>>) -> Result<()> {
        let Some(line) = line else {
            self.input_ended = true;
            return Ok(());
        };
        let line = line.context("cannot read stdin")?;
        if !line.trim().is_empty() {
            self.unacked.push_back(self.client.enqueue(&self.conversation, text(line), None).await?);
        }
        Ok(())
    }

    fn acked(&self, ack: Result<Ack, client::Error>) -> Result<()> {
        let ack = match ack {
            Ok(ack) => ack,
            // A person goes on after one message that was refused; a script has to know.
            Err(client::Error::Server(fault)) if self.terminal => {
                self.context.out.text(&format!("  ✗ not sent: {fault}"))?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.terminal {
            self.context.out.text(&format!("  ✓ delivered {}", clock(ack.sent_at_ms)))?;
        }
        self.context.out.object(&json!({
            "acked": ack.message_id, "client_msg_id": ack.client_msg_id, "sent_at_ms": ack.sent_at_ms,
        }))?;
        Ok(())
    }

    async fn event(&mut self, event: Option<Event>) -> Result<()> {
        match event {
            Some(Event::Entry(entry)) if entry.conversation == self.conversation => {
                self.show_missed(entry.conversation_seq).await?;
                if entry.sender == self.user {
                    self.own = entry.conversation_seq;
                }
                let typed_here = entry.sender == self.user && entry.sender_device == self.device;
                if typed_here {
                    self.shown = self.shown.max(entry.conversation_seq);
                } else {
                    self.show(&entry)?;
                }
                self.mark_read();
            }
            Some(Event::Receipt(receipt))
                if receipt.conversation == self.conversation && receipt.user != self.user =>
            {
                if self.terminal && self.is_news(&receipt.user, receipt.conversation_seq) {
                    self.context.out.text(&format!("  ✓✓ read by {}", receipt.user))?;
                }
                let object = json!({ "read_by": receipt.user, "conversation_seq": receipt.conversation_seq });
                self.context.out.object(&object)?;
            }
            Some(Event::Disconnected { error, retry_in }) => messages::reconnecting(&error, retry_in),
            Some(Event::Restored { kept }) => {
                if let Some((conversation, kept)) = kept.get_key_value(&self.conversation) {
                    messages::restored([conversation].into_iter());
                    self.go_back(*kept);
                }
            }
            Some(Event::Ended(error)) => return Err(error.into()),
            Some(_) => {}
            None => self.input_ended = true,
        }
        Ok(())
    }

    /// The numbers above are given again, and stand for other entries.
    fn go_back(&mut self, kept: u64) {
        for number in
            [&mut self.shown, &mut self.marked, &mut self.own].into_iter().chain(self.read_by.values_mut())
        {
            *number = kept.min(*number);
        }
    }

    /// Whether somebody who has read up to an entry has read something of this user's that was not shown as read by them.
    fn is_news(&mut self, reader: &str, read_seq: u64) -> bool {
        let shown = self.read_by.entry(reader.to_owned()).or_default();
        let news = read_seq >= self.own && self.own > *shown;
        if news {
            *shown = self.own;
        }
        news
    }

    /// What was sent between the history that was shown and the first live entry.
    async fn show_missed(&mut self, next: u64) -> Result<()> {
        let mut more = self.shown > 0;
        while more && next > self.shown + 1 {
            let limit = i32::try_from(next - self.shown - 1).unwrap_or(i32::MAX).min(abi::MAX_PAGE);
            let request = GetHistory {
                conversation: self.conversation.clone(),
                after: self.shown,
                limit,
                ..GetHistory::default()
            };
            let (page, before) = (self.client.history(request).await?, self.shown);
            for entry in page.entries.iter().filter(|entry| entry.conversation_seq < next) {
                self.show(entry)?;
            }
            more = page.more && self.shown > before;
        }
        Ok(())
    }

    fn show(&mut self, entry: &Entry) -> Result<()> {
        if entry.conversation_seq > self.shown {
            self.shown = entry.conversation_seq;
            self.context.out.entry(entry, &self.user, false)?;
        }
        Ok(())
    }

    /// Whatever is on the screen was read. One request at a time, and nothing waits for it: it may fail, the next does it.
    fn mark_read(&mut self) {
        if self.marking.is_none() && self.shown > self.marked {
            self.marked = self.shown;
            let (client, conversation, shown) = (self.client.clone(), self.conversation.clone(), self.shown);
            self.marking = Some(Box::pin(async move { client.mark_read(&conversation, shown).await }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser as _;
    use client::{Options, Server, tokens::FixedToken};

    #[tokio::test]
    async fn what_comes_with_a_number_that_was_given_again_is_shown() {
        let args = Args::parse_from(["godwit-cli", "--url", "http://127.0.0.1:1", "chat", "bob"]);
        let server = Server::parse("http://127.0.0.1:1").unwrap();
        let token = FixedToken("token".into());
        let (client, _) = Client::start(server, token, Options::default(), State::default());
        let mut chat = Chat {
            context: Context::new(&args).unwrap(),
            client,
            user: "alice".into(),
            device: "cli".into(),
            conversation: "d:alice:bob".into(),
            terminal: false,
            shown: 9,
            marked: 9,
            marking: None,
            own: 8,
            read_by: HashMap::from([("bob".to_owned(), 8)]),
            unacked: FuturesOrdered::new(),
            input_ended: false,
        };
        let kept = [(chat.conversation.clone(), 5)].into();
        chat.event(Some(Event::Restored { kept })).await.unwrap();
        let entry = Entry {
            conversation: chat.conversation.clone(),
            conversation_seq: 6,
            sender: "alice".into(),
            ..Entry::default()
        };
        chat.event(Some(Event::Entry(entry.into()))).await.unwrap();
        assert_eq!((chat.shown, chat.marked), (6, 6));
        assert!(chat.is_news("bob", 6), "it is another entry that bob has read now");
    }
}
