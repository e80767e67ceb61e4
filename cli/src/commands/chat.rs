//! `chat`: a conversation in the terminal, or with input from a pipe.

mod copies;
mod input;
mod lines;
mod people;
mod shown;

use super::messages;
use crate::{
    context::{self, Context},
    output::{self, entries, label, printable},
    terminal,
};
use abi::{
    envelope,
    ids::Conversation,
    v1::{Entry, GroupChange, Presence, ReadPosition, Role, group_change::Change, update::Kind},
};
use anyhow::Result;
use client::{Client, Event, Events, Sending, State, sync::Start};
use copies::Copies;
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, OptionFuture},
    stream::FuturesOrdered,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

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
    /// Per watched user, the presence that was shown last.
    presences: HashMap<String, Option<Presence>>,
    /// Why the connection was lost, as it was shown; until the next one.
    lost: Option<String>,
    unacked: FuturesOrdered<Sending>,
    input_ended: bool,
}

pub(super) async fn chat(context: Context, with: &str, history: u32) -> Result<()> {
    let user = context.user()?;
    let conversation = context::conversation(with, &user)?;
    let device = context.store.load(&user)?.live.tokens.device;
    let (client, events) = context.live(&user, Start::Now, State::default()).await?;
    let mut chat = Chat::new(context, client, user, device, conversation);
    let result = chat.run(events, history).await;
    chat.context.out.print_with(None);
    chat.client.close().await;
    result
}

impl Chat {
    fn new(context: Context, client: Client, user: String, device: String, conversation: String) -> Self {
        Self {
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
            presences: HashMap::new(),
            lost: None,
            unacked: FuturesOrdered::new(),
            input_ended: false,
        }
    }

    async fn run(&mut self, mut events: Events, history: u32) -> Result<()> {
        self.shown = self.show_last(history as usize).await?;
        self.mark_read();
        let (title, is_member) = self.title().await?;
        output::hint(&format!("{} {title}; /help lists commands, Ctrl-D ends it", self.user));
        let mut input = terminal::lines(format!("{}> ", self.user))?;
        self.is_terminal = input.printer.is_some();
        self.context.out.print_with(input.printer.take());
        if is_member {
            self.show_people(false).await?;
        }
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
                if matches!(entry.group_change, Some(GroupChange { change: Some(Change::Added(_)) })) {
                    self.show_people(false).await?;
                }
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
            Some(Event::Connected(_)) => {
                if self.lost.take().is_some() {
                    self.context.out.remark("  connected again");
                }
            }
            Some(Event::Disconnected { error, retry_in }) => self.disconnected(&error, retry_in),
            Some(Event::Restored { kept }) => {
                if let Some((conversation, kept)) = kept.get_key_value(&self.conversation) {
                    self.context.out.remark(&messages::restored(conversation));
                    self.go_back(*kept);
                }
            }
            Some(Event::Ended(error)) => return Err(error.into()),
            Some(_) => {}
            None => self.input_ended = true,
        }
        Ok(())
    }

    /// With whom: the other user, or the group by its name; and whether this user is a member.
    async fn title(&self) -> Result<(String, bool)> {
        if let Ok(Conversation::Direct(..)) = Conversation::parse(&self.conversation) {
            return Ok((format!("with {}", label(&self.conversation, &self.user)), true));
        }
        let head = self.client.heads(vec![self.conversation.clone()]).await?.pop().unwrap_or_default();
        let is_member = head.role() != Role::Unspecified;
        let end = if is_member { "" } else { ", of which you are not a member any more" };
        Ok((format!("in the group \"{}\"{end}", printable(&head.name)), is_member))
    }

    /// Shows that the connection is lost, and each further reason once.
    fn disconnected(&mut self, error: &client::Error, retry_in: Duration) {
        let reason = error.to_string();
        if self.lost.as_ref() != Some(&reason) {
            self.context.out.remark(&format!("  {}", messages::reconnecting(error, retry_in)));
            self.lost = Some(reason);
        }
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
        let context = Context::new(&args).unwrap();
        let mut chat = Chat::new(context, client, "alice".into(), "cli".into(), "d:alice:bob".into());
        (chat.shown, chat.marked, chat.last_own) = (9, 9, 8);
        chat.read_by.insert("bob".into(), 8);
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
