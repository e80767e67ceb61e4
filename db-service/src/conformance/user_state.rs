use super::world::{APP, World, code, message};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{
        Block, Blocks, ChangeBlockRequest, ChangeSettingsRequest, ConversationSettings, FindBlockersRequest,
        GetBlocks, GetBlocksRequest, GetProfilesRequest, PresencePrivacy, Profile, ReplaceProfileRequest,
        SetSettings,
    },
};
use tonic::Status;

async fn change_settings(
    world: &World,
    user: &str,
    change: SetSettings,
) -> Result<ConversationSettings, Status> {
    let request = ChangeSettingsRequest { app: APP.into(), user: user.into(), change: Some(change) };
    Ok(world.client().change_settings(request).await?.into_inner())
}

async fn block(world: &World, user: &str, other: &str, blocked: bool) -> Result<(), Status> {
    let block = Some(Block { user: other.into(), blocked });
    let request = ChangeBlockRequest { app: APP.into(), user: user.into(), block };
    world.client().change_block(request).await.map(drop)
}

async fn blocks(world: &World, user: &str, after: &str, limit: i32) -> Blocks {
    let page = Some(GetBlocks { after: after.into(), limit });
    let request = GetBlocksRequest { app: APP.into(), user: user.into(), page };
    world.client().get_blocks(request).await.unwrap().into_inner()
}

async fn blockers(world: &World, blocked: &str, by: &[&str]) -> Vec<String> {
    let by = by.iter().map(|user| (*user).to_owned()).collect();
    let request = FindBlockersRequest { app: APP.into(), blocked: blocked.into(), by };
    let mut by = world.client().find_blockers(request).await.unwrap().into_inner().by;
    by.sort();
    by
}

async fn replace_profile(world: &World, profile: &Profile) -> Result<(), Status> {
    let request = ReplaceProfileRequest { app: APP.into(), profile: Some(profile.clone()) };
    world.client().replace_profile(request).await.map(drop)
}

async fn profiles(world: &World, app: &str, users: &[&str]) -> Vec<Profile> {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    let request = GetProfilesRequest { app: app.into(), users };
    world.client().get_profiles(request).await.unwrap().into_inner().profiles
}

pub(super) async fn p5_settings_change_one_by_one_and_are_part_of_heads(world: &World) {
    world.store(message("d:a:b", "a", "1")).await;
    world.store(message("d:a:c", "a", "1")).await;
    let change = |change| change_settings(world, "a", SetSettings { conversation: "d:b:a".into(), ..change });
    let muted =
        SetSettings { muted_until_ms: Some(7), draft: Some("not yet".into()), ..SetSettings::default() };
    let mut expected = ConversationSettings {
        muted_until_ms: 7,
        draft: "not yet".into(),
        ..ConversationSettings::default()
    };
    assert_eq!(change(muted.clone()).await.unwrap(), expected);
    assert_eq!(change(muted).await.unwrap(), expected, "idempotent");
    let flags = SetSettings {
        pinned: Some(true),
        archived: Some(true),
        marked_unread: Some(true),
        ..SetSettings::default()
    };
    (expected.pinned, expected.archived, expected.marked_unread) = (true, true, true);
    assert_eq!(change(flags).await.unwrap(), expected);
    let undone = SetSettings { pinned: Some(false), draft: Some(String::new()), ..SetSettings::default() };
    (expected.pinned, expected.draft) = (false, String::new());
    assert_eq!(change(undone).await.unwrap(), expected);
    assert_eq!(change(SetSettings::default()).await.unwrap(), expected, "nothing to change");
    let (heads, _) = world.heads("a", "", 10).await;
    let settings: Vec<_> = heads.into_iter().map(|head| (head.conversation, head.settings)).collect();
    assert_eq!(settings, [("d:a:b".into(), Some(expected)), ("d:a:c".into(), None)]);
    assert_eq!(world.head("b", "d:a:b").await.settings, None, "others don't see them");
}

pub(super) async fn p8_settings_need_a_conversation_of_the_user(world: &World) {
    world.store(message("d:a:b", "a", "1")).await;
    let pin = |conversation: &str| SetSettings {
        conversation: conversation.into(),
        pinned: Some(true),
        ..SetSettings::default()
    };
    for (user, conversation, expected) in [
        ("eve", "d:a:b", ErrorCode::Forbidden),
        ("eve", "d:x:y", ErrorCode::Forbidden),
        ("eve", "g:1", ErrorCode::Forbidden),
        ("eve", "d:a:eve", ErrorCode::NotFound),
        ("eve", "nowhere", ErrorCode::InvalidRequest),
    ] {
        assert_eq!(code(change_settings(world, user, pin(conversation)).await), expected, "{conversation}");
    }
    let too_long = SetSettings { draft: Some("x".repeat(4097)), ..pin("d:a:b") };
    assert_eq!(code(change_settings(world, "a", too_long).await), ErrorCode::InvalidRequest);
    assert_eq!(world.query("SELECT count(*) FROM settings").await, 0);
}

