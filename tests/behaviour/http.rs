//! The HTTP API: accounts, tokens, invalid requests.

use abi::error::ErrorCode;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::{
    device::{Device, Wire, new_id, texts},
    http::{self, Answer},
    system::unique,
    world::{PASSWORD, Session, World},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) async fn p8_a_user_name_can_be_registered_once(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let again = json!({ "user": alice.user, "password": "another password", "device": "phone" });
    let answer = world.http("POST", "/v1/accounts", None, Some(again)).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (409, "already_exists"));
    world.log_in(&alice, "phone").await?;
    Ok(())
}

pub(crate) async fn p8_a_wrong_password_and_an_unknown_user_get_the_same_answer(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let unknown_user = format!("nobody-{}", unique());
    let log_in = |user: &str, password: &str| {
        let body = json!({ "user": user, "password": password, "device": "phone" });
        world.http("POST", "/v1/sessions", None, Some(body))
    };
    let (wrong, unknown) = (log_in(&alice.user, "wrong").await?, log_in(&unknown_user, PASSWORD).await?);
    assert_eq!((wrong.status, wrong.problem()?.as_str()), (401, "unauthenticated"));
    let but_for_request_id = |answer: &Answer| {
        let mut document = answer.json()?;
        document["request_id"] = Value::Null;
        anyhow::Ok(document)
    };
    assert_eq!(but_for_request_id(&wrong)?, but_for_request_id(&unknown)?);
    Ok(())
}

pub(crate) async fn p8_a_lost_answer_to_a_refresh_logs_nobody_out(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let second = world.refresh(&alice).await?;
    assert_eq!((&second.user, &second.device, &second.session), (&alice.user, &alice.device, &alice.session));
    assert_ne!(second.refresh_token, alice.refresh_token);
    // Until the new token is used, its answer may have been lost, any number of times.
    for _ in 0..3 {
        assert_eq!(world.refresh(&alice).await?.refresh_token, second.refresh_token);
    }
    // Tabs of a browser that refresh at the same time all get the same token.
    let (first_tab, second_tab) = tokio::join!(world.refresh(&second), world.refresh(&second));
    let (third, same) = (first_tab?, second_tab?);
    assert_eq!(third.refresh_token, same.refresh_token);
    for session in [&third, &same] {
        world.connect(session).await?.ping().await?;
    }
    Ok(())
}

pub(crate) async fn p8_an_old_refresh_token_is_refused_and_the_session_goes_on(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut newest = alice.clone();
    for _ in 0..3 {
        newest = world.refresh(&newest).await?;
    }
    let mut connected = world.connect(&newest).await?;
    let unsealed = alice.refresh_token.rsplit_once(':').context("the parts of a token")?.0.to_owned();
    let of_another = newest.refresh_token.replacen(&alice.user, "nobody", 1);
    for token in [&alice.refresh_token, &unsealed, &format!("{unsealed}:x"), &of_another] {
        let body = json!({ "refresh_token": token });
        let answer = world.http("POST", "/v1/sessions/refresh", None, Some(body)).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (401, "unauthenticated"), "{token}");
    }
    connected.ping().await?;
    world.refresh(&newest).await?;
    Ok(())
}

pub(crate) async fn p8_the_reuse_of_a_very_old_refresh_token_ends_the_session(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut newest = alice.clone();
    for _ in 0..101 {
        newest = world.refresh(&newest).await?;
    }
    let mut connected = world.connect(&newest).await?;
    world.refresh(&alice).await.expect_err("a token that was replaced 101 exchanges ago");
    assert_eq!(connected.closed().await?.0, ErrorCode::Revoked);
    world.refresh(&newest).await.expect_err("the session has ended");
    let mut device = Device::open(world.gateway(), Wire::Proto).await?;
    assert_eq!(device.hello_refused(&newest.access_token).await?.0, ErrorCode::Revoked);
    Ok(())
}

pub(crate) async fn p8_names_of_groups_are_normalised_and_visible(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let create = |name: String| {
        let body = json!({ "name": name, "members": [] });
        world.http("POST", "/v1/groups", Some(&alice.access_token), Some(body))
    };
    let answer = create("Cafe\u{301} \u{1f389}".into()).await?;
    assert_eq!(answer.status, 201, "{answer:?}");
    let created: Value = serde_json::from_str(&answer.body)?;
    assert_eq!(created["entry"]["groupChange"]["created"]["name"], "Caf\u{e9} \u{1f389}");
    create("\u{1f389}".repeat(128)).await?;
    for name in ["", "   ", "\u{200b}\u{200b}", "\u{202e}ABC", "a\0b", "a\nb", &"x".repeat(129)] {
        let answer = create(name.into()).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid_request"), "{name:?}");
        assert!(answer.body.contains("name must"), "{answer:?}");
    }
    Ok(())
}

