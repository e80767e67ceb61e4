//! `group`: create and change groups, and list them and their members.

use super::conversations;
use crate::{args::GroupCommand, context::Context, error::Usage, output};
use abi::{
    ids::{self, Conversation},
    v1::{HistoryVisibility, Role},
};
use anyhow::Result;
use client::new_client_msg_id;
use serde_json::json;

pub(super) async fn run(context: &Context, command: GroupCommand) -> Result<()> {
    match command {
        GroupCommand::Create { name, members, open_history } => {
            let history = if open_history { HistoryVisibility::All } else { HistoryVisibility::FromJoin };
            create(context, &name, &members, history).await
        }
        GroupCommand::Add { group, users } => add(context, &group, &users).await,
        GroupCommand::Remove { group, users } => remove(context, &group, &users).await,
        GroupCommand::Leave { group } => leave(context, &group).await,
        GroupCommand::Rename { group, name } => rename(context, &group, &name).await,
        GroupCommand::Owner { group, user } => change_owner(context, &group, &user).await,
        GroupCommand::Dissolve { group } => dissolve(context, &group).await,
        GroupCommand::List { group: Some(group) } => list_members(context, &group).await,
        GroupCommand::List { group: None } => list_groups(context).await,
    }
}

async fn create(context: &Context, name: &str, members: &[String], history: HistoryVisibility) -> Result<()> {
    let (_, token) = context.access().await?;
    let group = context.api.create_group(&token, name, members, history, &new_client_msg_id()).await?;
    context.out.text(&group.conversation)?;
    let object = json!({ "conversation": group.conversation, "name": name, "members": members });
    context.out.object(&object)?;
    Ok(())
}

async fn add(context: &Context, group: &str, users: &[String]) -> Result<()> {
    check(group)?;
    let (_, token) = context.access().await?;
    context.api.add_members(&token, group, users, &new_client_msg_id()).await?;
    context.out.text(&format!("added {}", users.join(", ")))?;
    context.out.object(&json!({ "conversation": group, "added": users }))?;
    Ok(())
}

async fn remove(context: &Context, group: &str, users: &[String]) -> Result<()> {
    check(group)?;
    let (_, token) = context.access().await?;
    for user in users {
        ids::check_id("USER", user).map_err(|error| Usage(error.message))?;
        context.api.remove_member(&token, group, user, &new_client_msg_id()).await?;
    }
    context.out.text(&format!("removed {}", users.join(", ")))?;
    context.out.object(&json!({ "conversation": group, "removed": users }))?;
    Ok(())
}

async fn leave(context: &Context, group: &str) -> Result<()> {
    check(group)?;
    let (user, token) = context.access().await?;
    context.api.remove_member(&token, group, &user, &new_client_msg_id()).await?;
    context.out.text("left")?;
    context.out.object(&json!({ "conversation": group, "left": user }))?;
    Ok(())
}

async fn rename(context: &Context, group: &str, name: &str) -> Result<()> {
    check(group)?;
    let (_, token) = context.access().await?;
    context.api.rename_group(&token, group, name, &new_client_msg_id()).await?;
    context.out.text("renamed")?;
    context.out.object(&json!({ "conversation": group, "name": name }))?;
    Ok(())
}

async fn change_owner(context: &Context, group: &str, user: &str) -> Result<()> {
    check(group)?;
    ids::check_id("USER", user).map_err(|error| Usage(error.message))?;
    let (_, token) = context.access().await?;
    context.api.change_owner(&token, group, user, &new_client_msg_id()).await?;
    context.out.text(&format!("{user} is the owner"))?;
    context.out.object(&json!({ "conversation": group, "owner": user }))?;
    Ok(())
}

async fn dissolve(context: &Context, group: &str) -> Result<()> {
    check(group)?;
    let (_, token) = context.access().await?;
    context.api.dissolve_group(&token, group, &new_client_msg_id()).await?;
    context.out.text("dissolved")?;
    context.out.object(&json!({ "conversation": group, "dissolved": true }))?;
    Ok(())
}

async fn list_members(context: &Context, group: &str) -> Result<()> {
    check(group)?;
    let (_, token) = context.access().await?;
    for member in context.api.members(&token, group).await? {
        context.out.text(&format!("{}{}", member.user, owner_mark(member.role())))?;
        context.out.object(&json!({
            "user": member.user, "role": conversations::role_name(member.role()), "visible_from": member.visible_from,
        }))?;
    }
    Ok(())
}

async fn list_groups(context: &Context) -> Result<()> {
    let once = context.once().await?;
    let heads = conversations::all_heads(&once.client).await?;
    for head in heads.into_iter().filter(|head| head.conversation.starts_with("g:")) {
        let (name, mark) = (output::printable(&head.name), owner_mark(head.role()));
        context.out.text(&format!("{}  {name}{mark}", head.conversation))?;
        context.out.object(&conversations::head_object(&head))?;
    }
    Ok(())
}

fn owner_mark(role: Role) -> &'static str {
    if role == Role::Owner { " (owner)" } else { "" }
}

fn check(group: &str) -> Result<()> {
    match Conversation::parse(group) {
        Ok(Conversation::Group(_)) => Ok(()),
        _ => Err(Usage(format!("{group} is not a group; group ids look like g:...")).into()),
    }
}
