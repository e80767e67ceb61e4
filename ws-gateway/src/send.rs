//! Sends an entry of a device to the log. The ack is queued in the outbox when the log has the entry durably.

use crate::{
    backend::Backend,
    draft::draft,
    entry_log::{NewEntry, not_logged},
    hub::{Connection, Identity},
    metrics,
    outbox::{Outgoing, SendId},
    recent_acks::Key,
    trace,
};
use abi::{
    ApiError,
    ids::Conversation,
    v1::{Ack, Entry, Send},
};
use cache::Logged;
use kafka_runtime::Position;
use tokio::{sync::oneshot, time::Instant};
use utils::trace::Kind;

/// Checks a message and queues it for the log. Messages of one connection reach the log in the order of these calls.
///
/// # Errors
/// The error for the device. The message was then not queued.
pub async fn send(
    backend: &Backend,
    connection: &Connection,
    id: SendId,
    send: Send,
) -> Result<(), ApiError> {
    let (new, checked) = check(backend, &connection.identity, send).await?;
    let (ack, outbox) = (ack(&new.entry), connection.outbox.clone());
    let key = Key::new(&ack.message_id);
    if let Some(ack) = repeated(backend, key, &ack) {
        outbox.push(Outgoing::Sent { id, result: Ok(ack) });
        return Ok(());
    }
    if connection.outbox.has_refusal() {
        return Err(ApiError::unavailable(
            "the log did not accept an earlier message; send both again, in order",
        ));
    }
    log(backend, new, checked, key, move |logged| match logged {
        Ok(()) => outbox.push(Outgoing::Sent { id, result: Ok(ack) }),
        Err(error) => outbox.push_refusal(id, error),
    })
}

/// Checks a message, writes it to the log, and returns when the log has it durably.
///
/// # Errors
/// The error for the client.
pub async fn send_and_wait(backend: &Backend, identity: &Identity, send: Send) -> Result<Ack, ApiError> {
    let (new, checked) = check(backend, identity, send).await?;
    let (ack, (sender, receiver)) = (ack(&new.entry), oneshot::channel());
    let key = Key::new(&ack.message_id);
    if let Some(ack) = repeated(backend, key, &ack) {
        return Ok(ack);
    }
    log(backend, new, checked, key, move |logged| {
        // The caller may have given up.
        let _ = sender.send(logged);
    })?;
    let lost = |_| ApiError::unavailable("the server stopped; send it again with the same client_msg_id");
    receiver.await.map_err(lost)?.map(|()| ack)
}

/// Checks an edit, a recall or a reaction, and makes it.
///
/// # Errors
/// The error for the device.
pub async fn change(backend: &Backend, identity: &Identity, send: Send) -> Result<Ack, ApiError> {
    metrics::sent();
    backend.rate_limits().send(&identity.user)?;
    let draft = draft(send, backend.limits().max_body)?;
    // The store knows members and not blocks, which concern direct conversations only.
    let conversation = Conversation::parse(&draft.conversation)?;
    if let Conversation::Direct(..) = conversation {
        backend.permissions().check_send(&identity.user, conversation).await?;
    }
    let entry = backend.entry_changes().apply(identity, draft).await?;
    metrics::acknowledged();
    let ack = ack(&entry);
    let key = Key::new(&ack.message_id);
    if let Some(first) = repeated(backend, key, &ack) {
        return Ok(first);
    }
    backend.recent_acks().add(key, ack.sent_at_ms);
    Ok(ack)
}

/// The ack of the first attempt, if the entry was acknowledged recently.
fn repeated(backend: &Backend, key: Key, ack: &Ack) -> Option<Ack> {
    let sent_at_ms = backend.recent_acks().sent_at_ms(key)?;
    Some(Ack { sent_at_ms, ..ack.clone() })
}

/// The ack of an entry.
fn ack(entry: &Entry) -> Ack {
    Ack {
        message_id: entry.message_id.clone(),
        sent_at_ms: entry.sent_at_ms,
        client_msg_id: entry.client_msg_id.clone(),
    }
}

/// Checks a message, and makes its entry. Also returns when the check of the permission began.
async fn check(backend: &Backend, identity: &Identity, send: Send) -> Result<(NewEntry, Instant), ApiError> {
    metrics::sent();
    // First, so that refused messages count as well: checking them costs work.
    backend.rate_limits().send(&identity.user)?;
    let draft = draft(send, backend.limits().max_body)?;
    let conversation = Conversation::parse(&draft.conversation)?;
    let began = Instant::now();
    backend.permissions().check_send(&identity.user, conversation).await?;
    Ok((backend.entry_log().entry(identity, draft), began))
}

/// Queues a message for the log, whose check began at `checked`. `answer` is called once it is durable and may be acknowledged, or refused.
///
/// # Errors
/// The message was not queued. `answer` is then not called.
fn log(
    backend: &Backend,
    new: NewEntry,
    checked: Instant,
    key: Key,
    answer: impl FnOnce(Result<(), ApiError>) + std::marker::Send + 'static,
) -> Result<(), ApiError> {
    let spans = trace::begin("send", &new.entry);
    let logging = spans.children("log", Kind::Producer);
    let record = backend.entry_log().record(&new, &logging, None);
    let is_group = matches!(Conversation::parse(&new.entry.conversation), Ok(Conversation::Group(_)));
    let (recent_acks, sent_at_ms) = (backend.recent_acks().clone(), new.entry.sent_at_ms);
    let group = is_group.then(|| (backend.group_acks().clone(), new));
    let on_delivery = Box::new(move |delivered: Result<Position, _>| match delivered {
        Ok(position) => {
            trace::logged(logging, position);
            let answer = move |result: Result<(), ApiError>| {
                if result.is_ok() {
                    recent_acks.add(key, sent_at_ms);
                    metrics::acknowledged();
                    spans.finish();
                }
                answer(result);
            };
            match group {
                Some((group_acks, new)) => {
                    let message = Logged { partition: position.partition, checked };
                    group_acks.logged(new, message, Box::new(answer));
                }
                None => answer(Ok(())),
            }
        }
        Err(error) => answer(Err(not_logged(&error))),
    });
    backend.entry_log().enqueue(record, on_delivery)
}
