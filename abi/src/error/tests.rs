use super::*;
use std::collections::HashSet;

fn codes() -> impl Iterator<Item = ErrorCode> {
    (0..100).filter_map(|number| ErrorCode::try_from(number).ok())
}

#[test]
fn every_code_has_one_row_and_its_own_close_code_and_name() {
    let all: Vec<_> = codes().collect();
    assert_eq!(all.len(), TABLE.len());
    assert_eq!(all.iter().map(|code| code.close()).collect::<HashSet<_>>().len(), TABLE.len());
    assert_eq!(all.iter().map(|code| code.name()).collect::<HashSet<_>>().len(), TABLE.len());
    for code in all {
        assert_eq!(ErrorCode::from_close(code.close()), Some(code));
        assert!(format!("ERROR_CODE_{}", code.name().to_uppercase()) == code.as_str_name());
    }
}

#[test]
fn an_error_survives_a_grpc_status() {
    for code in codes().filter(|code| *code != ErrorCode::Unspecified) {
        let error =
            ApiError { code, message: "a sentence".into(), retry_after: Some(Duration::from_millis(1_500)) };
        assert_eq!(ApiError::from(Status::from(error.clone())), error);
    }
}

#[test]
fn a_status_without_details_is_mapped_by_its_code() {
    assert_eq!(ApiError::from(Status::not_found("no user")).code, ErrorCode::NotFound);
    assert_eq!(ApiError::from(Status::deadline_exceeded("late")).code, ErrorCode::Unavailable);
    assert_eq!(ApiError::from(Status::data_loss("?")).code, ErrorCode::Internal);
    assert_eq!(ApiError::from(Status::resource_exhausted("full")).code, ErrorCode::Unavailable);
}

#[test]
fn p8_the_message_of_a_foreign_status_never_reaches_a_client() {
    const REASON: &str = "db-service at 10.0.0.7:7471: connection refused";
    for code in (0..17).map(Code::from_i32).filter(|code| *code != Code::Ok) {
        let foreign = [
            Status::new(code, REASON),
            Status::with_details(code, REASON, Bytes::from_static(b"not an error of ours")),
            Status::with_details(code, REASON, v1::Error::default().encode_to_vec().into()),
        ];
        for status in foreign {
            assert_eq!(ApiError::of_call(&status).message, REASON);
            let ApiError { message, .. } = ApiError::from(status);
            assert!(
                message.contains("server") || message.contains("such") || message.contains("too"),
                "{message}"
            );
            assert!(!message.contains("10.0.0.7") && !message.contains("db-service"), "{code}: {message}");
        }
    }
}

#[test]
fn a_close_reason_tells_whether_and_when_to_reconnect() {
    assert_eq!(
        ApiError::new(ErrorCode::Replaced, "another connection").close_reason(),
        "replaced reconnect=no"
    );
    assert_eq!(ApiError::new(ErrorCode::GoingAway, "").close_reason(), "going_away reconnect=500");
    let wait = Duration::from_micros(1_200_100);
    assert_eq!(ApiError::rate_limited("", wait).close_reason(), "rate_limited reconnect=1201");
}

#[test]
fn p7_a_quoted_text_is_short_and_printable() {
    assert_eq!(quoted("two\n\"lines\""), r#""two\n\"lines\"""#);
    assert_eq!(quoted(&"é".repeat(70_000)), format!("\"{}…\"", "é".repeat(MAX_SHORT)));
}

#[test]
fn p7_an_excerpt_is_short_and_printable() {
    assert_eq!(excerpt("unknown field `shout`"), "unknown field `shout`");
    assert_eq!(excerpt("two\nlines \u{1b}[31m"), "two\\nlines \\u{1b}[31m");
    assert!(excerpt("é".repeat(70_000)).len() < MAX_EXCERPT + 8);
}
