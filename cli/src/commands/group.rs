//! `group ...`.

use super::messages;
use crate::{args::GroupCommand, context::Context, error::Usage, output};
use abi::{
    ids::Conversation,
    v1::{HistoryVisibility, Role},
};
use anyhow::Result;
use serde_json::json;

pub(super) async fn run(context: &Context, command: GroupCommand) -> Result<()> {
    let request = client::new_client_msg_id();
    match command {
        GroupCommand::Create { name, members, open_history } => {
            let (_, token) = context.access().await?;
            let history = if open_history { HistoryVisibility::All } else { HistoryVisibility::FromJoin };
            let group = context.api.create_group(&token, &name, &members, history, &request).await?;
            context.out.text(&group.conversation)?;
            let object = json!({ "conversation": group.conversation, "name": name, "members": members });
            context.out.object(&object)?;
        }
        GroupCommand::Add { group, users } => {
            check(&group)?;
            let (_, token) = context.access().await?;
            context.api.add_members(&token, &group, &users, &request).await?;
            context.out.text(&format!("added {}", users.join(", ")))?;
            context.out.object(&json!({ "conversation": group, "added": users }))?;
        }
        GroupCommand::Remove { group, users } => {
            check(&group)?;
            let (_, token) = context.access().await?;
            for user in &users {
                abi::ids::check_id("USER", user).map_err(|fault| Usage(fault.message))?;
                let request = client::new_client_msg_id();
                context.api.remove_member(&token, &group, user, &request).await?;
            }
            context.out.text(&format!("removed {}", users.join(", ")))?;
            context.out.object(&json!({ "conversation": group, "removed": users }))?;
        }
        GroupCommand::Leave { group } => {
            check(&group)?;
            let (user, token) = context.access().await?;
            context.api.remove_member(&token, &group, &user, &request).await?;
            context.out.text("left")?;
            context.out.object(&json!({ "conversation": group, "left": user }))?;
        }
        GroupCommand::List { group: Some(group) } => {
            check(&group)?;
            let (_, token) = context.access().await?;
            for member in context.api.members(&token, &group).await? {
                let owns = if member.role() == Role::Owner { " (owner)" } else { "" };
                context.out.text(&format!("{}{owns}", member.user))?;
                context.out.object(&json!({
                    "user": member.user, "role": messages::role_name(member.role()), "visible_from": member.visible_from,
                }))?;
            }
        }
        GroupCommand::List { group: None } => {
            let once = context.once().await?;
            let heads = messages::all_heads(&once.client).await?;
            for head in heads.into_iter().filter(|head| head.conversation.starts_with("g:")) {
                let owns = if head.role() == Role::Owner { " (owner)" } else { "" };
                context.out.text(&format!(
                    "{}  {}{owns}",
                    head.conversation,
                    output::printable(&head.name)
                ))?;
                context.out.object(&messages::head_object(&head))?;
            }
        }
    }
    Ok(())
}

fn check(group: &str) -> Result<()> {
    match Conversation::parse(group) {
        Ok(Conversation::Group(_)) => Ok(()),
        _ => Err(Usage(format!("{group} is not a group; its id looks like g:...")).into()),
    }
}
