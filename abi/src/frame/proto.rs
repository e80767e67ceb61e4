//! Errors about frames in protobuf.

use super::MAX_UNKNOWN;
use crate::json::{Field, Kind, Schema};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The outermost fields of a frame.
#[derive(Default)]
pub(super) struct Outline {
    /// The id. 0 if there is none.
    pub(super) id: u32,
    /// The first unknown fields, for an error.
    pub(super) unknown: Vec<String>,
}

impl Outline {
    /// Reads as much of a frame as is protobuf.
    pub(super) fn read(mut bytes: &[u8], schema: &Schema) -> Self {
        let mut outline = Self::default();
        while outline.read_field(&mut bytes, schema).is_some() {}
        outline
    }

    fn read_field(&mut self, bytes: &mut &[u8], schema: &Schema) -> Option<()> {
        let (number, wire) = decode_key(bytes).ok()?;
        match schema.field(number) {
            Some(Field { name: "id", .. }) if wire == WireType::Varint => {
                // Like every decoder of protobuf, which keeps the lower 32 bits.
                self.id = decode_varint(bytes).ok()? as u32;
                return Some(());
            }
            None if self.unknown.len() < MAX_UNKNOWN => self.unknown.push(format!("field {number}")),
            _ => {}
        }
        skip_field(wire, number, bytes, DecodeContext::default()).ok()
    }
}

impl Schema {
    fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// Why bytes can't be decoded, with the path of the field.
pub(super) fn defect(bytes: &[u8], schema: &Schema) -> String {
    let found = find(bytes, schema, "").err();
    found.unwrap_or_else(|| "it is not protobuf of this protocol".to_owned())
}

/// Looks for the first defect in a message whose members have the prefix `path`.
fn find(mut bytes: &[u8], schema: &Schema, path: &str) -> Result<(), String> {
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes)
            .map_err(|_| format!("{}: the key of a field is malformed or cut off", place(path)))?;
        let Some(field) = schema.field(number) else {
            skip_field(wire, number, &mut bytes, DecodeContext::default())
                .map_err(|_| format!("{}: field {number} is malformed or cut off", place(path)))?;
            continue;
        };
        let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        match (&field.kind, wire) {
            (Kind::Varint, WireType::Varint) => {
                decode_varint(&mut bytes)
                    .map_err(|_| format!("`{path}`: the number is malformed or cut off"))?;
            }
            (Kind::Bytes, WireType::LengthDelimited) => drop(take(&mut bytes, &path)?),
            (Kind::Text, WireType::LengthDelimited) => {
                std::str::from_utf8(take(&mut bytes, &path)?).map_err(|error| {
                    format!("`{path}`: the text is not UTF-8 after {} bytes", error.valid_up_to())
                })?;
            }
            (Kind::Message(schema), WireType::LengthDelimited) => {
                find(take(&mut bytes, &path)?, schema(), &path)?
            }
            (kind, wire) => {
                let expected =
                    if matches!(kind, Kind::Varint) { WireType::Varint } else { WireType::LengthDelimited };
                return Err(format!("`{path}`: expected wire type {}, got {}", expected as u8, wire as u8));
            }
        }
    }
    Ok(())
}

fn place(path: &str) -> String {
    if path.is_empty() { "the frame".to_owned() } else { format!("`{path}`") }
}

/// Takes a field with a length.
fn take<'a>(bytes: &mut &'a [u8], path: &str) -> Result<&'a [u8], String> {
    let cut_off = || format!("`{path}`: the field is cut off");
    let length = decode_varint(bytes).map_err(|_| cut_off())?;
    let length = usize::try_from(length).map_err(|_| cut_off())?;
    let (field, rest) = bytes.split_at_checked(length).ok_or_else(cut_off)?;
    *bytes = rest;
    Ok(field)
}
