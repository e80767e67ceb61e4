//! The OpenAPI document as a page for people: one HTML text with its own style, and without scripts.

use crate::operation::Tag;
use serde_json::Value;
use std::fmt::Write as _;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:light-dark(#0b57a4,#8ab8f0)}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}
h1,h2,h3{line-height:1.2}a{color:var(--accent)}code{font-family:ui-monospace,monospace;font-size:.9em}
details{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0}summary{cursor:pointer;padding:.5rem .75rem}
details>div{padding:0 .75rem .5rem;border-top:1px solid var(--line)}summary:hover{background:var(--soft)}
.method{display:inline-block;min-width:4rem;font-weight:700;color:var(--accent)}.note{opacity:.75}
dl{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.25rem 1rem}dd{margin:0}
@media(max-width:40rem){dl{grid-template-columns:1fr}dd{margin:0 0 .5rem 1rem}}
nav a{display:inline-block;margin-right:1rem}pre{white-space:pre-wrap}";

/// The page of a document.
pub(crate) fn page(document: &Value) -> String {
    let mut html = Html(String::new());
    html.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width\"><title>Godwit HTTP API</title><style>");
    html.raw(STYLE).raw("</style></head><body><h1>Godwit HTTP API</h1>");
    html.paragraphs(&document["info"]["description"]);
    html.raw("<nav>");
    let sections = Tag::ALL.iter().map(|tag| tag.describe().0).chain(["schemas"]);
    for name in sections {
        html.raw("<a href=\"#").text(name).raw("\">").text(name).raw("</a>");
    }
    html.raw("<a href=\"openapi.json\">openapi.json</a></nav>");
    for tag in Tag::ALL {
        let (name, description) = tag.describe();
        html.raw("<h2 id=\"").text(name).raw("\">").text(name).raw("</h2><p>").text(description).raw("</p>");
        for (path, item) in members(&document["paths"]) {
            for (method, operation) in members(item).filter(|(_, operation)| operation["tags"][0] == name) {
                html.operation(method, path, operation, document);
            }
        }
    }
    html.raw("<h2 id=\"schemas\">schemas</h2>");
    for (name, schema) in members(&document["components"]["schemas"]) {
        html.raw("<details id=\"schema-")
            .text(name)
            .raw("\"><summary><code>")
            .text(name)
            .raw("</code></summary><div>");
        html.paragraphs(&schema["description"]).object(schema).raw("</div></details>");
    }
    html.raw("</body></html>\n");
    html.0
}

struct Html(String);

impl Html {
    fn raw(&mut self, html: &str) -> &mut Self {
        self.0 += html;
        self
    }

    /// Adds a text, which may contain any characters.
    fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0 += "&amp;",
                '<' => self.0 += "&lt;",
                '>' => self.0 += "&gt;",
                '"' => self.0 += "&quot;",
                other => self.0.push(other),
            }
        }
        self
    }

    /// Adds a text with code between backticks.
    fn sentence(&mut self, sentence: &str) -> &mut Self {
        for (index, part) in sentence.split('`').enumerate() {
            match index % 2 {
                0 => self.text(part),
                _ => self.raw("<code>").text(part).raw("</code>"),
            };
        }
        self
    }

    fn paragraphs(&mut self, text: &Value) -> &mut Self {
        for paragraph in
            text.as_str().unwrap_or_default().split("\n\n").filter(|paragraph| !paragraph.is_empty())
        {
            match paragraph.starts_with("- ") {
                true => {
                    self.raw("<ul>");
                    for item in paragraph.lines() {
                        self.raw("<li>").sentence(item.trim_start_matches("- ")).raw("</li>");
                    }
                    self.raw("</ul>")
                }
                false => self.raw("<p>").sentence(paragraph).raw("</p>"),
            };
        }
        self
    }

    fn operation(&mut self, method: &str, path: &str, operation: &Value, document: &Value) {
        self.raw("<details id=\"")
            .text(text(&operation["operationId"]))
            .raw("\"><summary><span class=\"method\">");
        self.text(&method.to_ascii_uppercase()).raw("</span> <code>").text(path).raw("</code><br>");
        self.sentence(text(&operation["summary"]))
            .raw("</summary><div>")
            .paragraphs(&operation["description"]);
        if operation["security"].is_array() {
            self.raw("<p class=\"note\">Needs <code>Authorization: Bearer ACCESS_TOKEN</code>.</p>");
        }
        if let Some(parameters) = operation["parameters"].as_array() {
            self.raw("<h3>Parameters</h3><dl>");
            for parameter in parameters {
                let note = format!("{}, {}", text(&parameter["in"]), form(&parameter["schema"]));
                let is_required = parameter["required"] == true;
                self.item(text(&parameter["name"]), &note, is_required, text(&parameter["description"]));
            }
            self.raw("</dl>");
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        if !body.is_null() {
            self.raw("<h3>Body</h3>").reference(body).object(body);
        }
        self.raw("<h3>Answers</h3><dl>");
        for (status, answer) in members(&operation["responses"]) {
            let name = text(&answer["$ref"]).rsplit('/').next().unwrap_or_default();
            let shared = &document["components"]["responses"][name];
            let answer = if shared.is_null() { answer } else { shared };
            self.raw("<dt><code>")
                .text(status)
                .raw("</code></dt><dd>")
                .sentence(text(&answer["description"]));
            for content in members(&answer["content"]).map(|(_, content)| content) {
                self.raw(" ").reference(&content["schema"]);
            }
            self.raw("</dd>");
        }
        self.raw("</dl></div></details>");
    }

    /// Lists the members of an object.
    fn object(&mut self, schema: &Value) -> &mut Self {
        if !schema["properties"].is_object() {
            return self;
        }
        let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().map(text).collect();
        self.raw("<dl>");
        for (name, member) in members(&schema["properties"]) {
            self.item(name, &form(member), required.contains(&name.as_str()), text(&member["description"]));
        }
        self.raw("</dl>")
    }

    fn item(&mut self, name: &str, note: &str, is_required: bool, description: &str) {
        let required = if is_required { ", required" } else { "" };
        self.raw("<dt><code>").text(name).raw("</code></dt><dd>").sentence(description);
        self.raw(" <span class=\"note\">").text(note).raw(required).raw("</span></dd>");
    }

    /// Adds a link to a component, if a schema is one.
    fn reference(&mut self, schema: &Value) -> &mut Self {
        if let Some(name) = component(schema) {
            write!(self.0, "<a href=\"#schema-{name}\"><code>{name}</code></a>")
                .expect("writing to a String never fails");
        }
        self
    }
}

/// The name of the component to which a schema refers.
fn component(schema: &Value) -> Option<&str> {
    text(&schema["$ref"]).strip_prefix("#/components/schemas/")
}

/// The form of a value, in words.
fn form(schema: &Value) -> String {
    match (component(schema), text(&schema["type"])) {
        (Some(name), _) => name.to_owned(),
        (None, "array") => format!("list of {}", form(&schema["items"])),
        (None, kind) => match text(&schema["format"]) {
            "" => kind.to_owned(),
            format => format!("{kind} ({format})"),
        },
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
