//! The HTTP API beyond accounts and groups: all that a program without a WebSocket does.

use abi::v1::{
    Blocks, Changes, Deliver, GetBlocks, GetChanges, GetHistory, GetReaders, Head, Heads, HistoryPage,
    Presences, Profile, Profiles, Readers, SetSettings, Signal, Typing, signal::Kind,
};
use anyhow::{Context as _, Result, ensure};
use client::{Draft, Server, http::Api};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::{
    device::{new_id, seqs, texts},
    eventually,
    http::{self, Answer},
    world::{Session, World},
};

/// Sends a request with the token of a session.
async fn call(world: &World, by: &Session, method: &str, path: &str, body: Option<Value>) -> Result<Answer> {
    world.http(method, path, Some(&by.access_token), body).await
}

/// Reads a message of the contract.
async fn get<T: DeserializeOwned>(world: &World, by: &Session, path: &str) -> Result<T> {
    let answer = call(world, by, "GET", path, None).await?;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{path}: {answer:?}"
    );
    Ok(serde_json::from_value(answer.json()?)?)
}

/// Sends an entry. Returns its message id.
async fn send(world: &World, by: &Session, conversation: &str, entry: Value) -> Result<String> {
    let path = format!("/v1/conversations/{conversation}/entries");
    let answer = call(world, by, "POST", &path, Some(entry)).await?;
    assert_eq!(answer.status, 201, "{answer:?}");
    Ok(answer.json()?["messageId"].as_str().context("no messageId")?.to_owned())
}

fn message(text: &str) -> Value {
    json!({ "clientMsgId": new_id(), "content": { "text": text } })
}

/// Changes something. The answer has no body.
async fn change(world: &World, by: &Session, method: &str, path: &str, body: Option<Value>) -> Result<()> {
    let answer = call(world, by, method, path, body).await?;
    assert_eq!((answer.status, &*answer.body), (204, ""), "{method} {path}: {answer:?}");
    Ok(())
}

