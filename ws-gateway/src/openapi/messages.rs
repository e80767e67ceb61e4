//! Schemas of the messages of the contract, from their descriptors: the form of proto3 JSON, with the comments as descriptions.

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Field numbers in the descriptors, which are the steps of the path of a comment.
const MESSAGES_OF_FILE: i32 = 4;
const ENUMS_OF_FILE: i32 = 5;
const FIELDS_OF_MESSAGE: i32 = 2;
const VALUES_OF_ENUM: i32 = 2;

/// A message or an enum.
enum Described {
    Message(DescriptorProto),
    Enum(EnumDescriptorProto),
}

/// The messages and enums of the contract by name, and their comments by name and path.
pub(super) struct Messages {
    described: HashMap<String, Described>,
    comments: HashMap<(String, Vec<i32>), String>,
}

impl Messages {
    pub(super) fn of_contract() -> Self {
        let files = FileDescriptorSet::decode(abi::DESCRIPTORS).expect("the build has made the descriptors");
        let mut messages = Self { described: HashMap::new(), comments: HashMap::new() };
        files.file.into_iter().for_each(|file| messages.add(file));
        messages
    }

    fn add(&mut self, file: FileDescriptorProto) {
        let names = |kind, names: Vec<&str>| -> Vec<((i32, i32), String)> {
            (0..).zip(names).map(|(index, name)| ((kind, index), name.to_owned())).collect()
        };
        let mut by_path: HashMap<(i32, i32), String> = HashMap::new();
        by_path
            .extend(names(MESSAGES_OF_FILE, file.message_type.iter().map(DescriptorProto::name).collect()));
        by_path.extend(names(ENUMS_OF_FILE, file.enum_type.iter().map(EnumDescriptorProto::name).collect()));
        for location in file.source_code_info.into_iter().flat_map(|info| info.location) {
            if let (Some(comment), [kind, index, rest @ ..]) =
                (&location.leading_comments, &location.path[..])
                && let Some(name) = by_path.get(&(*kind, *index))
            {
                self.comments.insert((name.clone(), rest.to_vec()), plain(comment));
            }
        }
        let messages = file.message_type.into_iter().map(|it| (it.name().to_owned(), Described::Message(it)));
        self.described.extend(messages);
        self.described
            .extend(file.enum_type.into_iter().map(|it| (it.name().to_owned(), Described::Enum(it))));
    }

    /// The schema of a message or an enum.
    ///
    /// # Panics
    /// The contract has none of this name.
    pub(super) fn schema(&self, name: &str) -> Value {
        let described = self.described.get(name).unwrap_or_else(|| panic!("the contract has no {name}"));
        let mut schema = match described {
            Described::Message(message) => self.message(message),
            Described::Enum(it) => self.enumeration(it),
        };
        self.comment(name, &[], &mut schema);
        schema
    }

    fn message(&self, message: &DescriptorProto) -> Value {
        let mut properties = Map::new();
        for (index, field) in (0..).zip(&message.field) {
            let mut schema = field_schema(message, field);
            self.comment(message.name(), &[FIELDS_OF_MESSAGE, index], &mut schema);
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = json!({ "type": "object", "properties": properties });
        let choices: Vec<Value> =
            (0..).zip(&message.oneof_decl).filter_map(|(index, _)| choice(message, index)).collect();
        match choices.len() {
            0 => {}
            1 => schema["oneOf"] = choices[0].clone(),
            _ => schema["allOf"] = choices.into_iter().map(|choice| json!({ "oneOf": choice })).collect(),
        }
        schema
    }

    fn enumeration(&self, it: &EnumDescriptorProto) -> Value {
        let names: Vec<&str> = it.value.iter().map(|value| value.name()).collect();
        let mut schema = json!({ "type": "string", "enum": names });
        let meanings: Vec<String> = (0..)
            .zip(names)
            .filter_map(|(index, name)| {
                let comment = self.comments.get(&(it.name().to_owned(), vec![VALUES_OF_ENUM, index]))?;
                Some(format!("- `{name}`: {comment}"))
            })
            .collect();
        let about = self.comments.get(&(it.name().to_owned(), Vec::new())).map(String::as_str);
        schema["description"] = format!("{}\n\n{}", about.unwrap_or_default(), meanings.join("\n")).into();
        schema
    }

    /// Adds the comment at a path, unless the schema has a description already.
    fn comment(&self, name: &str, path: &[i32], schema: &mut Value) {
        if let Some(comment) = self.comments.get(&(name.to_owned(), path.to_vec()))
            && schema.get("description").is_none()
        {
            schema["description"] = comment.as_str().into();
        }
    }
}

/// A comment as running text.
fn plain(comment: &str) -> String {
    comment.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// The alternatives of a oneof: at most one of its members. `None` for the oneof that an optional member is made of.
fn choice(message: &DescriptorProto, index: i32) -> Option<Value> {
    let members =
        message.field.iter().filter(|field| field.oneof_index == Some(index) && !field.proto3_optional());
    let mut alternatives: Vec<Value> =
        members.map(|field| json!({ "required": [field.json_name()] })).collect();
    if alternatives.is_empty() {
        return None;
    }
    let none = json!({ "not": { "anyOf": alternatives } });
    alternatives.push(none);
    Some(alternatives.into())
}

fn field_schema(message: &DescriptorProto, field: &FieldDescriptorProto) -> Value {
    let entry = message.nested_type.iter().find(|nested| {
        nested.options.as_ref().is_some_and(|options| options.map_entry())
            && field.type_name().rsplit('.').next() == Some(nested.name())
    });
    match entry.and_then(|entry| entry.field.get(1)) {
        Some(value) => json!({ "type": "object", "additionalProperties": element(value) }),
        None if field.label() == Label::Repeated => json!({ "type": "array", "items": element(field) }),
        None => element(field),
    }
}

/// The schema of a value, or of an element of a list.
fn element(field: &FieldDescriptorProto) -> Value {
    match field.r#type() {
        Type::String => json!({ "type": "string" }),
        Type::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Type::Bool => json!({ "type": "boolean" }),
        Type::Int32 => {
            json!({ "type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX })
        }
        Type::Uint32 => json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX }),
        Type::Int64 => json!({ "type": "string", "format": "int64", "pattern": "^-?(0|[1-9][0-9]{0,18})$" }),
        Type::Uint64 => json!({ "type": "string", "format": "uint64", "pattern": "^(0|[1-9][0-9]{0,19})$" }),
        Type::Message | Type::Enum => {
            super::Schemas::message(field.type_name().rsplit('.').next().unwrap_or_default())
        }
        other => panic!("{}: {other:?} has no JSON form here", field.name()),
    }
}
