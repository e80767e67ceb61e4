//! A large page of history, which connections fetch before they idle.

use super::{
    receiver::read_page,
    users::{LoadUser, Users},
};
use abi::v1::{HistoryVisibility, Send, client_frame::Frame as Ask, server_frame::Frame};
use anyhow::{Context as _, Result, bail};
use client::{Connection, codec, connection::HELLO_ID, new_client_msg_id, tokens::TokenSource as _};

/// The page: together just below one MiB, beyond which a server ends a page.
const MESSAGES: u32 = 60;
const MESSAGE_BYTES: usize = 16 << 10;

/// A group with a page of history.
pub(super) struct Pages {
    group: String,
}

impl Pages {
    /// Creates a group of all `accounts`, and fills its history over a connection of the first one.
    pub(super) async fn fill(
        users: &Users,
        accounts: &[LoadUser],
        connection: &mut Connection,
    ) -> Result<Self> {
        let names: Vec<String> = accounts[1..].iter().map(|user| user.name.clone()).collect();
        let token = accounts[0].tokens.token(None).await?;
        let (api, request_id) = (users.api(), new_client_msg_id());
        let created = api.create_group(&token, "load", &names, HistoryVisibility::All, &request_id);
        let group = created.await.context("cannot create the group whose history is read")?.conversation;
        for id in HELLO_ID + 1..=HELLO_ID + MESSAGES {
            let send = Send {
                conversation: group.clone(),
                client_msg_id: new_client_msg_id(),
                content: Some(client::text("x".repeat(MESSAGE_BYTES))),
                ..Send::default()
            };
            connection.feed(codec::encode(id, Ask::Send(send))).await?;
            connection.flush().await?;
            loop {
                let frame = connection.next().await?;
                match frame.frame {
                    Some(Frame::Ack(_)) if frame.id == id => break,
                    Some(Frame::Error(error)) if frame.id == id => bail!("{}", error.message),
                    _ => {}
                }
            }
        }
        let pages = Self { group };
        // The last messages may not be stored yet.
        while pages.fetch(connection).await? < MESSAGES as usize {}
        Ok(pages)
    }

    /// Fetches the page. Returns its number of messages.
    pub(super) async fn fetch(&self, connection: &mut Connection) -> Result<usize> {
        let page = read_page(connection, &self.group, 0).await.context("cannot fetch a page of history")?;
        // The first entry is the creation of the group.
        Ok(page.entries.len().saturating_sub(1))
    }
}
