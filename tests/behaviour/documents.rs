//! The documentation, compared with the running programs.

use abi::error::{ErrorCode, Reconnect};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    collections::HashMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};
use tests::{
    device::{Device, Incoming, Wire},
    http::Answer,
    process::Process,
    system::{Embedded, System as _, unique},
    world::World,
};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn protocol() -> Result<String> {
    std::fs::read_to_string(docs().join("protocol.md")).context("read docs/protocol.md")
}

/// A user's connection in the transcript, and the received frames that the transcript has not shown yet.
struct Participant {
    device: Device,
    received: Vec<Value>,
}

/// Placeholders of the transcript (`<name>`), with the values that they stand for in this run.
#[derive(Default)]
struct Placeholders(HashMap<String, Value>);

impl Placeholders {
    /// Replaces known placeholders by their values.
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.0.get(text).cloned().unwrap_or_else(|| value.clone()),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(members) => {
                members.iter().map(|(key, member)| (key.clone(), self.fill(member))).collect()
            }
            other => other.clone(),
        }
    }

    /// Whether an actual value matches the documented one. If so, remembers the values of new placeholders.
    fn matches(&mut self, expected: &Value, actual: &Value) -> bool {
        let mut new = HashMap::new();
        let equal = Self::equal(&self.fill(expected), actual, &mut new);
        if equal {
            self.0.extend(new);
        }
        equal
    }

    fn equal(expected: &Value, actual: &Value, new: &mut HashMap<String, Value>) -> bool {
        match (expected, actual) {
            (Value::String(name), actual) if name.starts_with('<') && name.ends_with('>') => {
                *new.entry(name.clone()).or_insert_with(|| actual.clone()) == *actual
            }
            (Value::Array(expected), Value::Array(actual)) => {
                expected.len() == actual.len()
                    && expected.iter().zip(actual).all(|(e, a)| Self::equal(e, a, new))
            }
            (Value::Object(expected), Value::Object(actual)) => {
                expected.len() == actual.len()
                    && expected.iter().all(|(key, e)| actual.get(key).is_some_and(|a| Self::equal(e, a, new)))
            }
            _ => expected == actual,
        }
    }
}

pub(crate) async fn the_transcript_of_the_protocol_page_can_be_replayed(world: World) -> Result<()> {
    let page = protocol()?;
    let lines: Vec<_> = page
        .split("```transcript\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .flat_map(|(block, _)| block.lines())
        .filter(|line| !line.is_empty())
        .collect();
    ensure!(lines.len() > 30, "docs/protocol.md has a transcript of {} lines", lines.len());
    let mut transcript = Transcript::default();
    for line in lines {
        transcript.replay(line, &world).await.with_context(|| line.to_owned())?;
    }
    Ok(())
}

/// The state of a replayed transcript.
#[derive(Default)]
struct Transcript {
    participants: HashMap<String, Participant>,
    placeholders: Placeholders,
    /// The answer to the last HTTP request, until the transcript shows it.
    answer: Option<Answer>,
}

impl Transcript {
    async fn replay(&mut self, line: &str, world: &World) -> Result<()> {
        let (name, step) = line.split_once(' ').context("a line without a name")?;
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "connects" => {
                let device = Device::open(world.first_gateway(), Wire::Json).await?;
                self.participants.insert(name.to_owned(), Participant { device, received: Vec::new() });
            }
            "leaves" => {
                self.participants.remove(name).context("not connected")?.device.drop_connection();
            }
            "closed" => {
                let (code, reason) = self.participant(name)?.device.closed().await?;
                let closed = format!("{} {reason}", code.close());
                ensure!(closed == rest, "closed with {closed}");
            }
            ">" => {
                let text = self.placeholders.fill(&json(rest)?).to_string();
                let message = tokio_tungstenite::tungstenite::Message::text(text);
                self.participant(name)?.device.write(message).await?;
            }
            "<" => {
                let participant = self.participants.get_mut(name).context("not connected")?;
                participant.receive(&json(rest)?, &mut self.placeholders).await?;
            }
            "POST" | "GET" | "DELETE" => {
                let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
                let token = self.placeholders.fill(&Value::String(body.to_owned()));
                let token = token.as_str().filter(|token| !token.is_empty() && !token.starts_with('{'));
                let body = body.starts_with('{').then(|| serde_json::from_str(body)).transpose()?;
                self.answer = Some(world.http(verb, path, token, body).await?);
            }
            status => {
                let answer = self.answer.take().context("an answer without a request")?;
                ensure!(answer.status.to_string() == status, "{answer:?}");
                let equal = rest.is_empty() && answer.body.is_empty()
                    || self.placeholders.matches(&json(rest)?, &answer.json()?);
                ensure!(equal, "{answer:?}");
            }
        }
        Ok(())
    }

    fn participant(&mut self, name: &str) -> Result<&mut Participant> {
        self.participants.get_mut(name).context("not connected")
    }
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).context("not JSON")
}

impl Participant {
    /// Waits for a frame that matches. Answers and deliveries may arrive in another order than documented.
    async fn receive(&mut self, expected: &Value, placeholders: &mut Placeholders) -> Result<()> {
        loop {
            if let Some(index) = self.received.iter().position(|frame| placeholders.matches(expected, frame))
            {
                self.received.remove(index);
                return Ok(());
            }
            match self.device.next().await {
                Ok(Incoming::Frame(frame)) => self.received.push(serde_json::to_value(&frame)?),
                Ok(Incoming::Closed(code, reason)) => {
                    bail!("closed with {code:?} {reason}, after {:?}", self.received)
                }
                Err(error) => return Err(error).with_context(|| format!("received: {:?}", self.received)),
            }
        }
    }
}

