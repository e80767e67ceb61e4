use super::world::{APP, World, code, message, save_request};
use crate::sessions::MAX_LAG;
use abi::{
    error::ErrorCode,
    v1::{
        CreateSessionRequest, CreateUserRequest, GetSessionRequest, GetSigningKeysRequest, GetUserRequest,
        RevokeSessionRequest, RotateSessionRequest, SaveOutcome, SaveRequest, Session, SigningKeys, User,
    },
};
use tokio::task::JoinSet;

fn hash(token: u8) -> prost::bytes::Bytes {
    vec![token; 32].into()
}

fn session_request(id: &str, device: &str, token: u8) -> CreateSessionRequest {
    let session = Session {
        session: id.into(),
        app: APP.into(),
        user: "alice".into(),
        device: device.into(),
        ..Session::default()
    };
    CreateSessionRequest { session: Some(session), refresh_hash: hash(token) }
}

async fn open(world: &World, id: &str, device: &str, token: u8) -> Vec<String> {
    world.client().create_session(session_request(id, device, token)).await.unwrap().into_inner().revoked
}

/// Exchanges the token with a number for the one with the next number.
async fn rotate(world: &World, id: &str, number: u8) -> Result<Session, ErrorCode> {
    present(world, id, number, number.into()).await
}

fn rotation(id: &str, token: u8, number: u32) -> RotateSessionRequest {
    RotateSessionRequest {
        app: APP.into(),
        user: "alice".into(),
        session: id.into(),
        refresh_hash: hash(token),
        next_refresh_hash: hash(token + 1),
        number,
    }
}

/// Presents a token with a number that the caller has proven; 0 if it has not.
async fn present(world: &World, id: &str, token: u8, number: u32) -> Result<Session, ErrorCode> {
    match world.client().rotate_session(rotation(id, token, number)).await {
        Ok(session) => Ok(session.into_inner()),
        Err(status) => Err(code::<()>(Err(status))),
    }
}

fn get_session(user: &str, id: &str) -> GetSessionRequest {
    GetSessionRequest { app: APP.into(), user: user.into(), session: id.into(), with_generation: false }
}

async fn is_open(world: &World, id: &str) -> bool {
    match world.client().get_session(get_session("alice", id)).await {
        Ok(session) => session.into_inner().session == id,
        Err(status) => {
            assert_eq!(code::<()>(Err(status)), ErrorCode::NotFound);
            false
        }
    }
}

pub(super) async fn a_user_id_can_be_registered_once(world: &World) {
    world.users(&["alice"]).await;
    let get = |user: &str| GetUserRequest { app: APP.into(), user: user.into() };
    let user = world.client().get_user(get("alice")).await.unwrap().into_inner();
    assert_eq!(user, User { app: APP.into(), user: "alice".into(), password_hash: "$argon2id$x".into() });
    // A retry after a lost response. Hashes are salted, so the same hash means the same request.
    world.users(&["alice"]).await;
    let mut racers = JoinSet::new();
    for n in 0..8 {
        let mut client = if n % 2 == 0 { world.client() } else { world.other_client() };
        let user = User { app: APP.into(), user: "bob".into(), password_hash: format!("$hash${n}") };
        racers.spawn(async move {
            match client.create_user(CreateUserRequest { user: Some(user) }).await {
                Ok(_) => 1,
                Err(status) => {
                    assert_eq!(code::<()>(Err(status)), ErrorCode::AlreadyExists);
                    0
                }
            }
        });
    }
    assert_eq!(racers.join_all().await.iter().sum::<u32>(), 1);
    assert_eq!(code(world.client().get_user(get("carol")).await), ErrorCode::NotFound);
}

pub(super) async fn apps_are_isolated(world: &World) {
    world.users(&["alice"]).await;
    let in_other_app = GetUserRequest { app: "other".into(), user: "alice".into() };
    assert_eq!(code(world.client().get_user(in_other_app).await), ErrorCode::NotFound);
    let request = SaveRequest { app: "other".into(), ..save_request(&[message("d:a:b", "a", "1")]) };
    let results = world.client().save(request).await.unwrap().into_inner().results;
    assert_eq!(results[0].outcome(), SaveOutcome::Stored);
    assert_eq!(world.store(message("d:a:b", "a", "1")).await.conversation_seq, 1);
    assert_eq!(world.heads("a", "", 0).await.0.len(), 1);
    assert_eq!(world.query("SELECT count(*) FROM conversations").await, 2);
}

pub(super) async fn a_device_has_one_session(world: &World) {
    assert!(open(world, "s1", "phone", 1).await.is_empty());
    assert!(open(world, "s1", "phone", 1).await.is_empty(), "a retry changes nothing");
    assert_eq!(
        code(world.client().create_session(session_request("s1", "phone", 2)).await),
        ErrorCode::AlreadyExists
    );
    assert_eq!(
        code(world.client().create_session(session_request("s1", "tablet", 1)).await),
        ErrorCode::AlreadyExists
    );
    assert!(open(world, "s2", "tablet", 2).await.is_empty());
    assert_eq!(open(world, "s3", "phone", 3).await, ["s1"]);
    assert!(!is_open(world, "s1").await && is_open(world, "s2").await && is_open(world, "s3").await);
    for _ in 0..2 {
        let revoke = RevokeSessionRequest { app: APP.into(), user: "alice".into(), session: "s2".into() };
        world.client().revoke_session(revoke).await.unwrap();
        assert!(!is_open(world, "s2").await);
    }
    assert_eq!(rotate(world, "s2", 2).await, Err(ErrorCode::Unauthenticated));
    assert_eq!(rotate(world, "s1", 1).await, Err(ErrorCode::Unauthenticated));
    let mut racers = JoinSet::new();
    for n in 0..8_u8 {
        let mut client = if n % 2 == 0 { world.client() } else { world.other_client() };
        racers.spawn(async move {
            client.create_session(session_request(&format!("r{n}"), "watch", n)).await.unwrap()
        });
    }
    racers.join_all().await;
    assert_eq!(world.query("SELECT count(*) FROM sessions WHERE device = 'watch'").await, 1);
}

