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
    abi::ids::check_id("USER", user).map_err(|fault| Usage(fault.message))?;
    let password = terminal::password(password, true).await?;
    let device = device();
    let live = context.api.register(user, &password, &device).await?;
    keep(context, live, &password, "registered and logged in as").await
}

pub(super) async fn login(context: &Context, user: &str, password: Option<String>) -> Result<()> {
    abi::ids::check_id("USER", user).map_err(|fault| Usage(fault.message))?;
    let password = terminal::password(password, false).await?;
    let live = context.api.login(user, &password, &device()).await?;
    keep(context, live, &password, "logged in as").await
}

/// Another device of the user for one-shot commands, and both into the store.
async fn keep(context: &Context, live: Tokens, password: &str, done: &str) -> Result<()> {
    let (user, device) = (live.user.clone(), format!("{}-once", live.device));
    let once = context.api.login(&user, password, &device).await?;
    let object = json!({ "user": user, "device": live.device, "session": live.session, "app": live.app });
    context.store.save(&user, &Login { live: SavedTokens::new(live), once: SavedTokens::new(once) })?;
    context.store.save_default(&user)?;
    context.out.text(&format!("{done} {user}"))?;
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
    // A session that is over already is what was wanted.
    context.store.forget(&user)?;
    match result {
        Err(error @ (client::Error::Connect { .. } | client::Error::Timeout { .. })) => {
            return Err(error).context("forgotten here, but the session could not be ended at the server");
        }
        _ => context.out.text(&format!("logged out {user}"))?,
    }
    context.out.object(&json!({ "user": user }))?;
    Ok(())
}

fn device() -> String {
    format!("cli-{:08x}", rand::random::<u32>())
}
