//! The OpenAPI 3.1 document of the HTTP API, made from the list of operations (`operation.rs`). `docs/openapi.json` is a copy of it,
//! written by `cargo run -p ws-gateway --example openapi`.

mod messages;
mod page;
mod parameters;
pub mod promises;
mod responses;
mod schemas;

pub(crate) use schemas::Schemas;
pub(crate) use schemas::{entry, members};

use crate::operation::{Documentation, Tag};
use serde_json::{Map, Value, json};

pub(crate) use page::page;

const DESCRIPTION: &str = "\
The HTTP API of Godwit. Devices that stay connected use the WebSocket `GET /v1/ws`; everything that can be asked there can be asked \
here as well, for product servers and scripts.

Bodies are JSON. Messages of the contract are proto3 JSON: 64-bit numbers are strings, members with their default value are absent, and \
requests may use the original `snake_case` names and `null` for an absent member too. Clients ignore members that they don't know.

Errors are problem documents (RFC 9457). Each answer has the header `x-request-id`: that of the request if it is well formed, otherwise \
a new one.";

/// The document.
pub(crate) fn document<'a>(operations: impl IntoIterator<Item = &'a Documentation>) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method.as_str().to_ascii_lowercase()] = describe(operation, &mut schemas);
    }
    let tags: Vec<Value> = Tag::ALL
        .iter()
        .map(|tag| tag.describe())
        .map(|(name, description)| json!({ "name": name, "description": description }))
        .collect();
    let responses = responses::components(&mut schemas);
    let schemas = schemas.finish([&Value::Object(paths.clone()), &responses]);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Godwit",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "headers": responses::headers(),
            "securitySchemes": {
                "accessToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token, from `POST /v1/sessions` or another operation on accounts.",
                },
            },
        },
    })
}

fn describe(operation: &Documentation, schemas: &mut Schemas) -> Value {
    let mut parameters = parameters::of_path(operation.path);
    if let Some(query) = &operation.query {
        parameters.extend(parameters::of_query(&query(schemas)));
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag.describe().0],
        "summary": operation.summary,
        "responses": responses::of(operation, schemas),
    });
    if !operation.description.is_empty() {
        described["description"] = operation.description.into();
    }
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if operation.is_authenticated {
        described["security"] = json!([{ "accessToken": [] }]);
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": body(schemas) } },
        });
    }
    described
}

#[cfg(test)]
mod tests;