pub(crate) async fn p8_the_case_of_ids_counts(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let capital = alice.user.replacen('a', "A", 1);
    let log_in = json!({ "user": capital, "password": PASSWORD, "device": "phone" });
    assert_eq!(world.http("POST", "/v1/sessions", None, Some(log_in)).await?.status, 401);
    let other = world.user_named(&capital, "phone").await?;
    assert_ne!(other.user, alice.user);
    let (mut device, mut other_device) = (world.connect(&alice).await?, world.connect(&other).await?);
    device.send(&alice.conversation_with(&other), &new_id(), "hello").await?;
    assert_eq!(texts(&other_device.entries(1).await?), ["hello"]);
    Ok(())
}

pub(crate) async fn the_authorization_scheme_has_no_case(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = format!(
            "GET /v1/groups/g:x/members HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {scheme} {}\r\n\r\n",
            alice.access_token
        );
        let mut stream = TcpStream::connect(world.first_gateway()).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        // The user is known, and no member of this group.
        assert!(answer.starts_with("HTTP/1.1 403"), "{scheme}: {answer}");
    }
    Ok(())
}

pub(crate) async fn p8_requests_without_an_access_token_are_refused(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    for token in [None, Some(""), Some("nonsense"), Some(&*alice.refresh_token)] {
        for (method, path) in
            [("DELETE", "/v1/sessions/current"), ("POST", "/v1/groups"), ("GET", "/v1/groups/g:x/members")]
        {
            let body = (method == "POST").then(|| json!({ "name": "friends", "members": [bob.user] }));
            let answer = world.http(method, path, token, body).await?;
            assert_eq!(
                (answer.status, answer.problem()?.as_str()),
                (401, "unauthenticated"),
                "{method} {path}"
            );
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
        }
    }
    let answer = world.http(
        "POST",
        "/v1/sessions/refresh",
        None,
        Some(json!({ "refresh_token": alice.access_token })),
    );
    assert_eq!(answer.await?.status, 401);
    Ok(())
}

pub(crate) async fn p7_a_compressed_body_is_refused_with_the_reason(world: World) -> Result<()> {
    let head = "POST /v1/sessions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding: gzip\r\n";
    let answer =
        http::raw(world.gateway(), format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid_request"));
    assert!(answer.body.contains("Content-Encoding gzip"), "{answer:?}");
    Ok(())
}

pub(crate) async fn p7_invalid_requests_get_problem_documents(world: World) -> Result<()> {
    let name = format!("alice-{}", unique());
    let valid = |user: &str| json!({ "user": user, "password": PASSWORD, "device": "phone" });
    let mut requests: Vec<(&str, &str, Option<String>, u16, &str)> = vec![
        ("GET", "/nowhere", None, 404, "not_found"),
        ("GET", "/v1/accounts", None, 405, "invalid_request"),
        ("PUT", "/v1/sessions", Some("{}".into()), 405, "invalid_request"),
        ("POST", "/v1/sessions/refresh", Some("{}".into()), 400, "invalid_request"),
        ("POST", "/v1/sessions/refresh", Some(r#"{"refresh_token":"x"}"#.into()), 401, "unauthenticated"),
        (
            "POST",
            "/v1/sessions/refresh",
            Some(r#"{"refresh_token":"x:y:1:z:w"}"#.into()),
            401,
            "unauthenticated",
        ),
    ];
    let mut invalid: Vec<String> = ["", "{", "[]", "null", "\"text\"", "{}"].map(Into::into).into();
    for user in ["", ".", "..", "two words", "a/b", "\u{e9}", &"x".repeat(65)] {
        invalid.push(valid(user).to_string());
    }
    for (key, value) in
        [("user", json!(7)), ("device", json!("")), ("admin", json!(true)), ("password", Value::Null)]
    {
        let mut body = valid(&name);
        body[key] = value;
        invalid.push(body.to_string());
    }
    requests
        .extend(invalid.into_iter().map(|body| ("POST", "/v1/accounts", Some(body), 400, "invalid_request")));
    for (method, path, body, status, code) in requests {
        let answer = http::request(world.gateway(), method, path, None, body.as_deref()).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (status, code), "{method} {path} {body:?}");
    }
    // No invalid request has registered the name.
    world.user_named(&name, "phone").await?;
    Ok(())
}

pub(crate) async fn p7_an_oversized_body_is_refused(world: World) -> Result<()> {
    let body = json!({ "user": "x", "password": "x".repeat(100 * 1024), "device": "phone" });
    let answer = world.http("POST", "/v1/accounts", None, Some(body)).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (413, "too_large"));
    // A request that announces a body and does not send it does not block other requests.
    let incomplete = "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n{";
    let mut idle = TcpStream::connect(world.first_gateway()).await?;
    idle.write_all(incomplete.as_bytes()).await?;
    let alice: Session = world.user("alice").await?;
    assert_eq!(alice.device, "phone");
    Ok(())
}
