//! What `docs/` says, held against what runs.

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

/// One user of the transcript: a device, and what it was told and has not shown yet.
struct Party {
    device: Device,
    heard: Vec<Value>,
}

/// Values that differ from run to run, by their names.
#[derive(Default)]
struct Names(HashMap<String, Value>);

impl Names {
    /// Puts the values that are known in the place of their names.
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

    /// Whether a value is what the document says; remembers the values of new names if it is.
    fn learn(&mut self, written: &Value, seen: &Value) -> bool {
        let mut new = HashMap::new();
        let same = Self::same(&self.fill(written), seen, &mut new);
        if same {
            self.0.extend(new);
        }
        same
    }

    fn same(written: &Value, seen: &Value, new: &mut HashMap<String, Value>) -> bool {
        match (written, seen) {
            (Value::String(name), seen) if name.starts_with('<') && name.ends_with('>') => {
                *new.entry(name.clone()).or_insert_with(|| seen.clone()) == *seen
            }
            (Value::Array(written), Value::Array(seen)) => {
                written.len() == seen.len() && written.iter().zip(seen).all(|(w, s)| Self::same(w, s, new))
            }
            (Value::Object(written), Value::Object(seen)) => {
                written.len() == seen.len()
                    && written.iter().all(|(key, w)| seen.get(key).is_some_and(|s| Self::same(w, s, new)))
            }
            _ => written == seen,
        }
    }
}

pub(crate) async fn the_session_of_the_protocol_page_is_what_happens(world: World) -> Result<()> {
    let page = protocol()?;
    let lines: Vec<_> = page
        .split("```transcript\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .flat_map(|(block, _)| block.lines())
        .filter(|line| !line.is_empty())
        .collect();
    ensure!(lines.len() > 30, "docs/protocol.md has a transcript of {} lines", lines.len());
    let mut parties: HashMap<&str, Party> = HashMap::new();
    let (mut names, mut answer) = (Names::default(), None);
    for line in lines {
        let (who, what) = line.split_once(' ').context("a line without a name")?;
        let (verb, rest) = what.split_once(' ').unwrap_or((what, ""));
        let json = |names: &Names| -> Result<Value> {
            Ok(names.fill(&serde_json::from_str(rest).with_context(|| format!("no JSON: {line}"))?))
        };
        match verb {
            "connects" => {
                let device = Device::open(world.first_gateway(), Wire::Json).await?;
                parties.insert(who, Party { device, heard: Vec::new() });
            }
            "leaves" => parties.remove(who).context("who?")?.device.drop_connection(),
            "closed" => {
                let (code, reason) = connected(&mut parties, who)?.device.closed().await?;
                ensure!(format!("{} {reason}", code.close()) == rest, "{line}: {} {reason}", code.close());
            }
            ">" => {
                let text = json(&names)?.to_string();
                connected(&mut parties, who)?
                    .device
                    .write(tokio_tungstenite::tungstenite::Message::text(text))
                    .await?;
            }
            "<" => {
                let written: Value =
                    serde_json::from_str(rest).with_context(|| format!("no JSON: {line}"))?;
                hear(connected(&mut parties, who)?, &written, &mut names)
                    .await
                    .with_context(|| line.to_owned())?;
            }
            "POST" | "GET" | "DELETE" => {
                let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
                let token = names.fill(&Value::String(body.to_owned()));
                let token = token.as_str().filter(|token| !token.is_empty() && !token.starts_with('{'));
                let body = body.starts_with('{').then(|| serde_json::from_str(body)).transpose()?;
                answer = Some(world.http(verb, path, token, body).await?);
            }
            status => {
                let answer = answer.take().with_context(|| format!("an answer to nothing: {line}"))?;
                ensure!(answer.status.to_string() == status, "{line}: {answer:?}");
                let same = rest.is_empty() && answer.body.is_empty()
                    || names.learn(&serde_json::from_str(rest)?, &answer.json()?);
                ensure!(same, "{line}: {answer:?}");
            }
        }
    }
    Ok(())
}

fn connected<'a>(parties: &'a mut HashMap<&str, Party>, who: &str) -> Result<&'a mut Party> {
    parties.get_mut(who).with_context(|| format!("{who} is not connected"))
}

