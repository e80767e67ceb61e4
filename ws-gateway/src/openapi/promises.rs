//! The promises of a document to its clients, as lines of text, and those that another document breaks.
//!
//! `docs/openapi-promises.txt` holds the promises of the last release. A test compares them with those of the sources.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Separates the subject of a promise and a required member or parameter.
const REQUIRES: &str = ": requires ";

/// The promises of a document.
pub fn of(document: &Value) -> Vec<String> {
    let mut promises =
        Promises { document, lines: BTreeSet::new(), waiting: Vec::new(), seen: BTreeSet::new() };
    for (path, item) in members(&document["paths"]) {
        for (method, operation) in members(item) {
            promises.operation(&format!("{} {path}", method.to_ascii_uppercase()), operation);
        }
    }
    promises.components();
    promises.lines.into_iter().collect()
}

/// The losses of clients of `old` with `new`: promises that are gone, and new requirements of requests that exist.
pub fn broken(old: &[String], new: &[String]) -> Vec<String> {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (old.iter().collect(), new.iter().collect());
    let gone =
        old.difference(&new).filter(|line| !line.contains(REQUIRES)).map(|line| format!("gone: {line}"));
    let subject = |line: &str| line.split(": ").next().unwrap_or_default().to_owned();
    let known: BTreeSet<String> = old.iter().map(|line| subject(line)).collect();
    let required = new
        .difference(&old)
        .filter(|line| line.contains(REQUIRES) && known.contains(&subject(line)))
        .map(|line| format!("new: {line}"));
    gone.chain(required).collect()
}

/// On which side a schema is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Request,
    Answer,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Answer => "answer",
        }
    }
}

struct Promises<'a> {
    document: &'a Value,
    lines: BTreeSet<String>,
    /// Components that others refer to.
    waiting: Vec<(Side, String)>,
    seen: BTreeSet<(Side, String)>,
}

