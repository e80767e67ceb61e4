//! Performs the operations of HTTP.

use super::{
    Caller,
    cast::{Cast, Stage},
    operations::{NOTHING, OK, send, signal},
};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tests::{
    device::{Device, Wire},
    http::Answer,
    system::unique,
    world::PASSWORD,
};

/// A route and the variant of its operation, empty if there is only one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) variant: &'a str,
}

pub(super) async fn http(cast: &mut Cast, stage: &Stage, caller: Caller, route: Route<'_>) -> Result<String> {
    if route.path == "/v1/ws" {
        return Device::open(cast.world.gateway(), Wire::Json).await.map(|_| OK.to_owned());
    }
    let mut token = cast.token(caller)?;
    if route.path == "/v1/sessions/current" && is_logged_in(caller) {
        // Of a log-in of its own: the other operations need the session of the caller.
        token = Some(cast.world.log_in(cast.session(caller), "spare").await?.access_token);
    }
    let body = body(cast, stage, caller, route).await?;
    let target = target(cast, stage, caller, route);
    let answer = cast.world.http(route.method, &target, token.as_deref(), body).await?;
    match answer.status {
        200..300 => summary(route, &answer).map(str::to_owned),
        _ => answer.problem(),
    }
}

/// Whether the token of a caller is valid.
fn is_logged_in(caller: Caller) -> bool {
    !matches!(caller, Caller::Nobody | Caller::OtherApp | Caller::Expired | Caller::Revoked)
}

/// The path with its parameters, and the query.
fn target(cast: &Cast, stage: &Stage, caller: Caller, route: Route<'_>) -> String {
    let conversation = match route.path.starts_with("/v1/groups/") {
        true => stage.group_of(caller).to_owned(),
        false => stage.conversation(cast, caller),
    };
    let user = match (route.path, route.variant) {
        ("/v1/blocks/{user}", _) => &cast.newcomer.user,
        (_, "left") => &cast.session(caller).user,
        _ => &cast.guest.user,
    };
    let query = match route.path {
        _ if route.method != "GET" => String::new(),
        "/v1/conversations" => format!("?ids={conversation}"),
        "/v1/presence" | "/v1/profiles" => format!("?users={}", cast.owner.user),
        _ => String::new(),
    };
    let path =
        route.path.replace("{conversation}", &conversation).replace("{user}", user).replace("{seq}", "1");
    path + &query
}

/// The body of a request; `None` if it has none.
async fn body(cast: &mut Cast, stage: &Stage, caller: Caller, route: Route<'_>) -> Result<Option<Value>> {
    // The user who has blocked the caller, or somebody else.
    let other = match caller {
        Caller::Blocked => &cast.owner.user,
        _ => &cast.newcomer.user,
    };
    Ok(Some(match (route.method, route.path, route.variant) {
        ("GET" | "DELETE", ..) | ("PUT", "/v1/blocks/{user}", _) => return Ok(None),
        ("POST", "/v1/accounts", _) => {
            json!({ "user": format!("new-{}", unique()), "password": PASSWORD, "device": "phone" })
        }
        ("POST", "/v1/sessions", _) => {
            let user = match caller {
                Caller::Nobody => "nobody-there",
                _ => &cast.session(caller).user,
            };
            json!({ "user": user, "password": PASSWORD, "device": "spare" })
        }
        ("POST", "/v1/sessions/refresh", _) => json!({ "refresh_token": cast.refresh_token(caller) }),
        ("POST", _, "created") => json!({ "name": "friends", "members": [other] }),
        ("POST", _, "added") => json!({ "users": [other] }),
        ("PATCH", _, "renamed") => json!({ "name": "enemies" }),
        ("PUT", _, "owner_changed") => json!({ "user": cast.guest.user }),
        ("POST", "/v1/conversations/{conversation}/entries", kind) => {
            without_conversation(serde_json::to_value(send(cast, stage, caller, kind).await?)?)
        }
        ("POST", "/v1/conversations/{conversation}/signals", kind) => {
            without_conversation(serde_json::to_value(signal(cast, stage, caller, kind)?)?)
        }
        ("PUT", "/v1/conversations/{conversation}/read", _) => json!({ "conversationSeq": 1 }),
        ("PATCH", "/v1/conversations/{conversation}/settings", _) => json!({ "archived": true }),
        ("PUT", "/v1/presence", _) => json!({ "text": "at lunch" }),
        ("PUT", "/v1/profile", _) => json!({ "name": "somebody" }),
        (method, path, variant) => bail!("the matrix has no body for {method} {path} {variant}"),
    }))
}

/// The path names the conversation.
fn without_conversation(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.remove("conversation");
    }
    body
}

/// Whether a list that the caller asked for is empty.
fn summary(route: Route<'_>, answer: &Answer) -> Result<&'static str> {
    let list = match (route.method, route.path) {
        ("GET", "/v1/conversations") => "heads",
        ("GET", "/v1/conversations/{conversation}/entries") => "entries",
        ("GET", "/v1/presence") => "presences",
        ("GET", "/v1/profiles") => "profiles",
        _ => return Ok(OK),
    };
    let found = answer.json()?;
    let found = found.as_object().with_context(|| format!("not an object: {answer:?}"))?;
    let is_empty = found.get(list).and_then(Value::as_array).is_none_or(Vec::is_empty);
    Ok(if is_empty { NOTHING } else { OK })
}
