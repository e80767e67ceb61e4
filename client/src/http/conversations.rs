//! Conversations over HTTP, for programs that don't stay connected, such as a product's own server.
//!
//! Each method here and in `users` is one request and repeats nothing: after an error that can be retried, call it again. An entry with
//! the same `client_msg_id` is then the same entry.

use super::{Api, target::Target};
use crate::{Draft, Error};
use abi::v1::{
    Ack, GetHistory, GetReaders, Head, Heads, HistoryPage, MarkRead, ReadPosition, Readers, SetSettings,
    Signal,
};
use http::Method;
use std::mem;

impl Api {
    /// Sends an entry, and waits until it is durable. An edit, a recall or a reaction is then in force.
    ///
    /// # Errors
    /// `FORBIDDEN`, `NOT_FOUND`, `CONFLICT`, `TOO_LARGE`, `INVALID_REQUEST`. After `UNAVAILABLE` and network errors the outcome is
    /// unknown: send it again with the same `client_msg_id`.
    pub async fn send_entry(
        &self,
        access_token: &str,
        conversation: &str,
        draft: impl Into<Draft>,
        client_msg_id: &str,
    ) -> Result<Ack, Error> {
        let send = draft.into().into_send("", client_msg_id.to_owned());
        let target = Target::of_conversation(conversation, "/entries");
        self.message(Method::POST, &target, access_token, &send).await
    }

    /// A page of entries of a conversation, with their current states.
    ///
    /// # Errors
    /// `FORBIDDEN` if the user never was a member.
    pub async fn history(&self, access_token: &str, request: GetHistory) -> Result<HistoryPage, Error> {
        let target = Target::of_conversation(&request.conversation, "/entries")
            .with("after", request.after)
            .with("before", request.before)
            .with("newest", request.newest)
            .with("limit", request.limit);
        self.read(&target, access_token).await
    }

    /// Who has read an entry, and who has not.
    ///
    /// # Errors
    /// `FORBIDDEN` or `NOT_FOUND` if the user cannot see the entry.
    pub async fn readers(&self, access_token: &str, request: GetReaders) -> Result<Readers, Error> {
        let below = format!("/entries/{}/readers", request.conversation_seq);
        let target = Target::of_conversation(&request.conversation, &below)
            .with("after", request.after)
            .with("limit", request.limit);
        self.read(&target, access_token).await
    }

    /// The heads of conversations. Those of which the user never was a member are left out. Name at most a hundred: the ids are part
    /// of the URL.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a malformed id or too many.
    pub async fn heads(&self, access_token: &str, conversations: &[String]) -> Result<Vec<Head>, Error> {
        let target = Target::new("/v1/conversations").with("ids", conversations.join(","));
        let heads: Heads = self.read(&target, access_token).await?;
        Ok(heads.heads)
    }

    /// Marks a conversation as read up to an entry; returns the resulting read position.
    ///
    /// # Errors
    /// `FORBIDDEN` if the user is not a member.
    pub async fn mark_read(
        &self,
        access_token: &str,
        conversation: &str,
        conversation_seq: u64,
    ) -> Result<ReadPosition, Error> {
        let body = MarkRead { conversation: String::new(), conversation_seq };
        let target = Target::of_conversation(conversation, "/read");
        self.message(Method::PUT, &target, access_token, &body).await
    }

    /// Changes the user's own settings of a conversation. Members that are `None` stay as they are.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, or `FORBIDDEN` if the user never was a member.
    pub async fn change_settings(&self, access_token: &str, mut request: SetSettings) -> Result<(), Error> {
        let target = Target::of_conversation(&mem::take(&mut request.conversation), "/settings");
        self.done(Method::PATCH, &target, access_token, Some(&request)).await
    }

    /// Sends a signal to the connected devices of the other members: typing, delivered, or one of the product.
    ///
    /// # Errors
    /// `FORBIDDEN` if the user is not a member or blocked, `TOO_LARGE` for too many receivers, `RATE_LIMITED`.
    pub async fn signal(&self, access_token: &str, mut signal: Signal) -> Result<(), Error> {
        let target = Target::of_conversation(&mem::take(&mut signal.conversation), "/signals");
        self.done(Method::POST, &target, access_token, Some(&signal)).await
    }
}
