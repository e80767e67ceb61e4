//! The HTTP API at its edge: accounts, tokens, and requests that are none.

use abi::error::ErrorCode;
use anyhow::Result;
use serde_json::{Value, json};
use tests::{
    device::{Device, Wire},
    http,
    system::unique,
    world::{PASSWORD, Session, World},
};

pub(crate) async fn p8_a_name_can_be_taken_once(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let again = json!({ "user": alice.user, "password": "another password", "device": "phone" });
    let answer = world.http("POST", "/v1/accounts", None, Some(again)).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (409, "already_exists"));
    world.log_in(&alice, "phone").await?;
    Ok(())
}

pub(crate) async fn p8_a_wrong_password_and_an_unknown_user_look_the_same(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let nobody = format!("nobody-{}", unique());
    let log_in = |user: &str, password: &str| {
        let body = json!({ "user": user, "password": password, "device": "phone" });
        world.http("POST", "/v1/sessions", None, Some(body))
    };
    let (wrong, unknown) = (log_in(&alice.user, "wrong").await?, log_in(&nobody, PASSWORD).await?);
    assert_eq!((wrong.status, wrong.problem()?.as_str()), (401, "unauthenticated"));
    assert_eq!((wrong.status, wrong.body), (unknown.status, unknown.body));
    Ok(())
}

pub(crate) async fn p8_a_refresh_token_works_once_and_a_lost_answer_can_be_repeated(
    world: World,
) -> Result<()> {
    let alice = world.user("alice").await?;
    let second = world.refresh(&alice).await?;
    assert_eq!((&second.user, &second.device, &second.session), (&alice.user, &alice.device, &alice.session));
    assert_ne!(second.refresh_token, alice.refresh_token);
    // The answer may have been lost on its way: the token before is good for another moment.
    let repeated = world.refresh(&alice).await?;
    // Or what was repeated had only been on its way for long, and the device has its answer already.
    let third = world.refresh(&second).await?;
    assert_eq!(
        world.refresh(&repeated).await?.refresh_token,
        third.refresh_token,
        "the same in both answers"
    );
    let mut connected = world.connect(&third).await?;
    // Who knows the session's id has no token of it.
    let made_up = Session { refresh_token: format!("{}.made-up", third.session), ..third.clone() };
    world.refresh(&made_up).await.expect_err("a refresh token that was never issued");
    let third = world.refresh(&third).await?;
    // Older ones are not. Whoever shows one has stolen it or was stolen from: the session ends.
    world.refresh(&alice).await.expect_err("a refresh token from some rotations ago");
    assert_eq!(connected.closed().await?.0, ErrorCode::Revoked);
    world.refresh(&third).await.expect_err("the session should have ended");
    let mut device = Device::open(world.gateway(), Wire::Proto).await?;
    assert_eq!(device.hello_refused(&third.access_token).await?.0, ErrorCode::Revoked);
    Ok(())
}

pub(crate) async fn p8_a_token_opens_nothing_else(world: World) -> Result<()> {
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

pub(crate) async fn p7_bad_requests_get_problem_documents(world: World) -> Result<()> {
    let name = format!("alice-{}", unique());
    let whole = |user: &str| json!({ "user": user, "password": PASSWORD, "device": "phone" });
    let mut requests: Vec<(&str, &str, Option<String>, u16, &str)> = vec![
        ("GET", "/nowhere", None, 404, "not_found"),
        ("GET", "/v1/accounts", None, 405, "invalid_request"),
        ("PUT", "/v1/sessions", Some("{}".into()), 405, "invalid_request"),
        ("POST", "/v1/sessions/refresh", Some("{}".into()), 400, "invalid_request"),
        ("POST", "/v1/sessions/refresh", Some(r#"{"refresh_token":"x"}"#.into()), 401, "unauthenticated"),
        ("POST", "/v1/sessions/refresh", Some(r#"{"refresh_token":"x.y"}"#.into()), 401, "unauthenticated"),
    ];
    let mut wrong: Vec<String> = ["", "{", "[]", "null", "\"text\"", "{}"].map(Into::into).into();
    for user in ["", "two words", "a/b", "\u{e9}", &"x".repeat(65)] {
        wrong.push(whole(user).to_string());
    }
    for (key, value) in
        [("user", json!(7)), ("device", json!("")), ("admin", json!(true)), ("password", Value::Null)]
    {
        let mut body = whole(&name);
        body[key] = value;
        wrong.push(body.to_string());
    }
    requests
        .extend(wrong.into_iter().map(|body| ("POST", "/v1/accounts", Some(body), 400, "invalid_request")));
    for (method, path, body, status, code) in requests {
        let answer = http::request(world.gateway(), method, path, None, body.as_deref()).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (status, code), "{method} {path} {body:?}");
    }
    // None of the wrong ones has taken the name.
    world.user_named(&name, "phone").await?;
    Ok(())
}

pub(crate) async fn p7_a_body_that_is_too_large_is_refused(world: World) -> Result<()> {
    let body = json!({ "user": "x", "password": "x".repeat(100 * 1024), "device": "phone" });
    let answer = world.http("POST", "/v1/accounts", None, Some(body)).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (413, "too_large"));
    // A length that is announced and never sent holds nobody up: another request is served meanwhile.
    let promised = "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n{";
    let mut idle = tokio::net::TcpStream::connect(world.first_gateway()).await?;
    tokio::io::AsyncWriteExt::write_all(&mut idle, promised.as_bytes()).await?;
    let alice: Session = world.user("alice").await?;
    assert_eq!(alice.device, "phone");
    Ok(())
}
