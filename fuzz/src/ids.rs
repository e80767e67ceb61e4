//! Ids from people, devices and paths.

use abi::{
    ids::{self, Conversation, MAX_ID},
    names, record,
};
use kafka_runtime::{LetterId, dead_letters::Ends};

/// The input is an id of any kind.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    conversation(text);
    name(text);
    match ids::check_id("user", text) {
        Ok(()) => {
            assert!((1..=MAX_ID).contains(&text.len()) && text.is_ascii());
            let own = ids::direct(text, text);
            let parsed = Conversation::parse(&own).expect("a user can write to themselves");
            assert_eq!(parsed.direct_members().collect::<Vec<_>>(), [text]);
        }
        Err(error) => crate::check_error(&error),
    }
    match ids::check_client_msg_id(text) {
        Ok(()) => {
            assert!(text.len() <= MAX_ID && !text.contains(|c: char| c.is_whitespace() || c.is_control()))
        }
        Err(error) => crate::check_error(&error),
    }
    if let Some(bytes) = ids::message_bytes(text) {
        assert_eq!(ids::hex(&bytes), text);
    }
    message(text);
    server(text);
    dead_letter(text);
}

fn conversation(text: &str) {
    match Conversation::parse(text) {
        Ok(parsed) => {
            let normal = parsed.to_string();
            assert_eq!(normal.len(), text.len());
            assert_eq!(
                Conversation::parse(&normal),
                Ok(parsed),
                "the normal form names another conversation"
            );
            if let Conversation::Direct(a, b) = parsed {
                assert!(a <= b);
                assert_eq!(normal, ids::direct(b, a));
                assert_eq!(parsed.has_direct_member(a), Some(true));
            }
        }
        Err(error) => crate::check_error(&error),
    }
}

/// The name of a group.
fn name(text: &str) {
    match names::check("name", text, abi::MAX_GROUP_NAME) {
        Ok(name) => {
            assert!((1..=abi::MAX_GROUP_NAME).contains(&name.chars().count()));
            let is_control =
                |character: char| character.is_control() || names::is_direction_control(character);
            assert!(!name.contains(is_control), "{name:?}");
            assert_eq!(names::check("name", &name, abi::MAX_GROUP_NAME).as_ref(), Ok(&name));
        }
        Err(error) => crate::check_error(&error),
    }
}

/// Message ids can be derived from any texts.
fn message(text: &str) {
    let (first, second) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let id = ids::message("default", first, second, "phone", text);
    assert!(ids::message_bytes(&id).is_some());
    assert_eq!(id, ids::message("default", first, second, "phone", text));
    assert_ne!(id[12..], ids::message("default", first, &format!("{second}+"), "phone", text)[12..]);
    assert!(Conversation::parse(&ids::group("default", first, second)).is_ok());
}

/// Ids and ranges of dead letters, from an operator.
fn dead_letter(text: &str) {
    if let Ok(id) = text.parse::<LetterId>() {
        assert_eq!(id.to_string().parse::<LetterId>().ok(), Some(id));
    }
    if let Ok(ends) = text.parse::<Ends>() {
        let shown = ends.to_string();
        assert_eq!(shown.parse::<Ends>().map(|again| again.to_string()).ok(), Some(shown));
    }
    if let Some((app, conversation)) = record::split_key(text.as_bytes()) {
        assert_eq!(record::key(app, conversation), text);
    }
}

/// The address of a server, from a user of the client.
fn server(text: &str) {
    match client::Server::parse(text) {
        Ok(server) => {
            let again = client::Server::parse(server.url()).expect("the normal form is an address");
            assert_eq!(again, server);
            assert!(server.websocket().starts_with("ws"));
            assert!(!server.host_port().0.is_empty());
        }
        Err(error) => assert!(error.to_string().contains(text)),
    }
}
