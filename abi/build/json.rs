//! Generates the JSON form of messages: for each message a table of its fields, and the code that reads and writes them with
//! the functions of `src/json`.

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use std::fmt::Write as _;

type Result<T> = std::result::Result<T, String>;

/// Most fields of a message: a bit set remembers which of them a JSON object had.
const MAX_FIELDS: usize = 64;

/// Generates the code for all messages and enums of `files`.
///
/// # Errors
/// Names a field whose type has no JSON form here.
pub(crate) fn generate(descriptors: &FileDescriptorSet, files: &[&str]) -> Result<String> {
    let mut out = String::new();
    for file in descriptors.file.iter().filter(|file| files.contains(&file.name())) {
        for message in &file.message_type {
            Generator { path: String::new(), message }.generate(&mut out)?;
        }
        file.enum_type.iter().for_each(|it| enumeration(&it.name().to_upper_camel_case(), it, &mut out));
    }
    Ok(out)
}

fn enumeration(path: &str, descriptor: &EnumDescriptorProto, out: &mut String) {
    let names: Vec<_> = descriptor.value.iter().map(|value| format!("{:?}", value.name())).collect();
    writeln!(
        out,
        "impl crate::json::Enumeration for {path} {{
    const NAMES: &'static [&'static str] = &[{}];
    fn name(number: i32) -> Option<&'static str> {{ Self::try_from(number).ok().map(|value| value.as_str_name()) }}
    fn number(name: &str) -> Option<i32> {{ Self::from_str_name(name).map(|value| value as i32) }}
}}",
        names.join(", ")
    )
    .expect("writing to a String never fails");
}

/// Generates one message.
struct Generator<'a> {
    /// The module of the message relative to the package, such as `outer::`.
    path: String,
    message: &'a DescriptorProto,
}

