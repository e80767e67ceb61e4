//! The JSON of frames is proto3 JSON: a list of cases from [its specification](https://protobuf.dev/programming-guides/json/), and
//! a comparison with `prost-reflect`, an implementation that works from the descriptors.

use abi::v1::{
    ClientFrame, Deliver, GetHistory, GroupCreated, Head, ReceiverSeq, ServerFrame, client_frame::Frame,
};
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MapKey, MessageDescriptor, Value,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, sync::LazyLock};

/// Reads a message from JSON.
fn read<T: DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).ok()
}

fn write<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).expect("every message has a JSON form")
}

/// JSON values and the numbers that they are, for a type of integer. `None`: the value is refused.
type Integers<T> = [(&'static str, Option<T>)];

const U64: &Integers<u64> = &[
    ("1", Some(1)),
    (r#""1""#, Some(1)),
    ("1.0", Some(1)),
    ("1e0", Some(1)),
    (r#""1e0""#, Some(1)),
    (r#""1.0""#, Some(1)),
    ("1.5e1", Some(15)),
    ("1E+2", Some(100)),
    ("100e-2", Some(1)),
    ("0", Some(0)),
    ("-0", Some(0)),
    ("null", Some(0)),
    ("9007199254740993", Some(9_007_199_254_740_993)),
    (r#""9007199254740993""#, Some(9_007_199_254_740_993)),
    ("9007199254740992.0", Some(9_007_199_254_740_992)),
    ("18446744073709551615", Some(u64::MAX)),
    (r#""18446744073709551615""#, Some(u64::MAX)),
    ("18446744073709551616", None),
    (r#""18446744073709551616""#, None),
    // Beyond 2^53 a number with an exponent has lost digits.
    ("1e19", None),
    ("-1", None),
    (r#""-1""#, None),
    ("1.5", None),
    (r#""1.5""#, None),
    ("1e400", None),
    (r#""abc""#, None),
    (r#""""#, None),
    (r#"" 1""#, None),
    (r#""1 ""#, None),
    (r#""1\n""#, None),
    (r#""+1""#, None),
    (r#""01""#, None),
    (r#""0x1""#, None),
    (r#""1_000""#, None),
    (r#""NaN""#, None),
    (r#""Infinity""#, None),
    ("NaN", None),
    ("01", None),
    ("+1", None),
    ("true", None),
    ("[]", None),
    ("[1]", None),
    ("{}", None),
];

const I32: &Integers<i32> = &[
    ("2147483647", Some(i32::MAX)),
    ("-2147483648", Some(i32::MIN)),
    (r#""-2147483648""#, Some(i32::MIN)),
    ("-1.0", Some(-1)),
    (r#""-1e0""#, Some(-1)),
    ("null", Some(0)),
    ("2147483648", None),
    ("-2147483649", None),
    ("-0.5", None),
];

const U32: &Integers<u32> = &[
    ("4294967295", Some(u32::MAX)),
    ("4294967295.0", Some(u32::MAX)),
    ("null", Some(0)),
    ("4294967296", None),
    ("-1", None),
];

const I64: &Integers<i64> = &[
    ("9223372036854775807", Some(i64::MAX)),
    (r#""-9223372036854775808""#, Some(i64::MIN)),
    ("-1e3", Some(-1000)),
    ("null", Some(0)),
    ("9223372036854775808", None),
    (r#""9223372036854775808""#, None),
];

#[test]
fn integers_are_numbers_or_texts_and_may_have_an_exponent() {
    for (json, expected) in U64 {
        let page: Option<GetHistory> = read(&format!(r#"{{"after":{json}}}"#));
        assert_eq!(page.map(|page| page.after), *expected, "{json}");
    }
    for (json, expected) in I32 {
        let page: Option<GetHistory> = read(&format!(r#"{{"limit":{json}}}"#));
        assert_eq!(page.map(|page| page.limit), *expected, "{json}");
    }
    for (json, expected) in U32 {
        let frame: Option<ClientFrame> = read(&format!(r#"{{"id":{json}}}"#));
        assert_eq!(frame.map(|frame| frame.id), *expected, "{json}");
    }
    for (json, expected) in I64 {
        let head: Option<abi::v1::Ack> = read(&format!(r#"{{"sentAtMs":{json}}}"#));
        assert_eq!(head.map(|head| head.sent_at_ms), *expected, "{json}");
    }
}

#[test]
fn integers_of_64_bits_are_written_as_texts_and_others_as_numbers() {
    let page = GetHistory { after: u64::MAX, limit: -1, ..GetHistory::default() };
    assert_eq!(write(&page), r#"{"after":"18446744073709551615","limit":-1}"#);
    let ack = abi::v1::Ack { sent_at_ms: i64::MIN, ..abi::v1::Ack::default() };
    assert_eq!(write(&ack), r#"{"sentAtMs":"-9223372036854775808"}"#);
    assert_eq!(write(&ClientFrame { id: u32::MAX, frame: None }), r#"{"id":4294967295}"#);
}

#[test]
fn texts_and_truth_values_take_only_their_own_kind() {
    let conversation = |json: &str| {
        read::<GetHistory>(&format!(r#"{{"conversation":{json}}}"#)).map(|page| page.conversation)
    };
    assert_eq!(conversation(r#""a\u0000\n\ud83d\ude00\/é""#).as_deref(), Some("a\0\n😀/é"));
    assert_eq!(conversation("null").as_deref(), Some(""));
    for wrong in
        ["1", "true", "[]", "{}", r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, "\"\n\"", r#""\x""#]
    {
        assert_eq!(conversation(wrong), None, "{wrong}");
    }
    let newest = |json: &str| read::<GetHistory>(&format!(r#"{{"newest":{json}}}"#)).map(|page| page.newest);
    assert_eq!((newest("true"), newest("false"), newest("null")), (Some(true), Some(false), Some(false)));
    for wrong in ["1", "0", r#""true""#, "[]", "{}"] {
        assert_eq!(newest(wrong), None, "{wrong}");
    }
}

#[test]
fn bytes_are_read_from_both_alphabets_with_and_without_padding_and_written_in_one() {
    let data = |json: &str| {
        let frame = read::<ClientFrame>(&format!(r#"{{"send":{{"content":{{"data":{json}}}}}}}"#))?;
        let Some(Frame::Send(send)) = frame.frame else { return None };
        match send.content?.body? {
            abi::v1::content::Body::Data(data) => Some(data.to_vec()),
            abi::v1::content::Body::Text(_) => None,
        }
    };
    for json in [r#""+/8=""#, r#""+/8""#, r#""-_8=""#, r#""-_8""#] {
        assert_eq!(data(json), Some(vec![0xfb, 0xff]), "{json}");
    }
    assert_eq!(data(r#""""#), Some(Vec::new()));
    for wrong in [r#""+_8=""#, r#""a""#, r#""=""#, r#""+/ 8""#, r#""é""#, "1", "[]", "[1,2]", "{}"] {
        assert_eq!(data(wrong), None, "{wrong}");
    }
    let body = abi::v1::content::Body::Data(vec![0xfb, 0xff].into());
    let content = abi::v1::Content { body: Some(body), ..abi::v1::Content::default() };
    assert_eq!(write(&content), r#"{"data":"+/8="}"#);
}

#[test]
fn enums_are_names_or_numbers_and_keep_values_of_later_versions() {
    let role = |json: &str| read::<Head>(&format!(r#"{{"role":{json}}}"#)).map(|head| head.role);
    assert_eq!(role(r#""ROLE_OWNER""#), Some(2));
    assert_eq!(
        (role("2"), role("2.0"), role("null"), role("99"), role("-1")),
        (Some(2), Some(2), Some(0), Some(99), Some(-1))
    );
    for wrong in [
        r#""ROLE_KING""#,
        r#""role_owner""#,
        r#""OWNER""#,
        r#""2""#,
        r#""""#,
        "1.5",
        "2147483648",
        "true",
        "[]",
    ] {
        assert_eq!(role(wrong), None, "{wrong}");
    }
    assert_eq!(write(&Head { role: 2, ..Head::default() }), r#"{"role":"ROLE_OWNER"}"#);
    assert_eq!(write(&Head { role: 99, ..Head::default() }), r#"{"role":99}"#);
    assert_eq!(write(&Head::default()), "{}");
}

#[test]
fn lists_have_no_null_elements_and_null_is_an_empty_list() {
    let members = |json: &str| read::<GroupCreated>(&format!(r#"{{"members":{json}}}"#)).map(|it| it.members);
    assert_eq!(members(r#"["a","b"]"#), Some(vec!["a".into(), "b".into()]));
    assert_eq!((members("[]"), members("null")), (Some(vec![]), Some(vec![])));
    for wrong in ["[null]", r#"["a",null]"#, "[1]", r#"[["a"]]"#, r#""a""#, "{}", r#"["a""#, r#"["a",]"#] {
        assert_eq!(members(wrong), None, "{wrong}");
    }
    let error = serde_json::from_str::<GroupCreated>(r#"{"members":["a",7]}"#).unwrap_err().to_string();
    assert!(error.starts_with("`members[1]`: expected a text, got 7"), "{error}");
    let error = serde_json::from_str::<Deliver>(r#"{"entries":[{},{"sender":7}]}"#).unwrap_err().to_string();
    assert!(error.starts_with("`entries[1].sender`: expected a text, got 7"), "{error}");
}

#[test]
fn messages_are_objects_and_null_is_an_absent_one() {
    let seq = |json: &str| read::<Deliver>(&format!(r#"{{"receiverSeq":{json}}}"#)).map(|it| it.receiver_seq);
    assert_eq!(seq("null"), Some(None));
    assert_eq!(seq("{}"), Some(Some(ReceiverSeq::default())));
    assert_eq!(
        write(&Deliver { receiver_seq: Some(ReceiverSeq::default()), ..Deliver::default() }),
        r#"{"receiverSeq":{}}"#
    );
    for wrong in ["[]", "1", r#""""#, "true"] {
        assert_eq!(seq(wrong), None, "{wrong}");
    }
    for wrong in ["null", "[]", "7", "", "{} {}", "{\"id\":1,}", "{id:1}", "{'id':1}", "\u{feff}{}"] {
        assert_eq!(read::<ClientFrame>(wrong), None, "{wrong}");
    }
}

#[test]
fn both_names_of_a_member_are_accepted_unknown_ones_ignored_and_duplicates_refused() {
    let seq = Some(Deliver { receiver_seq: Some(ReceiverSeq { epoch: 1, seq: 2 }), ..Deliver::default() });
    assert_eq!(read(r#"{"receiverSeq":{"epoch":1,"seq":2}}"#), seq);
    assert_eq!(read(r#"{"receiver_seq":{"epoch":1,"seq":2}}"#), seq);
    assert_eq!(read(r#"{"receiverSeq":{"epoch":1,"seq":2,"new":[{}]},"more":null,"receiverseq":7}"#), seq);
    assert_eq!(read(r#" { "receiver\u0053eq" : {"epoch":1 ,"seq":2}} "#), seq);
    for wrong in [
        r#"{"raised":1,"raised":1}"#,
        r#"{"raised":null,"raised":1}"#,
        r#"{"receiverSeq":{},"receiver_seq":{}}"#,
    ] {
        assert_eq!(read::<Deliver>(wrong), None, "{wrong}");
    }
}

#[test]
fn at_most_one_alternative_may_be_given_and_null_gives_none() {
    let frame = |json: &str| read::<ClientFrame>(json).map(|frame| frame.frame);
    assert_eq!(frame(r#"{"ping":{},"heads":null}"#), frame(r#"{"ping":{}}"#));
    assert_eq!(frame(r#"{"ping":null}"#), Some(None));
    assert_eq!(frame(r#"{"ping":{},"read":{}}"#), None);
}

/// A message with fields that follow from `script`: each byte decides about one thing.
fn message(
    descriptor: MessageDescriptor,
    script: &mut impl Iterator<Item = u8>,
    depth: u32,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let Some(byte) = script.next() else { break };
        // A field of a oneof replaces the one before it.
        if byte.is_multiple_of(2) || depth == 0 && matches!(field.kind(), Kind::Message(_)) {
            continue;
        }
        let mut one = |kind: &Kind| value(kind, script, depth);
        if field.is_map() {
            let kind = field.kind();
            let entry = kind.as_message().expect("maps have entries");
            let value = one(&entry.map_entry_value_field().kind());
            message.set_field(&field, Value::Map([(MapKey::String("k".into()), value)].into()));
        } else if field.is_list() {
            message.set_field(&field, Value::List(vec![one(&field.kind()), one(&field.kind())]));
        } else {
            message.set_field(&field, one(&field.kind()));
        }
    }
    message
}

fn value(kind: &Kind, script: &mut impl Iterator<Item = u8>, depth: u32) -> Value {
    let byte = script.next().unwrap_or_default();
    let texts = ["", "a", "d:alice:bob", "\0\u{1}\"\\\n", "é 😀 \u{2028}\u{202e}\u{ffff}"];
    let numbers = [0, 1, 127, 1 << 31, u64::MAX >> 1, u64::MAX - 1];
    let number = numbers[usize::from(byte) % numbers.len()];
    match kind {
        Kind::String => Value::String(texts[usize::from(byte) % texts.len()].into()),
        Kind::Bytes => Value::Bytes(vec![byte; usize::from(byte % 5)].into()),
        Kind::Bool => Value::Bool(byte.is_multiple_of(2)),
        Kind::Int32 => Value::I32(number as i32),
        Kind::Int64 => Value::I64(number as i64),
        Kind::Uint32 => Value::U32(number as u32),
        Kind::Uint64 => Value::U64(number),
        Kind::Enum(_) => Value::EnumNumber(i32::from(byte % 8)),
        Kind::Message(descriptor) => Value::Message(message(descriptor.clone(), script, depth - 1)),
        other => panic!("no field of the contract is a {other:?}"),
    }
}

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(abi::DESCRIPTORS).expect("the descriptors are complete"));

/// Checks that both implementations write and read the same.
fn check_frame<T>(name: &str, script: Vec<u8>)
where
    T: prost::Message + Default + PartialEq + Debug + Serialize + DeserializeOwned,
{
    let descriptor = POOL.get_message_by_name(name).expect("the frame exists");
    let dynamic = message(descriptor.clone(), &mut script.into_iter(), 6);
    let ours = T::decode(&*dynamic.encode_to_vec()).expect("the frame is valid");
    let (theirs_json, ours_json) =
        (serde_json::to_value(&dynamic).expect("valid"), serde_json::to_value(&ours).expect("valid"));
    assert_eq!(theirs_json, ours_json);
    assert_eq!(serde_json::from_value::<T>(theirs_json).expect("we read their JSON"), ours);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let read = DynamicMessage::deserialize_with_options(descriptor, ours_json, &options)
        .expect("they read our JSON");
    assert_eq!(T::decode(&*read.encode_to_vec()).expect("valid"), ours);
}

proptest! {
    #[test]
    fn any_frame_has_the_json_of_an_implementation_that_works_from_descriptors(
        script in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        check_frame::<ClientFrame>("godwit.v1.ClientFrame", script.clone());
        check_frame::<ServerFrame>("godwit.v1.ServerFrame", script);
    }
}
