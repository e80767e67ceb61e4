//! The user's own state over HTTP: changes, blocks, profile, presence.

use super::{Api, target::Target};
use crate::Error;
use abi::v1::{Blocks, Changes, GetBlocks, GetChanges, Presence, Presences, Profile, Profiles};
use http::Method;

impl Api {
    /// A page of the changes since a receiver seq.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for an unknown cursor.
    pub async fn changes(&self, access_token: &str, request: GetChanges) -> Result<Changes, Error> {
        let have = request.have.unwrap_or_default();
        let target = Target::new("/v1/changes")
            .with("epoch", have.epoch)
            .with("seq", have.seq)
            .with("cursor", request.cursor)
            .with("limit", request.limit);
        self.read(&target, access_token).await
    }

    /// A page of the users whom the user has blocked.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a limit out of bounds.
    pub async fn blocks(&self, access_token: &str, request: GetBlocks) -> Result<Blocks, Error> {
        let target = Target::new("/v1/blocks").with("after", request.after).with("limit", request.limit);
        self.read(&target, access_token).await
    }

    /// Blocks or unblocks a user.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, `NOT_FOUND`.
    pub async fn block(&self, access_token: &str, user: &str, blocked: bool) -> Result<(), Error> {
        let method = if blocked { Method::PUT } else { Method::DELETE };
        self.done::<Profile>(method, &Target::new(format!("/v1/blocks/{user}")), access_token, None).await
    }

    /// Profiles of users. Users who don't exist are left out.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a malformed id or more than 100.
    pub async fn profiles(&self, access_token: &str, users: &[String]) -> Result<Vec<Profile>, Error> {
        let target = Target::new("/v1/profiles").with("users", users.join(","));
        let profiles: Profiles = self.read(&target, access_token).await?;
        Ok(profiles.profiles)
    }

    /// Replaces the user's own profile.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a value beyond its limit.
    pub async fn replace_profile(&self, access_token: &str, profile: &Profile) -> Result<(), Error> {
        self.done(Method::PUT, &Target::new("/v1/profile"), access_token, Some(profile)).await
    }

    /// The current presence of users. Those who don't let the user see it are left out.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, `TOO_LARGE`.
    pub async fn presences(&self, access_token: &str, users: &[String]) -> Result<Vec<Presence>, Error> {
        let target = Target::new("/v1/presence").with("users", users.join(","));
        let presences: Presences = self.read(&target, access_token).await?;
        Ok(presences.presences)
    }

    /// Sets the text of the user's own presence. It ends with the last connection of a device of the user.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a text that is too long.
    pub async fn set_presence(&self, access_token: &str, text: &str) -> Result<(), Error> {
        let presence = Presence { text: text.to_owned(), ..Presence::default() };
        self.done(Method::PUT, &Target::new("/v1/presence"), access_token, Some(&presence)).await
    }
}
