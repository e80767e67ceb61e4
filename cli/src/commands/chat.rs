//! `chat`: a conversation in the terminal, or with input from a pipe.

mod copies;
mod input;
mod people;

use super::messages;
use crate::{
    context::{self, Context},
    output::{self, clock, entries, label},
    terminal,
};
use abi::{
    envelope,
    ids::Conversation,
    v1::{Ack, Entry, GetHistory, Head, ReadPosition, update::Kind},
};
use anyhow::{Context as _, Result};
use client::{Client, Draft, Event, Events, Sending, State, sync::Start, text};
use copies::Copies;
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, OptionFuture},
    stream::FuturesOrdered,
};
use input::Input;
use serde_json::json;
use std::{collections::HashMap, io, time::Instant};

/// Unacknowledged lines; at this number the command stops reading input.
const MAX_UNACKED: usize = 256;

struct Chat {
    context: Context,
    client: Client,
    user: String,
    device: String,
    conversation: String,
    /// Input is typed at a terminal, which already shows the user's own lines.
    is_terminal: bool,
    /// The last conversation_seq on the screen.
    shown: u64,
    /// The last conversation_seq marked as read at the server, or being marked.
    marked: u64,
    marking: Option<BoxFuture<'static, Result<ReadPosition, client::Error>>>,
    /// The conversation_seq of the last entry that this user sent.
    last_own: u64,
    /// Per other user, the last of this user's entries that was shown as read.
    read_by: HashMap<String, u64>,
    copies: Copies,
    /// When a typing signal was sent, and the signal on its way.
    typing_sent: Option<Instant>,
    signalling: Option<BoxFuture<'static, Result<(), client::Error>>>,
    /// Per other user, when it was shown that the user is typing.
    typing_shown: HashMap<String, Instant>,
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
        is_terminal: false,
        shown: 0,
        marked: 0,
        marking: None,
        last_own: 0,
        read_by: HashMap::new(),
        copies: Copies::default(),
        typing_sent: None,
        signalling: None,
        typing_shown: HashMap::new(),
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
            self.copies.keep(&entry);
            self.show(&entry)?;
        }
        self.mark_read();
        output::hint(&format!(
            "{} with {}; /help lists commands, Ctrl-D ends it",
            self.user,
            label(&self.conversation, &self.user)
        ));
        let mut input = terminal::lines(format!("{}> ", self.user))?;
        self.is_terminal = input.printer.is_some();
        self.context.out.print_with(input.printer.take());
        self.show_people().await?;
        let result = self.run_loop(&mut events, &mut input).await;
        if result.is_err() && self.is_terminal && !self.input_ended {
            // The line editor restores the terminal mode only when its line ends.
            self.context.out.text("  press Enter to exit")?;
            input.lines.close();
            while input.lines.recv().await.is_some() {}
        }
        result
    }

    async fn run_loop(&mut self, events: &mut Events, input: &mut terminal::Lines) -> Result<()> {
        while !(self.input_ended && self.unacked.is_empty()) {
            let takes_input = !self.input_ended && self.unacked.len() < MAX_UNACKED;
            tokio::select! {
                line = input.lines.recv(), if takes_input => self.line(line).await?,
                Some(ack) = self.unacked.next() => self.acked(ack)?,
                event = events.next() => self.event(event).await?,
                Some(()) = input.typed.recv() => self.typed(),
                Some(_) = OptionFuture::from(self.signalling.as_mut()), if self.signalling.is_some() => {
                    self.signalling = None;
                }
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
        if line.trim().is_empty() {
            return Ok(());
        }
        let draft = match Input::parse(&line) {
            Input::Text(line) => Draft::from(text(line)),
            Input::Who => return self.show_people().await,
            Input::History(count) => return self.show_again(count).await,
            Input::Help => return Ok(self.context.out.text(input::HELP)?),
            Input::Wrong(sentence) => return Ok(self.context.out.text(&format!("  {sentence}"))?),
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
        Ok(())
    }

    /// The message id of a message by its number, or of the last one: the user's own, or of somebody else.
    async fn target(&self, seq: Option<u64>, own: bool) -> Result<Option<String>> {
        let copy = match seq {
            Some(seq) => self.copies.get(seq),
            None => self.copies.last(&self.user, own),
        };
        let found = match (copy, seq) {
            (Some(copy), _) => Some(copy.message_id.clone()),
            (None, Some(seq)) => {
                messages::entry_at(&self.client, &self.conversation, seq).await?.map(|entry| entry.message_id)
            }
            (None, None) => None,
        };
        if found.is_none() {
            let what =
                seq.map_or("no such message here".to_owned(), |seq| format!("there is no message #{seq}"));
            self.context.out.text(&format!("  {what}"))?;
        }
        Ok(found)
    }

    /// Shows the last messages as they are now.
    async fn show_again(&mut self, count: usize) -> Result<()> {
        for entry in messages::tail(&self.client, &self.conversation, count).await? {
            self.copies.keep(&entry);
            self.context.out.entry(&entry, &self.user, false)?;
        }
        Ok(())
    }

    fn acked(&self, ack: Result<Ack, client::Error>) -> Result<()> {
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

    async fn event(&mut self, event: Option<Event>) -> Result<()> {
        match event {
            Some(Event::Entry(entry)) if entry.conversation == self.conversation => {
                self.show_missed(entry.conversation_seq).await?;
                if entry.sender == self.user {
                    self.last_own = entry.conversation_seq;
                }
                let typed_here = entry.sender == self.user && entry.sender_device == self.device;
                if typed_here {
                    self.shown = self.shown.max(entry.conversation_seq);
                    self.take(&entry).await?;
                } else {
                    self.show(&entry)?;
                    self.take(&entry).await?;
                }
                self.typing_shown.remove(&entry.sender);
                self.mark_read();
            }
            Some(Event::Update(update)) => {
                if let Some(Kind::Receipt(receipt)) = update.kind
                    && receipt.conversation == self.conversation
                    && receipt.user != self.user
                {
                    self.receipt(&receipt.user, receipt.conversation_seq)?;
                }
            }
            Some(Event::Changes(changes)) => {
                let head = changes.heads.iter().find(|head| head.conversation == self.conversation);
                head.map_or(Ok(()), |head| self.on_head(head))?;
            }
            Some(Event::Signal(signal)) => self.on_signal(&signal)?,
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

    /// Keeps a message, or applies a change to its message and shows the reactions after it.
    async fn take(&mut self, entry: &Entry) -> Result<()> {
        self.copies.keep(entry);
        // If it cannot be read, the copy stays as it is: only what it looks like depends on it.
        if self.copies.apply(entry, &self.user)
            && let Ok(Some(target)) =
                messages::entry_at(&self.client, &self.conversation, entry.refers_to_seq).await
        {
            self.copies.keep(&target);
        }
        if entry.kind == envelope::REACTION
            && let Some(target) = self.copies.get(entry.refers_to_seq)
        {
            let reactions = match entries::reactions(target.state.as_ref()) {
                none if none.is_empty() => " no reactions".to_owned(),
                reactions => reactions,
            };
            self.context.out.text(&format!("  #{} has{reactions}", target.conversation_seq))?;
        }
        Ok(())
    }

    /// Another user has read up to an entry.
    fn receipt(&mut self, user: &str, conversation_seq: u64) -> Result<()> {
        if self.is_terminal && self.is_new_receipt(user, conversation_seq) {
            self.context.out.text(&format!("  ✓✓ read by {user}"))?;
        }
        let object = json!({ "read_by": user, "conversation_seq": conversation_seq });
        Ok(self.context.out.object(&object)?)
    }

    /// In a direct conversation the head tells what the other user has read while this device was away.
    fn on_head(&mut self, head: &Head) -> Result<()> {
        let conversation = self.conversation.clone();
        match Conversation::parse(&conversation) {
            Ok(Conversation::Direct(..)) if head.read_by_all_seq > 0 => {
                self.receipt(&label(&conversation, &self.user), head.read_by_all_seq)
            }
            _ => Ok(()),
        }
    }

    /// After a restore the server assigns the numbers above `kept` again, to other entries.
    fn go_back(&mut self, kept: u64) {
        for seq in [&mut self.shown, &mut self.marked, &mut self.last_own]
            .into_iter()
            .chain(self.read_by.values_mut())
        {
            *seq = kept.min(*seq);
        }
        self.copies.forget_after(kept);
    }

    /// Whether a receipt covers an entry of this user that was not shown as read by the reader yet.
    fn is_new_receipt(&mut self, reader: &str, read_seq: u64) -> bool {
        let shown = self.read_by.entry(reader.to_owned()).or_default();
        let is_new = read_seq >= self.last_own && self.last_own > *shown;
        if is_new {
            *shown = self.last_own;
        }
        is_new
    }

    /// Shows entries between the initial history and the first live entry.
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
                self.take(entry).await?;
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

    /// Marks all shown entries as read. One request at a time; if it fails, the next one covers it.
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
    async fn an_entry_with_a_reassigned_number_is_shown() {
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
            is_terminal: false,
            shown: 9,
            marked: 9,
            marking: None,
            last_own: 8,
            read_by: HashMap::from([("bob".to_owned(), 8)]),
            copies: Copies::default(),
            typing_sent: None,
            signalling: None,
            typing_shown: HashMap::new(),
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
        assert!(chat.is_new_receipt("bob", 6), "bob has read a different entry");
    }
}