pub(super) async fn p8_blocks_are_listed_and_found(world: &World) {
    world.users(&["a", "b", "c", "d"]).await;
    for other in ["c", "b", "d", "b"] {
        block(world, "a", other, true).await.unwrap();
    }
    block(world, "b", "c", true).await.unwrap();
    assert_eq!(blocks(world, "a", "", 2).await, Blocks { users: vec!["b".into(), "c".into()], more: true });
    assert_eq!(blocks(world, "a", "c", 2).await, Blocks { users: vec!["d".into()], more: false });
    assert_eq!(blockers(world, "c", &["a", "b", "d", "nobody"]).await, ["a", "b"]);
    assert!(blockers(world, "a", &["a", "b", "c", "d"]).await.is_empty());
    for _ in 0..2 {
        block(world, "a", "c", false).await.unwrap();
    }
    assert_eq!(blocks(world, "a", "", 10).await.users, ["b", "d"]);
    assert_eq!(blockers(world, "c", &["a", "b"]).await, ["b"]);
    assert_eq!(code(block(world, "a", "nobody", true).await), ErrorCode::NotFound);
    assert_eq!(code(block(world, "a", "a", true).await), ErrorCode::InvalidRequest);
    block(world, "a", "nobody", false).await.unwrap();
    let many = FindBlockersRequest { app: APP.into(), blocked: "a".into(), by: vec!["b".into(); 1_001] };
    assert_eq!(code(world.client().find_blockers(many).await), ErrorCode::InvalidRequest);
}

pub(super) async fn p7_a_user_can_block_a_limited_number_of_users(world: &World) {
    world.users(&["a", "u1", "last", "beyond"]).await;
    world
        .execute(
            "INSERT INTO blocks (app, user_id, blocked)
             WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999)
             SELECT 'default', 'a', 'u' || n FROM numbers",
        )
        .await;
    block(world, "a", "last", true).await.unwrap();
    let error = ApiError::from(block(world, "a", "beyond", true).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert!(error.message.contains("1000"), "{}", error.message);
    block(world, "a", "last", true).await.unwrap();
    block(world, "a", "u1", false).await.unwrap();
    // Two instances at once: one of the last places is left.
    world.users(&["one", "two"]).await;
    let (mut first, mut second) = (world.client(), world.other_client());
    let request = |other: &str| ChangeBlockRequest {
        app: APP.into(),
        user: "a".into(),
        block: Some(Block { user: other.into(), blocked: true }),
    };
    let (one, two) = tokio::join!(first.change_block(request("one")), second.change_block(request("two")));
    assert_ne!(one.is_ok(), two.is_ok());
    let blocked = "SELECT count(*) FROM blocks WHERE blocked IN ('last', 'one', 'two')";
    assert_eq!(world.query(blocked).await, 2);
}

pub(super) async fn profiles_are_replaced_as_a_whole(world: &World) {
    world.users(&["a", "b"]).await;
    let profile = Profile {
        user: "a".into(),
        name: "Ada".into(),
        avatar_url: "https://example.org/a.png".into(),
        custom: [("title".into(), "Countess".into())].into(),
        privacy: PresencePrivacy::Nobody.into(),
    };
    for _ in 0..2 {
        replace_profile(world, &profile).await.unwrap();
    }
    let empty = |user: &str| Profile { user: user.into(), ..Profile::default() };
    let found = profiles(world, APP, &["b", "nobody", "a"]).await;
    assert_eq!(found, [empty("b"), profile.clone()], "those who exist, in the order of the request");
    assert!(profiles(world, "other", &["a"]).await.is_empty());
    assert!(profiles(world, APP, &[]).await.is_empty());
    replace_profile(world, &empty("a")).await.unwrap();
    assert_eq!(profiles(world, APP, &["a"]).await, [empty("a")]);
    let nobody = Profile { user: "nobody".into(), ..profile.clone() };
    assert_eq!(code(replace_profile(world, &nobody).await), ErrorCode::NotFound);
    let invalid = Profile { avatar_url: "ftp://example.org".into(), ..profile };
    assert_eq!(code(replace_profile(world, &invalid).await), ErrorCode::InvalidRequest);
    let many = GetProfilesRequest { app: APP.into(), users: vec!["a".into(); 1_001] };
    assert_eq!(code(world.client().get_profiles(many).await), ErrorCode::InvalidRequest);
}
