//! `dead-letters`: what could not be handled, for operators.

use crate::{
    args::{DeadLettersCommand, OperatorArgs, Which},
    error::Usage,
    output::{Output, clock, printable, remark},
};
use abi::error::ErrorCode;
use anyhow::{Context as _, Result, bail};
use client::{Error, Server, http::Api};
use http::Method;
use serde_json::{Value, json};
use std::fs;

/// Letters that are asked for at once.
const PAGE: u32 = 100;
/// The file of the token in the folder of data.
const TOKEN: &str = "operator-token";

/// The program that is asked.
struct Desk<'a> {
    api: Api,
    token: String,
    admin: &'a str,
    out: &'a Output,
}

/// Does what an operator wants done.
pub(super) async fn run(operator: &OperatorArgs, out: &Output, command: &DeadLettersCommand) -> Result<()> {
    let server = Server::parse(&operator.admin).map_err(|error| Usage(format!("--admin: {error}")))?;
    let desk = Desk { api: Api::new(server), token: token(operator)?, admin: &operator.admin, out };
    match command {
        DeadLettersCommand::List { limit, after, which } => desk.list(*limit, after.as_deref(), which).await,
        DeadLettersCommand::Show { id, body } => desk.show(id, *body).await,
        DeadLettersCommand::Replay { ids, all, which } if ids.is_empty() => {
            desk.replay_all(*all, which).await
        }
        DeadLettersCommand::Replay { ids, .. } => desk.replay(ids).await,
        DeadLettersCommand::Drop { ids } => desk.discard(ids).await,
    }
}

fn token(operator: &OperatorArgs) -> Result<String> {
    let path = match &operator.token {
        Some(token) => match token.strip_prefix("file:") {
            Some(path) => path.into(),
            None => return Ok(token.clone()),
        },
        None => operator.data.join(TOKEN),
    };
    let read = fs::read_to_string(&path).with_context(|| {
        format!(
            "no operator's token in {}: name the folder of data of godwit with --data, or give the token with --token",
            path.display()
        )
    });
    Ok(read?.trim().to_owned())
}

impl Desk<'_> {
    async fn list(&self, limit: u32, after: Option<&str>, which: &Which) -> Result<()> {
        let (mut after, mut left) = (after.map(str::to_owned), limit);
        loop {
            let mut query = vec![format!("limit={}", left.min(PAGE))];
            let parts = [("after", &after), ("reason", &which.reason), ("conversation", &which.conversation)];
            let given = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
            query.extend(given.map(|(name, value)| format!("{name}={}", escaped(value))));
            let page = self.ask(Method::GET, &format!("/dead-letters?{}", query.join("&")), None).await?;
            let letters = page["letters"].as_array().map(Vec::as_slice).unwrap_or_default();
            for letter in letters {
                self.out.text(&line(letter))?;
                self.out.object(letter)?;
            }
            left -= u32::try_from(letters.len()).unwrap_or(left).min(left);
            after = page["next"].as_str().map(str::to_owned);
            match &after {
                Some(_) if left > 0 => {}
                Some(after) => {
                    remark(&format!("there may be more: go on with --after {after}"));
                    return Ok(());
                }
                None => {
                    self.out.text(&format!("{} open", page["open"]))?;
                    return Ok(());
                }
            }
        }
    }

    async fn show(&self, id: &str, body: bool) -> Result<()> {
        let path = format!("/dead-letters/{}?body={body}", escaped(id));
        let letter = self.ask(Method::GET, &path, None).await?;
        self.out.object(&letter)?;
        lines("", &letter).iter().try_for_each(|line| self.out.text(line))?;
        Ok(())
    }

    async fn replay(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            let path = format!("/dead-letters/{}/replay", escaped(id));
            let replayed = self.ask(Method::POST, &path, None).await?;
            self.out.text(&format!("{id} replayed"))?;
            self.out.object(&replayed)?;
        }
        Ok(())
    }

    async fn replay_all(&self, all: bool, which: &Which) -> Result<()> {
        let mut body = json!({});
        if all {
            body["all"] = json!(true);
        }
        for (name, value) in [("reason", &which.reason), ("conversation", &which.conversation)] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        let (mut replayed, mut skipped) = (0, 0);
        loop {
            let done = self.ask(Method::POST, "/dead-letters/replay", Some(body.clone())).await;
            let done = done.with_context(|| format!("{replayed} were replayed; the rest stays"))?;
            for id in done["replayed"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                replayed += 1;
                self.out.text(&format!("{id} replayed"))?;
                self.out.object(&json!({ "id": id }))?;
            }
            for letter in done["skipped"].as_array().into_iter().flatten() {
                skipped += 1;
                let (id, why) = (text(&letter["id"]), text(&letter["why"]));
                remark(&format!("{id} can't be replayed: {why}"));
            }
            if done["next"].is_null() {
                break;
            }
            body["after"] = done["next"].clone();
            body["until"] = done["until"].clone();
        }
        self.out.text(&format!("{replayed} replayed"))?;
        if skipped > 0 {
            bail!("{skipped} can't be replayed: look at them with `show`, and `drop` what is of no use");
        }
        Ok(())
    }

    async fn discard(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            let path = format!("/dead-letters/{}", escaped(id));
            self.send(Method::DELETE, &path, None).await?;
            self.out.text(&format!("{id} dropped"))?;
            self.out.object(&json!({ "id": id }))?;
        }
        Ok(())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer).with_context(|| format!("{} gave no JSON", self.admin))
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<bytes::Bytes> {
        match self.api.send(method, path, Some(&self.token), body).await {
            Ok(answer) => Ok(answer),
            // A program with letters answers with a sentence of its own.
            Err(Error::Server(fault))
                if fault.code == ErrorCode::NotFound && fault.message.starts_with("the server answered") =>
            {
                bail!(
                    "there are no dead letters at {}: name the admin address of a consumer, or of godwit, with --admin",
                    self.admin
                )
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// As part of a path or a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            escaped.push('%');
            escaped.push_str(&abi::ids::hex(&[byte]).to_ascii_uppercase());
        }
    }
    escaped
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    }
}

