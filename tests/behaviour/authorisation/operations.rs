//! Performs the operations of the matrix: those of the WebSocket here, those of HTTP by [`super::http`].

use super::{
    Caller,
    cast::{Cast, Stage},
    catalogue::{CUSTOM, REPLY},
    http::{Route, http},
};
use abi::{
    ApiError,
    envelope::{EDIT, GROUP, MESSAGE, REACTION, RECALL},
    error::ErrorCode,
    v1::{
        Block, CustomSignal, Delivered, GetBlocks, GetChanges, GetHeads, GetHistory, GetProfiles, GetReaders,
        Hello, MarkRead, Ping, Presence, Profile, Send, SetSettings, Signal, Typing, WatchPresence,
        client_frame::Frame, server_frame, signal::Kind,
    },
};
use anyhow::{Context as _, Result, bail};
use tests::device::{Closed, Device, Wire, content, new_id};

pub(super) const OK: &str = "ok";
pub(super) const NOTHING: &str = "nothing";

/// Performs an operation as a caller. The result is the answer as the matrix writes it.
pub(super) async fn perform(
    cast: &mut Cast,
    stage: &Stage,
    caller: Caller,
    operation: &str,
) -> Result<String> {
    match operation.split_whitespace().collect::<Vec<_>>()[..] {
        [method, path] if path.starts_with('/') => {
            http(cast, stage, caller, Route { method, path, variant: "" }).await
        }
        [method, path, variant] => http(cast, stage, caller, Route { method, path, variant }).await,
        ["hello"] => over_websocket(cast, caller, None).await,
        [name] => {
            let frame = frame(cast, stage, caller, name)?;
            over_websocket(cast, caller, Some(frame)).await
        }
        ["send", kind] => {
            let frame = Frame::Send(send(cast, stage, caller, kind).await?);
            over_websocket(cast, caller, Some(frame)).await
        }
        ["signal", kind] => {
            let frame = Frame::Signal(signal(cast, stage, caller, kind)?);
            over_websocket(cast, caller, Some(frame)).await
        }
        _ => bail!("{operation} is not an operation"),
    }
}

/// A frame that is neither `send` nor `signal`.
fn frame(cast: &Cast, stage: &Stage, caller: Caller, name: &str) -> Result<Frame> {
    let conversation = stage.conversation(cast, caller);
    let owner = || vec![cast.owner.user.clone()];
    Ok(match name {
        "ping" => Frame::Ping(Ping {}),
        "changes" => Frame::Changes(GetChanges::default()),
        "heads" => Frame::Heads(GetHeads { conversations: vec![conversation] }),
        "history" => Frame::History(GetHistory { conversation, ..GetHistory::default() }),
        "read" => Frame::Read(MarkRead { conversation, conversation_seq: 1 }),
        "readers" => {
            Frame::Readers(GetReaders { conversation, conversation_seq: 1, ..GetReaders::default() })
        }
        "settings" => {
            Frame::Settings(SetSettings { conversation, archived: Some(true), ..SetSettings::default() })
        }
        "watch" => Frame::Watch(WatchPresence { users: owner() }),
        "profiles" => Frame::Profiles(GetProfiles { users: owner() }),
        "profile" => Frame::Profile(Profile { name: "somebody".into(), ..Profile::default() }),
        "block" => Frame::Block(Block { user: cast.newcomer.user.clone(), blocked: true }),
        "blocks" => Frame::Blocks(GetBlocks::default()),
        _ => bail!("the matrix cannot send the frame {name}"),
    })
}

pub(super) async fn send(cast: &mut Cast, stage: &Stage, caller: Caller, kind: &str) -> Result<Send> {
    let plain =
        Send { conversation: stage.conversation(cast, caller), client_msg_id: new_id(), ..Send::default() };
    let written = Send { content: Some(content("hello")), ..plain.clone() };
    Ok(match kind {
        MESSAGE => written,
        REPLY => Send { refers_to: cast.target(stage, caller).await?, ..written },
        EDIT => Send { kind: kind.into(), refers_to: cast.target(stage, caller).await?, ..written },
        RECALL => Send { kind: kind.into(), refers_to: cast.target(stage, caller).await?, ..plain },
        REACTION => {
            let refers_to = cast.target(stage, caller).await?;
            Send { kind: kind.into(), refers_to, reactions: vec!["+1".into()], ..plain }
        }
        CUSTOM => Send { kind: "acme.order".into(), ..plain },
        GROUP => Send { kind: kind.into(), ..plain },
        _ => bail!("the matrix cannot send an entry of kind {kind}"),
    })
}

pub(super) fn signal(cast: &Cast, stage: &Stage, caller: Caller, kind: &str) -> Result<Signal> {
    let signalled = match kind {
        "typing" => Kind::Typing(Typing::default()),
        "delivered" => Kind::Delivered(Delivered { conversation_seq: 1 }),
        "custom" => Kind::Custom(CustomSignal { kind: "acme.call".into(), ..CustomSignal::default() }),
        "presence" => Kind::Presence(Presence { text: "at lunch".into(), ..Presence::default() }),
        _ => bail!("the matrix cannot send a signal of kind {kind}"),
    };
    let conversation = match signalled {
        Kind::Presence(_) => String::new(),
        _ => stage.conversation(cast, caller),
    };
    Ok(Signal { conversation, kind: Some(signalled), ..Signal::default() })
}

/// Sends `hello` with the token of the caller if there is one, and then the frame, without waiting between the two.
async fn over_websocket(cast: &Cast, caller: Caller, frame: Option<Frame>) -> Result<String> {
    let mut device = Device::open(cast.world.gateway(), Wire::Proto).await?;
    let token = cast.token(caller)?;
    // Without a frame `hello` is the operation: nobody sends it as well, with an empty token.
    let hello = (token.is_some() || frame.is_none())
        .then(|| Frame::Hello(Hello { token: token.unwrap_or_default(), ..Hello::default() }));
    let ids = device.pipeline(hello.into_iter().chain(frame)).await?;
    let mut answer = OK;
    for id in ids {
        answer = match device.answer(id).await {
            Ok(frame) => summary(&frame),
            Err(error) => return refusal(error).map(|code| code.name().to_owned()),
        };
    }
    Ok(answer.to_owned())
}

/// The code of an error frame, or of the close frame after which there are no more answers.
fn refusal(error: anyhow::Error) -> Result<ErrorCode> {
    match (error.downcast_ref::<ApiError>(), error.downcast_ref::<Closed>()) {
        (Some(error), _) => Ok(error.code),
        (_, Some(Closed { code: Some(code), .. })) => {
            ErrorCode::from_close(*code).with_context(|| format!("closed with {code}"))
        }
        _ => Err(error),
    }
}

fn summary(answer: &server_frame::Frame) -> &'static str {
    match answer {
        server_frame::Frame::Heads(found) if found.heads.is_empty() => NOTHING,
        server_frame::Frame::Presences(found) if found.presences.is_empty() => NOTHING,
        server_frame::Frame::History(found) if found.entries.is_empty() => NOTHING,
        server_frame::Frame::Profiles(found) if found.profiles.is_empty() => NOTHING,
        _ => OK,
    }
}
