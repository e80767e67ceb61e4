//! `register`, `login`, `logout`.

use crate::{
    context::Context,
    error::Usage,
    store::{Login, Role, SavedTokens},
    terminal,
};
use anyhow::{Context as _, Result};
use client::http::Tokens;
use serde_json::json;

pub(super) async fn register(context: &Context, user: &str, password: Option<String>) -> Result<()> {
    abi::ids::check_id("USER", user).map_err(|error| Usage(error.message))?;
    let password = terminal::password(password, true).await?;
    let device = device();
    let tokens = context.api.register(user, &password, &device).await?;
    save(context, tokens, &password, "registered and logged in as").await
}

pub(super) async fn login(context: &Context, user: &str, password: Option<String>) -> Result<()> {
    abi::ids::check_id("USER", user).map_err(|error| Usage(error.message))?;
    let password = terminal::password(password, false).await?;
    let tokens = context.api.login(user, &password, &device()).await?;
    save(context, tokens, &password, "logged in as").await
}

/// Logs in a second device for one-shot commands, and saves both.
async fn save(context: &Context, live: Tokens, password: &str, outcome: &str) -> Result<()> {
    let (user, device) = (live.user.clone(), format!("{}-once", live.device));
    let once = context.api.login(&user, password, &device).await?;
    let object = json!({ "user": user, "device": live.device, "session": live.session, "app": live.app });
    context.store.save(&user, &Login { live: SavedTokens::new(live), once: SavedTokens::new(once) })?;
    context.store.save_default(&user)?;
    context.out.text(&format!("{outcome} {user}"))?;
    context.out.object(&object)?;
    Ok(())
}

pub(super) async fn logout(context: &Context) -> Result<()> {
    let user = context.user()?;
    context.store.load(&user)?;
    let mut result = Ok(());
    for role in [Role::Live, Role::Once] {
        let ended = async {
            let token = context.tokens(&user, role).access(None).await?;
            context.api.logout(&token).await
        };
        result = result.and(ended.await);
    }
    // Other errors mean that the session has already ended.
    context.store.remove(&user)?;
    match result {
        Err(error @ (client::Error::Connect { .. } | client::Error::Timeout { .. })) => {
            return Err(error)
                .context("the saved credentials are removed, but the server could not end the session");
        }
        _ => context.out.text(&format!("logged out {user}"))?,
    }
    context.out.object(&json!({ "user": user }))?;
    Ok(())
}

fn device() -> String {
    format!("cli-{:08x}", rand::random::<u32>())
}
