//! Groups.
//!
//! Every change has a `request_id`: a retry with the same one is the same change. An answer means that the change is stored
//! and in force.

use super::Api;
use crate::Error;
use abi::v1::{Entry, HistoryVisibility, Member};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

/// A new group.
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// Conversation id.
    pub conversation: String,
    /// The group's first entry.
    pub entry: Option<Entry>,
}

#[derive(Deserialize)]
struct Members {
    members: Vec<Member>,
}

impl Api {
    /// Creates a group owned by the caller. A retry with the same `request_id` returns the same group.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, `NOT_FOUND` for unknown members, `FORBIDDEN` if a member has blocked the caller, `TOO_LARGE`.
    pub async fn create_group(
        &self,
        access_token: &str,
        name: &str,
        members: &[String],
        history: HistoryVisibility,
        request_id: &str,
    ) -> Result<Group, Error> {
        let history = if history == HistoryVisibility::All { "all" } else { "from_join" };
        let body = json!({ "name": name, "members": members, "history": history, "request_id": request_id });
        self.call(Method::POST, "/v1/groups", Some(access_token), Some(body)).await
    }

    /// Members of a group.
    ///
    /// # Errors
    /// `FORBIDDEN` if the caller is not a member.
    pub async fn members(&self, access_token: &str, group: &str) -> Result<Vec<Member>, Error> {
        let path = format!("/v1/groups/{group}/members");
        let members: Members = self.call(Method::GET, &path, Some(access_token), None).await?;
        Ok(members.members)
    }

    /// Adds users to a group.
    ///
    /// # Errors
    /// `FORBIDDEN` if the caller is not an owner or blocked by one of the users, `NOT_FOUND`, `TOO_LARGE`.
    pub async fn add_members(
        &self,
        access_token: &str,
        group: &str,
        users: &[String],
        request_id: &str,
    ) -> Result<(), Error> {
        let path = format!("/v1/groups/{group}/members");
        let body = json!({ "users": users, "request_id": request_id });
        self.change(Method::POST, &path, access_token, Some(body)).await
    }

    /// Removes a user from a group. Members may remove themselves.
    ///
    /// # Errors
    /// `FORBIDDEN` if the caller is neither an owner nor the user, `NOT_FOUND`.
    pub async fn remove_member(
        &self,
        access_token: &str,
        group: &str,
        user: &str,
        request_id: &str,
    ) -> Result<(), Error> {
        let path = format!("/v1/groups/{group}/members/{user}?request_id={request_id}");
        self.change(Method::DELETE, &path, access_token, None).await
    }

    /// Renames a group.
    ///
    /// # Errors
    /// `FORBIDDEN` if the caller is not an owner, `INVALID_REQUEST` for a name that is empty or too long.
    pub async fn rename_group(
        &self,
        access_token: &str,
        group: &str,
        name: &str,
        request_id: &str,
    ) -> Result<(), Error> {
        let body = json!({ "name": name, "request_id": request_id });
        self.change(Method::PATCH, &format!("/v1/groups/{group}"), access_token, Some(body)).await
    }

    /// Makes another member the owner of a group. The caller becomes an ordinary member.
    ///
    /// # Errors
    /// `FORBIDDEN` if the caller is not an owner, `NOT_FOUND` if the user is not a member.
    pub async fn change_owner(
        &self,
        access_token: &str,
        group: &str,
        user: &str,
        request_id: &str,
    ) -> Result<(), Error> {
        let body = json!({ "user": user, "request_id": request_id });
        self.change(Method::PUT, &format!("/v1/groups/{group}/owner"), access_token, Some(body)).await
    }

    /// Dissolves a group. Its members keep what they could read.
    ///
    /// # Errors
    /// `FORBIDDEN` if the caller is not an owner.
    pub async fn dissolve_group(
        &self,
        access_token: &str,
        group: &str,
        request_id: &str,
    ) -> Result<(), Error> {
        let path = format!("/v1/groups/{group}?request_id={request_id}");
        self.change(Method::DELETE, &path, access_token, None).await
    }

    async fn change(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Result<(), Error> {
        self.send(method, path, Some(token), body).await.map(drop)
    }
}