/// The code of an error.
async fn refusal(
    world: &World,
    by: &Session,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<String> {
    call(world, by, method, path, body).await?.problem()
}

pub(crate) async fn p1_a_program_sends_edits_and_reads_over_http_alone(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let hello = send(&world, &alice, &conversation, message("helo")).await?;
    for n in 2..=4 {
        send(&world, &alice, &conversation, message(&format!("text {n}"))).await?;
    }
    let edit =
        json!({ "clientMsgId": new_id(), "kind": "edit", "refersTo": hello, "content": { "text": "hello" } });
    send(&world, &alice, &conversation, edit).await?;
    let reaction =
        json!({ "clientMsgId": new_id(), "kind": "reaction", "refersTo": hello, "reactions": ["+1"] });
    send(&world, &bob, &conversation, reaction).await?;
    let entries = format!("/v1/conversations/{conversation}/entries");
    let page: HistoryPage = get(&world, &bob, &format!("{entries}?after=0&limit=4")).await?;
    assert_eq!((texts(&page.entries), page.more), (vec!["hello", "text 2", "text 3", "text 4"], true));
    let state = page.entries[0].state.as_ref().context("no state")?;
    assert_eq!((state.edits, state.reactions[0].count, state.reactions[0].mine), (1, 1, true));
    let newest: HistoryPage = get(&world, &bob, &format!("{entries}?newest=true&limit=2")).await?;
    assert_eq!((seqs(&newest.entries), newest.more), (vec![6, 5], true));
    let older: HistoryPage = get(&world, &bob, &format!("{entries}?before=3")).await?;
    assert_eq!((seqs(&older.entries), older.more), (vec![2, 1], false));
    // Others see the same as over a WebSocket.
    let mut device = world.connect(&bob).await?;
    assert_eq!(device.whole_history(&conversation).await?[..4], page.entries);
    let recall = json!({ "clientMsgId": new_id(), "kind": "recall", "refersTo": hello });
    send(&world, &alice, &conversation, recall).await?;
    let page: HistoryPage = get(&world, &bob, &format!("{entries}?limit=1")).await?;
    assert_eq!(page.entries[0].content, None);
    Ok(())
}

pub(crate) async fn p2_an_entry_repeated_over_http_is_the_same_entry(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (entry, path) = (message("once"), format!("/v1/conversations/{conversation}/entries"));
    let first = send(&world, &alice, &conversation, entry.clone()).await?;
    let edit =
        json!({ "clientMsgId": new_id(), "kind": "edit", "refersTo": first, "content": { "text": "Once" } });
    let mut answers = Vec::new();
    for _ in 0..3 {
        assert_eq!(send(&world, &alice, &conversation, entry.clone()).await?, first);
        answers.push(
            call(&world, &alice, "POST", &path, Some(edit.clone())).await?.json()?["messageId"].clone(),
        );
    }
    assert!(answers.iter().all(|id| id.is_string() && *id == answers[0]), "{answers:?}");
    let page: HistoryPage = get(&world, &bob, &path).await?;
    assert_eq!((seqs(&page.entries), texts(&page.entries)[0]), (vec![1, 2], "Once"));
    // The same request over a WebSocket of the device is the same entry too.
    let mut device = world.connect(&alice).await?;
    let id = entry["clientMsgId"].as_str().context("no id")?;
    assert_eq!(device.send(&conversation, id, "once").await?.message_id, first);
    Ok(())
}

pub(crate) async fn p5_changes_and_heads_are_read_over_http(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let (with_bob, with_carol) = (alice.conversation_with(&bob), alice.conversation_with(&carol));
    send(&world, &bob, &with_bob, message("one")).await?;
    send(&world, &carol, &with_carol, message("two")).await?;
    let page = async |query: &str| get::<Changes>(&world, &alice, &format!("/v1/changes?{query}")).await;
    // The consumer handles a message after its ack: it has it stored, and then counts it.
    eventually("both conversations have heads and are counted", async || {
        let page = page("").await?;
        let (heads, seq) = (page.heads.len(), page.receiver_seq.unwrap_or_default().seq);
        ensure!((heads, seq) == (2, 2), "{heads} heads, seq {seq}");
        Ok(())
    })
    .await?;
    let first = page("limit=1").await?;
    assert!(first.everything && !first.next.is_empty() && first.profile.is_some(), "{first:?}");
    let second = page(&format!("limit=1&cursor={}", first.next)).await?;
    assert_eq!((second.heads.len(), &*second.next, second.receiver_seq), (1, "", first.receiver_seq));
    let have = second.receiver_seq.context("no receiver seq")?;
    let since = format!("epoch={}&seq={}", have.epoch, have.seq);
    assert_eq!(page(&since).await?.heads, []);
    let read = format!("/v1/conversations/{with_bob}/read");
    let answer = call(&world, &alice, "PUT", &read, Some(json!({ "conversationSeq": "1" }))).await?;
    assert_eq!((answer.status, answer.json()?["readSeq"].clone()), (200, "1".into()));
    let settings = format!("/v1/conversations/{with_bob}/settings");
    change(&world, &alice, "PATCH", &settings, Some(json!({ "pinned": true, "draft": "dear" }))).await?;
    change(&world, &alice, "PATCH", &settings, Some(json!({ "archived": true }))).await?;
    let changed = page(&since).await?;
    assert_eq!((changed.everything, changed.heads.len()), (false, 1));
    let head: Head = get(&world, &alice, &format!("/v1/conversations/{with_bob}")).await?;
    assert_eq!((head.read_seq, head.unread, &changed.heads[0]), (1, 0, &head));
    let settings = head.settings.context("no settings")?;
    assert!(settings.pinned && settings.archived && settings.draft == "dear", "{settings:?}");
    let heads: Heads =
        get(&world, &alice, &format!("/v1/conversations?ids={with_carol},g:x,{with_bob}")).await?;
    let ids: Vec<_> = heads.heads.iter().map(|head| &*head.conversation).collect();
    assert_eq!(ids, [&*with_carol, &*with_bob]);
    let unknown = refusal(&world, &alice, "GET", "/v1/conversations/g:x", None).await?;
    assert_eq!(unknown, "not_found");
    let readers: Readers =
        get(&world, &bob, &format!("/v1/conversations/{with_bob}/entries/1/readers")).await?;
    assert_eq!((readers.readers.len(), readers.readers[0].has_read), (1, true));
    Ok(())
}

pub(crate) async fn p8_blocks_and_membership_hold_over_http(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let conversation = alice.conversation_with(&bob);
    let entries = format!("/v1/conversations/{conversation}/entries");
    change(&world, &alice, "PUT", &format!("/v1/blocks/{}", bob.user), None).await?;
    let blocks: Blocks = get(&world, &alice, "/v1/blocks").await?;
    assert_eq!(blocks.users, std::slice::from_ref(&bob.user));
    // A block is in force at all gateways after a few seconds; this one was made by a gateway that knows nothing older.
    assert_eq!(refusal(&world, &bob, "POST", &entries, Some(message("hello"))).await?, "forbidden");
    change(&world, &alice, "DELETE", &format!("/v1/blocks/{}", bob.user), None).await?;
    assert_eq!(get::<Blocks>(&world, &alice, "/v1/blocks").await?.users, Vec::<String>::new());
    let sent = send(&world, &alice, &conversation, message("hello")).await?;
    // A recall is acknowledged when it is stored, and the message with it.
    let recall = json!({ "clientMsgId": new_id(), "kind": "recall", "refersTo": sent });
    send(&world, &alice, &conversation, recall).await?;
    let signals = format!("/v1/conversations/{conversation}/signals");
    let head = format!("/v1/conversations/{conversation}");
    for (method, path, body, code) in [
        ("POST", &entries, Some(message("psst")), "forbidden"),
        ("GET", &entries, None, "forbidden"),
        ("GET", &head, None, "not_found"),
        ("GET", &format!("{entries}/1/readers"), None, "forbidden"),
        ("PUT", &format!("{head}/read"), Some(json!({ "conversationSeq": 1 })), "forbidden"),
        ("PATCH", &format!("{head}/settings"), Some(json!({ "pinned": true })), "forbidden"),
        ("POST", &signals, Some(json!({ "typing": {} })), "forbidden"),
    ] {
        assert_eq!(refusal(&world, &carol, method, path, body).await?, code, "{method} {path}");
    }
    Ok(())
}

pub(crate) async fn profiles_presence_and_signals_work_over_http(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let (mut device, _online) = (world.connect(&bob).await?, world.connect(&alice).await?);
    let profile =
        json!({ "name": "Alice", "custom": { "team": "blue" }, "privacy": "PRESENCE_PRIVACY_EVERYONE" });
    change(&world, &alice, "PUT", "/v1/profile", Some(profile)).await?;
    let path = format!("/v1/profiles?users={},{}", alice.user, bob.user);
    let profiles: Profiles = get(&world, &bob, &path).await?;
    assert_eq!((&*profiles.profiles[0].name, &*profiles.profiles[0].custom["team"]), ("Alice", "blue"));
    change(&world, &alice, "PUT", "/v1/presence", Some(json!({ "text": "at lunch" }))).await?;
    let path = format!("/v1/presence?users={},{}", alice.user, bob.user);
    let presences: Presences = get(&world, &bob, &path).await?;
    let seen: Vec<_> = presences.presences.iter().map(|it| (&*it.user, it.online, &*it.text)).collect();
    assert_eq!(seen, [(&*alice.user, true, "at lunch"), (&*bob.user, true, "")]);
    let signals = format!("/v1/conversations/{}/signals", alice.conversation_with(&bob));
    change(&world, &alice, "POST", &signals, Some(json!({ "typing": {} }))).await?;
    let signal = device.signal().await?;
    assert_eq!((&*signal.user, matches!(signal.kind, Some(Kind::Typing(_)))), (&*alice.user, true));
    // What is sent over HTTP arrives live.
    send(&world, &alice, &alice.conversation_with(&bob), message("hello")).await?;
    let Deliver { entries, .. } = device.deliver().await?;
    assert_eq!(texts(&entries), ["hello"]);
    Ok(())
}

pub(crate) async fn the_rust_sdk_does_everything_over_http(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let api = Api::new(Server::parse(world.first_gateway())?);
    let (token, conversation) = (&*alice.access_token, alice.conversation_with(&bob));
    let ack = api.send_entry(token, &conversation, client::text("helo"), &new_id()).await?;
    let edit = Draft::edit(&ack.message_id, client::text("hello"));
    api.send_entry(token, &conversation, edit, &new_id()).await?;
    let page = GetHistory { conversation: conversation.clone(), limit: 1, ..GetHistory::default() };
    assert_eq!(texts(&api.history(token, page).await?.entries), ["hello"]);
    assert_eq!(api.mark_read(&bob.access_token, &conversation, 1).await?.read_seq, 1);
    let readers =
        GetReaders { conversation: conversation.clone(), conversation_seq: 1, ..GetReaders::default() };
    assert!(api.readers(token, readers).await?.readers[0].has_read);
    let pinned =
        SetSettings { conversation: conversation.clone(), pinned: Some(true), ..SetSettings::default() };
    api.change_settings(token, pinned).await?;
    let heads = api.heads(token, std::slice::from_ref(&conversation)).await?;
    assert!(heads[0].settings.as_ref().is_some_and(|settings| settings.pinned), "{heads:?}");
    let changes = api.changes(token, GetChanges { limit: 1, ..GetChanges::default() }).await?;
    assert_eq!((changes.everything, &*changes.next), (true, ""));
    let typing = Some(Kind::Typing(Typing::default()));
    api.signal(token, Signal { conversation, kind: typing, ..Signal::default() }).await?;
    for blocked in [true, false] {
        api.block(token, &bob.user, blocked).await?;
        let expected = if blocked { vec![bob.user.clone()] } else { Vec::new() };
        assert_eq!(api.blocks(token, GetBlocks::default()).await?.users, expected);
    }
    api.replace_profile(token, &Profile { name: "Alice".into(), ..Profile::default() }).await?;
    let users = std::slice::from_ref(&alice.user);
    assert_eq!(api.profiles(token, users).await?[0].name, "Alice");
    let _online = world.connect(&alice).await?;
    api.set_presence(token, "at lunch").await?;
    assert_eq!(api.presences(token, users).await?[0].text, "at lunch");
    Ok(())
}

pub(crate) async fn p7_problems_carry_the_request_id(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let exchange = async |id: &str| {
        let head = format!(
            "GET /v1/conversations/g:x HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-request-id: {id}\r\n"
        );
        let request = format!("{head}authorization: Bearer {}\r\n\r\n", alice.access_token);
        http::raw(world.first_gateway(), request.as_bytes()).await
    };
    let answer = exchange("order-7.retry_2").await?;
    assert_eq!(answer.header("x-request-id"), "order-7.retry_2");
    assert_eq!((answer.status, answer.json()?["request_id"].clone()), (404, "order-7.retry_2".into()));
    let answer = exchange("not one id").await?;
    let id = answer.header("x-request-id").to_owned();
    assert!(id.len() == 36 && answer.json()?["request_id"] == *id, "{answer:?}");
    let found = call(&world, &alice, "GET", "/v1/blocks", None).await?;
    assert!(found.status == 200 && found.header("x-request-id") != id, "{found:?}");
    for (method, path) in [("GET", "/nowhere"), ("PUT", "/v1/changes"), ("DELETE", "/v1/sessions/current")] {
        let answer = world.http(method, path, None, None).await?;
        assert_eq!(answer.json()?["request_id"], answer.header("x-request-id"), "{method} {path}");
    }
    Ok(())
}

pub(crate) async fn p7_errors_name_the_parameter_or_the_member(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = format!("/v1/conversations/{}", alice.conversation_with(&bob));
    let (entries, read) = (format!("{conversation}/entries"), format!("{conversation}/read"));
    let wrong = json!({ "clientMsgId": "1", "content": { "text": 7 } });
    let elsewhere = json!({ "conversation": "g:x", "clientMsgId": "1", "content": { "text": "hello" } });
    for (method, path, body, words) in [
        ("GET", &*format!("{entries}?after=x"), None, "after: expected a whole number, got \"x\""),
        ("GET", &format!("{entries}?limit=501"), None, "limit must be 1 to 500"),
        ("GET", &format!("{entries}?befor=5"), None, "unknown field `befor`"),
        ("GET", &format!("{entries}?after=1&before=5"), None, "at most one of after, before and newest"),
        ("GET", &format!("{entries}/x/readers"), None, "seq in the path must be a whole number, got \"x\""),
        ("GET", "/v1/conversations/nonsense/entries", None, "conversation must be d:USER:USER"),
        ("GET", "/v1/conversations", None, "missing field `ids`"),
        ("GET", "/v1/conversations?ids=", None, "conversation must be"),
        ("GET", "/v1/changes?epoch=-1", None, "epoch: expected a whole number"),
        ("GET", "/v1/changes?cursor=x", None, "cursor must be"),
        ("GET", "/v1/profiles?users=a%20b", None, "user must be"),
        ("PUT", "/v1/blocks/a%20b", None, "user must be"),
        ("POST", &entries, Some(wrong), "`content.text`: expected"),
        ("POST", &entries, Some(elsewhere), "conversation is in the path"),
        ("POST", &entries, Some(json!({ "content": { "text": "hello" } })), "client_msg_id must be"),
        ("PUT", &read, Some(json!({ "conversationSeq": 1.5 })), "`conversationSeq`: expected"),
        ("PUT", &read, Some(json!([])), "the body is not valid"),
    ] {
        let answer = call(&world, &alice, method, path, body).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid_request"), "{method} {path}");
        let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains(words), "{method} {path}: {detail}");
    }
    Ok(())
}

pub(crate) async fn methods_and_documentation_of_the_http_api(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let answer = call(&world, &alice, "POST", "/v1/changes", None).await?;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET,HEAD"));
    let answer = world.http("OPTIONS", "/v1/blocks/bob", None, None).await?;
    assert_eq!((answer.status, answer.header("allow")), (204, "PUT,DELETE"));
    let (head, get) = (
        call(&world, &alice, "HEAD", "/v1/blocks", None).await?,
        call(&world, &alice, "GET", "/v1/blocks", None).await?,
    );
    assert_eq!(
        (head.status, &*head.body, head.header("content-length")),
        (200, "", get.header("content-length"))
    );
    let document = world.http("GET", "/openapi.json", None, None).await?;
    let committed = include_str!("../../docs/openapi.json");
    assert_eq!(document.json()?, serde_json::from_str::<Value>(committed)?);
    let page = world.http("GET", "/docs", None, None).await?;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.body.contains("Read a page of entries"), "the page does not list the operations");
    Ok(())
}
