//! The requests of [`Client`] other than sends, one method each. All of them return the error of the server, or the error
//! that ended the client. A lost connection is not an error: the request is repeated on the next one.

use super::{
    Client,
    query::{Query, unexpected},
};
use crate::Error;
use abi::v1::{
    Block, Blocks, Changes, GetBlocks, GetChanges, GetHeads, GetHistory, GetProfiles, GetReaders, Head,
    HistoryPage, MarkRead, Presence, Profile, ReadPosition, Readers, SetSettings, Signal, WatchPresence,
    client_frame::Frame as Ask, server_frame::Frame, signal::Kind,
};

/// Awaits the answer to a request: `answer!(self, Ask::Heads(request), Frame::Heads(heads) => heads.heads)`.
macro_rules! answer {
    ($client:expr, $ask:expr, $frame:pat => $value:expr) => {
        match $client.query($ask).await? {
            $frame => Ok($value),
            _ => Err(unexpected().into()),
        }
    };
}

impl Client {
    /// A page of the changes since a receiver seq. The client itself catches up; see [`super::Event::Changes`].
    ///
    /// # Errors
    /// `INVALID_REQUEST` for an unknown cursor.
    pub async fn changes(&self, request: GetChanges) -> Result<Changes, Error> {
        answer!(self, Ask::Changes(request), Frame::Changes(changes) => changes)
    }

    /// The heads of up to 500 conversations. Those of which the user never was a member are left out.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a malformed id or too many.
    pub async fn heads(&self, conversations: Vec<String>) -> Result<Vec<Head>, Error> {
        answer!(self, Ask::Heads(GetHeads { conversations }), Frame::Heads(heads) => heads.heads)
    }

    /// A page of entries of a conversation, with their current states.
    ///
    /// # Errors
    /// `FORBIDDEN` if the user never was a member.
    pub async fn history(&self, request: GetHistory) -> Result<HistoryPage, Error> {
        answer!(self, Ask::History(request), Frame::History(page) => page)
    }

    /// Marks a conversation as read up to an entry; returns the resulting read position.
    ///
    /// # Errors
    /// `FORBIDDEN` if the user is not a member.
    pub async fn mark_read(&self, conversation: &str, conversation_seq: u64) -> Result<ReadPosition, Error> {
        let request = MarkRead { conversation: conversation.to_owned(), conversation_seq };
        answer!(self, Ask::Read(request), Frame::Read(position) => position)
    }

    /// Changes the user's own settings of a conversation. Members that are `None` stay as they are.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, or `FORBIDDEN` if the user never was a member.
    pub async fn change_settings(&self, request: SetSettings) -> Result<(), Error> {
        answer!(self, Ask::Settings(request), Frame::Done(_) => ())
    }

    /// Who has read an entry, and who has not.
    ///
    /// # Errors
    /// `FORBIDDEN` or `NOT_FOUND` if the user cannot see the entry.
    pub async fn readers(&self, request: GetReaders) -> Result<Readers, Error> {
        answer!(self, Ask::Readers(request), Frame::Readers(readers) => readers)
    }

    /// Blocks or unblocks a user.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, `NOT_FOUND`.
    pub async fn block(&self, user: &str, blocked: bool) -> Result<(), Error> {
        answer!(self, Ask::Block(Block { user: user.to_owned(), blocked }), Frame::Done(_) => ())
    }

    /// A page of the users whom the user has blocked.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a limit out of range.
    pub async fn blocks(&self, request: GetBlocks) -> Result<Blocks, Error> {
        answer!(self, Ask::Blocks(request), Frame::Blocks(blocks) => blocks)
    }

    /// Replaces the user's own profile.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, `TOO_LARGE`.
    pub async fn replace_profile(&self, profile: Profile) -> Result<(), Error> {
        answer!(self, Ask::Profile(profile), Frame::Done(_) => ())
    }

    /// The profiles of up to 100 users. Users who don't exist are left out.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a malformed id or too many.
    pub async fn profiles(&self, users: Vec<String>) -> Result<Vec<Profile>, Error> {
        answer!(self, Ask::Profiles(GetProfiles { users }), Frame::Profiles(profiles) => profiles.profiles)
    }

    /// Sends a signal to the other members of a conversation: typing, delivered, or one of the product. For a text of the
    /// user's own presence, `conversation` is empty.
    ///
    /// # Errors
    /// `FORBIDDEN`, `RATE_LIMITED`. If the connection is lost, [`Error::Lost`]: a signal is not repeated.
    pub async fn signal(&self, conversation: &str, kind: Kind) -> Result<(), Error> {
        let signal = Signal { conversation: conversation.to_owned(), kind: Some(kind), ..Signal::default() };
        answer!(self, Ask::Signal(signal), Frame::Done(_) => ())
    }

    /// Watches the presence of up to 200 users, in place of those watched so far; returns the current presences. Changes
    /// arrive as [`super::Event::Signal`]. The client renews the subscription on every connection.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, `TOO_LARGE`.
    pub async fn watch(&self, users: Vec<String>) -> Result<Vec<Presence>, Error> {
        answer!(self, Ask::Watch(WatchPresence { users }), Frame::Presences(presences) => presences.presences)
    }

    async fn query(&self, ask: Ask) -> Result<Frame, Error> {
        let (query, answer) = Query::new(ask);
        self.shared.queries.send(query).await.map_err(|_| self.end_reason())?;
        answer.await.unwrap_or_else(|_| Err(self.end_reason()))
    }
}
