//! Signals: ephemeral events for the other members of a conversation, such as read receipts.
//!
//! A signal is pushed to connected devices and never stored. Devices may miss one, so nothing depends on its arrival.

use crate::{
    dependencies::{DbClient, Dependencies},
    permissions::Permissions,
};
use abi::{
    ApiError, Caller,
    ids::Conversation,
    v1::{
        MarkRead, MarkReadRequest, PushRequest, ReadMarked, ReadReceipt, Signal,
        push_service_client::PushServiceClient, server_frame::Frame, signal::Kind,
    },
};
use std::sync::Arc;

/// Handles the requests that cause signals, and pushes the signals.
#[derive(Debug)]
pub struct Signals {
    app: String,
    db: DbClient,
    push: PushServiceClient<Caller>,
    permissions: Arc<Permissions>,
}

impl Signals {
    pub(crate) fn new(app: &str, dependencies: &Dependencies, permissions: Arc<Permissions>) -> Self {
        Self {
            app: app.into(),
            db: dependencies.db_client(),
            push: PushServiceClient::new(Caller::new(dependencies.push.clone())),
            permissions,
        }
    }

    /// Stores up to which entry a user has read a conversation, and sends its members a read receipt if that has changed.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for an invalid conversation; otherwise those of db-service.
    pub async fn mark_read(&self, user: &str, mut read: MarkRead) -> Result<ReadMarked, ApiError> {
        read.conversation = Conversation::parse(&read.conversation)?.to_string();
        let conversation = read.conversation.clone();
        let request = MarkReadRequest { app: self.app.clone(), user: user.into(), read: Some(read) };
        let marked = self.db.clone().mark_read(request).await?.into_inner();
        if marked.moved
            && let Some(users) = self.receivers(&conversation).await
        {
            let receipt = ReadReceipt { conversation, user: user.into(), conversation_seq: marked.read_seq };
            self.push(Kind::Receipt(receipt), users).await;
        }
        Ok(ReadMarked { read_seq: marked.read_seq })
    }

    /// The users who receive the signals of a conversation; `None` if the members can't be looked up now.
    async fn receivers(&self, conversation: &str) -> Option<Vec<String>> {
        match Conversation::parse(conversation) {
            Ok(direct @ Conversation::Direct(..)) => Some(direct.direct_members().map(Into::into).collect()),
            _ => {
                let members = self.permissions.members(conversation).await.ok()?;
                Some(members.members.iter().map(|member| member.user.clone()).collect())
            }
        }
    }

    async fn push(&self, kind: Kind, users: Vec<String>) {
        let receipts = vec![Signal { kind: Some(kind), users }];
        let request = PushRequest { app: self.app.clone(), receipts, ..PushRequest::default() };
        if let Err(error) = self.push.clone().push(request).await {
            tracing::debug!(%error, "cannot push a signal");
        }
    }
}

/// The frame that carries a signal to a device.
pub(crate) fn frame(kind: Kind) -> Frame {
    match kind {
        Kind::Receipt(receipt) => Frame::Receipt(receipt),
    }
}
