use super::{page, promises};
use crate::http::openapi;
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

fn committed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_committed_document_is_that_of_the_sources() {
    let committed: Value = serde_json::from_str(&committed("openapi.json")).unwrap();
    assert!(committed == openapi(), "run: cargo run -p ws-gateway --example openapi");
}

#[test]
fn the_promises_of_the_last_release_are_kept() {
    let released: Vec<String> = committed("openapi-promises.txt").lines().map(str::to_owned).collect();
    assert!(released.len() > 100, "{} promises", released.len());
    let broken = promises::broken(&released, &promises::of(&openapi()));
    assert!(broken.is_empty(), "incompatible with the last release:\n{}", broken.join("\n"));
}

#[test]
fn messages_are_described_as_proto3_json() {
    let document = openapi();
    let schemas = &document["components"]["schemas"];
    let entry = &schemas["Entry"]["properties"];
    assert_eq!(entry["conversationSeq"]["type"], "string");
    assert_eq!(entry["countable"]["type"], "boolean");
    assert_eq!(entry["content"]["$ref"], "#/components/schemas/Content");
    assert_eq!(entry["reactions"]["items"]["type"], "string");
    let kind = entry["kind"]["description"].as_str().unwrap();
    assert!(kind.starts_with("`message`, `edit`, `recall`"), "{kind}");
    assert_eq!(schemas["Content"]["oneOf"].as_array().unwrap().len(), 3);
    assert_eq!(schemas["Content"]["properties"]["data"]["contentEncoding"], "base64");
    assert_eq!(schemas["Role"]["enum"][2], "ROLE_OWNER");
    assert_eq!(schemas["Profile"]["properties"]["custom"]["additionalProperties"]["type"], "string");
    let send = &document["paths"]["/v1/conversations/{conversation}/entries"]["post"];
    let body = &send["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(
        (&body["properties"]["conversation"], &body["required"][0]),
        (&Value::Null, &"clientMsgId".into())
    );
}

#[test]
fn operations_are_complete() {
    let document = openapi();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} names two operations");
            let summary = operation["summary"].as_str().unwrap();
            assert!(!summary.is_empty() && !summary.ends_with('.'), "{method} {path}: {summary}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{method} {path}: {parameter}");
            }
            let answers: Vec<_> = operation["responses"].as_object().unwrap().keys().collect();
            assert!(answers.iter().any(|status| status.as_str() < "400"), "{method} {path}: {answers:?}");
        }
    }
}

#[test]
fn the_page_shows_each_operation_and_escapes_texts() {
    let mut document = openapi();
    document["components"]["schemas"]["Entry"]["description"] = "<script>1 & 2</script>".into();
    let html = page(&document);
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(html.contains(&format!("id=\"{id}\"")) && html.contains(path), "{id}");
        }
    }
    assert!(html.contains("&lt;script&gt;1 &amp; 2") && !html.contains("<script"));
    assert!(!html.contains("http://") && !html.contains("https://"), "the page loads nothing");
}