impl Promises<'_> {
    fn operation(&mut self, name: &str, operation: &Value) {
        self.lines.insert(format!("{name}: exists"));
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (place, parameter_name) = (text(&parameter["in"]), text(&parameter["name"]));
            let form = self.form(Side::Request, &parameter["schema"]);
            self.lines.insert(format!("{name}: accepts {parameter_name} ({place}) {form}"));
            if parameter["required"] == true {
                self.lines.insert(format!("{name}{REQUIRES}{parameter_name} ({place})"));
            }
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        if !body.is_null() {
            let form = self.form(Side::Request, body);
            self.lines.insert(format!("{name}: accepts a body {form}"));
            self.schema(Side::Request, name, body);
        }
        for (status, answer) in members(&operation["responses"]).filter(|(status, _)| status.as_str() < "400")
        {
            let contents: BTreeMap<_, _> = members(&answer["content"]).collect();
            if contents.is_empty() {
                self.lines.insert(format!("{name}: answers {status}"));
            }
            for (media_type, content) in contents {
                let form = self.form(Side::Answer, &content["schema"]);
                self.lines.insert(format!("{name}: answers {status} {media_type} {form}"));
            }
        }
        // All errors have the same form.
        self.waiting.push((Side::Answer, "Problem".to_owned()));
    }

    fn components(&mut self) {
        while let Some((side, name)) = self.waiting.pop() {
            if self.seen.insert((side, name.clone())) {
                let schema = &self.document["components"]["schemas"][&name];
                self.schema(side, &format!("{} {name}", side.name()), schema);
            }
        }
    }

    /// The promises of an object or an enum.
    fn schema(&mut self, side: Side, subject: &str, schema: &Value) {
        for (member, schema) in members(&schema["properties"]) {
            let form = self.form(side, schema);
            self.lines.insert(format!("{subject}: has {member} {form}"));
        }
        for member in schema["required"].as_array().into_iter().flatten().map(text) {
            self.lines.insert(match side {
                Side::Request => format!("{subject}{REQUIRES}{member}"),
                Side::Answer => format!("{subject}: always has {member}"),
            });
        }
        let constants =
            schema["oneOf"].as_array().into_iter().flatten().filter_map(|it| it["const"].as_str());
        let values = schema["enum"].as_array().into_iter().flatten().map(text);
        for value in values.chain(constants) {
            self.lines.insert(format!("{subject}: knows {value}"));
        }
    }

    /// The form of a value: a type, or a component.
    fn form(&mut self, side: Side, schema: &Value) -> String {
        if let Some(name) = text(&schema["$ref"]).strip_prefix("#/components/schemas/") {
            self.waiting.push((side, name.to_owned()));
            return name.to_owned();
        }
        match text(&schema["type"]) {
            "array" => format!("list of {}", self.form(side, &schema["items"])),
            "object"
                if !schema["additionalProperties"].is_null() && schema["additionalProperties"] != false =>
            {
                format!("map of {}", self.form(side, &schema["additionalProperties"]))
            }
            kind => match text(&schema["format"]) {
                "" => kind.to_owned(),
                format => format!("{kind} {format}"),
            },
        }
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi;
    use serde_json::json;

    /// The promises that a change of the document breaks.
    fn broken_by(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let old = openapi();
        let mut new = old.clone();
        change(&mut new);
        assert_ne!(old, new, "the change must change the document");
        broken(&of(&old), &of(&new))
    }

    #[test]
    fn incompatible_changes_are_found() {
        let removed_path = broken_by(|new| drop(new["paths"].as_object_mut().unwrap().remove("/v1/blocks")));
        assert!(removed_path.contains(&"gone: GET /v1/blocks: exists".to_owned()), "{removed_path:?}");
        let removed_method =
            broken_by(|new| drop(new["paths"]["/v1/blocks/{user}"].as_object_mut().unwrap().remove("put")));
        assert!(
            removed_method.contains(&"gone: PUT /v1/blocks/{user}: exists".to_owned()),
            "{removed_method:?}"
        );
        let schema = |new: &mut Value, name: &str, change: &dyn Fn(&mut Value)| {
            change(&mut new["components"]["schemas"][name]);
        };
        for (name, change, expected) in [
            (
                "Entry",
                &(|it: &mut Value| drop(it["properties"].as_object_mut().unwrap().remove("messageId")))
                    as &dyn Fn(&mut Value),
                "gone: answer Entry: has messageId string",
            ),
            (
                "Head",
                &|it| it["properties"]["unread"] = json!({ "type": "integer" }),
                "gone: answer Head: has unread string uint64",
            ),
            (
                "Tokens",
                &|it| it["required"] = json!(["user"]),
                "gone: answer Tokens: always has access_token",
            ),
            (
                "CreateGroup",
                &|it| it["required"] = json!(["name", "members"]),
                "new: request CreateGroup: requires members",
            ),
            ("GroupHistory", &|it| it["oneOf"] = json!([]), "gone: request GroupHistory: knows from_join"),
            ("Role", &|it| it["enum"] = json!(["ROLE_OWNER"]), "gone: answer Role: knows ROLE_MEMBER"),
            ("Problem", &|it| it["properties"]["code"] = json!({}), "gone: answer Problem: has code string"),
        ] {
            let found = broken_by(|new| schema(new, name, change));
            assert!(found.contains(&expected.to_owned()), "{expected}: {found:?}");
        }
        let entries = "/v1/conversations/{conversation}/entries";
        let required = broken_by(|new| {
            new["paths"][entries]["post"]["requestBody"]["content"]["application/json"]["schema"]["required"] =
                json!(["clientMsgId", "kind"]);
        });
        assert_eq!(required, [format!("new: POST {entries}: requires kind")]);
        let required =
            broken_by(|new| new["paths"]["/v1/blocks"]["get"]["parameters"][0]["required"] = true.into());
        assert_eq!(required, ["new: GET /v1/blocks: requires after (query)"]);
    }

    #[test]
    fn additions_are_compatible() {
        let none = broken_by(|new| {
            new["paths"]["/v1/new"] = json!({
                "get": {
                    "parameters": [{ "name": "x", "in": "query", "required": true, "schema": { "type": "string" } }],
                    "responses": {},
                },
            });
            new["components"]["schemas"]["Entry"]["properties"]["newMember"] = json!({ "type": "string" });
            new["components"]["schemas"]["CreateGroup"]["required"] = json!([]);
        });
        assert_eq!(none, Vec::<String>::new());
    }
}