pub(crate) async fn the_documented_close_codes_match_the_error_codes() -> Result<()> {
    let page = protocol()?;
    let mut rows = 0;
    for row in page.lines().filter(|line| line.starts_with("| 40")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let code = ErrorCode::from_close(cells[1].parse()?).with_context(|| row.to_owned())?;
        let reconnect = match code.reconnect() {
            Reconnect::No => "no".to_owned(),
            Reconnect::Now => "0".to_owned(),
            Reconnect::After(ms) => ms.to_string(),
        };
        let retry = if code.is_retryable() { "yes" } else { "no" };
        assert_eq!(cells[2..6], [code.name(), &code.http().to_string(), &reconnect, retry], "{row}");
        rows += 1;
    }
    assert_eq!(rows, (0..100).filter(|code| ErrorCode::try_from(*code).is_ok()).count());
    Ok(())
}

/// Only the fault suite builds with the feature `defects`, which reads `GODWIT_DEFECT` from the environment.
pub(crate) async fn no_program_contains_a_deliberate_defect() -> Result<()> {
    for program in ["godwit", "consumer", "ws-gateway"] {
        let bytes = std::fs::read(tests::process::path(program)?)?;
        let contains = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        ensure!(
            contains("GODWIT_CONFIG"),
            "{program} does not contain its environment variables as plain text"
        );
        ensure!(!contains("GODWIT_DEFECT"), "{program} was built with deliberate defects");
    }
    Ok(())
}

/// A Python with the package `websockets`.
fn python() -> Result<String> {
    let named = std::env::var("GODWIT_TEST_PYTHON").ok();
    named
        .into_iter()
        .chain(["python3".into(), "/usr/bin/python3".into()])
        .find(|python| {
            let output = Command::new(python).args(["-c", "import websockets"]).output();
            output.is_ok_and(|output| output.status.success())
        })
        .context(
            "no Python has the package `websockets`: run `tests/run`, or `apt install python3-websockets`",
        )
}

/// Starts the example.
fn chat(gateway: &str, user: &str, peer: &str) -> Result<Process> {
    let mut command = Command::new(python()?);
    let script = docs().join("examples/chat.py");
    command.arg("-B").arg(script).args([user, "a long password", peer, &format!("http://{gateway}")]);
    Process::spawn("chat.py", command)
}

pub(crate) async fn the_python_example_sends_receives_and_catches_up(world: World) -> Result<()> {
    let (alice, bob) = (format!("alice-{}", unique()), format!("bob-{}", unique()));
    let chat = |user: &str, peer: &str| chat(world.gateway(), user, peer);
    world.user_named(&bob, "phone").await.context("register bob")?;
    // This bob has another password, so the example must fail.
    let mut rejected = chat(&bob, &alice)?;
    ensure!(!rejected.ended().await?.success(), "a wrong password was accepted");
    let bob = format!("bob-{}", unique());
    let mut registering = chat(&bob, &alice)?;
    drop(registering.stdin());
    ensure!(registering.ended().await?.success(), "{}", registering.output().join("\n"));
    let mut alice_device = chat(&alice, &bob)?;
    alice_device.stdin().context("no input")?.write_all(b"hello\nare you there?\n")?;
    ensure!(alice_device.ended().await?.success(), "{}", alice_device.output().join("\n"));
    let mut bob_device = chat(&bob, &alice)?;
    let mut input = bob_device.stdin().context("no input")?;
    bob_device.line(&format!("{alice}: are you there?")).await?;
    input.write_all(b"yes\n")?;
    bob_device.line(&format!("{bob}: yes")).await?;
    assert_eq!(
        bob_device.output(),
        [format!("{alice}: hello"), format!("{alice}: are you there?"), format!("{bob}: yes")]
    );
    drop(input);
    ensure!(bob_device.ended().await?.success(), "{}", bob_device.output().join("\n"));
    Ok(())
}

/// The second start disables registration, so the example must log in.
pub(crate) async fn the_python_example_reconnects_after_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut system = Embedded::start_in(folder.path().into(), &[]).await?;
    for (user, peer) in [("alice", "bob"), ("bob", "alice")] {
        let mut registering = chat(&system.gateways()[0], user, peer)?;
        drop(registering.stdin());
        ensure!(registering.ended().await?.success(), "{}", registering.output().join("\n"));
    }
    system.kill();
    let settings = ["auth.registration=false", "gateway.drain=200ms"];
    let mut system = Embedded::start_in(folder.path().into(), &settings).await?;
    let mut alice_device = chat(&system.gateways()[0], "alice", "bob")?;
    let mut input = alice_device.stdin().context("no input")?;
    input.write_all(b"before\n")?;
    alice_device.line("alice: before").await?;
    system.process().signal("TERM")?;
    system.process().ended().await?;
    system.start_again().await?;
    input.write_all(b"after\n")?;
    alice_device.line("alice: after").await?;
    assert_eq!(alice_device.output(), ["alice: before", "alice: after"]);
    drop(input);
    ensure!(alice_device.ended().await?.success(), "{}", alice_device.output().join("\n"));
    Ok(())
}
