use super::*;
use crate::consumer::HandlerError;
use crate::record::{Message, Record};
use proptest::prelude::*;
use prost::Name;
use serde::Deserialize;
use tower::{Layer, ServiceExt, service_fn};

#[derive(Clone, PartialEq, Serialize, Deserialize, prost::Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(uint32, tag = "2")]
    count: u32,
}

impl Name for Note {
    const NAME: &'static str = "Note";
    const PACKAGE: &'static str = "test.v1";
}

#[derive(Clone, PartialEq, prost::Message)]
struct Other {}

impl Name for Other {
    const NAME: &'static str = "Other";
    const PACKAGE: &'static str = "test.v1";
}

fn round_trip<T: PartialEq + std::fmt::Debug>(codec: impl Codec<T>, value: &T) {
    let payload = codec.encode(value).unwrap();
    assert_eq!(codec.decode(&payload).unwrap(), *value);
}

proptest! {
    #[test]
    fn values_survive_a_round_trip(text in ".*", count in any::<u32>(), raw in any::<Vec<u8>>()) {
        let note = Note { text, count };
        round_trip(Json, &note);
        round_trip(Protobuf, &note);
        round_trip(Raw, &Bytes::from(raw));
        let envelope = Envelope::seal(&note);
        round_trip(Protobuf, &envelope);
        prop_assert_eq!(envelope.open::<Note>().unwrap(), note);
    }

    #[test]
    fn arbitrary_bytes_do_not_make_a_codec_panic(bytes in any::<Vec<u8>>()) {
        let bytes = Bytes::from(bytes);
        let _ = Codec::<Note>::decode(&Json, &bytes);
        let _ = Codec::<Note>::decode(&Protobuf, &bytes);
        if let Ok(envelope) = Codec::<Envelope>::decode(&Protobuf, &bytes) {
            let _ = envelope.open::<Note>();
        }
    }
}

#[test]
fn an_envelope_opens_only_as_the_type_it_holds() {
    let envelope = Envelope::seal(&Note::default());
    assert_eq!(envelope.type_name(), "test.v1.Note");
    assert!(envelope.open::<Other>().is_err());
    assert!(Envelope::default().open::<Note>().is_err());
    assert_ne!(envelope.id, Envelope::seal(&Note::default()).id);
}

#[test]
fn an_error_does_not_quote_the_payload() {
    let payload = Bytes::from(r#"{"text": 7, "count": "secret"}"#);
    let error = Codec::<Note>::decode(&Json, &payload).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(!cause.contains("secret") && !cause.contains('7'), "{cause}");
}

fn message(payload: &'static str) -> Message {
    let (key, headers) = (Bytes::new(), Vec::new());
    let record = Record {
        topic: "t".into(),
        partition: 0,
        offset: 0,
        key,
        payload: payload.into(),
        headers,
        timestamp_ms: 0,
    };
    Message { record, attempt: 1 }
}

#[tokio::test]
async fn an_undecodable_payload_is_rejected_before_the_handler() {
    let handler = service_fn(|note: Decoded<Note>| async move { Ok::<_, HandlerError>(note.value.count) });
    let service = DecodeLayer::new(Json).layer(handler);
    assert_eq!(service.clone().oneshot(message(r#"{"text":"a","count":3}"#)).await.unwrap(), 3);
    let error = service.oneshot(message("{")).await.unwrap_err();
    assert!(!error.is_retryable());
}
