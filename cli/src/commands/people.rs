//! `block`, `unblock`, `blocks`, `profile`.

use crate::{
    args::{ProfileCommand, Seen},
    context::Context,
    error::Usage,
    output,
};
use abi::v1::{GetBlocks, PresencePrivacy, Profile};
use anyhow::Result;
use serde_json::json;

pub(super) async fn block(context: &Context, user: &str, blocked: bool) -> Result<()> {
    abi::ids::check_id("USER", user).map_err(|error| Usage(error.message))?;
    let once = context.once().await?;
    once.client.block(user, blocked).await?;
    context.out.text(&format!("{} {user}", if blocked { "blocked" } else { "unblocked" }))?;
    context.out.object(&json!({ "user": user, "blocked": blocked }))?;
    once.client.close().await;
    Ok(())
}

pub(super) async fn blocks(context: &Context) -> Result<()> {
    let once = context.once().await?;
    let mut after = String::new();
    loop {
        let page = once.client.blocks(GetBlocks { after, limit: abi::MAX_PAGE }).await?;
        for user in &page.users {
            context.out.text(user)?;
            context.out.object(&json!({ "user": user }))?;
        }
        match page.users.last() {
            Some(last) if page.more => after = last.clone(),
            _ => break,
        }
    }
    once.client.close().await;
    Ok(())
}

pub(super) async fn profile(context: &Context, command: ProfileCommand) -> Result<()> {
    let once = context.once().await?;
    match command {
        ProfileCommand::Show { users } => {
            let users = if users.is_empty() { vec![once.user.clone()] } else { users };
            for profile in once.client.profiles(users).await? {
                print(context, &profile)?;
            }
        }
        command => {
            let own = once.client.profiles(vec![once.user.clone()]).await?;
            let profile = changed(own.into_iter().next().unwrap_or_default(), command)?;
            once.client.replace_profile(profile.clone()).await?;
            print(context, &profile)?;
        }
    }
    once.client.close().await;
    Ok(())
}

/// The profile after the changes of `profile set`.
fn changed(mut profile: Profile, command: ProfileCommand) -> Result<Profile> {
    let ProfileCommand::Set { name, avatar_url, custom, presence } = command else { return Ok(profile) };
    profile.name = name.unwrap_or(profile.name);
    profile.avatar_url = avatar_url.unwrap_or(profile.avatar_url);
    match presence {
        Some(Seen::Everyone) => profile.set_privacy(PresencePrivacy::Everyone),
        Some(Seen::Nobody) => profile.set_privacy(PresencePrivacy::Nobody),
        None => {}
    }
    for field in custom {
        match field.split_once('=') {
            Some(("", _)) | None => {
                return Err(Usage(format!("--custom {field} must look like NAME=VALUE")).into());
            }
            Some((name, "")) => drop(profile.custom.remove(name)),
            Some((name, value)) => drop(profile.custom.insert(name.to_owned(), value.to_owned())),
        }
    }
    Ok(profile)
}

fn print(context: &Context, profile: &Profile) -> Result<()> {
    let mut line = profile.user.clone();
    for text in [&profile.name, &profile.avatar_url].into_iter().filter(|text| !text.is_empty()) {
        line = format!("{line}  {}", output::printable(text));
    }
    let mut custom: Vec<_> = profile.custom.iter().collect();
    custom.sort();
    for (name, value) in custom {
        line = format!("{line}  {}={}", output::printable(name), output::printable(value));
    }
    context.out.text(&line)?;
    Ok(context.out.object(&json!(profile))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(custom: &[&str]) -> ProfileCommand {
        let custom = custom.iter().map(|field| (*field).to_owned()).collect();
        ProfileCommand::Set {
            name: Some("Alice".into()),
            avatar_url: None,
            custom,
            presence: Some(Seen::Nobody),
        }
    }

    #[test]
    fn parts_of_a_profile_that_are_not_given_stay_as_they_are() {
        let old = Profile { avatar_url: "https://a".into(), ..Profile::default() };
        let new = changed(old, set(&["team=blue", "floor=2"])).unwrap();
        assert_eq!((new.name.as_str(), new.avatar_url.as_str()), ("Alice", "https://a"));
        assert_eq!(new.privacy(), PresencePrivacy::Nobody);
        let new = changed(new, set(&["floor="])).unwrap();
        assert_eq!(new.custom, [("team".to_owned(), "blue".to_owned())].into());
        for wrong in ["team", "=blue"] {
            assert!(changed(Profile::default(), set(&[wrong])).unwrap_err().is::<Usage>(), "{wrong}");
        }
    }
}