fn line(letter: &Value) -> String {
    let time = clock(letter["at_ms"].as_i64().unwrap_or_default());
    let of = if letter["conversation"].is_null() { &letter["key"] } else { &letter["conversation"] };
    let again = letter["replayed_from"].as_str().map(|id| format!(" (was {id})")).unwrap_or_default();
    let attempts = letter["attempts"].as_u64().unwrap_or_default();
    let attempts = if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    format!(
        "{}{again}  {time}  {}  {} bytes  {attempts}  {}",
        text(&letter["id"]),
        text(of),
        letter["bytes"],
        text(&letter["reason"])
    )
}

/// `name: value`, with the names of what is inside behind a dot.
fn lines(prefix: &str, object: &Value) -> Vec<String> {
    let members = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    members
        .flat_map(|(name, value)| match value {
            Value::Object(_) => lines(&format!("{prefix}{name}."), value),
            _ => vec![format!("{prefix}{}: {}", printable(name), text(value))],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped() {
        assert_eq!(escaped("0-17"), "0-17");
        assert_eq!(escaped("no group?\u{e9}&"), "no%20group%3F%C3%A9%26");
    }

    #[test]
    fn p8_a_letter_cannot_steer_the_terminal() {
        let letter = json!({
            "id": "0-3", "at_ms": 0, "conversation": "d:a:b", "bytes": 5, "attempts": 2,
            "reason": "bad \u{1b}[2J", "replayed_from": "0-1", "headers": { "x\u{1b}": "y\u{1b}" },
        });
        let line = line(&letter);
        assert!(line.starts_with("0-3 (was 0-1)  ") && line.contains("d:a:b  5 bytes  2 attempts  bad "));
        let all = lines("", &letter).join("\n") + &line;
        assert!(!all.contains('\u{1b}'), "{all:?}");
        assert!(all.contains("headers.x"), "{all:?}");
    }

    #[test]
    fn a_token_is_text_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let operator = |token: Option<String>| OperatorArgs {
            admin: String::new(),
            token,
            data: folder.path().to_owned(),
        };
        let fault = token(&operator(None)).unwrap_err().to_string();
        assert!(fault.contains("--data") && fault.contains("--token"), "{fault}");
        let path = folder.path().join(TOKEN);
        fs::write(&path, "secret\n").unwrap();
        assert_eq!(token(&operator(None)).unwrap(), "secret");
        assert_eq!(token(&operator(Some("other".into()))).unwrap(), "other");
        assert_eq!(token(&operator(Some(format!("file:{}", path.display())))).unwrap(), "secret");
    }
}
