//! The schemas of bodies and parameters: of Rust types through `schemars`, and of messages of the contract through their descriptors.

use super::messages::Messages;
use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::SchemaSettings,
    transform::{RecursiveTransform, Transform as _},
};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// Where the schemas are in the document.
const PREFIX: &str = "#/components/schemas/";

/// Makes schemas, and collects those that others refer to.
pub(crate) struct Schemas {
    generator: SchemaGenerator,
    messages: Messages,
    added: Map<String, Value>,
}

impl std::fmt::Debug for Schemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schemas").finish_non_exhaustive()
    }
}

impl Default for Schemas {
    fn default() -> Self {
        let settings = SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = Cow::Borrowed("/components/schemas"))
            .with_transform(RecursiveTransform(drop_null_default));
        Self { generator: settings.into_generator(), messages: Messages::of_contract(), added: Map::new() }
    }
}

impl Schemas {
    /// A reference to the schema of a type.
    pub(crate) fn of<T: JsonSchema>(&mut self) -> Value {
        self.generator.subschema_for::<T>().to_value()
    }

    /// The schema of a type itself.
    pub(crate) fn inline<T: JsonSchema>(&mut self) -> Value {
        let mut schema = T::json_schema(&mut self.generator);
        RecursiveTransform(drop_null_default).transform(&mut schema);
        schema.to_value()
    }

    /// Adds a schema of its own. Returns a reference to it.
    pub(crate) fn add(&mut self, name: &str, schema: Value) -> Value {
        self.added.insert(name.to_owned(), schema);
        Self::message(name)
    }

    /// A reference to the schema of a message or enum of the contract.
    pub(crate) fn message(name: &str) -> Value {
        json!({ "$ref": format!("{PREFIX}{name}") })
    }

    /// The schema of a message without the members `absent`.
    pub(crate) fn part_of_message(&self, name: &str, absent: &[&str], required: &[&str]) -> Value {
        let mut schema = self.messages.schema(name);
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.retain(|member, _| !absent.contains(&member.as_str()));
        }
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    }

    /// All schemas to which `roots`, and these schemas themselves, refer.
    pub(super) fn finish<'a>(mut self, roots: impl IntoIterator<Item = &'a Value>) -> Map<String, Value> {
        let mut found = self.generator.take_definitions(true);
        found.append(&mut self.added);
        let mut names = Vec::new();
        roots.into_iter().for_each(|root| referred(root, &mut names));
        found.values().for_each(|schema| referred(schema, &mut names));
        while let Some(name) = names.pop() {
            if !found.contains_key(&name) {
                let schema = self.messages.schema(&name);
                referred(&schema, &mut names);
                found.insert(name, schema);
            }
        }
        found
    }
}

/// An optional member is absent by default, not `null`.
fn drop_null_default(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

/// Adds the names of the schemas to which a part of the document refers.
fn referred(part: &Value, names: &mut Vec<String>) {
    match part {
        Value::Object(members) => {
            let target = members.get("$ref").and_then(Value::as_str);
            names.extend(target.and_then(|target| target.strip_prefix(PREFIX)).map(str::to_owned));
            members.values().for_each(|value| referred(value, names));
        }
        Value::Array(items) => items.iter().for_each(|item| referred(item, names)),
        _ => {}
    }
}

/// For `schemars(schema_with)`: an entry.
pub(crate) fn entry(_: &mut SchemaGenerator) -> Schema {
    Schema::try_from(Schemas::message("Entry")).expect("an object is a schema")
}

/// For `schemars(schema_with)`: a list of members.
pub(crate) fn members(_: &mut SchemaGenerator) -> Schema {
    let schema = json!({ "type": "array", "items": Schemas::message("Member") });
    Schema::try_from(schema).expect("an object is a schema")
}