/// Waits for a frame as written. An answer and a delivery may overtake each other.
async fn hear(party: &mut Party, written: &Value, names: &mut Names) -> Result<()> {
    loop {
        if let Some(index) = party.heard.iter().position(|seen| names.learn(written, seen)) {
            party.heard.remove(index);
            return Ok(());
        }
        match party.device.next().await {
            Ok(Incoming::Frame(frame)) => party.heard.push(serde_json::to_value(&frame)?),
            Ok(Incoming::Closed(code, reason)) => bail!("closed with {code:?} {reason}: {:?}", party.heard),
            Err(error) => return Err(error).with_context(|| format!("there was only {:?}", party.heard)),
        }
    }
}

pub(crate) async fn the_table_of_closes_is_the_table_of_errors() -> Result<()> {
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

/// The feature `defects` is for the fault suite alone; a program that has it can be told so by its environment.
pub(crate) async fn no_program_has_a_deliberate_defect() -> Result<()> {
    for program in ["godwit", "consumer", "ws-gateway"] {
        let bytes = std::fs::read(tests::process::path(program)?)?;
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        ensure!(holds("GODWIT_CONFIG"), "{program} does not hold the variables that it reads in plain text");
        ensure!(!holds("GODWIT_DEFECT"), "{program} was built with deliberate defects");
    }
    Ok(())
}

/// A Python that can run the example.
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

/// The example as a program.
fn chat(gateway: &str, user: &str, with: &str) -> Result<Process> {
    let mut command = Command::new(python()?);
    let script = docs().join("examples/chat.py");
    command.arg("-B").arg(script).args([user, "a long password", with, &format!("http://{gateway}")]);
    Process::spawn("chat.py", command)
}

pub(crate) async fn the_python_example_talks_and_catches_up(world: World) -> Result<()> {
    let (alice, bob) = (format!("alice-{}", unique()), format!("bob-{}", unique()));
    let chat = |user: &str, with: &str| chat(world.gateway(), user, with);
    world.user_named(&bob, "phone").await.context("bob is there, and away")?;
    // Bob's password is another one: the example says so and leaves.
    let mut wrong = chat(&bob, &alice)?;
    ensure!(!wrong.ended().await?.success(), "a wrong password was taken");
    let bob = format!("bob-{}", unique());
    let mut silent = chat(&bob, &alice)?;
    drop(silent.stdin());
    ensure!(silent.ended().await?.success(), "{}", silent.output().join("\n"));
    let mut alices = chat(&alice, &bob)?;
    alices.stdin().context("no input")?.write_all(b"hello\nare you there?\n")?;
    ensure!(alices.ended().await?.success(), "{}", alices.output().join("\n"));
    let mut bobs = chat(&bob, &alice)?;
    let mut input = bobs.stdin().context("no input")?;
    bobs.line(&format!("{alice}: are you there?")).await?;
    input.write_all(b"yes\n")?;
    bobs.line(&format!("{bob}: yes")).await?;
    assert_eq!(
        bobs.output(),
        [format!("{alice}: hello"), format!("{alice}: are you there?"), format!("{bob}: yes")]
    );
    drop(input);
    ensure!(bobs.ended().await?.success(), "{}", bobs.output().join("\n"));
    Ok(())
}

/// Also where registration is closed: then who has an account logs in.
pub(crate) async fn the_python_example_comes_back_after_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut open = Embedded::start_in(folder.path().into(), &[]).await?;
    for (user, with) in [("alice", "bob"), ("bob", "alice")] {
        let mut registers = chat(&open.gateways()[0], user, with)?;
        drop(registers.stdin());
        ensure!(registers.ended().await?.success(), "{}", registers.output().join("\n"));
    }
    open.kill();
    let closed = ["auth.registration=false", "gateway.drain=200ms"];
    let mut system = Embedded::start_in(folder.path().into(), &closed).await?;
    let mut alices = chat(&system.gateways()[0], "alice", "bob")?;
    let mut input = alices.stdin().context("no input")?;
    input.write_all(b"before\n")?;
    alices.line("alice: before").await?;
    system.process().signal("TERM")?;
    system.process().ended().await?;
    system.start_again().await?;
    input.write_all(b"after\n")?;
    alices.line("alice: after").await?;
    assert_eq!(alices.output(), ["alice: before", "alice: after"]);
    drop(input);
    ensure!(alices.ended().await?.success(), "{}", alices.output().join("\n"));
    Ok(())
}