impl Generator<'_> {
    fn generate(&self, out: &mut String) -> Result<()> {
        let (name, fields) = (self.message.name(), &self.message.field);
        if fields.len() > MAX_FIELDS {
            return Err(format!("{name} has {} fields; {MAX_FIELDS} are supported", fields.len()));
        }
        let (mut names, mut reads, mut writes) = (String::new(), String::new(), String::new());
        for (index, field) in fields.iter().enumerate() {
            let (json, proto) = (field.json_name(), field.name());
            let alias = if json == proto { String::new() } else { format!(" | {proto:?}") };
            names += &format!("            {json:?}{alias} => Some({index}),\n");
            reads += &format!("            {index} => {},\n", self.read(field)?);
            writes += &self.write(field)?;
        }
        let rust = format!("{}{}", self.path, name.to_upper_camel_case());
        *out += &format!(
            "impl crate::json::Message for {rust} {{
    fn schema() -> &'static crate::json::Schema {{
        static SCHEMA: crate::json::Schema = {schema};
        &SCHEMA
    }}
    fn field(name: &str) -> Option<usize> {{
        match name {{
{names}            _ => None,
        }}
    }}
    fn read<'de, A: serde::de::MapAccess<'de>>(&mut self, field: usize, json: &mut A) -> Result<(), A::Error> {{
        match field {{
{reads}            _ => crate::json::read::skip(json),
        }}
    }}
    fn write<M: serde::ser::SerializeMap>(&self, {json}: &mut M) -> Result<(), M::Error> {{
{writes}        Ok(())
    }}
}}
crate::json::serde_impls!({rust});
",
            schema = self.schema(self.message)?,
            json = if fields.is_empty() { "_" } else { "json" },
        );
        let path = format!("{}{}::", self.path, module(name));
        for nested in self.message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
            Generator { path: path.clone(), message: nested }.generate(out)?;
        }
        for nested in &self.message.enum_type {
            enumeration(&format!("{path}{}", nested.name().to_upper_camel_case()), nested, out);
        }
        Ok(())
    }

    /// The table of the fields of a message.
    fn schema(&self, message: &DescriptorProto) -> Result<String> {
        let mut fields = String::new();
        for field in &message.field {
            let kind = match (field.r#type(), self.map_entry(field)) {
                (_, Some(entry)) => format!(
                    "Message(|| {{ static ENTRY: crate::json::Schema = {}; &ENTRY }})",
                    self.schema(entry)?
                ),
                (Type::Message, None) => {
                    format!("Message(<{} as crate::json::Message>::schema)", type_path(field)?)
                }
                (Type::String, None) => "Text".into(),
                (Type::Bytes, None) => "Bytes".into(),
                _ if field.label() == Label::Repeated => "Bytes".into(),
                _ => "Varint".into(),
            };
            fields += &format!(
                "crate::json::Field {{ json_name: {:?}, name: {:?}, number: {}, kind: crate::json::Kind::{kind} }}, ",
                field.json_name(),
                field.name(),
                field.number(),
            );
        }
        Ok(format!("crate::json::Schema {{ fields: &[{fields}] }}"))
    }

    /// The call that reads a field.
    fn read(&self, field: &FieldDescriptorProto) -> Result<String> {
        let (name, form) = (identifier(field.name()), self.form(field)?);
        if let Some(one_of) = self.one_of(field) {
            let siblings = self.message.field.iter().filter(|it| self.one_of(it) == Some(one_of));
            let siblings: Vec<_> = siblings.map(|it| format!("`{}`", it.json_name())).collect();
            return Ok(format!(
                "crate::json::read::choice::<A, {form}, _>(json, &mut self.{slot}, {siblings:?}, {variant})",
                slot = identifier(one_of),
                siblings = siblings.join(", "),
                variant = self.variant(one_of, field),
            ));
        }
        let function = if has_presence(field) { "optional" } else { "value" };
        Ok(format!("crate::json::read::{function}::<A, {form}>(json, &mut self.{name})"))
    }

    /// The statement that writes a field.
    fn write(&self, field: &FieldDescriptorProto) -> Result<String> {
        let (name, json, form) = (identifier(field.name()), field.json_name(), self.form(field)?);
        if let Some(one_of) = self.one_of(field) {
            return Ok(format!(
                "        if let Some({variant}(value)) = &self.{slot} {{ crate::json::write::field::<M, {form}>(json, {json:?}, value)?; }}\n",
                variant = self.variant(one_of, field),
                slot = identifier(one_of),
            ));
        }
        let function = if has_presence(field) { "optional" } else { "value" };
        Ok(format!("        crate::json::write::{function}::<M, {form}>(json, {json:?}, &self.{name})?;\n"))
    }

    /// The type that knows the JSON form of a field.
    fn form(&self, field: &FieldDescriptorProto) -> Result<String> {
        if let Some(entry) = self.map_entry(field) {
            return match (entry.field[0].r#type(), entry.field[1].r#type()) {
                (Type::String, value) if value != Type::Enum => {
                    Ok(format!("std::collections::HashMap<String, {}>", self.element(&entry.field[1])?))
                }
                _ => Err(format!(
                    "{}.{}: maps have text as keys, and no enums",
                    self.message.name(),
                    field.name()
                )),
            };
        }
        let element = self.element(field)?;
        let is_list = field.label() == Label::Repeated;
        Ok(if is_list { format!("crate::json::List<{element}>") } else { element })
    }

    /// The type that knows the JSON form of a field, or of each element of a repeated field.
    fn element(&self, field: &FieldDescriptorProto) -> Result<String> {
        Ok(match field.r#type() {
            Type::String => "String".into(),
            Type::Bytes => "prost::bytes::Bytes".into(),
            Type::Bool => "bool".into(),
            Type::Int32 => "i32".into(),
            Type::Int64 => "i64".into(),
            Type::Uint32 => "u32".into(),
            Type::Uint64 => "u64".into(),
            Type::Message => type_path(field)?,
            Type::Enum => format!("crate::json::Open<{}>", type_path(field)?),
            other => {
                let (message, field) = (self.message.name(), field.name());
                return Err(format!("{message}.{field}: {other:?} has no JSON form here"));
            }
        })
    }

    /// The entry type of a map field.
    fn map_entry(&self, field: &FieldDescriptorProto) -> Option<&DescriptorProto> {
        let name = field.type_name().rsplit('.').next()?;
        self.message.nested_type.iter().find(|it| is_map_entry(it) && it.name() == name)
    }

    /// The name of the oneof that a field belongs to.
    fn one_of(&self, field: &FieldDescriptorProto) -> Option<&str> {
        let index = field.oneof_index.filter(|_| !field.proto3_optional())?;
        Some(self.message.oneof_decl[usize::try_from(index).ok()?].name())
    }

    fn variant(&self, one_of: &str, field: &FieldDescriptorProto) -> String {
        let module = module(self.message.name());
        format!(
            "{}{module}::{}::{}",
            self.path,
            one_of.to_upper_camel_case(),
            field.name().to_upper_camel_case()
        )
    }
}

/// Whether a field that is set to its default differs from one that is not set.
fn has_presence(field: &FieldDescriptorProto) -> bool {
    let is_message = field.r#type() == Type::Message && field.label() != Label::Repeated;
    is_message || field.proto3_optional()
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

/// The module of a message's nested types.
fn module(message: &str) -> String {
    identifier(&message.to_snake_case())
}

/// The Rust name of a field.
fn identifier(name: &str) -> String {
    match name {
        "type" | "ref" | "match" | "move" | "mod" | "use" | "where" | "loop" | "box" | "final" => {
            format!("r#{name}")
        }
        name => name.to_owned(),
    }
}

/// The Rust type of a message or an enum, relative to the package `godwit.v1`.
fn type_path(field: &FieldDescriptorProto) -> Result<String> {
    let name = field.type_name();
    let path = name.strip_prefix(".godwit.v1.").ok_or_else(|| format!("{name} has no JSON form here"))?;
    let mut parts: Vec<_> = path.split('.').collect();
    let last = parts.pop().unwrap_or_default().to_upper_camel_case();
    Ok(parts.iter().map(|part| module(part) + "::").collect::<String>() + &last)
}