pub(super) async fn p8_sessions_belong_to_their_user(world: &World) {
    open(world, "s1", "phone", 1).await;
    let mut of_bob = session_request("s1", "phone", 1);
    of_bob.session.as_mut().unwrap().user = "bob".into();
    let revoked = world.client().create_session(of_bob).await.unwrap().into_inner().revoked;
    assert!(revoked.is_empty(), "two users may have sessions with one id");
    let revoke = RevokeSessionRequest { app: APP.into(), user: "bob".into(), session: "s1".into() };
    world.client().revoke_session(revoke).await.unwrap();
    assert!(is_open(world, "s1").await);
    for request in
        [get_session("bob", "s1"), GetSessionRequest { app: "other".into(), ..get_session("alice", "s1") }]
    {
        assert_eq!(code(world.client().get_session(request).await), ErrorCode::NotFound);
    }
}

pub(super) async fn the_previous_token_is_accepted_until_its_successor_is_used(world: &World) {
    open(world, "s1", "phone", 1).await;
    for _ in 0..3 {
        assert_eq!(rotate(world, "s1", 1).await.unwrap().device, "phone");
    }
    assert_eq!(rotate(world, "s1", 2).await.unwrap().user, "alice");
    assert_eq!(rotate(world, "s1", 1).await, Err(ErrorCode::Unauthenticated));
    assert!(!rotate(world, "s1", 2).await.unwrap().ended, "its successor was not used");
    assert!(!rotate(world, "s1", 3).await.unwrap().ended);
    assert!(is_open(world, "s1").await);
}

pub(super) async fn p8_a_very_old_refresh_token_ends_the_session(world: &World) {
    open(world, "s1", "phone", 1).await;
    let last = u8::try_from(MAX_LAG).unwrap() + 1;
    for number in 1..last {
        rotate(world, "s1", number).await.unwrap();
    }
    assert_eq!(rotate(world, "s1", 1).await, Err(ErrorCode::Unauthenticated));
    assert!(!rotate(world, "s1", last).await.unwrap().ended, "the refusal changed nothing");
    let ended = rotate(world, "s1", 1).await.unwrap();
    assert_eq!((ended.ended, &*ended.session, &*ended.user), (true, "s1", "alice"));
    assert!(!is_open(world, "s1").await);
    assert_eq!(
        rotate(world, "s1", last + 1).await,
        Err(ErrorCode::Unauthenticated),
        "the newest token is invalid too"
    );
}

pub(super) async fn p8_an_invented_token_does_not_end_the_session(world: &World) {
    open(world, "s1", "phone", 1).await;
    for number in 1..=u8::try_from(MAX_LAG).unwrap() + 1 {
        rotate(world, "s1", number).await.unwrap();
    }
    // An invented token has no proven number.
    assert_eq!(present(world, "s1", 200, 0).await, Err(ErrorCode::Unauthenticated));
    assert!(is_open(world, "s1").await);
}

pub(super) async fn concurrent_exchanges_of_a_token_count_once(world: &World) {
    open(world, "s1", "phone", 1).await;
    for token in 1..=3 {
        let mut racers = JoinSet::new();
        for n in 0..8 {
            let mut client = if n % 2 == 0 { world.client() } else { world.other_client() };
            racers.spawn(async move {
                client.rotate_session(rotation("s1", token, token.into())).await.unwrap().into_inner()
            });
        }
        assert!(racers.join_all().await.iter().all(|session| !session.ended));
    }
    rotate(world, "s1", 4).await.unwrap();
}

pub(super) async fn all_instances_share_one_signing_key(world: &World) {
    let mut racers = JoinSet::new();
    for n in 0..8 {
        let mut client = if n % 2 == 0 { world.client() } else { world.other_client() };
        racers.spawn(
            async move { client.get_signing_keys(GetSigningKeysRequest {}).await.unwrap().into_inner() },
        );
    }
    let keys: Vec<SigningKeys> = racers.join_all().await;
    assert!(keys.iter().all(|found| *found == keys[0]));
    assert_eq!((keys[0].keys.len(), keys[0].keys[0].secret.len()), (1, 32));
    assert_eq!(world.query("SELECT count(*) FROM signing_keys").await, 1);
}

pub(super) async fn invalid_accounts_and_sessions_are_refused(world: &World) {
    for (user, hash) in [("", "x"), ("a b", "x"), ("\0", "x"), ("a", "\0"), ("a", &*"x".repeat(513))] {
        let user = User { app: APP.into(), user: user.into(), password_hash: hash.into() };
        let answer = world.client().create_user(CreateUserRequest { user: Some(user) }).await;
        assert_eq!(code(answer), ErrorCode::InvalidRequest);
    }
    for id in ["", "a/b", &*"x".repeat(65)] {
        let answer = world.client().create_session(session_request(id, "phone", 1)).await;
        assert_eq!(code(answer), ErrorCode::InvalidRequest);
        let answer = world.client().get_session(get_session("alice", id)).await;
        assert_eq!(code(answer), ErrorCode::InvalidRequest);
    }
    let mut short = session_request("s", "phone", 1);
    short.refresh_hash = vec![1; 31].into();
    assert_eq!(code(world.client().create_session(short).await), ErrorCode::InvalidRequest);
}
