//! `dead-letters`: list, show, replay and drop dead letters.

use crate::{
    args::{DeadLettersCommand, LetterFilter, OperatorArgs},
    error::Usage,
    output::{Output, clock, printable, remark},
};
use abi::error::ErrorCode;
use anyhow::{Context as _, Result, bail};
use client::{Error, Server, http::Api};
use http::Method;
use serde_json::{Value, json};
use std::fs;

/// Dead letters per request.
const PAGE: u32 = 100;
/// The token file in the data folder of `godwit`.
const TOKEN_FILE: &str = "operator-token";

/// The dead-letter API of a program.
struct DeadLetters<'a> {
    api: Api,
    token: String,
    admin: &'a str,
    out: &'a Output,
}

/// Runs a `dead-letters` command.
pub(super) async fn run(operator: &OperatorArgs, out: &Output, command: &DeadLettersCommand) -> Result<()> {
    let server = Server::parse(&operator.admin).map_err(|error| Usage(format!("--admin: {error}")))?;
    let letters = DeadLetters { api: Api::new(server), token: token(operator)?, admin: &operator.admin, out };
    match command {
        DeadLettersCommand::List { limit, after, filter } => {
            letters.list(*limit, after.as_deref(), filter).await
        }
        DeadLettersCommand::Show { id, body } => letters.show(id, *body).await,
        DeadLettersCommand::Replay { ids, all, filter } if ids.is_empty() => {
            letters.replay_all(*all, filter).await
        }
        DeadLettersCommand::Replay { ids, .. } => letters.replay(ids).await,
        DeadLettersCommand::Drop { ids } => letters.discard(ids).await,
    }
}

fn token(operator: &OperatorArgs) -> Result<String> {
    let path = match &operator.token {
        Some(token) => match token.strip_prefix("file:") {
            Some(path) => path.into(),
            None => return Ok(token.clone()),
        },
        None => operator.data.join(TOKEN_FILE),
    };
    let read = fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read the operator token in {}: pass the data folder of godwit with --data, or the token with --token",
            path.display()
        )
    });
    Ok(read?.trim().to_owned())
}

impl DeadLetters<'_> {
    async fn list(&self, limit: u32, after: Option<&str>, filter: &LetterFilter) -> Result<()> {
        let (mut after, mut left) = (after.map(str::to_owned), limit);
        loop {
            let mut query = vec![format!("limit={}", left.min(PAGE))];
            let parts =
                [("after", &after), ("reason", &filter.reason), ("conversation", &filter.conversation)];
            let set = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
            query.extend(set.map(|(name, value)| format!("{name}={}", escaped(value))));
            let page = self.request(Method::GET, &format!("/dead-letters?{}", query.join("&")), None).await?;
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
                    remark(&format!("there may be more; continue with --after {after}"));
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
        let letter = self.request(Method::GET, &path, None).await?;
        self.out.object(&letter)?;
        lines("", &letter).iter().try_for_each(|line| self.out.text(line))?;
        Ok(())
    }

    async fn replay(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            let path = format!("/dead-letters/{}/replay", escaped(id));
            let replayed = self.request(Method::POST, &path, None).await?;
            self.out.text(&format!("{id} replayed"))?;
            self.out.object(&replayed)?;
        }
        Ok(())
    }

    async fn replay_all(&self, all: bool, filter: &LetterFilter) -> Result<()> {
        let mut body = json!({});
        if all {
            body["all"] = json!(true);
        }
        for (name, value) in [("reason", &filter.reason), ("conversation", &filter.conversation)] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        let (mut replayed, mut skipped) = (0, 0);
        loop {
            let done = self.request(Method::POST, "/dead-letters/replay", Some(body.clone())).await;
            let done =
                done.with_context(|| format!("{replayed} dead letters were replayed; the others remain"))?;
            for id in done["replayed"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                replayed += 1;
                self.out.text(&format!("{id} replayed"))?;
                self.out.object(&json!({ "id": id }))?;
            }
            for letter in done["skipped"].as_array().into_iter().flatten() {
                skipped += 1;
                let (id, why) = (text(&letter["id"]), text(&letter["why"]));
                remark(&format!("cannot replay {id}: {why}"));
            }
            if done["next"].is_null() {
                break;
            }
            body["after"] = done["next"].clone();
            body["until"] = done["until"].clone();
        }
        self.out.text(&format!("{replayed} replayed"))?;
        if skipped > 0 {
            bail!(
                "{skipped} dead letters cannot be replayed: inspect them with `show`, and `drop` those without use"
            );
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

    async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer).with_context(|| format!("the answer of {} is not JSON", self.admin))
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<bytes::Bytes> {
        match self.api.send(method, path, Some(&self.token), body).await {
            Ok(answer) => Ok(answer),
            // The message of `client` for a response without a problem document: the path does not exist.
            Err(Error::Server(error))
                if error.code == ErrorCode::NotFound && error.message.starts_with("the server answered") =>
            {
                bail!(
                    "no dead letters are served at {}: pass the admin address of a consumer or of godwit with --admin",
                    self.admin
                )
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Percent-encodes a part of a path or a query.
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

/// Lines of `name: value`; nested names are joined with dots.
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
    fn reserved_characters_are_escaped() {
        assert_eq!(escaped("0-17"), "0-17");
        assert_eq!(escaped("no group?\u{e9}&"), "no%20group%3F%C3%A9%26");
    }

    #[test]
    fn p8_a_dead_letter_cannot_inject_terminal_control_characters() {
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
    fn the_token_is_text_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let operator = |token: Option<String>| OperatorArgs {
            admin: String::new(),
            token,
            data: folder.path().to_owned(),
        };
        let error = token(&operator(None)).unwrap_err().to_string();
        assert!(error.contains("--data") && error.contains("--token"), "{error}");
        let path = folder.path().join(TOKEN_FILE);
        fs::write(&path, "secret\n").unwrap();
        assert_eq!(token(&operator(None)).unwrap(), "secret");
        assert_eq!(token(&operator(Some("other".into()))).unwrap(), "other");
        assert_eq!(token(&operator(Some(format!("file:{}", path.display())))).unwrap(), "secret");
    }
}
