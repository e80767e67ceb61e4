//! The entries on the screen, and the read positions of this user and of others.

use super::Chat;
use crate::{commands::messages, output::label};
use abi::{
    envelope,
    ids::Conversation,
    v1::{Entry, GetHistory, Head},
};
use anyhow::Result;
use serde_json::json;

impl Chat {
    /// Shows the last `count` messages as they are now, and returns the number of the last entry. Changes of messages are not
    /// shown: they are part of the messages.
    pub(super) async fn show_last(&mut self, count: usize) -> Result<u64> {
        let counts = |entry: &Entry| !envelope::is_change_of_entry(&entry.kind);
        let entries = messages::tail(&self.client, &self.conversation, count, counts).await?;
        for entry in entries.iter().filter(|entry| counts(entry)) {
            self.copies.keep(entry);
            self.context.out.entry(entry, &self.user, false)?;
        }
        Ok(entries.last().map_or(0, |entry| entry.conversation_seq))
    }

    /// Another user has read up to an entry.
    pub(super) fn receipt(&mut self, user: &str, conversation_seq: u64) -> Result<()> {
        if self.is_terminal && self.is_new_receipt(user, conversation_seq) {
            self.context.out.text(&format!("  ✓✓ read by {user}"))?;
        }
        let object = json!({ "read_by": user, "conversation_seq": conversation_seq });
        Ok(self.context.out.object(&object)?)
    }

    /// In a direct conversation the head has the read position of the other user, who may have read while this device was away.
    pub(super) fn on_head(&mut self, head: &Head) -> Result<()> {
        let conversation = self.conversation.clone();
        match Conversation::parse(&conversation) {
            Ok(Conversation::Direct(..)) if head.read_by_all_seq > 0 => {
                self.receipt(&label(&conversation, &self.user), head.read_by_all_seq)
            }
            _ => Ok(()),
        }
    }

    /// After a restore the server assigns the numbers above `kept` again, to other entries.
    pub(super) fn go_back(&mut self, kept: u64) {
        for seq in [&mut self.shown, &mut self.marked, &mut self.last_own]
            .into_iter()
            .chain(self.read_by.values_mut())
        {
            *seq = kept.min(*seq);
        }
        self.copies.forget_after(kept);
    }

    /// Whether a receipt covers an entry of this user that was not shown as read by the reader yet.
    pub(super) fn is_new_receipt(&mut self, reader: &str, read_seq: u64) -> bool {
        let shown = self.read_by.entry(reader.to_owned()).or_default();
        let is_new = read_seq >= self.last_own && self.last_own > *shown;
        if is_new {
            *shown = self.last_own;
        }
        is_new
    }

    /// Shows entries between the initial history and the first live entry.
    pub(super) async fn show_missed(&mut self, next: u64) -> Result<()> {
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

    pub(super) fn show(&mut self, entry: &Entry) -> Result<()> {
        if entry.conversation_seq > self.shown {
            self.shown = entry.conversation_seq;
            self.context.out.entry(entry, &self.user, false)?;
        }
        Ok(())
    }

    /// Marks all shown entries as read. One request at a time; if it fails, the next one covers it.
    pub(super) fn mark_read(&mut self) {
        if self.marking.is_none() && self.shown > self.marked {
            self.marked = self.shown;
            let (client, conversation, shown) = (self.client.clone(), self.conversation.clone(), self.shown);
            self.marking = Some(Box::pin(async move { client.mark_read(&conversation, shown).await }));
        }
    }
}
