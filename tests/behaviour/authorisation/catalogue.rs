//! All operations of the server, listed from its interface: frames from the descriptors of the protocol, routes of HTTP.

use abi::envelope::{EDIT, GROUP, MESSAGE, REACTION, RECALL};
use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};
use serde_json::Value;
use std::collections::BTreeSet;

/// A message that names an earlier one. It has no kind of its own.
pub(super) const REPLY: &str = "reply";
/// A kind of the product.
pub(super) const CUSTOM: &str = "custom";
/// The kinds of entries that a device may try to send.
const KINDS: [&str; 7] = [MESSAGE, REPLY, EDIT, RECALL, REACTION, CUSTOM, GROUP];

/// The document of the HTTP API, which the server makes from its routes.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// The routes of HTTP, as `METHOD PATH`.
fn routes() -> Result<Vec<String>> {
    let document: Value = serde_json::from_str(OPENAPI)?;
    let paths = document["paths"].as_object().context("the document has no paths")?;
    let mut routes = Vec::new();
    for (path, operations) in paths {
        let methods = operations.as_object().with_context(|| format!("{path} has no methods"))?.keys();
        routes.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    Ok(routes)
}

/// The changes of a group that a route makes, as the fields of `GroupChange` are named.
fn group_changes(route: &str) -> &'static [&'static str] {
    match route {
        "POST /v1/groups" => &["created"],
        "PATCH /v1/groups/{conversation}" => &["renamed"],
        "DELETE /v1/groups/{conversation}" => &["dissolved"],
        "PUT /v1/groups/{conversation}/owner" => &["owner_changed"],
        "POST /v1/groups/{conversation}/members" => &["added"],
        "DELETE /v1/groups/{conversation}/members/{user}" => &["removed", "left"],
        _ => &[],
    }
}

/// The names of all operations: a frame or a route, and the variant if there are several.
pub(super) fn operations() -> Result<BTreeSet<String>> {
    let descriptors = FileDescriptorSet::decode(abi::DESCRIPTORS)?;
    let signals = alternatives(&descriptors, "Signal", "kind")?;
    let mut operations = BTreeSet::new();
    for frame in alternatives(&descriptors, "ClientFrame", "frame")? {
        let variants = match frame.as_str() {
            "send" => KINDS.map(str::to_owned).to_vec(),
            "signal" => signals.clone(),
            _ => Vec::new(),
        };
        operations.extend(named(&frame, &variants));
    }
    let mut made = BTreeSet::new();
    for route in routes()? {
        let changes: Vec<_> = group_changes(&route).iter().map(|&change| change.to_owned()).collect();
        let variants = match &*route {
            "POST /v1/conversations/{conversation}/entries" => KINDS.map(str::to_owned).to_vec(),
            // The text of one's own presence has a route of its own.
            "POST /v1/conversations/{conversation}/signals" => {
                signals.iter().filter(|&kind| kind != "presence").cloned().collect()
            }
            _ => changes.clone(),
        };
        operations.extend(named(&route, &variants));
        made.extend(changes);
    }
    let changes: BTreeSet<_> = alternatives(&descriptors, "GroupChange", "change")?.into_iter().collect();
    ensure!(made == changes, "the routes make the changes {made:?} of a group, the protocol has {changes:?}");
    Ok(operations)
}

fn named(name: &str, variants: &[String]) -> Vec<String> {
    match variants {
        [] => vec![name.to_owned()],
        variants => variants.iter().map(|variant| format!("{name} {variant}")).collect(),
    }
}

/// The names of the fields in a oneof of a message.
fn alternatives(descriptors: &FileDescriptorSet, message: &str, oneof: &str) -> Result<Vec<String>> {
    let messages = || descriptors.file.iter().flat_map(|file| &file.message_type);
    let message: &DescriptorProto =
        messages().find(|found| found.name() == message).with_context(|| format!("no message {message}"))?;
    let index = message.oneof_decl.iter().position(|found| found.name() == oneof);
    let index = i32::try_from(index.with_context(|| format!("{} has no oneof {oneof}", message.name()))?)?;
    let fields = message.field.iter().filter(|field| field.oneof_index == Some(index));
    Ok(fields.map(|field| field.name().to_owned()).collect())
}
