//! `signal`, `presence`.

use crate::{
    context::{self, Context},
    error::Usage,
    output::{clock, printable},
};
use abi::v1::{CustomSignal, Presence, Typing, signal::Kind};
use anyhow::Result;
use client::text;
use serde_json::json;

pub(super) async fn signal(
    context: &Context,
    with: &str,
    kind: &str,
    body: Option<String>,
    to: Vec<String>,
) -> Result<()> {
    let conversation = context::conversation(with, &context.user()?)?;
    let signal = parse(kind, body, to)?;
    let once = context.once().await?;
    once.client.signal(&conversation, signal).await?;
    context.out.text("sent")?;
    context.out.object(&json!({ "conversation": conversation, "kind": kind }))?;
    once.client.close().await;
    Ok(())
}

fn parse(kind: &str, body: Option<String>, to: Vec<String>) -> Result<Kind> {
    let typing = match kind {
        "typing" => Typing { stopped: false },
        "stopped" => Typing { stopped: true },
        kind if kind.contains('.') => {
            return Ok(Kind::Custom(CustomSignal { kind: kind.into(), content: body.map(text), to }));
        }
        _ => {
            let forms = "typing, stopped, or a kind of your own with a dot, such as acme.call";
            return Err(Usage(format!("{kind} is no signal: give {forms}")).into());
        }
    };
    if body.is_some() || !to.is_empty() {
        return Err(Usage(format!("{kind} has neither a text nor --to: only a kind of your own has")).into());
    }
    Ok(Kind::Typing(typing))
}

pub(super) async fn presence(context: &Context, users: Vec<String>, text: Option<String>) -> Result<()> {
    let (_, token) = context.access().await?;
    if let Some(text) = text {
        context.api.set_presence(&token, &text).await?;
        context.out.text(if text.is_empty() { "removed your text" } else { "set your text" })?;
        context.out.object(&json!({ "text": text }))?;
    }
    if !users.is_empty() {
        for presence in context.api.presences(&token, &users).await? {
            context.out.text(&line(&presence))?;
            context.out.object(&json!({ "presence": presence }))?;
        }
    }
    Ok(())
}

/// Who is online, as a line.
pub(super) fn line(presence: &Presence) -> String {
    let Presence { user, online, last_seen_ms, text } = presence;
    let state = match (online, last_seen_ms) {
        (true, _) => "is online".to_owned(),
        (false, 0) => "is offline".to_owned(),
        (false, at) => format!("is offline, last seen {}", clock(*at)),
    };
    let text = if text.is_empty() { String::new() } else { format!(": {}", printable(text)) };
    format!("{user} {state}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_signal_is_typing_or_has_a_dot() {
        assert_eq!(parse("typing", None, Vec::new()).unwrap(), Kind::Typing(Typing { stopped: false }));
        assert_eq!(parse("stopped", None, Vec::new()).unwrap(), Kind::Typing(Typing { stopped: true }));
        let to = vec!["bob".to_owned()];
        let call = CustomSignal { kind: "acme.call".into(), content: Some(text("ring")), to: to.clone() };
        assert_eq!(parse("acme.call", Some("ring".into()), to.clone()).unwrap(), Kind::Custom(call));
        for (kind, body, to) in
            [("call", None, vec![]), ("typing", Some("x".to_owned()), vec![]), ("typing", None, to)]
        {
            assert!(parse(kind, body, to).unwrap_err().is::<Usage>(), "{kind}");
        }
    }

    #[test]
    fn a_presence_is_a_sentence() {
        let online =
            Presence { user: "bob".into(), online: true, text: "at lunch".into(), ..Presence::default() };
        assert_eq!(line(&online), "bob is online: at lunch");
        let offline = Presence { user: "bob".into(), last_seen_ms: 1_000, ..Presence::default() };
        assert_eq!(line(&offline), "bob is offline, last seen 1970-01-01 00:00:01Z");
        assert_eq!(line(&Presence { last_seen_ms: 0, ..offline }), "bob is offline");
    }
}
