//! The HTTP API: accounts, tokens, invalid requests.

use abi::error::ErrorCode;
use anyhow::Result;
use serde_json::{Value, json};
use tests::{
    device::{Device, Wire},
    http,
    system::unique,
    world::{PASSWORD, Session, World},
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
    assert_eq!((wrong.status, wrong.body), (unknown.status, unknown.body));
    Ok(())
}

pub(crate) async fn p8_a_refresh_token_works_once_except_for_a_retry_after_a_lost_answer(
    world: World,
) -> Result<()> {
    let alice = world.user("alice").await?;
    let second = world.refresh(&alice).await?;
    assert_eq!((&second.user, &second.device, &second.session), (&alice.user, &alice.device, &alice.session));
    assert_ne!(second.refresh_token, alice.refresh_token);
    // The previous token still works for a moment, because the answer may have been lost.
    let repeated = world.refresh(&alice).await?;
    // If the first answer was only late, the device has both. Both must lead to the same next token.
    let third = world.refresh(&second).await?;
    assert_eq!(
        world.refresh(&repeated).await?.refresh_token,
        third.refresh_token,
        "refreshing with either answer returns the same token"
    );
    let mut connected = world.connect(&third).await?;
    // The id of a session is not enough to refresh it.
    let invented = Session { refresh_token: format!("{}.invented", third.session), ..third.clone() };
    world.refresh(&invented).await.expect_err("a refresh token that was never issued");
    let third = world.refresh(&third).await?;
    // An older token ends the session, because one of the two users of that token has stolen it.
    world.refresh(&alice).await.expect_err("a refresh token older than the previous one");
    assert_eq!(connected.closed().await?.0, ErrorCode::Revoked);
    world.refresh(&third).await.expect_err("the session has ended");
    let mut device = Device::open(world.gateway(), Wire::Proto).await?;
    assert_eq!(device.hello_refused(&third.access_token).await?.0, ErrorCode::Revoked);
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

pub(crate) async fn p7_invalid_requests_get_problem_documents(world: World) -> Result<()> {
    let name = format!("alice-{}", unique());
    let valid = |user: &str| json!({ "user": user, "password": PASSWORD, "device": "phone" });
    let mut requests: Vec<(&str, &str, Option<String>, u16, &str)> = vec![
        ("GET", "/nowhere", None, 404, "not_found"),
        ("GET", "/v1/accounts", None, 405, "invalid_request"),
        ("PUT", "/v1/sessions", Some("{}".into()), 405, "invalid_request"),
        ("POST", "/v1/sessions/refresh", Some("{}".into()), 400, "invalid_request"),
        ("POST", "/v1/sessions/refresh", Some(r#"{"refresh_token":"x"}"#.into()), 401, "unauthenticated"),
        ("POST", "/v1/sessions/refresh", Some(r#"{"refresh_token":"x.y"}"#.into()), 401, "unauthenticated"),
    ];
    let mut invalid: Vec<String> = ["", "{", "[]", "null", "\"text\"", "{}"].map(Into::into).into();
    for user in ["", "two words", "a/b", "\u{e9}", &"x".repeat(65)] {
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
    let mut idle = tokio::net::TcpStream::connect(world.first_gateway()).await?;
    tokio::io::AsyncWriteExt::write_all(&mut idle, incomplete.as_bytes()).await?;
    let alice: Session = world.user("alice").await?;
    assert_eq!(alice.device, "phone");
    Ok(())
}
