//! Parameters of operations.

use serde_json::{Value, json};

/// The parameters in a path such as `/v1/groups/{conversation}`.
///
/// # Panics
/// A parameter is not described here.
pub(super) fn of_path(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(parameter).collect()
}

fn parameter(name: &str) -> Value {
    let (description, schema) = match name {
        "conversation" => (
            "Conversation id: `d:USER:USER` (direct, the users in either order) or `g:ID` (group).",
            json!({
                "type": "string",
                "pattern": "^(d:[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}|g:[A-Za-z0-9._-]{1,64})$",
            }),
        ),
        "user" => ("User id.", json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })),
        "seq" => (
            "The `conversationSeq` of an entry.",
            json!({ "type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX }),
        ),
        other => panic!("the parameter {other} has no description"),
    };
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

/// The parameters of a query whose members `schema` describes. Lists are separated by commas.
pub(super) fn of_query(schema: &Value) -> Vec<Value> {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let is_list = schema["type"] == "array";
            let mut parameter = json!({
                "name": name,
                "in": "query",
                "required": required.contains(&name.as_str()),
                "description": description,
                "schema": schema,
            });
            if is_list {
                parameter["style"] = "form".into();
                parameter["explode"] = false.into();
            }
            parameter
        })
        .collect()
}
